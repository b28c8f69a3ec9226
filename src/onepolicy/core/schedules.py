"""Numbers that change with the step: learning rates, exploration, clip ranges, KL coefficients.

Each is a pure function of the step (counted from 0), so that resuming needs no state; bind the constants with
functools.partial. Beyond its last step a schedule stays at its end value.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from onepolicy.errors import ConfigError

Schedule = Callable[[int], float]
"""step -> value, constants already bound."""


def constant(step: int, *, value: float) -> float:
    """The same value at every step."""
    _progress(step, 1)
    return value


def linear(step: int, *, start: float, end: float, steps: int) -> float:
    """A straight line, start + (end - start) step / steps, reached at `steps`.

    >>> [linear(step, start=1.0, end=0.0, steps=4) for step in (0, 1, 4, 9)]
    [1.0, 0.75, 0.0, 0.0]
    """
    progress = _progress(step, steps)
    return (1.0 - progress) * start + progress * end


def cosine(step: int, *, start: float, end: float, steps: int) -> float:
    """Half a cosine wave, end + (start - end) (1 + cos(pi step / steps)) / 2.

    Source: Loshchilov and Hutter 2017 (SGDR, arXiv 1608.03983), equation 5, without restarts.

    >>> [round(cosine(step, start=1.0, end=0.0, steps=4), 4) for step in (0, 1, 2, 4)]
    [1.0, 0.8536, 0.5, 0.0]
    """
    share = 0.5 * (1.0 + math.cos(math.pi * _progress(step, steps)))
    return share * start + (1.0 - share) * end


def exponential(step: int, *, start: float, end: float, steps: int) -> float:
    """A geometric path, start (end / start)^(step / steps): equal ratios in equal times.

    start, end > 0. Raises: ConfigError otherwise.

    >>> [round(exponential(step, start=1.0, end=0.01, steps=2), 4) for step in (0, 1, 2, 3)]
    [1.0, 0.1, 0.01, 0.01]
    """
    if not (start > 0 and end > 0):
        raise ConfigError(f"an exponential schedule from {start} to {end} does not exist; both must be positive.")
    progress = _progress(step, steps)
    return math.exp((1.0 - progress) * math.log(start) + progress * math.log(end)) if progress < 1.0 else end


def warm_up(step: int, *, steps: int) -> float:
    """The factor min(1, (step + 1) / steps) by which another schedule is multiplied: never 0, 1 from `steps` - 1 on.

    steps = 0: no warm-up, always 1.

    >>> [warm_up(step, steps=4) for step in (0, 1, 3, 4)]
    [0.25, 0.5, 1.0, 1.0]
    """
    if steps == 0:
        return 1.0
    return _progress(step + 1, steps)


def _progress(step: int, steps: int) -> float:
    """step / steps, at most 1."""
    if step < 0 or steps < 1:
        raise ConfigError(f"step {step} of {steps}: a schedule needs a step >= 0 and at least 1 step in all.")
    return min(1.0, step / steps)
