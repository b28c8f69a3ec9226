"""Least-squares prediction: LSTD(lambda) and least-squares Monte Carlo, no step size, one linear system a run."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onepolicy.errors import ConfigError, DataError
from onepolicy.tabular.fixpoints import solved
from onepolicy.tabular.prediction import Estimate, Problem, lambda_returns, within_unit
from onepolicy.tabular.simulate import spread
from onepolicy.tabular.updates import (
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

Array = NDArray[np.float64]


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
    matrices, vectors = _sums(problem, weights, lam, towards_return=False)
    return _solved(problem, "LSTD", matrices, vectors, ridge)


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
    matrices, vectors = _sums(problem, weights, 0.0, towards_return=True)
    return _solved(problem, "Least-squares Monte Carlo", matrices, vectors, ridge)


def _sums(problem: Problem, weights: ArrayLike | None, lam: float, *, towards_return: bool) -> tuple[Array, Array]:
    steps, runs, d = len(problem.episodes.state), problem.episodes.runs, problem.features.size
    each = np.ones(steps) if weights is None else np.asarray(weights, dtype=np.float64)
    if each.shape != (steps,) or not np.all(each >= 0):
        raise ConfigError(f"weights has shape {each.shape}; it needs a number >= 0 for each of {steps} steps.")
    job = problem.job(1.0, 0.0)
    targets = problem.episodes.reward
    if towards_return:
        targets = lambda_returns(problem, np.zeros(steps), lam=1.0)
    matrices, vectors = np.zeros((runs, d, d)), np.zeros((runs, d))
    ahead = 0.0 if towards_return else float(problem.discount)
    spread(
        lambda first, last: _sum_runs(first, last, job, targets, each, ahead, lam, matrices, vectors),
        runs,
        problem.threads,
    )
    ends = problem.episodes.ptr[np.arange(runs + 1) * problem.per_run]
    totals = np.array([max(each[begin:end].sum(), 1e-300) for begin, end in pairwise(ends)])
    return matrices / totals[:, None, None], vectors / totals[:, None]


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
def _sum_runs(
    first: int,
    last: int,
    job: Job,
    targets: Array,
    each: Array,
    ahead: float,
    lam: float,
    matrices: Array,
    vectors: Array,
) -> None:
    """A += weight z (x - ahead x')^T and b += weight target z."""
    for run in range(first, last):
        matrix, vector, trace = matrices[run], vectors[run], new_trace(job.features.size)
        for episode in range((job.episodes.ptr.shape[0] - 1) // job.episodes.runs):
            begin, end = span(job, run, episode)
            fade(trace, 0.0)
            for t in range(begin, end):
                s, rho = state_at(job, t), ratio(job, t)
                fade(trace, job.discount * lam * rho)
                raise_trace(trace, job, s, rho, 1.0)
                _count_step(job, t, trace, each[t], targets[t], ahead, matrix, vector)


def _solved(problem: Problem, name: str, matrices: Array, vectors: Array, ridge: float) -> Estimate:
    runs = range(problem.episodes.runs)
    solutions = np.stack([solved(f"{name} of run {run}", matrices[run], vectors[run], ridge) for run in runs])
    if problem.truth is None:
        return Estimate(solutions, problem, None)
    job = problem.job(1.0, 0.0)
    return Estimate(solutions, problem, np.array([[error(job, w)] for w in solutions]))
