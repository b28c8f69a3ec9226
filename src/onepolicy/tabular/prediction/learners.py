"""Prediction: the values of a policy from its episodes, by Monte Carlo and by temporal differences.

A `Problem` is the episodes of one or many runs and how values are represented; each function is one algorithm, runs it
on every run in compiled code, and returns the weights, the values and the error after each episode. With one feature
a state (`one_hot`) it is the algorithm of a table; with others its linear form: gradient Monte Carlo, semi-gradient
TD. Two step sizes: a number, or None for 1/n, n counting the updates of a state (of a group under aggregation).
An episode that was truncated is continued by the value of its last state, as in `core.returns`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onepolicy.errors import ConfigError
from onepolicy.tabular.features import Features, state_values
from onepolicy.tabular.prediction import updates
from onepolicy.tabular.simulate import Episodes, row_probabilities, spread

if TYPE_CHECKING:
    from onepolicy.tabular.mdp import MDP

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be predicted, from which data, and how values are represented.

    Raises: ConfigError for a discount outside [0, 1], features, start, truth or weighting of the wrong length, an
    infinite or negative ratio, episodes that do not divide among the runs.
    """

    episodes: Episodes
    features: Features
    discount: float
    start: ArrayLike = 0.0
    """The first weights: a number, [d], or [R, d], a row a run: to go on from an earlier estimate."""
    ratio: ArrayLike | None = None
    """Target over behaviour probability of each (state, action) row, [K], from `importance_ratios`; None: on-policy."""
    truth: ArrayLike | None = None
    """v of every state, [S], to measure errors against; None: none are measured."""
    weighting: ArrayLike | None = None
    """The weight of each state's squared error, [S], normalised to sum 1 (None: equal), say `~mdp.terminal`."""
    threads: int | None = None

    def __post_init__(self) -> None:
        """Checks everything that compiled code would trip over."""
        within_unit("discount", self.discount)
        states, seen = len(self.features.ptr) - 1, _states_seen(self.episodes)
        if seen > states:
            raise ConfigError(
                f"features has {states} states and the episodes visit state {seen - 1}; give every state."
            )
        for name, value in (("truth", self.truth), ("weighting", self.weighting)):
            if value is not None and np.shape(value) != (states,):
                raise ConfigError(f"{name} has shape {np.shape(value)}; it needs a number for each of {states} states.")
        if self.weighting is not None and not np.sum(np.asarray(self.weighting, dtype=np.float64)) > 0:
            raise ConfigError("weighting sums to 0 or less; at least one state must count.")
        runs, size, episodes = self.episodes.runs, self.features.size, len(self.episodes.ptr) - 1
        if runs < 1 or episodes % runs:
            raise ConfigError(f"runs is {runs} for {episodes} episodes; every run has the same number of episodes.")
        if np.shape(self.start) not in ((), (size,), (runs, size)):
            raise ConfigError(f"start has shape {np.shape(self.start)}; need a number, [{size}] or [{runs}, {size}].")
        if self.ratio is not None:
            self._check_ratio(np.asarray(self.ratio, dtype=np.float64))

    def _check_ratio(self, ratio: Array) -> None:
        if ratio.ndim != 1 or (len(self.episodes.row) and len(ratio) <= self.episodes.row.max()):
            raise ConfigError(f"ratio has shape {ratio.shape}; it needs a number for each (state, action) row.")
        wrong = np.flatnonzero(~(np.isfinite(ratio) & (ratio >= 0)))
        if len(wrong):
            raise ConfigError(
                f"ratio is {ratio[wrong[0]]} for row {wrong[0]}; ratios are finite and >= 0. Let the behaviour policy "
                "take every action that the target policy takes."
            )

    @property
    def per_run(self) -> int:
        """Episodes of each run."""
        return (len(self.episodes.ptr) - 1) // self.episodes.runs

    @cached_property
    def one_feature(self) -> bool:
        """Whether every state has at most one feature, of value 1: a table, or aggregation."""
        return bool(np.all(np.diff(self.features.ptr) <= 1) and np.all(self.features.value == 1.0))

    def job(self, step_size: float | None, decay: float) -> updates.Job:
        """The arrays that the compiled loops take."""
        step, decay = _step(step_size, decay, self.one_feature)
        states = len(self.features.ptr) - 1
        counter = np.zeros(states, dtype=np.int64)
        if self.one_feature:
            counter[np.diff(self.features.ptr) == 1] = self.features.column
        weighting = np.ones(states) if self.weighting is None else np.asarray(self.weighting, dtype=np.float64)
        return updates.Job(
            episodes=self.episodes,
            features=self.features,
            ratio=np.empty(0) if self.ratio is None else np.asarray(self.ratio, dtype=np.float64),
            discount=float(self.discount),
            step=step,
            decay=decay,
            counter=counter,
            truth=np.empty(0) if self.truth is None else np.asarray(self.truth, dtype=np.float64),
            weighting=weighting / weighting.sum(),
        )

    def learn(
        self, update: Callable[..., None], step_size: float | None, *settings: Any, decay: float = 0.0
    ) -> Estimate:
        """The compiled update run on every run's episodes, in order."""
        job, runs = self.job(step_size, decay), self.episodes.runs
        start = np.asarray(self.start, dtype=np.float64)
        weights = np.ascontiguousarray(np.broadcast_to(start, (runs, self.features.size))).copy()
        errors = np.zeros((runs, self.per_run))
        spread(lambda first, last: update(first, last, job, weights, errors, *settings), runs, self.threads)
        return Estimate(weights, self, None if self.truth is None else errors)


