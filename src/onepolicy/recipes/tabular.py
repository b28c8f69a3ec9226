"""Learn to act in a finite world from experience: `onepolicy train q-learning --env cliff`.

In: the choice of the world and its settings, the learning curve over runs, the comparison with the exact optimum, the
value map. The learners are `tabular.control`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import stdtrit

from onepolicy.errors import CheckpointError, ConfigError, OnePolicyError, nearest
from onepolicy.recipes.loop import open_run, require_count, require_positive
from onepolicy.recipes.plan import options_of
from onepolicy.run.config import from_json
from onepolicy.run.report import Report
from onepolicy.run.run import Run
from onepolicy.tabular import control, worlds
from onepolicy.tabular.control.gym import RULES, learn_gym
from onepolicy.tabular.control.settings import ControlResult, fraction, mean_over_runs
from onepolicy.tabular.draw import TEXT_COLUMNS, best_actions, value_map, value_map_figure, value_map_table
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.planning import plan
from onepolicy.types import Metrics

RECIPE = "tabular"
POINTS = 100
"""Points of a learning curve at most; each is the mean of its share of the episodes."""
SHOWN = 12
"""States in a table of values."""
PLANNING_SECONDS = 20.0
"""What the exact optimum may take; the table says so when it takes longer."""


@dataclass(frozen=True)
class Config:
    """Tabular control: independent runs of one learner in a finite world."""

    algo: str = "q-learning"
    """The learner."""
    env: str = "cliff"
    """Name of a world of onepolicy.tabular.worlds, or a gymnasium id (sarsa, q-learning, expected-sarsa)."""
    options: str = ""
    """Arguments of the world, name=value with commas between, such as slippery=True."""
    episodes: int = 500
    """Episodes of a run."""
    runs: int = 100
    """Independent runs; the curve is their mean, its band a 95 % interval."""
    alpha: float = 0.5
    """Step size, in (0, 1]; of the critic in actor-critic."""
    alpha_power: float = 0.0
    """The n-th update of a row steps by alpha / n^alpha_power; 1 with alpha 1 is the sample mean."""
    epsilon: float = 0.1
    """Share of random actions, in [0, 1]; with schedule "decaying", of the first episode."""
    schedule: Literal["fixed", "decaying", "glie"] = "fixed"
    """Of epsilon: "decaying" by a constant factor to epsilon_end, "glie" 1/episode."""
    epsilon_end: float = 0.01
    """Of the last episode, with schedule "decaying"."""
    gamma: float | None = None
    """Discount, in [0, 1]; empty for the world's customary one."""
    n: int = 4
    """Steps of n-step SARSA's return."""
    planning: int = 50
    """Planned updates after each step of Dyna-Q."""
    lam: float = 0.9
    """Decay of the traces of sarsa-lambda and actor-critic, in [0, 1]."""
    actor_alpha: float = 0.05
    """Step size of the actor in actor-critic."""
    known: int = 5
    """Tries after which R-max takes a pair's model for known."""
    max_steps: int = 10_000
    """Time limit of an episode; a world's own comes before it."""
    initial_q: float = 0.0
    """Q before the first step."""
    seed: int = 0
    """Seed of everything random."""
    threads: int | None = None
    """Cores; empty for all."""
    out: str = ""
    """Run directory; empty for the next free runs/tabular-N."""

    def __post_init__(self) -> None:
        require_positive(self, "episodes", "runs", "max_steps", "n", "known", "threads")
        if self.algo not in LEARNERS:
            raise ConfigError(f"algo is {self.algo!r}, which is no tabular learner. {nearest(self.algo, LEARNERS)}")
        require_count(self, "planning")
        fraction("lam", self.lam)
        self.settings(1.0 if self.gamma is None else self.gamma, self.max_steps)

    def settings(self, gamma: float, limit: int) -> control.Settings:
        """The learner's settings. Raises: ConfigError for a value out of its range."""
        epsilon: Any = self.epsilon
        if self.schedule == "glie":
            epsilon = control.one_over_episode(self.episodes)
        elif self.schedule == "decaying":
            epsilon = control.decaying(self.episodes, self.epsilon, self.epsilon_end)
        return control.Settings(
            episodes=self.episodes,
            alpha=self.alpha,
            alpha_power=self.alpha_power,
            epsilon=epsilon,
            gamma=gamma,
            runs=self.runs,
            seed=self.seed,
            max_steps=limit,
            initial_q=self.initial_q,
            threads=self.threads,
        )


