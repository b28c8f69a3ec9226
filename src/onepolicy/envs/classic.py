"""Classic control, N worlds at a time: the dynamics of gymnasium's, to the last bit, without its call cost.

In: CartPole-v1, MountainCar-v0, MountainCarContinuous-v0, Pendulum-v1 and Acrobot-v1 (whose integrator is in
acrobot.py), each as the `Dynamics` that batched.py plays. "To the last bit" is of states in float64; where gymnasium
itself computes in float32, so does this, and the order of operations is gymnasium's everywhere. Not in: rendering.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onepolicy.envs.batched import Batched, Dynamics, Flags, State
from onepolicy.envs.vector import Box, Discrete

Array = NDArray[np.float32]

GRAVITY, CART_MASS, POLE_MASS, HALF_LENGTH, FORCE, TAU = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
TOTAL_MASS = POLE_MASS + CART_MASS
POLE_MASS_LENGTH = POLE_MASS * HALF_LENGTH
LIMITS = np.array([[2.4], [12 * 2 * np.pi / 360]])
PUSH = np.array([-FORCE, FORCE])


def cart_pole(state: State, action: NDArray[np.int64], _: Flags) -> tuple[State, Array, Flags]:
    """One step of 0.02 s; action 0 pushes left, 1 right. +1 for each step; over past 12 degrees or 2.4 m."""
    after = accelerate(state, PUSH[action])
    away, fallen = np.abs(after[::2]) > LIMITS
    return after, np.ones(len(action), dtype=np.float32), away | fallen


def accelerate(state: State, force: NDArray[np.float64]) -> State:
    """The state of carts 0.02 s later, by one Euler step.

    state [4, N]: position (m), velocity, angle (rad), angular velocity. force [N]: newtons. Returns: [4, N].
    Source: Florian 2007, Correct equations for the dynamics of the cart-pole system, equations 23 and 24.
    """
    _, x_dot, theta, theta_dot = state
    cos, sin = np.cos(theta), np.sin(theta)
    push = (force + POLE_MASS_LENGTH * np.square(theta_dot) * sin) / TOTAL_MASS
    theta_acc = (GRAVITY * sin - cos * push) / (HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * np.square(cos) / TOTAL_MASS))
    x_acc = push - POLE_MASS_LENGTH * theta_acc * cos / TOTAL_MASS
    rate = np.empty_like(state)
    rate[0], rate[1], rate[2], rate[3] = x_dot, x_acc, theta_dot, theta_acc
    return state + TAU * rate


def as_it_is(state: State, _: Flags) -> Array:
    """The state [K, N] as an observation [N, K]."""
    return np.ascontiguousarray(state.T, dtype=np.float32)


LEFT, RIGHT, TOP_SPEED = -1.2, 0.6, 0.07


def mountain_car(state: State, action: NDArray[np.int64], _: Flags) -> tuple[State, Array, Flags]:
    """One step of a car with position (-1.2 to 0.6) and velocity (at most 0.07).

    Actions 0, 1, 2 push left, not at all, right. -1 for each step; over on the hill, at 0.5 or beyond.
    """
    after = np.array(roll(state[0], state[1], (action - 1) * 0.001 + np.cos(3 * state[0]) * -0.0025))
    return after, np.full(len(action), -1.0, dtype=np.float32), (after[0] >= 0.5) & (after[1] >= 0.0)


def mountain_car_continuous(state: State, action: Array, fresh: Flags) -> tuple[State, NDArray[Any], Flags]:
    """One step of the car with an engine of -1 to 1; 100 on the hill at 0.45, where it is over, less 0.1 action^2.

    gymnasium keeps the first state of an episode in float64 and all others in float32, and computes in these.
    """
    after = drive(state.astype(np.float32), action[:, 0]).astype(np.float64)
    if fresh.any():
        after[:, fresh] = drive(state[:, fresh], action[fresh, 0]).astype(np.float32)
    terminated = (after[0] >= np.float32(0.45)) & (after[1] >= 0.0)
    return after, np.where(terminated, 100.0, 0.0) - np.square(action[:, 0], dtype=np.float64) * 0.1, terminated


def drive(state: NDArray[Any], force: Array) -> NDArray[Any]:
    """The continuous car's state [2, N] after a step, in the precision of the state before it."""
    slope = 0.0025 * np.cos(3 * state[0], dtype=np.float64)
    return np.array(roll(state[0], state[1], force * 0.0015 - slope.astype(np.float32)))


