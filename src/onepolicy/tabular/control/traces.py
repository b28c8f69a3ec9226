"""Eligibility traces over sparse features, as compiled functions: which weights are still credited, and by how much.

A trace is dense numbers [d] with a list of those that are not 0, so that a step costs what is eligible and not d. An
entry below `FORGOTTEN` is dropped.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onepolicy.tabular.control.step import Floats, Ints
from onepolicy.tabular.jit import jit

FORGOTTEN = 1e-9
"""Eligibility below which a weight is dropped: its next change would be under a billionth of an error."""


@jit
def mark(trace: Floats, place: Ints, listed: Ints, count: int, weight: int, value: float, replacing: bool) -> int:
    """Makes a weight eligible, z += value, or z = value where replacing; the number of weights listed then.

    trace [d]; place [d]: where a weight stands in `listed` [d], -1 for nowhere; count: how many stand there.
    """
    if place[weight] < 0:
        place[weight] = count
        listed[count] = weight
        trace[weight] = 0.0
        count += 1
    trace[weight] = value if replacing else trace[weight] + value
    return count


@jit
def credit(weights: Floats, trace: Floats, place: Ints, listed: Ints, count: int, change: float, decay: float) -> int:
    """w += change * z for the weights listed, then z *= decay; the number of weights still listed."""
    i = 0
    while i < count:
        weight = listed[i]
        weights[weight] += change * trace[weight]
        trace[weight] *= decay
        if abs(trace[weight]) < FORGOTTEN:
            count -= 1
            listed[i] = listed[count]
            place[listed[i]] = i
            place[weight] = -1
        else:
            i += 1
    return count


@jit
def forget(place: Ints, listed: Ints, count: int) -> None:
    """Empties the list, at the end of an episode."""
    for i in range(count):
        place[listed[i]] = -1


@jit
def inner(weights: Floats, column: NDArray[np.int32], value: Floats, first: int, last: int, offset: int) -> float:
    """sum_i w[offset + column_i] value_i over the stored features first .. last-1 of a state."""
    found = 0.0
    for i in range(first, last):
        found += weights[offset + column[i]] * value[i]
    return found