@dataclass(frozen=True, eq=False)
class Estimate:
    """What was learnt: weights [R, d], one row a run, and the error after each episode [R, E] where truth was given.

    The error is sqrt(sum_s weighting(s) (v(s) - truth(s))^2).
    """

    weights: Array
    problem: Problem
    errors: Array | None

    @cached_property
    def values(self) -> Array:
        """v(s) of every run and state, [R, S]; 0 for the states where episodes terminated."""
        values = state_values(self.problem.features, self.weights)
        values[:, self.problem.episodes.next_state[self.problem.episodes.terminated]] = 0.0
        return values


def within_unit(name: str, value: float) -> float:
    """The value, if it is in [0, 1]. Raises: ConfigError."""
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"{name} is {value}; it must be in [0, 1].")
    return float(value)


def _states_seen(episodes: Episodes) -> int:
    return int(max(episodes.state.max(), episodes.next_state.max())) + 1 if len(episodes.state) else 0


def _step(step_size: float | None, decay: float, one_feature: bool) -> tuple[float, float]:
    if step_size is None:
        if not one_feature:
            raise ConfigError(
                "step_size is None, 1/n of a state's updates; states that share features have no such count. "
                "Give a number, and decay > 0 to let it shrink."
            )
        return 1.0, 1.0
    if not (0.0 < step_size < np.inf and 0.0 <= decay < np.inf):
        raise ConfigError(f"step_size is {step_size} and decay {decay}; need step_size > 0 and decay >= 0, finite.")
    return float(step_size), float(decay)


def importance_ratios(mdp: MDP, target: ArrayLike, behaviour: ArrayLike | None) -> Array:
    """rho = pi(a|s) / b(a|s) of every (state, action) row, [K]; 0 where neither policy acts.

    target, behaviour: actions [S] or probabilities [K]; behaviour None is uniform.
    Raises: ConfigError that names the state and action where the behaviour has probability 0 and the target has not.
    Source: Sutton and Barto 2018, equation 5.3, for one step.
    """
    csr = mdp.csr()
    pi, b = row_probabilities(csr, target), row_probabilities(csr, behaviour)
    wrong = np.flatnonzero((pi > 0) & (b == 0))
    if len(wrong):
        state = int(np.searchsorted(csr.row_ptr, wrong[0], side="right")) - 1
        raise ConfigError(
            f"The importance ratio is infinite for action {wrong[0] - csr.row_ptr[state]} of state {state}: the target "
            f"takes it with probability {pi[wrong[0]]:g}, the behaviour never. Let the behaviour take it too."
        )
    return np.divide(pi, b, out=np.zeros_like(pi), where=b > 0)


