"""Random numbers of compiled bandits: normal, gamma and beta numbers from a run's stream, ties broken fairly.

A stream is four words of xoshiro256++, made and moved on in simulate.py. Callable from Python one at a time.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from onepolicy.tabular.jit import jit
from onepolicy.tabular.simulate import below, uniform

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Stream = NDArray[np.uint64]
"""Four words, uint64 [4]; of many runs [R, 2, 4]."""

compiled = partial(jit, _nrt=False, error_model="numpy")
"""For functions that allocate nothing: without reference counts, which would cost more than most of them do."""

_LAYERS = 128
_TAIL, _AREA = 3.442619855899, 9.91256303526217e-3
_BITS = 9007199254740992.0


def _ziggurat() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Right edges of 128 layers of equal area under exp(-x^2/2), widest first, and each one's sure share."""
    edge = np.zeros(_LAYERS + 1)
    density = np.exp(-0.5 * _TAIL * _TAIL)
    edge[0], edge[1] = _AREA / density, _TAIL
    for i in range(2, _LAYERS):
        edge[i] = np.sqrt(-2.0 * np.log(_AREA / edge[i - 1] + density))
        density = np.exp(-0.5 * edge[i] * edge[i])
    return edge, edge[1:] / edge[:-1]


_EDGE, _SURE = _ziggurat()


@compiled
def gaussian(stream: Stream) -> float:
    """A standard normal number by the ziggurat: one uniform number in 98 of 100 cases.

    The layer comes from the number's lowest 7 bits, the place in it from the others.
    Source: Doornik 2005, An improved ziggurat method to generate normal random samples.
    """
    while True:
        drawn = uniform(stream)
        layer = int(drawn * _BITS) & (_LAYERS - 1)
        place = 2.0 * drawn - 1.0
        if abs(place) < _SURE[layer]:
            return place * _EDGE[layer]
        if layer == 0:
            while True:
                over = -np.log(1.0 - uniform(stream)) / _TAIL
                if -2.0 * np.log(1.0 - uniform(stream)) >= over * over:
                    return np.copysign(_TAIL + over, place)
        x = place * _EDGE[layer]
        high = np.exp(-0.5 * (_EDGE[layer] * _EDGE[layer] - x * x))
        low = np.exp(-0.5 * (_EDGE[layer + 1] * _EDGE[layer + 1] - x * x))
        if low + uniform(stream) * (high - low) < 1.0:
            return x


@compiled
def gamma(stream: Stream, shape: float) -> float:
    """A gamma number of a shape > 0 and scale 1.

    Source: Marsaglia and Tsang 2000, A simple method for generating gamma variables (ACM TOMS 26).
    """
    lift = 1.0
    if shape < 1.0:
        lift = (1.0 - uniform(stream)) ** (1.0 / shape)
        shape += 1.0
    d = shape - 1.0 / 3.0
    c = 1.0 / np.sqrt(9.0 * d)
    while True:
        x = gaussian(stream)
        v = (1.0 + c * x) ** 3
        if v > 0.0 and np.log(1.0 - uniform(stream)) < 0.5 * x * x + d - d * v + d * np.log(v):
            return d * v * lift


@compiled
def beta(stream: Stream, a: float, b: float) -> float:
    """A beta number, X / (X + Y) of two gamma numbers of shapes a and b."""
    x = gamma(stream, a)
    y = gamma(stream, b)
    return x / (x + y) if x + y > 0.0 else 0.5


@compiled
def argmax(table: Floats, row: int, stream: Stream) -> int:
    """The place of the largest number in a row of a table, each of several equal ones with the same probability.

    A random number is drawn only when there are several.
    """
    best, ties = 0, 1
    for i in range(1, table.shape[1]):
        if table[row, i] > table[row, best]:
            best, ties = i, 1
        elif table[row, i] == table[row, best]:
            ties += 1
    if ties == 1:
        return best
    skip = below(stream, ties)
    place = best
    while True:
        if table[row, place] == table[row, best]:
            if skip == 0:
                return place
            skip -= 1
        place += 1


@compiled
def pick(table: Floats, row: int, stream: Stream) -> int:
    """A place drawn with the probabilities in a row of a table, which sum to 1."""
    u = uniform(stream)
    for i in range(table.shape[1] - 1):
        u -= table[row, i]
        if u < 0.0:
            return i
    return table.shape[1] - 1
