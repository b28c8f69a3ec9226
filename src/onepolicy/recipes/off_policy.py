"""Control from memory: DQN in a gymnasium world or one of ours, S seeds in one process.

The walk: this recipe makes Config and Run, `envs` the worlds, `acting.explore` plays them into `data.replay`, `algos`
has targets, losses and the loop, `learning.stacked` steps, `evaluation.returns` measures, and `run` logs and saves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from onepolicy.acting.explore import Explorer
from onepolicy.algos import dqn
from onepolicy.core.check import fraction
from onepolicy.data.replay import Replay
from onepolicy.envs.vector import ControlEnv, Discrete, make
from onepolicy.errors import ConfigError, nearest
from onepolicy.evaluation.returns import MOST_WORLDS, over_seeds, play
from onepolicy.learning.optim import OptimConfig
from onepolicy.nn.greedy import GreedyPolicy
from onepolicy.nn.stacked import alone
from onepolicy.recipes.loop import open_run, require_count, require_positive
from onepolicy.recipes.side_by_side import Loop, last_of
from onepolicy.run.config import EXIT_INTERRUPTED, from_json
from onepolicy.run.progress import progress
from onepolicy.run.report import Report
from onepolicy.run.run import Run
from onepolicy.run.seeding import derive_seed
from onepolicy.types import Metrics

RECIPE = "off_policy"
Algo = Literal["dqn"]


@dataclass(frozen=True)
class Config:
    """Learning from replayed transitions. Steps are environment steps of one seed, counted over its worlds."""

    algo: Algo = "dqn"
    """The algorithm."""
    env: str = "CartPole-v1"
    """The world: any id that gymnasium knows."""
    steps: int = 100_000
    """Steps to train each seed for."""
    num_envs: int = 1
    """Worlds each seed plays side by side."""
    gamma: float = 0.99
    """Discount."""
    n_step: int = 1
    """Rewards summed up before the value of what follows counts."""
    capacity: int = 1_000_000
    """Transitions each seed remembers."""
    batch_size: int = 32
    """Transitions in an update."""
    learning_starts: int = 100
    """Steps before the first update; they are random."""
    train_every: int = 4
    """Steps between updates."""
    gradient_steps: int = 1
    """Updates each time; 0 for as many as steps were played since."""
    target_every: int = 10_000
    """Steps between moves of the target network."""
    tau: float = 1.0
    """How far the target moves, in (0, 1]; 1 copies."""
    double: bool = True
    """DQN: the online network chooses the next action, the target values it."""
    epsilon_end: float = 0.05
    """DQN: share of random actions at the end of the fall from 1."""
    epsilon_fraction: float = 0.1
    """DQN: share of the training within which epsilon falls."""
    lr: float = 1e-4
    """Learning rate."""
    max_grad_norm: float = 10.0
    """Bound on each seed's gradient's 2-norm; 0 for none."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the layers."""
    eval_every: int = 10_000
    """Steps between evaluations; 0 for one at the end."""
    eval_episodes: int = 100
    """Whole episodes of an evaluation, played greedily."""
    save_every: int = 50_000
    """Steps between checkpoints, the memory included; 0 for one at the end."""
    seed: int = 0
    """Seed of everything random; with several seeds, the first."""
    seeds: int = 1
    """How many seeds to train, side by side in one process, each as it would alone."""
    threads: int = 1
    """CPU threads of torch; small networks are slower with more."""
    out: str = ""
    """Run directory; empty for the next free runs/off_policy-<n>."""

    def __post_init__(self) -> None:
        require_positive(
            self, "steps", "num_envs", "capacity", "train_every", "target_every", "eval_episodes", "seeds", "threads"
        )
        require_count(self, "learning_starts", "gradient_steps", "eval_every", "save_every")
        fraction("gamma", self.gamma)
        fraction("epsilon_fraction", self.epsilon_fraction)
        self.dqn()

    def dqn(self) -> dqn.Config:
        """What DQN decides. Raises: ConfigError for a value out of its range."""
        return dqn.Config(
            batch_size=self.batch_size,
            double=self.double,
            learning_starts=self.learning_starts,
            train_every=self.train_every,
            gradient_steps=self.gradient_steps or max(self.train_every, self.num_envs),
            target_every=self.target_every,
            tau=self.tau,
            epsilon_end=self.epsilon_end,
            epsilon_steps=round(self.epsilon_fraction * self.steps),
        )


DEFAULTS: dict[str, Config] = {
    # stable-baselines3 2.9 defaults, but double
    "dqn": Config(),
}
PRESETS: dict[str, Config] = {
    # rl-baselines3-zoo hyperparams/dqn.yml, but double
    "dqn/CartPole-v1": replace(
        DEFAULTS["dqn"], steps=50_000, lr=2.3e-3, batch_size=64, capacity=100_000, learning_starts=1000,
        target_every=10, train_every=256, gradient_steps=128, epsilon_fraction=0.16, epsilon_end=0.04,
        hidden=(256, 256),
    ),
    "dqn/MountainCar-v0": replace(
        DEFAULTS["dqn"], env="MountainCar-v0", steps=120_000, lr=4e-3, batch_size=128, capacity=10_000,
        learning_starts=1000, gamma=0.98, target_every=600, train_every=16, gradient_steps=8, epsilon_fraction=0.2,
        epsilon_end=0.07, hidden=(256, 256),
    ),
    "dqn/LunarLander-v3": replace(
        DEFAULTS["dqn"], env="LunarLander-v3", steps=100_000, lr=6.3e-4, batch_size=128, capacity=50_000,
        learning_starts=0, target_every=250, train_every=4, gradient_steps=0, epsilon_fraction=0.12, epsilon_end=0.1,
        hidden=(256, 256),
    ),
    "dqn/Acrobot-v1": replace(
        DEFAULTS["dqn"], env="Acrobot-v1", steps=100_000, lr=6.3e-4, batch_size=128, capacity=50_000,
        learning_starts=0, target_every=250, train_every=4, gradient_steps=0, epsilon_fraction=0.12, epsilon_end=0.1,
        hidden=(256, 256),
    ),
}  # fmt: skip


