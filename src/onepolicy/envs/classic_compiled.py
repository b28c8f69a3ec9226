"""Cars, pendulums and acrobots, compiled: a step is a loop over copies, where numpy would be called up to 200 times.

Each is gymnasium's to the last bit: the same operations in the same order, in float32 where gymnasium's are, and x**2
by the C library's pow, which rounds one square in a thousand another way than x*x is rounded. For that the kernels are
given `two`: a 2.0 known to the compiler would become x*x. numba is loaded only where one of these worlds is played.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from onepolicy.envs.batched import Dynamics, Flags, State, as_it_is
from onepolicy.envs.vector import Box, Discrete

Array = NDArray[np.float32]
LEFT, RIGHT, TOP_SPEED = -1.2, 0.6, 0.07
SINGLE = np.array([LEFT, RIGHT, TOP_SPEED], dtype=np.float32)
DT = 0.2
MAX_1, MAX_2 = 4 * np.pi, 9 * np.pi
"""Most angular velocity of an acrobot's links, rad/s."""


@numba.njit(cache=True)
def roll(position: float, velocity: float, push: float, left: float, right: float, top: float) -> tuple[float, float]:
    """A car's position and velocity after a push: both are bounded, and the wall on the left stops the car.

    Source: Moore 1990, Efficient Memory-based Learning for Robot Control, as in gymnasium.
    """
    faster = min(max(velocity + push, -top), top)
    further = min(max(position + faster, left), right)
    if further == left and faster < 0:
        return further, left - left
    return further, faster


@numba.njit(cache=True)
def mountain_car(state: State, action: NDArray[np.int64], _: Flags) -> tuple[State, NDArray[np.float64], Flags]:
    """One step of cars with position (-1.2 to 0.6) and velocity (at most 0.07), [2, N].

    Actions 0, 1, 2 push left, not at all, right. -1 for each step; over on the hill, at 0.5 or beyond.
    """
    after, over = np.empty_like(state), np.empty(len(action), np.bool_)
    for i in range(len(action)):
        push = (action[i] - 1) * 0.001 + math.cos(3 * state[0, i]) * -0.0025
        after[0, i], after[1, i] = roll(state[0, i], state[1, i], push, LEFT, RIGHT, TOP_SPEED)
        over[i] = after[0, i] >= 0.5 and after[1, i] >= 0
    return after, np.full(len(action), -1.0), over


@numba.njit(cache=True)
def continuous_car(state: State, action: Array, fresh: Flags) -> tuple[State, NDArray[np.float64], Flags]:
    """One step of cars with an engine of -1 to 1; 100 on the hill at 0.45, where it is over, less 0.1 action^2.

    gymnasium keeps the first state of an episode in float64 and all others in float32, and computes in these.
    """
    after, reward, over = np.empty_like(state), np.empty(len(action)), np.empty(len(action), np.bool_)
    left, right, top = SINGLE
    for i in range(len(action)):
        force = action[i, 0]
        x, v = np.float32(state[0, i]), np.float32(state[1, i])
        slope = math.cos(3 * state[0, i]) if fresh[i] else math.cos(np.float64(np.float32(3) * x))
        push = force * np.float32(0.0015) - np.float32(0.0025 * slope)
        if fresh[i]:
            further, faster = roll(state[0, i], state[1, i], push, LEFT, RIGHT, TOP_SPEED)
            x, v = np.float32(further), np.float32(faster)
        else:
            x, v = roll(x, v, push, left, right, top)
        after[0, i], after[1, i] = x, v
        over[i] = x >= np.float32(0.45) and v >= 0
        reward[i] = (100.0 if over[i] else 0.0) - np.float64(force) * np.float64(force) * 0.1
    return after, reward, over


@numba.njit(cache=True)
def swing_up(state: State, action: Array, two: float) -> tuple[State, NDArray[np.float64], Flags]:
    """One step of 0.05 s of pendulums under a torque of -2 to 2; never over.

    state [2, N]: angle (rad, 0 upright) and angular velocity (at most 8). Reward: -(angle^2 + 0.1 velocity^2 + 0.001
    torque^2) before the step, the angle taken within -pi to pi.
    """
    after, reward = np.empty_like(state), np.empty(len(action))
    for i in range(len(action)):
        angle, velocity, torque = state[0, i], state[1, i], action[i, 0]
        off = (angle + np.pi) % (2 * np.pi) - np.pi
        effort = np.float32(0.001) * torque ** np.float32(two)
        reward[i] = -(off**two + 0.1 * velocity**two + effort)
        faster = velocity + (15.0 * math.sin(angle) + np.float32(3.0) * torque) * 0.05
        after[1, i] = min(max(faster, -8.0), 8.0)
        after[0, i] = angle + after[1, i] * 0.05
    return after, reward, np.zeros(len(action), np.bool_)