Learner = Callable[[MDP, control.Settings, Config], ControlResult]
LEARNERS: dict[str, Learner] = {
    "sarsa": lambda mdp, settings, _: control.sarsa(mdp, settings),
    "q-learning": lambda mdp, settings, _: control.q_learning(mdp, settings),
    "expected-sarsa": lambda mdp, settings, _: control.expected_sarsa(mdp, settings),
    "double-q": lambda mdp, settings, _: control.double_q_learning(mdp, settings),
    "mc-control": lambda mdp, settings, _: control.mc_control(mdp, settings),
    "n-step-sarsa": lambda mdp, settings, config: control.n_step_sarsa(mdp, settings, n=config.n),
    "dyna-q": lambda mdp, settings, config: control.dyna_q(mdp, settings, planning=config.planning),
    "sarsa-lambda": lambda mdp, settings, config: control.sarsa_lambda(mdp, settings, lam=config.lam),
    "actor-critic": lambda mdp, settings, config: control.actor_critic(
        mdp, settings, actor_alpha=config.actor_alpha, lam=config.lam
    ),
    "r-max": lambda mdp, settings, config: control.r_max(
        mdp, settings, known=config.known, reward_bound=float(mdp.csr().rewards.max())
    ),
}
DEFAULTS: dict[str, Config] = {name: Config(algo=name) for name in LEARNERS} | {
    "mc-control": Config(algo="mc-control", alpha=1.0, alpha_power=1.0, schedule="glie", max_steps=1000, runs=20),
    "n-step-sarsa": Config(algo="n-step-sarsa", alpha=0.2),
    "dyna-q": Config(algo="dyna-q", env="dyna-maze", alpha=0.1, episodes=50),
    "sarsa-lambda": Config(algo="sarsa-lambda", alpha=0.2),
    "actor-critic": Config(algo="actor-critic", alpha=0.2, lam=0.0, episodes=2000, max_steps=1000, runs=20),
    "r-max": Config(algo="r-max", env="dyna-maze", known=1, episodes=50, runs=20),
}
PRESETS: dict[str, Config] = {
    # Sutton and Barto 2018: example 6.6, example 6.5, figure 8.2
    "sarsa/cliff": DEFAULTS["sarsa"],
    "q-learning/cliff": DEFAULTS["q-learning"],
    "expected-sarsa/cliff": DEFAULTS["expected-sarsa"],
    "sarsa/windy": replace(DEFAULTS["sarsa"], env="windy"),
    "dyna-q/dyna-maze": DEFAULTS["dyna-q"],
    # ours
    "q-learning/frozenlake": replace(
        DEFAULTS["q-learning"], env="frozenlake", episodes=20_000, runs=10, alpha_power=0.6, alpha=1.0, epsilon=0.5
    ),
    "q-learning/taxi": replace(DEFAULTS["q-learning"], env="taxi", episodes=2000, runs=10),
    "mc-control/blackjack": replace(
        DEFAULTS["mc-control"], env="blackjack", episodes=500_000, runs=4, epsilon=0.1, schedule="fixed"
    ),
}  # fmt: skip


def starting_point(algorithm: str, fields: Mapping[str, Any]) -> Config:
    """The preset for an algorithm and the world among `fields`, or else the algorithm's defaults.

    Raises: ConfigError for an unknown algorithm, offering the nearest.
    """
    if algorithm not in DEFAULTS:
        raise ConfigError(f"{algorithm!r} is not a tabular learner. {nearest(algorithm, DEFAULTS)}")
    env = fields.get("env", DEFAULTS[algorithm].env)
    return PRESETS.get(f"{algorithm}/{env}", replace(DEFAULTS[algorithm], env=env))