def starting_point(algorithm: str, fields: Mapping[str, Any]) -> Config:
    """The preset for an algorithm and the world among `fields`, or else the algorithm's defaults.

    Raises: ConfigError for an unknown algorithm, offering the nearest.
    """
    if algorithm not in DEFAULTS:
        raise ConfigError(f"{algorithm!r} does not learn from memory. {nearest(algorithm, DEFAULTS)}")
    env = fields.get("env", DEFAULTS[algorithm].env)
    return PRESETS.get(f"{algorithm}/{env}", replace(DEFAULTS[algorithm], env=env))


def seeds_of(config: Config) -> tuple[int, ...]:
    """The seed of each learner."""
    return tuple(range(config.seed, config.seed + config.seeds))


def learner_of(config: Config, env: ControlEnv) -> dqn.Learner:
    """All seeds' networks and optimizer. Raises: ConfigError for a world whose actions the algorithm cannot choose."""
    if not isinstance(env.actions, Discrete):
        raise ConfigError(f"{config.algo} chooses among numbered actions; {config.env} takes real numbers.")
    optim = OptimConfig(lr=config.lr, name="adam", max_grad_norm=config.max_grad_norm)
    return dqn.Learner(seeds_of(config), env.obs_dim, env.actions.n, config.hidden, config.dqn(), optim)


def main(config: Config, resume: Path | None = None) -> Report:
    """Train (or, given a run directory, continue training) all seeds.

    Raises: SystemExit with EXIT_INTERRUPTED when a signal ended it early; everything is saved then.
    """
    torch.set_num_threads(config.threads)
    seeds = seeds_of(config)
    envs = [make(config.env, config.num_envs, derive_seed(seed, "env")) for seed in seeds]
    exam_env = make(config.env, min(config.eval_episodes, MOST_WORLDS), derive_seed(config.seed, "exam"))
    learner = learner_of(config, envs[0])
    replay = Replay(
        seeds, config.capacity, config.num_envs, envs[0].obs_dim, None, gamma=config.gamma, n_step=config.n_step
    )
    explorer = Explorer(envs, replay, seeds, random_steps=config.learning_starts)
    run = open_run(RECIPE, config, resume, {})

    def evaluate(steps: int) -> list[Metrics]:
        return [
            play(
                exam_env, policy_of(learner, k).greedy(), config.eval_episodes, derive_seed(seed, "exam", steps)
            ).metrics()
            for k, seed in enumerate(seeds)
        ]

    parts: dict[str, Any] = {"learner": learner, "explorer": explorer}
    with run:
        start = run.resume(**parts)
        title = f"{config.algo} {config.env}, " + (f"{len(seeds)} seeds" if len(seeds) > 1 else f"seed {config.seed}")
        with progress(config.steps, title, done=start) as bar:
            loop = Loop(
                run, config.steps, config.eval_every, config.save_every, bar, evaluate, explorer.metrics, parts, seeds
            )
            if start == 0:
                loop.begin()
            dqn.fit(learner, explorer, config.dqn(), steps=config.steps, after_step=loop.after_step)
        stopped = run.interrupted and explorer.steps < config.steps
        text = "" if stopped else finish(run, config)
    if stopped:
        print(f"Interrupted and saved. Continue with: onepolicy resume {run.directory}")
        raise SystemExit(EXIT_INTERRUPTED)
    return load(run, text)


def policy_of(learner: dqn.Learner, k: int) -> GreedyPolicy:
    """What the k-th seed has learnt."""
    return GreedyPolicy(alone(learner.q, k), learner.obs_dim)


def finish(run: Run, config: Config) -> str:
    """The report's first lines; report.md and curves.png in the run directory."""
    scores = last_of(run.directory, seeds_of(config), "eval/return")
    over = f"over {config.eval_episodes} greedy episodes after {config.steps:,} steps"
    if config.seeds == 1:
        text = f"{config.algo} on {config.env}, seed {config.seed}: mean return {scores[config.seed]:.1f} {over}."
        run.finish(text)
        return text
    rows = [f"seed {seed:>4}  {score:>10.1f}" for seed, score in scores.items()]
    for name, found in over_seeds(list(scores.values())).items():
        rows.append(f"{name:<9}  {found.value:>10.1f}  [{found.low:.1f}, {found.high:.1f}]")
    text = f"{config.algo} on {config.env}, {config.seeds} seeds: mean return {over}; 95 % bootstrap over seeds."
    table = "\n".join(rows)
    run.finish(text, tables={"Return by seed": table})
    return f"{text}\n{table}"


def load(run: Run, text: str = "") -> Report:
    """A run's newest checkpoint: its policy, of several seeds that with the best last evaluation, and last metrics.

    Raises: CheckpointError when there is no valid checkpoint.
    """
    config = from_json(Config, run.config)
    learner = learner_of(config, make(config.env, 1, 0))
    step = run.load(learner=learner)
    scores = last_of(run.directory, seeds_of(config), "eval/return")
    best = max(scores, key=lambda seed: scores[seed])
    metrics = {"eval/return": scores[best]}
    words = text or f"{config.algo} on {config.env} at step {step:,}"
    return Report(run.directory, metrics, policy_of(learner, best - config.seed), words)
