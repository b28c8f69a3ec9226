"""Control: REINFORCE, A2C or PPO in a gymnasium world or one of ours, one seed or several.

The walk: this recipe makes Config and Run, `envs` the worlds, `acting.collect` plays them, `algos` gives credit,
`data.rollout` shuffles, `learning.learner` steps, `evaluation.returns` measures, and `run` logs and saves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from onepolicy.acting.collect import Collector
from onepolicy.algos import a2c, ppo, reinforce
from onepolicy.core.check import fraction
from onepolicy.core.policy import PolicyLoss
from onepolicy.envs.vector import ControlEnv, Discrete, make
from onepolicy.errors import ConfigError, nearest
from onepolicy.evaluation.returns import MOST_WORLDS, play
from onepolicy.learning.learner import PolicyLearner
from onepolicy.learning.optim import OptimConfig
from onepolicy.nn.policies import CategoricalPolicy, GaussianPolicy
from onepolicy.recipes.loop import run_directory
from onepolicy.run.config import EXIT_INTERRUPTED, from_json, to_json
from onepolicy.run.journal import read_lines
from onepolicy.run.progress import Bar, progress
from onepolicy.run.report import Report
from onepolicy.run.run import Run
from onepolicy.run.seeding import derive_seed
from onepolicy.types import Metrics

RECIPE = "control"
Algo = Literal["reinforce", "a2c", "ppo"]
Policy = CategoricalPolicy | GaussianPolicy
LOG_EVERY = 1000
"""Environment steps between lines of metrics.jsonl; evaluated and last steps are always logged."""


@dataclass(frozen=True)
class Config:
    """Policy-gradient training on control. Steps are environment steps, counted over all worlds."""

    algo: Algo = "ppo"
    """The algorithm."""
    env: str = "CartPole-v1"
    """The world: any id that gymnasium knows."""
    steps: int = 1_000_000
    """Steps to train for; the rollout under way is finished."""
    num_envs: int = 1
    """Worlds played side by side; in REINFORCE, the whole episodes of each update."""
    n_steps: int = 2048
    """Steps of each world in a rollout; in REINFORCE, only how many are played at a time."""
    batch_size: int = 64
    """PPO: steps in a minibatch."""
    epochs: int = 10
    """PPO: passes over a rollout."""
    gamma: float = 0.99
    """Discount."""
    lam: float = 0.95
    """Lambda of the generalised advantage (PPO, A2C)."""
    lr: float = 3e-4
    """Learning rate."""
    schedule: Literal["constant", "linear"] = "constant"
    """Of the learning rate and PPO's clip range: "linear" takes them to 0 at the end of training (PPO, A2C)."""
    clip: float = 0.2
    """PPO: the ratio is held within [1 - clip, 1 + clip]."""
    value_clip: float | None = None
    """PPO: reward units the critic may move in one rollout's updates; None for no bound."""
    value_coef: float = 1.0
    """Weight of the critic's loss, half the squared error; stable-baselines3's vf_coef 0.5 is 1.0 here."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    max_grad_norm: float = 0.5
    """Bound on the gradient's 2-norm; 0 for none."""
    target_kl: float | None = None
    """PPO: a rollout's updates end once the KL is 1.5 times this; None for never."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the tanh layers of actor and critic."""
    eval_every: int = 10_000
    """Steps between evaluations; 0 for one at the end."""
    eval_episodes: int = 100
    """Whole episodes of an evaluation, played greedily."""
    save_every: int = 50_000
    """Steps between checkpoints; 0 for one at the end."""
    seed: int = 0
    """Seed of everything random; with several seeds, the first."""
    seeds: int = 1
    """How many seeds to train, each on its own, as many at once as there are cores for."""
    threads: int = 1
    """CPU threads of torch for each seed; small networks are slower with more."""
    out: str = ""
    """Run directory; empty for the next free runs/<algo>-<n>."""

    def __post_init__(self) -> None:
        for name in ("steps", "num_envs", "n_steps", "eval_episodes", "seeds", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; there must be at least 1. Set {name} >= 1.")
        for name in ("eval_every", "save_every"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it counts steps. Set it to 0 for only at the end.")
        fraction("gamma", self.gamma)
        fraction("lam", self.lam)
        if self.algo == "reinforce" and self.schedule != "constant":
            raise ConfigError(
                f"schedule is {self.schedule!r} with reinforce, whose number of updates is not known beforehand. "
                'Set schedule="constant".'
            )


DEFAULTS: dict[str, Config] = {
    # stable-baselines3 2.9 defaults (its vf_coef 0.5 is on the squared error, ours on half of it)
    "ppo": Config(),
    "a2c": Config(algo="a2c", num_envs=8, n_steps=5, lam=1.0, lr=7e-4),
    "reinforce": Config(algo="reinforce", num_envs=8, n_steps=64, lam=1.0, lr=3e-3),
}
PRESETS: dict[str, Config] = {
    # rl-baselines3-zoo hyperparams/ppo.yml, those of its worlds that need no normalisation of observations
    "ppo/CartPole-v1": replace(
        DEFAULTS["ppo"], steps=100_000, num_envs=8, n_steps=32, batch_size=256, lam=0.8, gamma=0.98, epochs=20,
        lr=1e-3, clip=0.2, schedule="linear",
    ),
    # ours: the zoo's with twice the learning rate, for time rather than for steps
    "ppo/CartPole-v1-fast": replace(
        DEFAULTS["ppo"], steps=100_000, num_envs=8, n_steps=32, batch_size=256, lam=0.8, gamma=0.98, epochs=20,
        lr=2e-3, clip=0.2, schedule="linear",
    ),
    # rl-baselines3-zoo again
    "ppo/LunarLander-v3": replace(
        DEFAULTS["ppo"], env="LunarLander-v3", num_envs=16, n_steps=1024, batch_size=64, lam=0.98, gamma=0.999,
        epochs=4, entropy_coef=0.01,
    ),
    "ppo/LunarLanderContinuous-v3": replace(
        DEFAULTS["ppo"], env="LunarLanderContinuous-v3", num_envs=16, n_steps=1024, batch_size=64, lam=0.98,
        gamma=0.999, epochs=4, entropy_coef=0.01,
    ),
    # rl-baselines3-zoo hyperparams/a2c.yml
    "a2c/CartPole-v1": replace(DEFAULTS["a2c"], steps=500_000),
    "a2c/LunarLander-v3": replace(
        DEFAULTS["a2c"], env="LunarLander-v3", steps=200_000, gamma=0.995, lr=8.3e-4, schedule="linear",
        entropy_coef=1e-5,
    ),
    # ours: the zoo has no REINFORCE
    "reinforce/CartPole-v1": replace(DEFAULTS["reinforce"], steps=300_000),
}  # fmt: skip


def starting_point(algorithm: str, fields: Mapping[str, Any]) -> Config:
    """The preset for an algorithm and the world among `fields`, or else the algorithm's defaults.

    Raises: ConfigError for an unknown algorithm, offering the nearest.
    """
    if algorithm not in DEFAULTS:
        raise ConfigError(f"{algorithm!r} is not an algorithm for control. {nearest(algorithm, DEFAULTS)}")
    env = fields.get("env", DEFAULTS[algorithm].env)
    return PRESETS.get(f"{algorithm}/{env}", replace(DEFAULTS[algorithm], env=env))


@dataclass(frozen=True)
class Method:
    """An algorithm with its choices made.

    loss: at the start. updates: optimizer steps of the whole run, where known. fit: from (learner, collector,
    after_step).
    """

    loss: PolicyLoss
    updates: int
    fit: Callable[[PolicyLearner, Collector, Callable[[int, Metrics], bool]], None]


def method_of(config: Config) -> Method:
    """The algorithm that a configuration names."""
    coefs = {"gamma": config.gamma, "value_coef": config.value_coef, "entropy_coef": config.entropy_coef}
    per_rollout = config.num_envs * config.n_steps
    rollouts = -(-config.steps // per_rollout)
    if config.algo == "ppo":
        p = ppo.Config(
            **coefs,
            lam=config.lam,
            epochs=config.epochs,
            batch_size=config.batch_size,
            clip=config.clip,
            schedule=config.schedule,
            value_clip=config.value_clip,
            target_kl=config.target_kl,
        )
        updates = rollouts * config.epochs * -(-per_rollout // config.batch_size)
        return Method(
            ppo.loss(p, 1.0),
            updates,
            lambda learner, collector, after: ppo.fit(
                learner, collector, p, steps=config.steps, seed=config.seed, after_step=after
            ),
        )
    if config.algo == "a2c":
        a = a2c.Config(**coefs, lam=config.lam)
        return Method(
            a2c.loss(a),
            rollouts,
            lambda learner, collector, after: a2c.fit(learner, collector, a, steps=config.steps, after_step=after),
        )
    r = reinforce.Config(**coefs, episodes=config.num_envs)
    return Method(
        reinforce.loss(r),
        0,
        lambda learner, collector, after: reinforce.fit(
            learner, collector, r, steps=config.steps, seed=config.seed, after_step=after
        ),
    )


def optimizer_of(config: Config, updates: int) -> OptimConfig:
    """Adam with PPO's epsilon, or A2C's RMSprop (smoothing 0.99), for `updates` steps."""
    return OptimConfig(
        lr=config.lr,
        name="rmsprop" if config.algo == "a2c" else "adam",
        betas=(0.9, 0.99) if config.algo == "a2c" else (0.9, 0.999),
        eps=1e-5,
        max_grad_norm=config.max_grad_norm,
        schedule=config.schedule,
        total_steps=updates,
    )


def policy_of(config: Config, env: ControlEnv) -> Policy:
    """The actor and critic for a world's observations and actions."""
    seed = derive_seed(config.seed, "policy")
    if isinstance(env.actions, Discrete):
        return CategoricalPolicy(env.obs_dim, env.actions.n, hidden=config.hidden, seed=seed)
    return GaussianPolicy(env.obs_dim, env.actions.dim, hidden=config.hidden, seed=seed)


@dataclass
class Loop:
    """The bookkeeping after each update, on a clock of environment steps.

    evaluate: environment steps so far -> metrics. parts: what a checkpoint holds. done: steps at the last call.
    last: the latest of each metric.
    """

    run: Run
    config: Config
    bar: Bar
    evaluate: Callable[[int], Metrics]
    parts: dict[str, Any]
    done: int
    last: Metrics = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def after_step(self, steps: int, metrics: Metrics) -> bool:
        """Log, evaluate and save where a multiple of their intervals was passed; True when training must stop."""
        finished = steps >= self.config.steps
        if finished or self._passed(self.config.eval_every, steps):
            metrics |= self.evaluate(steps)
        if "eval/return" in metrics or self.run.interrupted or self._passed(LOG_EVERY, steps):
            rate = (steps - self.done) / (time.perf_counter() - self.started)
            self.run.log(steps, metrics, {"rate/env_steps_per_second": rate})
        self.last |= metrics
        shown = {"rollout/return": "return", "eval/return": "evaluated"}
        self.bar.advance(steps - self.done, **{name: self.last[k] for k, name in shown.items() if k in self.last})
        if finished or self.run.interrupted or self._passed(self.config.save_every, steps):
            self.run.save(steps, **self.parts)
        self.done, self.started = steps, time.perf_counter()
        return self.run.interrupted and not finished

    def _passed(self, every: int, steps: int) -> bool:
        return every > 0 and steps // every > self.done // every


def main(config: Config, resume: Path | None = None) -> Report:
    """Train (or, given a run directory, continue training) one seed or several.

    Raises: SystemExit with EXIT_INTERRUPTED when a signal ended it early; everything is saved then.
    """
    if config.seeds > 1:
        from onepolicy.recipes.seeds import train_seeds

        return train_seeds(config, resume)
    torch.set_num_threads(config.threads)
    env = make(config.env, config.num_envs, derive_seed(config.seed, "env"))
    exam_env = make(config.env, min(config.eval_episodes, MOST_WORLDS), derive_seed(config.seed, "exam"))
    policy = policy_of(config, env)
    run = open_run(config, resume)
    method = method_of(config)
    learner = PolicyLearner(
        policy, method.loss, optim=optimizer_of(config, method.updates), dump_dir=run.directory / "bad"
    )
    collector = Collector(env, policy, steps=config.n_steps, seed=config.seed)

    def evaluate(steps: int) -> Metrics:
        seed = derive_seed(config.seed, "exam", steps)
        return play(exam_env, policy.greedy(), config.eval_episodes, seed).metrics()

    parts = {"policy": policy, "learner": learner, "collector": collector}
    with run:
        start = run.resume(**parts)
        if start == 0:
            say_if_short(run, config)
            run.log(0, evaluate(0))
        with progress(config.steps, f"{config.algo} {config.env} seed {config.seed}", done=start) as bar:
            loop = Loop(run, config, bar, evaluate, parts, start)
            method.fit(learner, collector, loop.after_step)
        stopped = run.interrupted and loop.done < config.steps
        text = "" if stopped else finish(run, config, collector.env_steps, loop.last or evaluate(collector.env_steps))
    if stopped:
        print(f"Interrupted and saved. Continue with: onepolicy resume {run.directory}")
        raise SystemExit(EXIT_INTERRUPTED)
    return Report(run.directory, loop.last, policy, text)


def open_run(config: Config, resume: Path | None) -> Run:
    """The run directory to go on with, or a new one."""
    if resume:
        return Run.open(resume)
    return Run.create(run_directory(config.out, config.algo), recipe=RECIPE, config=to_json(config))


def say_if_short(run: Run, config: Config) -> None:
    """Notes in the run's log that a rollout has more steps than were asked for; REINFORCE counts in episodes."""
    rollout = config.num_envs * config.n_steps
    if config.algo != "reinforce" and config.steps < rollout:
        run.say(
            f"steps is {config.steps:,}, less than one rollout ({config.num_envs} worlds x {config.n_steps} steps): "
            f"{rollout:,} are played and learnt from once. Lower n_steps or num_envs for fewer."
        )


def finish(run: Run, config: Config, steps: int, last: Metrics) -> str:
    """The report's first lines; report.md and curves.png in the run directory."""
    text = (
        f"{config.algo} on {config.env}, seed {config.seed}: mean return {last['eval/return']:.1f} "
        f"[{last['eval/return_low']:.1f}, {last['eval/return_high']:.1f}] over {config.eval_episodes} greedy episodes "
        f"after {steps:,} steps."
    )
    run.finish(text)
    return text


def load(run: Run) -> Report:
    """A run's newest checkpoint: its policy and last metrics; of several seeds, the one with the best last evaluation.

    Raises: CheckpointError when there is no valid checkpoint.
    """
    config = from_json(Config, run.config)
    if config.seeds > 1:
        from onepolicy.recipes.seeds import best_seed

        return load(Run.open(best_seed(config, run.directory)))
    policy = policy_of(config, make(config.env, 1, 0))
    step = run.load(policy=policy)
    return Report(run.directory, last_metrics(run.directory), policy, f"{config.algo} on {config.env} at step {step:,}")


def last_metrics(directory: Path) -> Metrics:
    """The latest of each metric of a run; nothing before the first line."""
    found: Metrics = {}
    for line in read_lines(directory / "metrics.jsonl"):
        found |= {key: float(value) for key, value in line.items() if key != "step" and value is not None}
    return found