def main(config: Config, resume: Path | None = None) -> Report:
    """Learn; the run directory gets the curve, the tables, the map of a grid, and result.npz. report.policy is the
    ControlResult. A run that was stopped is learnt again from its start, which takes seconds.

    Raises: ConfigError for a world, an option or a setting that do not fit.
    """
    mdp, shape, gamma = world_of(config)
    run = open_run(RECIPE, config, resume, {})
    with run:
        run.resume()
        found = learn(config, mdp, gamma)
        metrics = log(run, found)
        np.savez_compressed(run.directory / "result.npz", allow_pickle=False, **arrays_of(found))
        tables = {"Result": _text(_summary(config, mdp, gamma, found))}
        picture = ""
        if mdp is not None and shape is not None:
            grid = value_map(mdp, first_values(found), shape, found.q[0])
            if shape[1] <= TEXT_COLUMNS:
                tables["Values and greedy actions of the first run"] = _text(value_map_table(grid))
            value_map_figure(grid, f"{config.env}, {config.algo}").savefig(run.directory / "values.png", dpi=120)
            picture = "\n\n![values of the first run](values.png)"
        elif mdp is not None:
            tables["Values and greedy actions of the first run"] = _text(_values(mdp, found))
        tenth = max(config.episodes // 10, 1)
        mean = found.returns[:, -tenth:].mean()
        words = (
            f"{config.algo} on {config.env}: mean return {mean:.4g} over the last {tenth} of {config.episodes} episodes"
        )
        run.finish(f"{words}.{picture}", tables=tables)
    return Report(run.directory, metrics, found, "\n".join([f"{words}.", *tables.values(), f"Files: {run.directory}"]))


def world_of(config: Config) -> tuple[MDP | None, tuple[int, int] | None, float]:
    """(model, or None for a gymnasium world; the grid to draw it on; discount). Raises: ConfigError as `main`."""
    given = options_of(config.options)
    if config.env in worlds.WORLDS:
        world = worlds.WORLDS[config.env]
        gamma = world.discount if config.gamma is None else config.gamma
        if gamma is None:
            raise ConfigError(f"{config.env} is about the average reward; these learners discount. Set gamma below 1.")
        return worlds.make(config.env, **given), worlds.grid_shape(config.env, **given), gamma
    import gymnasium

    if config.env not in gymnasium.registry:
        raise ConfigError(f"There is no world {config.env!r}. {nearest(config.env, worlds.WORLDS)}")
    if config.algo not in RULES:
        raise ConfigError(f"{config.algo} needs a world whose model is known; in {config.env} use {', '.join(RULES)}.")
    return None, None, 0.99 if config.gamma is None else config.gamma


def learn(config: Config, mdp: MDP | None, gamma: float) -> ControlResult:
    """All runs, in our world or in gymnasium's."""
    if mdp is None:
        import gymnasium

        env = gymnasium.make(config.env, **options_of(config.options))
        return learn_gym(env, config.settings(gamma, config.max_steps), rule=config.algo)
    own = worlds.WORLDS[config.env].time_limit
    limit = config.max_steps if own is None else min(own, config.max_steps)
    return LEARNERS[config.algo](mdp, config.settings(gamma, limit), config)


def log(run: Run, found: ControlResult) -> Metrics:
    """The learning curve over episodes, and the last of each metric."""
    last: Metrics = {}
    runs = len(found.returns)
    half = float(stdtrit(runs - 1, 0.975)) if runs > 1 else float("nan")
    for part in np.array_split(np.arange(found.returns.shape[1]), min(POINTS, found.returns.shape[1])):
        mean, error = mean_over_runs(found.returns[:, part].mean(axis=1))
        last = {
            "rollout/return": float(mean),
            "rollout/length": float(found.lengths[:, part].mean()),
            "rollout/truncated": float(found.truncated[:, part].mean()),
            "rollout/env_steps": float(found.lengths[:, : part[-1] + 1].sum()),
        }
        if runs > 1:
            last |= {
                "rollout/return_low": float(mean - half * error),
                "rollout/return_high": float(mean + half * error),
            }
        run.log(int(part[-1]) + 1, last)
    run.log(found.returns.shape[1], {}, {"rate/env_steps_per_second": found.steps_per_second})
    return last


def first_values(found: ControlResult) -> Any:
    """V of each state in the first run, [S]: the critic's where there is one, else max Q."""
    return found.tables["values"][0] if "values" in found.tables else found.values()


def arrays_of(found: ControlResult) -> dict[str, Any]:
    """A result as arrays, for a file."""
    names = ("q", "row_ptr", "visits", "returns", "lengths", "truncated", "seconds")
    return {name: getattr(found, name) for name in names} | {f"tables/{k}": v for k, v in found.tables.items()}


def load(run: Run) -> Report:
    """A finished run's result. Raises: CheckpointError when there is none."""
    config, path = from_json(Config, run.config), run.directory / "result.npz"
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; the run did not end. Go on: onepolicy resume {run.directory}")
    with np.load(path) as saved:
        tables = {name.partition("/")[2]: saved[name] for name in saved.files if name.startswith("tables/")}
        plain = {name: saved[name] for name in saved.files if not name.startswith("tables/")}
    found = ControlResult(**plain | {"seconds": float(plain["seconds"])}, tables=tables)
    return Report(run.directory, {"rollout/return": float(found.returns[:, -1].mean())}, found, f"{config.algo} on "
                  f"{config.env}, {config.episodes} episodes")  # fmt: skip


def _summary(config: Config, mdp: MDP | None, gamma: float, found: ControlResult) -> Table:
    """What was learnt, how well, and in what time."""
    table = Table(title=f"{config.env}: {config.algo}", show_header=False)
    tenth = max(config.episodes // 10, 1)
    for name, part in (("first", slice(None, tenth)), ("last", slice(-tenth, None))):
        mean, error = mean_over_runs(found.returns[:, part].mean(axis=1))
        steps, _ = mean_over_runs(found.lengths[:, part].mean(axis=1))
        table.add_row(f"{name} {tenth} episodes: return", f"{float(mean):.5g}  (s.e. {float(error):.2g})")
        table.add_row(f"{name} {tenth} episodes: steps", f"{float(steps):.5g}")
    if mdp is not None:
        if config.algo != "actor-critic":
            learnt = np.array([mdp.start @ found.values(run) for run in range(config.runs)])
            mean, _ = mean_over_runs(learnt)
            table.add_row("max Q at the start, learnt", f"{float(mean):.5g}")
        table.add_row("best value at the start, exact", _best(mdp, gamma))
    table.add_row("discount", f"{gamma:g}")
    table.add_row("runs, steps", f"{config.runs:,}, {found.steps:,}")
    table.add_row("cut by the time limit", f"{100 * found.truncated.mean():.3g} %")
    table.add_row("steps a second", f"{found.steps_per_second:,.0f}")
    return table


def _best(mdp: MDP, gamma: float) -> str:
    """The exact optimum from the start, or why there is none."""
    try:
        solution = plan(mdp, gamma, time_limit=PLANNING_SECONDS)
    except OnePolicyError as error:
        return f"none: {error}"
    value = f"{float(mdp.start @ solution.value):.5g}"
    return value if solution.converged else f"{value}, bounds {solution.gap:.2g} apart after {PLANNING_SECONDS:g} s"


def _values(mdp: MDP, found: ControlResult) -> Table:
    """The first states with their values and greedy actions."""
    table = Table("state", "value", "greedy actions")
    values, actions = first_values(found), best_actions(mdp, found.q[0])
    for s in range(min(SHOWN, mdp.num_states)):
        table.add_row(mdp.state_name(s), f"{values[s]:.5g}", "end" if mdp.terminal[s] else actions[s])
    if mdp.num_states > SHOWN:
        table.caption = f"{mdp.num_states - SHOWN:,} more states in result.npz"
    return table


def _text(table: Table) -> str:
    """A table as plain text."""
    page = Console(file=io.StringIO(), width=120, record=True)
    page.print(table)
    return page.export_text(styles=False)