def _on_policy(problem: Problem, name: str) -> None:
    if problem.ratio is not None:
        raise ConfigError(f"{name} uses no importance ratios. Leave ratio out, or take td0, n_step_td or td_lambda.")


def first_visit_mc(problem: Problem, *, step_size: float | None = None, decay: float = 0.0) -> Estimate:
    """First-visit Monte Carlo: v(S_t) += alpha (G_t - v(S_t)) for the first t at which an episode is in S_t.

    With step size 1/n the values are the mean first returns. Source: Sutton and Barto 2018, section 5.1.
    """
    _on_policy(problem, "first_visit_mc")
    return problem.learn(updates.monte_carlo, step_size, True, decay=decay)


def every_visit_mc(problem: Problem, *, step_size: float | None = None, decay: float = 0.0) -> Estimate:
    """Every-visit Monte Carlo, with features gradient Monte Carlo: w += alpha (G_t - v_w(S_t)) x(S_t) for every t.

    Source: Sutton and Barto 2018, equation 6.1 and section 9.3.
    """
    _on_policy(problem, "every_visit_mc")
    return problem.learn(updates.monte_carlo, step_size, False, decay=decay)


def td0(problem: Problem, *, step_size: float | None, decay: float = 0.0) -> Estimate:
    """TD(0): w += alpha rho_t (R_{t+1} + gamma v(S_{t+1}) - v(S_t)) x(S_t).

    Source: Sutton and Barto 2018, equation 6.2; with features section 9.3, with ratios equation 11.2.
    """
    return n_step_td(problem, n=1, step_size=step_size, decay=decay)


def n_step_td(problem: Problem, *, n: int, step_size: float | None, decay: float = 0.0) -> Estimate:
    """n-step TD: w += alpha rho_{t:t+n-1} (G_{t:t+n} - v(S_t)) x(S_t), rho the product of the n steps' ratios.

    Equally: towards rho G + (1 - rho) v(S_t), so that a step of ratio 0 changes nothing.
    Source: Sutton and Barto 2018, section 7.1; off-policy equation 7.9.
    """
    return problem.learn(updates.n_step, step_size, _at_least_one(n), 1.0, decay=decay)


def n_step_td_weighted_target(problem: Problem, *, n: int, step_size: float | None, decay: float = 0.0) -> Estimate:
    """n-step TD with the ratio on the target alone: w += alpha (rho_{t:t+n-1} G_{t:t+n} - v(S_t)) x(S_t).

    The same expectation as `n_step_td`, because E[rho] = 1, with more variance: a step of ratio 0 pulls v(S_t) to 0.
    """
    return problem.learn(updates.n_step, step_size, _at_least_one(n), 0.0, decay=decay)


def lambda_return_td(problem: Problem, *, lam: float, step_size: float | None, decay: float = 0.0) -> Estimate:
    """The offline lambda-return algorithm: w += alpha (G_t^lambda - v_w(S_t)) x(S_t), t after t, when an episode ends.

    The returns bootstrap with the weights of the episode's start. Source: Sutton and Barto 2018, equation 12.4.
    """
    _on_policy(problem, "lambda_return_td")
    return problem.learn(updates.lambda_return, step_size, within_unit("lam", lam), False, decay=decay)