@numba.njit(cache=True)
def swing(state: State, action: NDArray[np.int64], two: float) -> tuple[State, NDArray[np.float64], Flags]:
    """One step of 0.2 s of two links, the torque -1, 0, 1 on the joint between them; -1 a step until the tip is up.

    state [4, N]: angle of the first link (rad, 0 down), of the second relative to it, and their velocities. One step of
    Runge and Kutta's fourth order; angles are taken within -pi to pi, velocities are bounded.
    Source: Sutton 1996, Generalization in reinforcement learning, as in gymnasium.
    """
    after, reward, up = np.empty_like(state), np.empty(len(action)), np.empty(len(action), np.bool_)
    half, sixth = DT / 2.0, DT / 6.0
    for i in range(len(action)):
        a, b, c, d, u = state[0, i], state[1, i], state[2, i], state[3, i], action[i] - 1.0
        a1, b1, c1, d1 = rates(a, b, c, d, u, two)
        a2, b2, c2, d2 = rates(a + half * a1, b + half * b1, c + half * c1, d + half * d1, u, two)
        a3, b3, c3, d3 = rates(a + half * a2, b + half * b2, c + half * c2, d + half * d2, u, two)
        a4, b4, c4, d4 = rates(a + DT * a3, b + DT * b3, c + DT * c3, d + DT * d3, u, two)
        after[0, i] = wrap(a + sixth * (a1 + 2 * a2 + 2 * a3 + a4))
        after[1, i] = wrap(b + sixth * (b1 + 2 * b2 + 2 * b3 + b4))
        after[2, i] = min(max(c + sixth * (c1 + 2 * c2 + 2 * c3 + c4), -MAX_1), MAX_1)
        after[3, i] = min(max(d + sixth * (d1 + 2 * d2 + 2 * d3 + d4), -MAX_2), MAX_2)
        up[i] = -math.cos(after[0, i]) - math.cos(after[1, i] + after[0, i]) > 1.0
        reward[i] = 0.0 if up[i] else -1.0
    return after, reward, up


@numba.njit(cache=True)
def rates(
    theta_1: float, theta_2: float, speed_1: float, speed_2: float, torque: float, two: float
) -> tuple[float, float, float, float]:
    """d/dt of an acrobot's angles and their velocities; both links have mass, length and inertia 1, centred at 0.5.

    Source: Sutton and Barto 1998, Reinforcement Learning, first edition, section 11.3.
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


def in_valley(rng: np.random.Generator) -> NDArray[np.float64]:
    """The first state of either car: at rest, between -0.6 and -0.4."""
    return np.array([rng.uniform(-0.6, -0.4), 0.0])


def in_float32(rng: np.random.Generator) -> NDArray[np.float64]:
    """The first state of an acrobot, rounded as gymnasium rounds it."""
    return rng.uniform(-0.1, 0.1, 4).astype(np.float32).astype(np.float64)


def pendulum(state: State, _: Flags) -> Array:
    """Pendulums [2, N] as seen: cosine and sine of the angle, and angular velocity, [N, 3]."""
    seen = np.empty((state.shape[1], 3), dtype=np.float32)
    seen[:, 0], seen[:, 1], seen[:, 2] = np.cos(state[0]), np.sin(state[0]), state[1]
    return seen


def links(state: State, fresh: Flags) -> Array:
    """Acrobots [4, N] as seen: cosine and sine of both angles, and the velocities, [N, 6].

    gymnasium keeps the first state of an episode in float32 and takes its cosines in that precision.
    """
    seen = np.empty((state.shape[1], 6), dtype=np.float32)
    angles = state[:2].T
    seen[:, 0:4:2], seen[:, 1:4:2], seen[:, 4:] = np.cos(angles), np.sin(angles), state[2:].T
    if fresh.any():
        first = angles[fresh].astype(np.float32)
        seen[fresh, 0:4:2], seen[fresh, 1:4:2] = np.cos(first), np.sin(first)
    return seen


def with_pow(kernel: Any) -> Any:
    """A kernel that is given `two`, as the step of a world."""
    return lambda state, action, _: kernel(state, action, 2.0)


DYNAMICS = {
    world.env_id: world
    for world in (
        Dynamics("MountainCar-v0", 2, Discrete(3), 200, in_valley, mountain_car, as_it_is),
        Dynamics("MountainCarContinuous-v0", 2, Box((-1.0,), (1.0,)), 999, in_valley, continuous_car, as_it_is),
        Dynamics(
            "Pendulum-v1",
            3,
            Box((-2.0,), (2.0,)),
            200,
            lambda rng: rng.uniform([-np.pi, -1.0], [np.pi, 1.0]),
            with_pow(swing_up),
            pendulum,
        ),
        Dynamics("Acrobot-v1", 6, Discrete(3), 500, in_float32, with_pow(swing), links),
    )
}
"""The worlds by gymnasium's names."""
