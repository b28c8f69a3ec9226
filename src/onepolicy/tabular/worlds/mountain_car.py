"""Mountain car: a weak car between two hills, as compiled functions of plain numbers, for learners in numba."""

from __future__ import annotations

import math

import numpy as np

from onepolicy.tabular.jit import jit

POSITION = (-1.2, 0.5)
"""Left wall and goal."""
SPEED = 0.07
"""Bound of the velocity in either direction."""
FORCE, GRAVITY = 0.001, 0.0025
ACTIONS = 3
"""Reverse, neither, forward."""
LOW = np.array([POSITION[0], -SPEED])
HIGH = np.array([POSITION[1], SPEED])
"""Bounds of (position, velocity), for tile coding."""


@jit
def start(uniform: float) -> tuple[float, float]:
    """A first state (position, velocity 0), position uniform in [-0.6, -0.4); uniform: a draw from [0, 1)."""
    return -0.6 + 0.2 * uniform, 0.0


@jit
def step(position: float, velocity: float, action: int) -> tuple[float, float, float, bool]:
    """One step: (position, velocity, reward -1, terminated at the goal).

    v' = v + 0.001 (action - 1) - 0.0025 cos(3 x), x' = x + v', each kept in its bounds; the left wall stops the car.
    Source: Sutton and Barto 2018, example 10.1; gymnasium `MountainCar-v0`, which lets the last position be over 0.5.
    """
    velocity += FORCE * (action - 1) - GRAVITY * math.cos(3.0 * position)
    velocity = min(max(velocity, -SPEED), SPEED)
    position = min(max(position + velocity, POSITION[0]), POSITION[1])
    if position == POSITION[0] and velocity < 0.0:
        velocity = 0.0
    return position, velocity, -1.0, position >= POSITION[1]
