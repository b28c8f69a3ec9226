"""How a learner is run, and what it leaves: settings with their checks, schedules of exploration, results.

A run's numbers depend on the settings' seed and the run's number alone, never on the number of threads or of other
runs. Pooling of runs to intervals is evaluation's; here are means and standard errors.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onepolicy.errors import ConfigError
from onepolicy.tabular.control.step import Dynamics, Floats, Ints, dynamics_of
from onepolicy.tabular.simulate import spread, streams

if TYPE_CHECKING:
    from onepolicy.tabular.mdp import MDP


@dataclass(frozen=True, eq=False)
class Settings:
    """What every learner of control takes. Raises: ConfigError for a value out of its range, with the range."""

    episodes: int = 500
    """Episodes of a run."""
    alpha: float = 0.1
    """Step size, in (0, 1]."""
    alpha_power: float = 0.0
    """The n-th update of a row steps by alpha / n^alpha_power: 0 constant, 1 with alpha 1 the sample mean."""
    epsilon: ArrayLike = 0.1
    """Share of random actions, in [0, 1]: a number, or one for each episode (`one_over_episode`, `decaying`)."""
    gamma: float = 1.0
    """Discount, in [0, 1]."""
    runs: int = 1
    """Independent runs, each with a random stream of its own."""
    seed: int = 0
    """Seed of all streams."""
    max_steps: int = 100_000
    """Time limit: an episode that has not ended is cut after so many steps (truncated, not terminated)."""
    initial_q: ArrayLike = 0.0
    """Q before the first step: a number, or one for each row [K]."""
    reward_std: ArrayLike = 0.0
    """Standard deviation of a Gaussian added to the reward: a number, or one for each row [K]."""
    threads: int | None = None
    """Threads that share the runs; None for numba's number."""

    def __post_init__(self) -> None:
        for name in ("episodes", "runs", "max_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; there must be at least 1. Set {name} >= 1.")
        if not 0.0 < self.alpha <= 1.0:
            raise ConfigError(f"alpha is {self.alpha}; a step size is in (0, 1]. Set 0 < alpha <= 1.")
        fraction("alpha_power", self.alpha_power)
        fraction("gamma", self.gamma)
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; a seed is at least 0.")
        epsilon = np.asarray(self.epsilon, dtype=np.float64)
        if epsilon.shape not in ((), (self.episodes,)):
            raise ConfigError(
                f"epsilon has shape {epsilon.shape}; it needs a number, or one for each of {self.episodes} episodes."
            )
        wrong = ~((epsilon >= 0.0) & (epsilon <= 1.0))
        if np.any(wrong):
            raise ConfigError(
                f"epsilon is {epsilon[wrong].flat[0]}; a share of random actions is in [0, 1]. Set 0 <= epsilon <= 1."
            )

    def epsilons(self) -> Floats:
        """The share of random actions in each episode, [episodes]."""
        return np.full(self.episodes, self.epsilon, dtype=np.float64)


def fraction(name: str, value: float) -> float:
    """A number in [0, 1], returned as it is. Raises: ConfigError with the name, the value and the range."""
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"{name} is {value}; it is in [0, 1]. Set 0 <= {name} <= 1.")
    return value


def one_over_episode(episodes: int) -> Floats:
    """The share of random actions 1, 1/2, 1/3, ... : greedy in the limit with infinite exploration (GLIE)."""
    return 1.0 / np.arange(1, episodes + 1)


def decaying(episodes: int, start: float, end: float) -> Floats:
    """The share of random actions from `start` in the first episode to `end` in the last, by a constant factor.

    Raises: ConfigError for a start or end that is not above 0, or no episodes.

    >>> decaying(3, 1.0, 0.25).tolist()
    [1.0, 0.5, 0.25]
    """
    if episodes < 1 or not 0.0 < start <= 1.0 or not 0.0 < end <= 1.0:
        raise ConfigError(f"start is {start}, end {end}, episodes {episodes}; the shares are in (0, 1], episodes >= 1.")
    return np.geomspace(start, end, episodes)


class Rates(NamedTuple):
    """The settings as compiled loops read them. epsilon [E]; limit: steps of an episode."""

    epsilon: Floats
    alpha: float
    power: float
    gamma: float
    limit: int


class Record(NamedTuple):
    """What compiled loops write, R runs of E episodes over K rows: q, visits [R, K], the rest [R, E]."""

    q: Floats
    visits: Ints
    returns: Floats
    lengths: Ints
    truncated: NDArray[np.bool_]


