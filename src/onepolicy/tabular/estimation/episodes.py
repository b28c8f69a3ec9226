"""Off-policy evaluation: what a policy is worth, from episodes that another policy logged.

rho_t = prod_{s<=t} pi(a_s|s_s) / mu(a_s|s_s) is the ratio of an episode up to step t, G its discounted return. After an
episode's end the ratio stays what it was and rewards are 0. What is estimated is the value of the steps that were
logged: an episode cut at T steps counts as ended there. Estimates carry the intervals of samples.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onepolicy.errors import ConfigError, DataError
from onepolicy.tabular.estimation.samples import (
    Array,
    Estimate,
    Interval,
    Ratios,
    effective_sample_size,
    estimated,
    finite,
    log_ratios,
    log_weights,
    normal,
    weights,
)
from onepolicy.tabular.simulate import Episodes


@final
@dataclass(frozen=True, eq=False)
class LoggedEpisodes:
    """N episodes of at most T steps, time last: reward, log_ratio, mask [N, T].

    log_ratio: log pi(a|s) - log mu(a|s) of each action taken, -inf where the target never takes it. mask: True where
    the step took place, a run of True from step 0, then False, where the others may hold anything; None says all.
    discount: gamma in [0, 1].
    Raises: DataError for shapes that differ, no episode, a mask with holes or without a first step, a reward that
    is not finite, a log-ratio that is NaN or +inf. ConfigError for gamma outside [0, 1].
    """

    reward: ArrayLike
    log_ratio: ArrayLike
    mask: ArrayLike | None = None
    discount: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.discount <= 1.0:
            raise ConfigError(f"discount is {self.discount}; it must lie in [0, 1]. Set 0 <= discount <= 1.")
        reward = np.asarray(self.reward, dtype=np.float64)
        if reward.ndim != 2 or reward.size == 0:
            raise DataError(f"reward has shape {reward.shape}; give [N, T], at least one episode of one step.")
        mask = _prefix(self.mask, reward.shape)
        logs = np.asarray(self.log_ratio, dtype=np.float64)
        if logs.shape != reward.shape:
            raise DataError(
                f"log_ratio has shape {logs.shape} but reward has shape {reward.shape}; they must be equal."
            )
        object.__setattr__(self, "mask", mask)
        object.__setattr__(self, "reward", finite("reward", np.where(mask, reward, 0.0)))
        object.__setattr__(self, "log_ratio", log_ratios(np.where(mask, logs, 0.0), reward.shape))

    def terms(self) -> Array:
        """gamma^t r_t, [N, T], 0 after the end."""
        return np.asarray(self.reward) * self.powers()

    def returns(self) -> Array:
        """Discounted returns G, [N]."""
        return np.asarray(self.terms().sum(axis=1))

    def powers(self) -> Array:
        """gamma^t, [T]."""
        return np.asarray(self.discount ** np.arange(np.shape(self.reward)[1], dtype=np.float64))

    def log_weights(self) -> Array:
        """log rho_t, [N, T], constant after the end."""
        return np.asarray(np.cumsum(np.asarray(self.log_ratio), axis=1))

    def effective(self) -> float:
        """The effective sample size of whole episodes."""
        return effective_sample_size(self.log_weights()[:, -1])


def logged(episodes: Episodes, ratio: ArrayLike, *, discount: float = 1.0) -> LoggedEpisodes:
    """A log of `simulate.sample_episodes`, or of anything in its form. ratio [K]: pi/mu of each (state, action) row,
    such as `prediction.importance_ratios` has them.

    Raises: DataError for ratios that are negative or not finite, or not one for each row that occurs.
    """
    rows = log_weights(ratio)
    most = int(episodes.row.max(initial=-1))
    if rows.ndim != 1 or len(rows) <= most:
        raise DataError(f"ratio has shape {rows.shape} and the log has row {most}; give one ratio for each row, [K].")
    steps = np.ones(len(episodes.row), dtype=np.bool_)
    mask = laid_out(episodes, steps).astype(np.bool_)
    return LoggedEpisodes(laid_out(episodes, episodes.reward), laid_out(episodes, rows[episodes.row]), mask, discount)


def laid_out(episodes: Episodes, each: ArrayLike) -> Array:
    """One number a step, [n], as [N, T], 0 after an episode's end: with a model's Q and V, q and v of `doubly_robust`
    are laid_out(episodes, Q[episodes.row]) and laid_out(episodes, V[episodes.state])."""
    values, lengths = np.asarray(each, dtype=np.float64), np.diff(episodes.ptr)
    if values.shape != (len(episodes.row),):
        raise DataError(f"there are {values.shape} numbers for {len(episodes.row)} steps; give one a step.")
    table = np.zeros((len(lengths), lengths.max(initial=0)))
    table[np.arange(table.shape[1]) < lengths[:, None]] = values
    return table


def ordinary(episodes: LoggedEpisodes, *, interval: Interval = normal, level: float = 0.95) -> Estimate:
    """1/N sum_i rho_i G_i, rho of the whole episode. Unbiased; its variance grows exponentially with the length.

    Source: Sutton and Barto 2018, equation 5.5.
    """
    weight = weights(episodes.log_weights()[:, -1])
    return _mean(episodes, weight * episodes.returns(), interval, level)


def weighted(episodes: LoggedEpisodes, *, interval: Interval = normal, level: float = 0.95) -> Estimate:
    """sum_i rho_i G_i / sum_i rho_i. Biased, consistent, within the range of the returns.

    Source: Sutton and Barto 2018, equation 5.6.
    """
    weight = _shifted(episodes.log_weights()[:, -1:])
    ratios = Ratios(weight * episodes.returns()[:, None], weight)
    return estimated(ratios, episodes.effective(), interval, level)


def per_decision(episodes: LoggedEpisodes, *, interval: Interval = normal, level: float = 0.95) -> Estimate:
    """1/N sum_i sum_t gamma^t rho_t r_t: each reward weighed by what came before it only. Unbiased.

    Source: Precup, Sutton and Singh 2000; Sutton and Barto 2018, section 5.9.
    """
    return _mean(episodes, (weights(episodes.log_weights()) * episodes.terms()).sum(axis=1), interval, level)


def weighted_per_decision(episodes: LoggedEpisodes, *, interval: Interval = normal, level: float = 0.95) -> Estimate:
    """sum_t gamma^t sum_i rho_t r_t / sum_i rho_t: per-decision weights normalised at each step. Biased, consistent.

    Source: Thomas 2015 (thesis, Safe reinforcement learning), section 3.10, CWPDIS.
    """
    weight = _shifted(episodes.log_weights())
    return estimated(Ratios(weight * episodes.terms(), weight), episodes.effective(), interval, level)


def direct(episodes: LoggedEpisodes, v: ArrayLike, *, interval: Interval = normal, level: float = 0.95) -> Estimate:
    """1/N sum_i v(s_0): what a model says of the starts; no better than the model, and the interval does not know it.

    v [N, T] as in `doubly_robust`. Its effective size is N: it uses no weights.
    """
    _, value = _values(episodes, v, v)
    return estimated(Ratios(value[:, :1], np.ones((len(value), 1))), float(len(value)), interval, level)


def doubly_robust(
    episodes: LoggedEpisodes, q: ArrayLike, v: ArrayLike, *, interval: Interval = normal, level: float = 0.95
) -> Estimate:
    """1/N sum_i [v(s_0) + sum_t gamma^t rho_t (r_t + gamma v(s_{t+1}) - q(s_t, a_t))], v after the end 0.

    q, v [N, T]: a model's action values of what was done and the target's values sum_a pi(a|s) q(s, a) of the states.
    Unbiased for any such q when ratios are right; the better q, the less variance.
    Raises: DataError for shapes that differ or values that are not finite.
    Source: Jiang and Li 2016 (arXiv 1511.03722), equation 10, written as a sum.
    """
    action_value, value = _values(episodes, q, v)
    following = np.concatenate([value[:, 1:], np.zeros((len(value), 1))], axis=1)
    surprise = np.asarray(episodes.reward) + episodes.discount * following - action_value
    correction = episodes.powers() * weights(episodes.log_weights()) * surprise
    return _mean(episodes, value[:, 0] + correction.sum(axis=1), interval, level)


def weighted_doubly_robust(
    episodes: LoggedEpisodes, q: ArrayLike, v: ArrayLike, *, interval: Interval = normal, level: float = 0.95
) -> Estimate:
    """Doubly robust with weights normalised at each step, w_t = rho_t / sum_i rho_t; biased, consistent.

    sum_t gamma^t [sum_i w_t (r_t - q_t) + sum_i w_{t-1} v_t], w_{-1} = 1/N. q, v as in `doubly_robust`.
    Source: Thomas and Brunskill 2016 (arXiv 1604.00923), section 5, equation 5.
    """
    action_value, value = _values(episodes, q, v)
    weight = _shifted(episodes.log_weights())
    before = np.concatenate([np.ones((len(value), 1)), weight[:, :-1]], axis=1)
    gain = episodes.powers() * (np.asarray(episodes.reward) - action_value)
    term = np.concatenate([weight * gain, before * episodes.powers() * value], axis=1)
    return estimated(Ratios(term, np.concatenate([weight, before], axis=1)), episodes.effective(), interval, level)


def off_policy_evaluation(
    episodes: LoggedEpisodes,
    q: ArrayLike | None = None,
    v: ArrayLike | None = None,
    *,
    interval: Interval = normal,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """Every estimator's answer by name; those that need a model only when q and v are given."""
    plain = (ordinary, weighted, per_decision, weighted_per_decision)
    answers = {each.__name__: each(episodes, interval=interval, level=level) for each in plain}
    if q is not None and v is not None:
        answers["direct"] = direct(episodes, v, interval=interval, level=level)
        for robust in (doubly_robust, weighted_doubly_robust):
            answers[robust.__name__] = robust(episodes, q, v, interval=interval, level=level)
    return answers