def roll(position: NDArray[Any], velocity: NDArray[Any], push: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Position and velocity [N] after a push: both are bounded, and the wall on the left stops the car.

    Source: Moore 1990, Efficient Memory-based Learning for Robot Control, as in gymnasium.
    """
    velocity = np.clip(velocity + push, -TOP_SPEED, TOP_SPEED)
    position = np.clip(position + velocity, LEFT, RIGHT)
    velocity[(position == LEFT) & (velocity < 0)] = 0.0
    return position, velocity


def in_valley(rng: np.random.Generator) -> NDArray[np.float64]:
    """The first state of either car: at rest, between -0.6 and -0.4."""
    return np.array([rng.uniform(-0.6, -0.4), 0.0])


def pendulum(state: State, action: Array, _: Flags) -> tuple[State, NDArray[Any], Flags]:
    """One step of 0.05 s of a pendulum under a torque of -2 to 2; never over.

    state: angle (rad, 0 upright) and angular velocity (at most 8). Reward: -(angle^2 + 0.1 velocity^2 + 0.001 torque^2)
    before the step, the angle taken within -pi to pi.
    """
    angle, velocity = state
    torque = action[:, 0]
    off = (angle + np.pi) % (2 * np.pi) - np.pi
    cost = squares(off) + 0.1 * squares(velocity) + 0.001 * squares(torque)
    after = np.empty_like(state)
    after[1] = np.clip(velocity + (15.0 * np.sin(angle) + 3.0 * torque) * 0.05, -8.0, 8.0)
    after[0] = angle + after[1] * 0.05
    return after, -cost, np.zeros(len(torque), dtype=bool)


def squares(x: NDArray[Any]) -> NDArray[Any]:
    """x**2 [N], each by the C library's pow, as gymnasium's numbers go: one in a thousand is not x*x rounded."""
    return np.array([number**2 for number in x])


def hanging(state: State, _: Flags) -> Array:
    """Pendulums [2, N] as seen: cosine and sine of the angle, and angular velocity, [N, 3]."""
    return np.stack([np.cos(state[0]), np.sin(state[0]), state[1]], axis=1).astype(np.float32)


def acrobot(state: State, action: NDArray[np.int64], _: Flags) -> tuple[State, NDArray[Any], Flags]:
    """One step of 0.2 s of two links, the torque -1, 0, 1 on the joint between them; -1 a step until the tip is up.

    state [4, N]: angle of the first link (rad, 0 down), of the second relative to it, and their velocities.
    """
    from onepolicy.envs.acrobot import swing

    after = swing(state, action - 1.0, 2.0)
    up = -np.cos(after[0]) - np.cos(after[1] + after[0]) > 1.0
    return after, np.where(up, 0.0, -1.0), up


def links(state: State, fresh: Flags) -> Array:
    """Acrobots [4, N] as seen: cosine and sine of both angles, and the velocities, [N, 6].

    gymnasium keeps the first state of an episode in float32 and takes its cosines in that precision.
    """
    seen = np.empty((state.shape[1], 6), dtype=np.float32)
    np.cos(state[:2].T, out=seen[:, 0:4:2], casting="same_kind")
    np.sin(state[:2].T, out=seen[:, 1:4:2], casting="same_kind")
    seen[:, 4:] = state[2:].T
    if fresh.any():
        first = state[:2, fresh].T.astype(np.float32)
        seen[fresh, 0:4:2], seen[fresh, 1:4:2] = np.cos(first), np.sin(first)
    return seen


def in_float32(rng: np.random.Generator) -> NDArray[np.float64]:
    """The first state of an acrobot, rounded as gymnasium rounds it."""
    return rng.uniform(-0.1, 0.1, 4).astype(np.float32).astype(np.float64)


DYNAMICS = {
    world.env_id: world
    for world in (
        Dynamics("CartPole-v1", 4, Discrete(2), 500, lambda rng: rng.uniform(-0.05, 0.05, 4), cart_pole, as_it_is),
        Dynamics("MountainCar-v0", 2, Discrete(3), 200, in_valley, mountain_car, as_it_is),
        Dynamics(
            "MountainCarContinuous-v0", 2, Box((-1.0,), (1.0,)), 999, in_valley, mountain_car_continuous, as_it_is
        ),
        Dynamics(
            "Pendulum-v1",
            3,
            Box((-2.0,), (2.0,)),
            200,
            lambda rng: rng.uniform([-np.pi, -1.0], [np.pi, 1.0]),
            pendulum,
            hanging,
        ),
        Dynamics("Acrobot-v1", 6, Discrete(3), 500, in_float32, acrobot, links),
    )
}
"""The worlds by gymnasium's names."""
CartPole = partial(Batched, DYNAMICS["CartPole-v1"])
"""CartPole(num_envs, seed): poles to be kept up on carts.

Source: Barto, Sutton and Anderson 1983, Neuronlike adaptive elements that can solve difficult learning control
problems; constants and Euler step of gymnasium.
"""
