"""Least-squares prediction: LSTD(lambda) and least-squares Monte Carlo, no step size, one linear system a run."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onepolicy.errors import ConfigError, DataError
from onepolicy.tabular.prediction.fixpoints import solved
from onepolicy.tabular.prediction.learners import Estimate, Problem, lambda_returns, within_unit
from onepolicy.tabular.prediction.updates import (
    Job,
    Trace,
    add,
    add_next,
    compiled,
    error,
    fade,
    helper,
    new_trace,
    raise_trace,
    ratio,
    span,
    state_at,
)
from onepolicy.tabular.simulate import spread

Array = NDArray[np.float64]


class Settings(NamedTuple):
    """ahead: the factor of x' in the matrix; lam: of the trace; ridge: added to the diagonal."""

    ahead: float
    lam: float
    ridge: float


def lstd(problem: Problem, *, lam: float = 0.0, ridge: float = 0.0, weights: ArrayLike | None = None) -> Estimate:
    """LSTD(lambda): the w of A w = b with A = mean z_t (x_t - gamma x_{t+1})^T, b = mean R_{t+1} z_t.

    z_t = rho_t (gamma lam z_{t-1} + x_t), 0 at the start of an episode; lam 0 is E[x (x - gamma x')^T]^-1 E[R x].
    Where TD(lambda) on the same data converges, it converges to this. ridge >= 0: added to A's diagonal; w is
    shrunk towards 0. weights [T]: of each step, None: equal (exact probabilities give the exact fixpoint).
    One run costs d^3 for d features, and for each step the active features of z times those of x and x'.
    Raises: DataError for a singular A (rank named) without ridge.
    Source: Boyan 2002; Bradtke and Barto 1996; Sutton and Barto 2018, section 9.8.
    """
    within_unit("lam", lam)
    settings = Settings(float(problem.discount), float(lam), float(ridge))
    return _each(problem, "LSTD", problem.episodes.reward, weights, settings)


def least_squares_mc(problem: Problem, *, ridge: float = 0.0, weights: ArrayLike | None = None) -> Estimate:
    """Least-squares Monte Carlo: w = E[x x^T]^-1 E[G x] over every visit; ridge and weights as in `lstd`.

    The minimum of the mean square return error, what gradient Monte Carlo tends to.
    Raises: DataError for truncated episodes, whose returns are not known, and for a singular E[x x^T] without ridge.
    """
    if problem.ratio is not None:
        raise ConfigError("least_squares_mc uses no importance ratios. Leave ratio out, or take lstd.")
    if np.any(problem.episodes.truncated):
        raise DataError(
            f"{int(problem.episodes.truncated.sum())} episodes are truncated, their returns unknown. Sample them to "
            "the end (max_steps), or take lstd."
        )
    returns = lambda_returns(problem, np.zeros(len(problem.episodes.state)), lam=1.0)
    return _each(problem, "Least-squares Monte Carlo", returns, weights, Settings(0.0, 0.0, float(ridge)))


def _each(problem: Problem, name: str, targets: Array, weights: ArrayLike | None, settings: Settings) -> Estimate:
    """One system a run, summed and solved; runs side by side, so that only as many matrices are held as threads."""
    runs, d, steps = problem.episodes.runs, problem.features.size, len(problem.episodes.state)
    each = np.ones(steps) if weights is None else np.asarray(weights, dtype=np.float64)
    if each.shape != (steps,) or not np.all(each >= 0):
        raise ConfigError(f"weights has shape {each.shape}; it needs a number >= 0 for each of {steps} steps.")
    job, solutions = problem.job(1.0, 0.0), np.empty((runs, d))
    ends = problem.episodes.ptr[np.arange(runs + 1) * problem.per_run]

    def some(first: int, last: int) -> None:
        for run in range(first, last):
            matrix, vector = np.zeros((d, d)), np.zeros(d)
            _sum_run(run, job, targets, each, settings.ahead, settings.lam, matrix, vector)
            total = max(float(each[ends[run] : ends[run + 1]].sum()), 1e-300)
            solutions[run] = solved(f"{name} of run {run}", matrix / total, vector / total, settings.ridge)

    spread(some, runs, problem.threads)
    if problem.truth is None:
        return Estimate(solutions, problem, None)
    return Estimate(solutions, problem, np.array([[error(job, w)] for w in solutions]))


@helper
def _count_step(
    job: Job, t: int, trace: Trace, weight: float, target: float, ahead: float, matrix: Array, vector: Array
) -> None:
    for i in range(trace.length[0]):
        row = trace.used[i]
        z = weight * trace.value[row]
        vector[row] += target * z
        add(job, state_at(job, t), z, matrix[row])
        add_next(job, t, -ahead * z, matrix[row])


@compiled
def _sum_run(
    run: int, job: Job, targets: Array, each: Array, ahead: float, lam: float, matrix: Array, vector: Array
) -> None:
    """A += weight z (x - ahead x')^T and b += weight target z."""
    trace = new_trace(job.features.size)
    for episode in range((job.episodes.ptr.shape[0] - 1) // job.episodes.runs):
        begin, end = span(job, run, episode)
        fade(trace, 0.0)
        for t in range(begin, end):
            s, rho = state_at(job, t), ratio(job, t)
            fade(trace, job.discount * lam * rho)
            raise_trace(trace, job, s, rho, 1.0)
            _count_step(job, t, trace, each[t], targets[t], ahead, matrix, vector)