def _mean(episodes: LoggedEpisodes, each: Array, interval: Interval, level: float) -> Estimate:
    return estimated(Ratios(each[:, None], np.ones((len(each), 1))), episodes.effective(), interval, level)


def _shifted(logs: Array) -> Array:
    """Weights up to a factor per column, which cancels, that makes the largest 1."""
    top = logs.max(axis=0)
    top = np.where(np.isfinite(top), top, 0.0)
    return np.asarray(np.exp(logs - top))


def _values(episodes: LoggedEpisodes, q: ArrayLike, v: ArrayLike) -> tuple[Array, Array]:
    found = []
    for name, x in (("q", q), ("v", v)):
        values, mask = np.asarray(x, dtype=np.float64), np.asarray(episodes.mask)
        if values.shape != mask.shape:
            raise DataError(f"{name} has shape {values.shape} but reward has shape {mask.shape}; they must be equal.")
        found.append(finite(name, np.where(mask, values, 0.0)))
    return found[0], found[1]


def _prefix(mask: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    values = np.ones(shape, dtype=np.bool_) if mask is None else np.asarray(mask)
    if values.dtype != np.bool_ or values.shape != shape:
        raise DataError(f"mask has shape {values.shape} and dtype {values.dtype}; give booleans of shape {shape}.")
    wrong = np.flatnonzero(~values[:, 0] | (values[:, 1:] & ~values[:, :-1]).any(axis=1))
    if wrong.size:
        raise DataError(
            f"the mask of episode {wrong[0]} is not a run of True from step 0; an episode begins at step 0 and has no "
            "holes. Shift it, or leave it out."
        )
    return values
