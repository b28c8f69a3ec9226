"""Linear prediction that stays sound off-policy: gradient TD and emphatic TD, as runs over many sets of episodes.

Gradient Monte Carlo and semi-gradient TD(0), n-step TD and TD(lambda) are the functions of learners.py, given
features. Least squares are in least_squares.py, the same updates in expectation in expected.py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from onepolicy.errors import ConfigError
from onepolicy.tabular.prediction import updates
from onepolicy.tabular.prediction.learners import Estimate, Problem, within_unit


def gtd2(problem: Problem, *, step_size: float, second_step_size: float, decay: float = 0.0) -> Estimate:
    """GTD2: w += alpha rho (x - gamma x') (x . h), h += beta rho (delta - x . h) x, h from 0.

    The mean of h tends to E[x x^T]^-1 E[delta x], so that w goes down the projected Bellman error.
    step_size alpha, second_step_size beta > 0. Source: Sutton et al. 2009; Sutton and Barto 2018, section 11.7.
    """
    return _gradient(problem, step_size, second_step_size, decay, correct=False)


def tdc(problem: Problem, *, step_size: float, second_step_size: float, decay: float = 0.0) -> Estimate:
    """TDC, TD(0) with gradient correction: w += alpha rho (delta x - gamma x' (x . h)), h as in `gtd2`.

    Source: Sutton et al. 2009; Sutton and Barto 2018, section 11.7, as GTD(0).
    """
    return _gradient(problem, step_size, second_step_size, decay, correct=True)


def _gradient(problem: Problem, step_size: float, second: float, decay: float, *, correct: bool) -> Estimate:
    if not 0.0 < second < np.inf:
        raise ConfigError(f"second_step_size is {second}; the helper weights need a step size > 0, finite.")
    helpers = np.zeros((problem.episodes.runs, problem.features.size))
    return problem.learn(updates.gradient_td, step_size, float(second), correct, helpers, decay=decay)


def emphatic_td(
    problem: Problem, *, lam: float, step_size: float, interest: ArrayLike = 1.0, decay: float = 0.0
) -> Estimate:
    """Emphatic TD(lambda): w += delta z, z = rho_t (gamma lam z + alpha M_t x), with the emphasis M and follow-on F

    M_t = lam i(S_t) + (1 - lam) F_t,    F_t = gamma rho_{t-1} F_{t-1} + i(S_t),    F_{-1} = 0.

    interest i: a number or [S], >= 0. Stable under any behaviour, with a variance that ratios can make infinite.
    Source: Sutton, Mahmood and White 2016 (arXiv 1503.04269), equations 17 to 20; Sutton and Barto 2018, section 12.11.
    """
    states = len(problem.features.ptr) - 1
    i = np.asarray(interest, dtype=np.float64)
    if i.shape not in ((), (states,)) or not np.all(i >= 0):
        raise ConfigError(f"interest has shape {i.shape}; it needs a number or [{states}], all >= 0.")
    each = np.ascontiguousarray(np.broadcast_to(i, states))
    return problem.learn(updates.emphatic, step_size, within_unit("lam", lam), each, decay=decay)
