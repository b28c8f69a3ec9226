"""Linear prediction with its expected updates, no samples: what the learners of linear.py do on average.

Deterministic, so that divergence and convergence can be seen without noise, as in Baird's counterexample. Each
function takes a target policy's chain, features, how often the behaviour is in each state (weighting [S],
normalised), and the number of updates; it returns the weights after 0, 1, ..., steps updates, [steps + 1, d].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onepolicy.errors import ConfigError
from onepolicy.tabular.features import Features
from onepolicy.tabular.prediction.fixpoints import Chain, emphasis, td_system

Array = NDArray[np.float64]


def semi_gradient(
    chain: Chain,
    features: Features,
    weighting: ArrayLike,
    discount: float,
    *,
    start: ArrayLike,
    step_size: float,
    steps: int,
    lam: float = 0.0,
) -> Array:
    """Semi-gradient dynamic programming, expected TD(lambda): w += alpha (b - A w), A and b of `td_system`.

    Source: Sutton and Barto 2018, equation 11.9.
    """
    matrix, vector = td_system(chain, features, weighting, discount, lam=lam)
    return _iterated(matrix, vector, start, step_size, steps)[:, : features.size]


def emphatic(
    chain: Chain,
    features: Features,
    weighting: ArrayLike,
    discount: float,
    *,
    start: ArrayLike,
    step_size: float,
    steps: int,
    lam: float = 0.0,
) -> Array:
    """Expected emphatic TD(lambda): expected TD(lambda) with every state weighted by its mean emphasis m.

    The emphasis is not a distribution: its sum, the mean follow-on trace, multiplies the step size.
    Source: Sutton, Mahmood and White 2016, section 4.
    """
    m = emphasis(chain, weighting, discount, lam=lam)
    matrix, vector = td_system(chain, features, m, discount, lam=lam)
    return _iterated(matrix, vector, start, step_size * m.sum(), steps)[:, : features.size]


def tdc(
    chain: Chain,
    features: Features,
    weighting: ArrayLike,
    discount: float,
    *,
    start: ArrayLike,
    step_size: float,
    second_step_size: float,
    steps: int,
) -> Array:
    """Expected TDC: w += alpha (g - gamma E[x' x^T] h), h += beta (g - C h), g = b - A w = E[delta x], C = E[x x^T].

    Both from the old w and h, h from 0. Source: Sutton and Barto 2018, section 11.7.
    """
    a, b, c = _moments(chain, features, weighting, discount)
    ratio = second_step_size / step_size
    # gamma E[x' x^T] = C - A^T
    matrix = np.block([[a, c - a.T], [ratio * a, ratio * c]])
    return _iterated(matrix, np.concatenate([b, ratio * b]), start, step_size, steps)[:, : features.size]


def gtd2(
    chain: Chain,
    features: Features,
    weighting: ArrayLike,
    discount: float,
    *,
    start: ArrayLike,
    step_size: float,
    second_step_size: float,
    steps: int,
) -> Array:
    """Expected GTD2: w += alpha A^T h, h += beta (b - A w - C h), h from 0; letters as in `tdc`."""
    a, b, c = _moments(chain, features, weighting, discount)
    ratio = second_step_size / step_size
    matrix = np.block([[np.zeros_like(a), -a.T], [ratio * a, ratio * c]])
    return _iterated(matrix, np.concatenate([0 * b, ratio * b]), start, step_size, steps)[:, : features.size]


def _moments(chain: Chain, features: Features, weighting: ArrayLike, discount: float) -> tuple[Array, Array, Array]:
    """(A, b, E[x x^T])."""
    matrix, vector = td_system(chain, features, weighting, discount)
    same, _ = td_system(chain, features, weighting, 0.0)
    return matrix, vector, same


def _iterated(matrix: Array, vector: Array, start: ArrayLike, step_size: float, steps: int) -> Array:
    if not (step_size > 0 and np.isfinite(step_size)) or steps < 0:
        raise ConfigError(f"step_size is {step_size} and steps {steps}; need step_size > 0, finite, and steps >= 0.")
    first = np.asarray(start, dtype=np.float64)
    path = np.zeros((steps + 1, len(vector)))
    path[0, : len(first)] = first
    for t in range(steps):
        path[t + 1] = path[t] + step_size * (vector - matrix @ path[t])
    return path