@final
@dataclass(frozen=True, eq=False)
class ControlResult:
    """What R runs of E episodes left. K rows (state, action), S states; row_ptr as in `MDP.csr()`.

    q [R, K]: action values. visits [R, K]: updates of each. returns [R, E]: undiscounted sums of rewards. lengths
    [R, E]: steps. truncated [R, E]: cut by the time limit. seconds: of learning, on all threads together, without the
    compiler's. tables: what a learner keeps besides, by name.
    """

    q: Floats
    row_ptr: Ints
    visits: Ints
    returns: Floats
    lengths: Ints
    truncated: NDArray[np.bool_]
    seconds: float
    tables: dict[str, NDArray[Any]]

    @property
    def steps(self) -> int:
        """Environment steps of all runs."""
        return int(self.lengths.sum())

    @property
    def steps_per_second(self) -> float:
        """Environment steps a second, the learner's work included."""
        return self.steps / self.seconds

    def policy(self, run: int = 0) -> Ints:
        """The greedy action of each state by one run's Q, [S]; the first of several, -1 where there are no actions."""
        actions = np.full(len(self.row_ptr) - 1, -1, dtype=np.int64)
        for state, (first, last) in enumerate(zip(self.row_ptr, self.row_ptr[1:])):
            if last > first:
                actions[state] = np.argmax(self.q[run, first:last])
        return actions

    def values(self, run: int = 0) -> Floats:
        """max_a Q(s, a) of each state by one run's Q, [S]; 0 where there are no actions."""
        found = np.zeros(len(self.row_ptr) - 1)
        acting = np.diff(self.row_ptr) > 0
        found[acting] = np.maximum.reduceat(self.q[run], self.row_ptr[:-1][acting])
        return found

    def mean_returns(self) -> tuple[Floats, Floats]:
        """(mean over runs of each episode's return [E], its standard error [E]; NaN for a single run)."""
        return mean_over_runs(self.returns)

    def mean_lengths(self) -> tuple[Floats, Floats]:
        """(mean over runs of each episode's steps [E], its standard error [E]; NaN for a single run)."""
        return mean_over_runs(self.lengths)


def mean_over_runs(x: ArrayLike) -> tuple[Floats, Floats]:
    """(mean, standard error of the mean) over the first axis; the error is NaN for a single run."""
    values = np.asarray(x, dtype=np.float64)
    runs = len(values)
    error = values.std(axis=0, ddof=1) / np.sqrt(runs) if runs > 1 else np.full(values.shape[1:], np.nan)
    return values.mean(axis=0), np.asarray(error)


def blank(settings: Settings, rows: int) -> Record:
    """The record before the first step. Raises: ConfigError for an initial_q of another shape or not finite."""
    initial = np.asarray(settings.initial_q, dtype=np.float64)
    if initial.shape not in ((), (rows,)) or not np.all(np.isfinite(initial)):
        raise ConfigError(
            f"initial_q has shape {initial.shape}; it needs a finite number, or one for each of {rows} rows."
        )
    table, episodes = (settings.runs, rows), (settings.runs, settings.episodes)
    return Record(
        q=np.full(table, initial),
        visits=np.zeros(table, dtype=np.int64),
        returns=np.zeros(episodes),
        lengths=np.zeros(episodes, dtype=np.int64),
        truncated=np.zeros(episodes, dtype=np.bool_),
    )


def rates_of(settings: Settings) -> Rates:
    """The settings as compiled loops read them."""
    return Rates(
        settings.epsilons(),
        float(settings.alpha),
        float(settings.alpha_power),
        float(settings.gamma),
        settings.max_steps,
    )


def learn(
    kernel: Callable[..., None], mdp: MDP, settings: Settings, *extra: Any, **tables: NDArray[Any]
) -> ControlResult:
    """Runs of a compiled learner on a finite model: kernel(first, last, world, rates, streams, record, *extra).

    kernel: plays runs first .. last-1; compiled here, before the clock starts. tables: what it keeps besides, already
    among `extra` where it needs it.
    Raises: ConfigError for a model in which nothing can be done.
    """
    world = dynamics_of(mdp, settings.reward_std)
    check_playable(world)
    record, rates, seeds = blank(settings, len(world.noise)), rates_of(settings), streams(settings.seed, settings.runs)
    kernel(0, 0, world, rates, seeds, record, *extra)
    started = time.perf_counter()
    spread(
        lambda first, last: kernel(first, last, world, rates, seeds, record, *extra), settings.runs, settings.threads
    )
    seconds = time.perf_counter() - started
    return ControlResult(record.q, world.row_ptr, *record[1:], seconds, tables)


def check_playable(world: Dynamics) -> None:
    """Raises: ConfigError for an episode that can begin in a terminal state, which has no action to take."""
    begins = np.flatnonzero((np.diff(world.start, prepend=0.0) > 0) & world.terminal)
    if len(begins):
        raise ConfigError(f"episodes can begin in state {begins[0]}, which is terminal. Give start over other states.")
