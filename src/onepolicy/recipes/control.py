"""Control: REINFORCE, A2C, PPO or TRPO in a gymnasium world or one of ours, one seed or several.

The walk: this recipe makes Config and Run, `envs` the worlds, `acting.collect` plays them, `algos` gives credit,
`data.rollout` shuffles, `learning.learner` steps, `evaluation.returns` measures, and `run` logs and saves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from onepolicy.acting.collect import Collector
from onepolicy.acting.normalised import NormalisedPolicy
from onepolicy.algos import a2c, ppo, reinforce, trpo
from onepolicy.core.policy import PolicyLoss
from onepolicy.envs.normalise import Normalised
from onepolicy.envs.vector import ControlEnv, Discrete, MultiDiscrete, make
from onepolicy.errors import ConfigError
from onepolicy.evaluation.returns import MOST_WORLDS, play
from onepolicy.learning.learner import PolicyLearner
from onepolicy.learning.optim import OptimConfig
from onepolicy.nn.multi import MultiCategoricalPolicy
from onepolicy.nn.policies import CategoricalPolicy, ControlPolicy, GaussianPolicy
from onepolicy.nn.state_noise import StateNoisePolicy
from onepolicy.recipes.callbacks import Callback, Watch
from onepolicy.recipes.control_config import DEFAULTS, PRESETS, Config, starting_point
from onepolicy.recipes.loop import run_directory
from onepolicy.run.config import EXIT_INTERRUPTED, from_json, to_json
from onepolicy.run.journal import read_lines
from onepolicy.run.progress import Bar, progress
from onepolicy.run.report import Report
from onepolicy.run.run import Run
from onepolicy.run.seeding import derive_seed
from onepolicy.types import Metrics

__all__ = ["DEFAULTS", "PRESETS", "Config", "load", "main", "starting_point"]
RECIPE = "control"
Policy = CategoricalPolicy | MultiCategoricalPolicy | GaussianPolicy | StateNoisePolicy
LOG_EVERY = 1000
"""Environment steps between lines of metrics.jsonl; evaluated and last steps are always logged."""


@dataclass(frozen=True)
class Method:
    """An algorithm with its choices made.

    loss: at the start. updates: optimizer steps of the whole run, where known. fit: from (learner, collector,
    after_step). parts: what a checkpoint must hold besides policy, learner and collector.
    """

    loss: PolicyLoss
    updates: int
    fit: Callable[[PolicyLearner, Collector, Callable[[int, Metrics], bool]], None]
    parts: dict[str, Any] = field(default_factory=dict)


def method_of(config: Config) -> Method:
    """The algorithm that a configuration names."""
    coefs = {"gamma": config.gamma, "value_coef": config.value_coef, "entropy_coef": config.entropy_coef}
    per_rollout = config.num_envs * config.n_steps
    rollouts = -(-config.steps // per_rollout)
    updates = rollouts * config.epochs * minibatches_of(config)
    steps, seed = config.steps, config.seed
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
            penalty=config.penalty,
        )
        penalty = None if config.penalty is None else ppo.Penalty(config.penalty)
        return Method(
            ppo.loss(p, 1.0, config.penalty),
            updates,
            lambda learner, collector, after: ppo.fit(
                learner, collector, p, penalty, steps=steps, seed=seed, after_step=after
            ),
            {"penalty": penalty} if penalty else {},
        )
    if config.algo == "trpo":
        t = trpo_config(config)
        failures = trpo.Failures()
        return Method(
            trpo.loss(),
            updates,
            lambda learner, collector, after: trpo.fit(
                learner, collector, t, failures, steps=steps, seed=seed, after_step=after
            ),
            {"failures": failures},
        )
    if config.algo == "a2c":
        a = a2c.Config(**coefs, lam=config.lam)
        return Method(
            a2c.loss(a),
            rollouts,
            lambda learner, collector, after: a2c.fit(learner, collector, a, steps=steps, after_step=after),
        )
    r = reinforce.Config(**coefs, episodes=config.num_envs)
    return Method(
        reinforce.loss(r),
        0,
        lambda learner, collector, after: reinforce.fit(
            learner, collector, r, steps=steps, seed=seed, after_step=after
        ),
    )


def minibatches_of(config: Config) -> int:
    """Minibatches of a rollout: of steps, or of a recurrent policy's whole sequences."""
    if config.recurrent == "none":
        return -(-config.num_envs * config.n_steps // config.batch_size)
    return -(-config.num_envs // max(1, config.batch_size // config.n_steps))


def trpo_config(config: Config) -> trpo.Config:
    """TRPO's choices. Raises: ConfigError without a target_kl."""
    if config.target_kl is None:
        raise ConfigError("target_kl is None; TRPO's step is as long as its bound on the KL allows. Set it, to 0.01.")
    return trpo.Config(
        gamma=config.gamma,
        lam=config.lam,
        target_kl=config.target_kl,
        damping=config.trpo.damping,
        cg_steps=config.trpo.cg_steps,
        shrink=config.trpo.shrink,
        tries=config.trpo.tries,
        epochs=config.epochs,
        batch_size=config.batch_size,
    )


def optimizer_of(config: Config, updates: int) -> OptimConfig:
    """Adam with PPO's epsilon, or A2C's RMSprop (smoothing 0.99), for `updates` steps."""
    return OptimConfig(
        lr=config.lr,
        name=config.a2c.optimizer if config.algo == "a2c" else "adam",
        betas=(0.9, 0.99) if config.algo == "a2c" else (0.9, 0.999),
        eps=1e-5,
        max_grad_norm=config.max_grad_norm,
        schedule=config.schedule,
        total_steps=updates,
    )


def require_no_sde(config: Config) -> None:
    """Raises: ConfigError for noise that depends on the state, in a world of numbered actions."""
    if config.sde.use:
        raise ConfigError(f"sde.use with {config.env}, whose actions are numbered; noise is for real-valued ones.")


def policy_of(config: Config, env: ControlEnv) -> Policy:
    """The actor and critic for a world's observations and actions."""
    actions, seed = env.actions, derive_seed(config.seed, "policy")
    chosen: dict[str, Any] = {"hidden": config.hidden, "recurrent": config.recurrent, "seed": seed}
    chosen |= {"options": config.network, "layout": env.layout}
    if isinstance(actions, Discrete):
        require_no_sde(config)
        return CategoricalPolicy(env.obs_dim, actions.n, masked=actions.masked, **chosen)
    if isinstance(actions, MultiDiscrete):
        require_no_sde(config)
        return MultiCategoricalPolicy(env.obs_dim, actions.sizes, masked=actions.masked, **chosen)
    if not config.sde.use:
        return GaussianPolicy(env.obs_dim, actions.dim, log_std=config.log_std, **chosen)
    return state_noise_of(config, env.obs_dim, actions.dim, seed, images=env.layout is not None)


def state_noise_of(config: Config, obs_dim: int, dim: int, seed: int, *, images: bool) -> StateNoisePolicy:
    """The policy whose noise depends on the state. Raises: ConfigError with a memory, and for images."""
    if images or config.recurrent != "none":
        raise ConfigError(
            f"sde.use with {'images' if images else f'recurrent {config.recurrent!r}'}; the noise is known for plain "
            "layers. Set sde.use False, or leave these out."
        )
    return StateNoisePolicy(
        obs_dim,
        dim,
        hidden=config.hidden,
        log_std=config.log_std if config.sde.log_std is None else config.sde.log_std,
        sample_freq=config.sde.sample_freq,
        full_std=config.sde.full_std,
        seed=seed,
        options=config.network,
    )


def scaled(config: Config, env: ControlEnv, policy: Policy) -> tuple[ControlEnv, ControlPolicy, dict[str, Any]]:
    """The world to train in, the policy for the world as it is, and what a checkpoint holds of the scaling."""
    if not (config.norm_obs or config.norm_reward):
        return env, policy, {}
    inner = Normalised(env, gamma=config.gamma, obs=config.norm_obs, reward=config.norm_reward)
    if inner.obs_moments is None:
        return inner, policy, {}
    return inner, NormalisedPolicy(policy, inner.obs_moments), {"normaliser": inner.obs_moments}


@dataclass
class Loop:
    """The bookkeeping after each update, on a clock of environment steps.

    evaluate: environment steps so far -> metrics. parts: what a checkpoint holds. done: steps at the last call.
    last: the latest of each metric. over: whether training was ended before its last step.
    """

    run: Run
    config: Config
    bar: Bar
    evaluate: Callable[[int], Metrics]
    parts: dict[str, Any]
    watch: Watch
    done: int
    over: bool = False
    last: Metrics = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def after_step(self, steps: int, metrics: Metrics) -> bool:
        """Log, evaluate and save where a multiple of their intervals was passed; True when training must stop."""
        finished = steps >= self.config.steps
        if finished or self._passed(self.config.eval_every, steps):
            metrics |= self.evaluate(steps)
        if "eval/return" in metrics or self.run.interrupted or self._passed(LOG_EVERY, steps):
            self.over = self.watch.stops(steps, metrics) and not finished
            if self.over and "eval/return" not in metrics:
                metrics |= self.evaluate(steps)
            rate = (steps - self.done) / (time.perf_counter() - self.started)
            self.run.log(steps, metrics, {"rate/env_steps_per_second": rate})
        self.last |= metrics
        shown = {"rollout/return": "return", "eval/return": "evaluated"}
        self.bar.advance(steps - self.done, **{name: self.last[k] for k, name in shown.items() if k in self.last})
        if finished or self.over or self.run.interrupted or self._passed(self.config.save_every, steps):
            self.run.save(steps, **self.parts)
        self.watch.film(steps, self.done, finished=finished or self.over)
        self.done, self.started = steps, time.perf_counter()
        return (self.run.interrupted or self.over) and not finished

    def _passed(self, every: int, steps: int) -> bool:
        return every > 0 and steps // every > self.done // every


def main(config: Config, resume: Path | None = None, callbacks: Sequence[Callback] = ()) -> Report:
    """Train (or, given a run directory, continue training) one seed or several.

    callbacks: called at each line that is logged; see `callbacks.Event`.
    Raises: SystemExit with EXIT_INTERRUPTED when a signal ended it early; everything is saved then.
    """
    if config.seeds > 1:
        from onepolicy.recipes.seeds import train_seeds

        return train_seeds(config, resume, callbacks)
    torch.set_num_threads(config.threads)
    env = make(config.env, config.num_envs, derive_seed(config.seed, "env"), config.world, training=True)
    exam_env = make(config.env, min(config.eval_episodes, MOST_WORLDS), derive_seed(config.seed, "exam"), config.world)
    policy = policy_of(config, env)
    env, player, scaling = scaled(config, env, policy)
    run = open_run(config, resume)
    method = method_of(config)
    learner = PolicyLearner(
        policy, method.loss, optim=optimizer_of(config, method.updates), dump_dir=run.directory / "bad"
    )
    collector = Collector(env, policy, steps=config.n_steps, seed=config.seed)

    def evaluate(steps: int) -> Metrics:
        seed = derive_seed(config.seed, "exam", steps)
        return play(exam_env, player.greedy(), config.eval_episodes, seed).metrics()

    parts = {"policy": policy, "learner": learner, "collector": collector, **scaling, **method.parts}
    with run:
        start = run.resume(**parts)
        if start == 0:
            say_if_short(run, config)
            run.log(0, evaluate(0))
        with progress(config.steps, f"{config.algo} {config.env} seed {config.seed}", done=start) as bar:
            loop = Loop(run, config, bar, evaluate, parts, watch_of(run, config, callbacks, [player], env), start)
            if not (start and loop.watch.reached(last_metrics(run.directory))):
                method.fit(learner, collector, loop.after_step)
        stopped = run.interrupted and loop.done < config.steps and not loop.over
        text = "" if stopped else finish(run, config, collector.env_steps, loop.last or evaluate(collector.env_steps))
    if stopped:
        print(f"Interrupted and saved. Continue with: onepolicy resume {run.directory}")
        raise SystemExit(EXIT_INTERRUPTED)
    return Report(run.directory, loop.last, player, text)


def open_run(config: Config, resume: Path | None) -> Run:
    """The run directory to go on with, or a new one."""
    if resume:
        return Run.open(resume)
    return Run.create(run_directory(config.out, config.algo), recipe=RECIPE, config=to_json(config))


def watch_of(
    run: Run, config: Config, callbacks: Sequence[Callback], players: Sequence[ControlPolicy], env: ControlEnv
) -> Watch:
    """The callbacks and what the configuration says of an early stop and of videos."""
    return Watch(run, callbacks, lambda: players, env, stop_at_return=config.stop_at_return, video=config.video)


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
        from onepolicy.recipes import lockstep, seeds

        if not seeds.apart(run.directory):
            return lockstep.load(run, config)
        return load(Run.open(seeds.best_seed(config, run.directory)))
    env = make(config.env, 1, 0, replace(config.world, workers=0))
    policy = policy_of(config, env)
    _, player, scaling = scaled(config, env, policy)
    step = run.load(policy=policy, **scaling)
    return Report(run.directory, last_metrics(run.directory), player, f"{config.algo} on {config.env} at step {step:,}")


def last_metrics(directory: Path) -> Metrics:
    """The latest of each metric of a run; nothing before the first line."""
    found: Metrics = {}
    for line in read_lines(directory / "metrics.jsonl"):
        found |= {key: float(value) for key, value in line.items() if key != "step" and value is not None}
    return found
