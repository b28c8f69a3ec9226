"""Acrobot's integrator, compiled: four evaluations of its equations of motion a step are 200 small numpy calls.

In: `swing`. Not in: reward and observation (classic.py). numba is loaded only where an Acrobot is played.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

DT = 0.2
MAX_1, MAX_2 = 4 * np.pi, 9 * np.pi
"""Most angular velocity of the links, rad/s."""


@numba.njit(cache=True)
def swing(state: NDArray[np.float64], torque: NDArray[np.float64], two: float) -> NDArray[np.float64]:
    """The state [4, N] of acrobots 0.2 s later under torque [N], by one step of Runge and Kutta's fourth order.

    Both links have mass 1, length 1, the centre of mass at 0.5 and moment of inertia 1; the angles are taken within -pi
    to pi and the velocities bounded. two: 2.0, not known to the compiler, which would make x*x of x**2 where gymnasium
    calls pow; one in a thousand differs in the last bit.
    Source: Sutton 1996, Generalization in reinforcement learning, with the book's equations, as in gymnasium.
    """
    after = np.empty_like(state)
    half, sixth = DT / 2.0, DT / 6.0
    for i in range(state.shape[1]):
        a, b, c, d, u = state[0, i], state[1, i], state[2, i], state[3, i], torque[i]
        a1, b1, c1, d1 = rates(a, b, c, d, u, two)
        a2, b2, c2, d2 = rates(a + half * a1, b + half * b1, c + half * c1, d + half * d1, u, two)
        a3, b3, c3, d3 = rates(a + half * a2, b + half * b2, c + half * c2, d + half * d2, u, two)
        a4, b4, c4, d4 = rates(a + DT * a3, b + DT * b3, c + DT * c3, d + DT * d3, u, two)
        after[0, i] = wrap(a + sixth * (a1 + 2 * a2 + 2 * a3 + a4))
        after[1, i] = wrap(b + sixth * (b1 + 2 * b2 + 2 * b3 + b4))
        after[2, i] = min(max(c + sixth * (c1 + 2 * c2 + 2 * c3 + c4), -MAX_1), MAX_1)
        after[3, i] = min(max(d + sixth * (d1 + 2 * d2 + 2 * d3 + d4), -MAX_2), MAX_2)
    return after


@numba.njit(cache=True)
def rates(
    theta_1: float, theta_2: float, speed_1: float, speed_2: float, torque: float, two: float
) -> tuple[float, float, float, float]:
    """d/dt of the angles and their velocities.

    Source: Sutton and Barto, second edition 2018, section 11.3 of the first edition (1998), equations of motion.
    """
    cos_2, sin_2 = math.cos(theta_2), math.sin(theta_2)
    d_1 = 0.25 + (1.25 + cos_2) + 1.0 + 1.0
    d_2 = (0.25 + 0.5 * cos_2) + 1.0
    phi_2 = 4.9 * math.cos(theta_1 + theta_2 - np.pi / 2.0)
    phi_1 = -0.5 * speed_2**two * sin_2 - speed_2 * speed_1 * sin_2
    phi_1 = phi_1 + 1.5 * 9.8 * math.cos(theta_1 - np.pi / 2) + phi_2
    push = torque + d_2 / d_1 * phi_1 - 0.5 * speed_1**two * sin_2 - phi_2
    acceleration_2 = push / (1.25 - d_2**two / d_1)
    return speed_1, speed_2, -(d_2 * acceleration_2 + phi_1) / d_1, acceleration_2


@numba.njit(cache=True)
def wrap(angle: float) -> float:
    """The angle within -pi to pi, by whole turns."""
    while angle > np.pi:
        angle = angle - 2 * np.pi
    while angle < -np.pi:
        angle = angle + 2 * np.pi
    return angle
