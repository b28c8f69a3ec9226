"""Classic control, N worlds at a time: the dynamics of gymnasium's, to the last bit, without its call cost.

In: the names of these worlds, and CartPole in numpy, whose few calls a step are done before a compiler is loaded. The
others are in classic_compiled.py; batched.py plays them all. Not in: rendering.
"""

from __future__ import annotations

from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from onepolicy.envs.batched import Batched, Dynamics, Flags, State, as_it_is
from onepolicy.envs.vector import Discrete

WORLDS = ("CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1", "Acrobot-v1")
GRAVITY, CART_MASS, POLE_MASS, HALF_LENGTH, FORCE, TAU = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
TOTAL_MASS = POLE_MASS + CART_MASS
POLE_MASS_LENGTH = POLE_MASS * HALF_LENGTH
LIMITS = np.array([[2.4], [12 * 2 * np.pi / 360]])
PUSH = np.array([-FORCE, FORCE])
Number = TypeVar("Number", float, NDArray[np.float64])


def dynamics_of(env_id: str) -> Dynamics:
    """One of WORLDS."""
    if env_id == CART_POLE.env_id:
        return CART_POLE
    from onepolicy.envs.classic_compiled import DYNAMICS

    return DYNAMICS[env_id]


def cart_pole(state: State, action: NDArray[np.int64], _: Flags) -> tuple[State, NDArray[np.float32], Flags]:
    """One step of 0.02 s; action 0 pushes left, 1 right. +1 for each step; over past 12 degrees or 2.4 m."""
    after = accelerate(state, PUSH[action]) if len(action) > 1 else accelerate_one(state, FORCE * (2 * action[0] - 1))
    away, fallen = np.abs(after[::2]) > LIMITS
    return after, np.ones(len(action), dtype=np.float32), away | fallen


def accelerate(state: State, force: NDArray[np.float64]) -> State:
    """The state of carts 0.02 s later, by one Euler step.

    state [4, N]: position (m), velocity, angle (rad), angular velocity. force [N]: newtons. Returns: [4, N].
    The order of operations is gymnasium's, so that results agree to the bit.
    """
    _, x_dot, theta, theta_dot = state
    rate = np.empty_like(state)
    rate[0], rate[2] = x_dot, theta_dot
    rate[1], rate[3] = accelerations(np.cos(theta), np.sin(theta), theta_dot, force)
    return state + TAU * rate


def accelerate_one(state: State, force: float) -> State:
    """The same for one cart, [4, 1], in Python's numbers: a third of the time of arrays of one."""
    x, x_dot, theta, theta_dot = state[:, 0].tolist()
    x_acc, theta_acc = accelerations(float(np.cos(theta)), float(np.sin(theta)), theta_dot, float(force))
    return np.array(
        [[x + TAU * x_dot], [x_dot + TAU * x_acc], [theta + TAU * theta_dot], [theta_dot + TAU * theta_acc]]
    )


def accelerations(cos: Number, sin: Number, theta_dot: Number, force: Number) -> tuple[Number, Number]:
    """Of the cart, and of the pole's angle, of which cos, sin and the velocity are given.

    Source: Florian 2007, Correct equations for the dynamics of the cart-pole system, equations 23 and 24.
    """
    push = (force + POLE_MASS_LENGTH * (theta_dot * theta_dot) * sin) / TOTAL_MASS
    theta_acc = (GRAVITY * sin - cos * push) / (HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * (cos * cos) / TOTAL_MASS))
    return push - POLE_MASS_LENGTH * theta_acc * cos / TOTAL_MASS, theta_acc


CART_POLE = Dynamics("CartPole-v1", 4, Discrete(2), 500, lambda rng: rng.uniform(-0.05, 0.05, 4), cart_pole, as_it_is)
CartPole = partial(Batched, CART_POLE)
"""CartPole(num_envs, seed): poles to be kept up on carts.

Source: Barto, Sutton and Anderson 1983, Neuronlike adaptive elements that can solve difficult learning control
problems; constants and Euler step of gymnasium.
"""