def offline_td_lambda(problem: Problem, *, lam: float, step_size: float | None, decay: float = 0.0) -> Estimate:
    """Offline TD(lambda): the changes of TD(lambda), summed up and made when an episode ends.

    Computed by its forward view, the same numbers: w += sum_t alpha (G_t^lambda - v(S_t)) x(S_t), all by the weights
    of the episode's start. Source: Sutton 1988; Sutton and Barto 2018, section 12.1 and exercise 12.3.
    """
    _on_policy(problem, "offline_td_lambda")
    return problem.learn(updates.lambda_return, step_size, within_unit("lam", lam), True, decay=decay)


def td_lambda(problem: Problem, *, lam: float, step_size: float | None, decay: float = 0.0) -> Estimate:
    """TD(lambda) with accumulating traces: z = rho_t (gamma lam z + alpha x(S_t)), w += delta_t z.

    The step size is inside the trace, where one that changes belongs. Source: Sutton and Barto 2018, equations
    12.5 to 12.7; with ratios 12.23 and 12.25.
    """
    return problem.learn(updates.td_lambda, step_size, within_unit("lam", lam), 1.0, decay=decay)


def td_lambda_replacing(problem: Problem, *, lam: float, step_size: float | None, decay: float = 0.0) -> Estimate:
    """TD(lambda) with replacing traces, for features that are 0 or 1: z_i = alpha where x_i(S_t) = 1.

    Raises: ConfigError for other features. Source: Singh and Sutton 1996; Sutton and Barto 2018, equation 12.12.
    """
    _on_policy(problem, "td_lambda_replacing")
    if np.any(problem.features.value != 1.0):
        raise ConfigError("Replacing traces need features that are 0 or 1. Take td_lambda or true_online_td.")
    return problem.learn(updates.td_lambda, step_size, within_unit("lam", lam), 0.0, decay=decay)


def true_online_td(problem: Problem, *, lam: float, step_size: float | None, decay: float = 0.0) -> Estimate:
    """True online TD(lambda): w += (delta + v - v_old) z - alpha (v - v_old) x with z = k z + alpha (1 - k z.x) x.

    k = gamma lam. Exactly the online lambda-return algorithm, at TD(lambda)'s cost.
    Source: van Seijen et al. 2016 (arXiv 1512.04087), algorithm 1; Sutton and Barto 2018, section 12.5.
    """
    _on_policy(problem, "true_online_td")
    return problem.learn(updates.true_online, step_size, within_unit("lam", lam), decay=decay)


def _at_least_one(n: int) -> int:
    if n < 1:
        raise ConfigError(f"n is {n}; an n-step return looks at least 1 step ahead. Set n >= 1.")
    return int(n)


def lambda_returns(problem: Problem, next_value: ArrayLike, *, lam: float) -> Array:
    """G_t = R_{t+1} + gamma ((1 - lam) next_value_t + lam G_{t+1}) of every step, [T]; lam 1 is the discounted return.

    next_value [T]: the value of the state that each step led to, not used where it is terminal; the last step of a
    truncated episode is followed by it. The compiled twin of `core.returns.lambda_returns`.
    """
    return _filled(problem, updates.fill_lambda_returns, next_value, within_unit("lam", lam))


def n_step_returns(problem: Problem, next_value: ArrayLike, *, n: int) -> Array:
    """G_{t:t+n} of every step, [T], cut at the end of its episode; next_value as in `lambda_returns`.

    The compiled twin of `core.returns.n_step_returns`.
    """
    return _filled(problem, updates.fill_n_step_returns, next_value, _at_least_one(n))


def _filled(problem: Problem, fill: Callable[..., None], next_value: ArrayLike, setting: float) -> Array:
    episodes = problem.episodes
    ahead = np.where(episodes.terminated, 0.0, np.asarray(next_value, dtype=np.float64))
    job, out = problem.job(1.0, 0.0), np.empty(len(episodes.state))
    spread(lambda first, last: fill(first, last, job, ahead, setting, out), len(episodes.ptr) - 1, problem.threads)
    return out
