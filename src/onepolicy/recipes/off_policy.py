"""Control from memory: DQN, DDPG, TD3, SAC, MBPO or PETS in a gymnasium world or one of ours, S seeds in one process.

The walk: this recipe makes Config and Run, `envs` the worlds, `acting.explore` plays them into `data.replay`, `algos`
has targets, losses and the loop, `learning.stacked` steps, `evaluation.returns` measures, and `run` logs and saves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from onepolicy.acting.explore import Explorer
from onepolicy.acting.imagine import Imagination
from onepolicy.acting.joint import JointPolicy
from onepolicy.acting.planning import PlanningPolicy
from onepolicy.algos import dqn, mbpo, pets, sac, td3
from onepolicy.data.frames import FrameReplay
from onepolicy.data.replay import Replay
from onepolicy.envs.joint import Joint
from onepolicy.envs.scaled import Scaled, bounds
from onepolicy.envs.vector import Box, ControlEnv, Discrete, MultiDiscrete, make
from onepolicy.errors import ConfigError
from onepolicy.evaluation.returns import MOST_WORLDS, play
from onepolicy.learning.optim import OptimConfig
from onepolicy.learning.world_model import WorldModel
from onepolicy.nn.actors import ActorPolicy, SquashedPolicy
from onepolicy.nn.discrete import SoftmaxPolicy
from onepolicy.nn.greedy import GreedyPolicy
from onepolicy.nn.policies import ControlPolicy
from onepolicy.nn.stacked import alone
from onepolicy.recipes.callbacks import Callback, Watch
from onepolicy.recipes.loop import run_directory
from onepolicy.recipes.off_policy_config import (
    DEFAULTS,
    PRESETS,
    Config,
    dqn_of,
    mbpo_of,
    pets_of,
    sac_of,
    starting_point,
    td3_of,
    world_model_of,
)
from onepolicy.recipes.side_by_side import Loop, last_of, reached, table_of
from onepolicy.run.config import EXIT_INTERRUPTED, from_json, to_json
from onepolicy.run.progress import progress
from onepolicy.run.report import Report
from onepolicy.run.run import Run
from onepolicy.run.seeding import derive_seed
from onepolicy.types import Metrics

__all__ = ["DEFAULTS", "PRESETS", "Config", "load", "main", "starting_point"]
RECIPE = "off_policy"
Learner = dqn.Learner | td3.Learner | sac.Learner | sac.DiscreteLearner | pets.Learner


def seeds_of(config: Config) -> tuple[int, ...]:
    """The seed of each learner."""
    return tuple(range(config.seed, config.seed + config.seeds))


def worlds_of(config: Config, seed: int) -> ControlEnv:
    """The worlds of one seed, as its learner acts in them: real-valued actions run from -1 to 1."""
    env = numbered(config, make(config.env, config.num_envs, seed, config.world, training=True))
    return env if config.algo == "dqn" or (config.algo == "sac" and isinstance(env.actions, Discrete)) else Scaled(env)


def numbered(config: Config, env: ControlEnv) -> ControlEnv:
    """The world with several choices at once as one of their combinations, for who values each action."""
    return Joint(env) if config.algo in ("dqn", "sac") and isinstance(env.actions, MultiDiscrete) else env


def learner_of(config: Config, env: ControlEnv) -> Learner:
    """All seeds' networks and optimizers. Raises: ConfigError for a world whose actions the algorithm cannot choose."""
    optim = OptimConfig(
        lr=config.lr,
        name="adam",
        max_grad_norm=config.max_grad_norm,
        schedule=config.schedule,
        total_steps=config.updates,
    )
    seeds, actions = seeds_of(config), env.actions
    if env.layout is not None and config.algo != "dqn":
        raise ConfigError(
            f"{config.env} shows images; {config.algo} sees vectors. Use dqn, or ppo for real-valued actions, or show "
            "them as vectors with world.flat."
        )
    if config.algo == "dqn":
        if not isinstance(actions, Discrete):
            raise ConfigError(
                f"dqn chooses among numbered actions; {config.env} takes real numbers. Use sac, td3 or ddpg."
            )
        masked = actions.masked
        return dqn.Learner(
            seeds, env.obs_dim, actions.n, config.hidden, dqn_of(config), optim, env.layout, masked=masked
        )
    if config.algo == "sac" and isinstance(actions, Discrete):
        return sac.DiscreteLearner(
            seeds, env.obs_dim, actions.n, config.hidden, sac_of(config), optim, masked=actions.masked
        )
    dim = len(bounds(env)[0])
    if config.plan.use:
        return pets.Learner(seeds, config.num_envs, env.obs_dim, dim, pets_of(config), world_model_of(config))
    if config.algo in ("sac", "mbpo"):
        return sac.Learner(seeds, env.obs_dim, dim, config.hidden, sac_of(config), optim)
    return td3.Learner(seeds, env.obs_dim, dim, config.hidden, td3_of(config), optim)


def memory_of(config: Config, env: ControlEnv) -> Replay | FrameReplay:
    """What all seeds remember: whole rows, or each frame of images once."""
    actions = env.actions
    chosen: dict[str, Any] = {"gamma": config.gamma, "n_step": config.n_step}
    if config.algo == "dqn":
        chosen["priority"] = config.dqn.priority
    places = (seeds_of(config), config.capacity, config.num_envs, env.obs_dim)
    if env.layout is not None:
        return FrameReplay(*places, stack=env.layout.stack, bits=actions.bits, **chosen)
    return Replay(*places, actions.dim if isinstance(actions, Box) else None, **chosen)


def imagining(config: Config, env: ControlEnv) -> dict[str, Any]:
    """MBPO's further parts, by the names of `mbpo.fit`; nothing for other algorithms."""
    if config.algo != "mbpo" or config.plan.use:
        return {}
    seeds, dim, own = seeds_of(config), len(bounds(env)[0]), config.mbpo
    imagination = Imagination(
        seeds, env.obs_dim, dim, capacity=own.kept * own.width * own.final_length, width=own.width, gamma=config.gamma
    )
    return {"model": WorldModel(seeds, env.obs_dim, dim, world_model_of(config)), "imagination": imagination}


def fit(learner: Learner, explorer: Explorer, config: Config, loop: Loop, further: dict[str, Any]) -> None:
    """The algorithm's own loop."""
    if isinstance(learner, dqn.Learner):
        dqn.fit(learner, explorer, dqn_of(config), steps=config.steps, after_step=loop.after_step)
    elif isinstance(learner, pets.Learner):
        pets.fit(learner, explorer, steps=config.steps, after_step=loop.after_step)
    elif config.algo == "mbpo":
        assert isinstance(learner, sac.Learner)
        after = loop.after_step
        mbpo.fit(learner, explorer=explorer, config=mbpo_of(config), steps=config.steps, after_step=after, **further)
    elif isinstance(learner, sac.Learner | sac.DiscreteLearner):
        sac.fit(learner, explorer, sac_of(config), steps=config.steps, after_step=loop.after_step)
    else:
        td3.fit(learner, explorer, td3_of(config), steps=config.steps, after_step=loop.after_step)


def main(config: Config, resume: Path | None = None, callbacks: Sequence[Callback] = ()) -> Report:
    """Train (or, given a run directory, continue training) all seeds.

    callbacks: called at each line that is logged; see `callbacks.Event`.
    Raises: SystemExit with EXIT_INTERRUPTED when a signal ended it early; everything is saved then.
    """
    torch.set_num_threads(config.threads)
    seeds = seeds_of(config)
    envs = [worlds_of(config, derive_seed(seed, "env")) for seed in seeds]
    exam_env = make(config.env, min(config.eval_episodes, MOST_WORLDS), derive_seed(config.seed, "exam"), config.world)
    learner = learner_of(config, envs[0])
    replay = memory_of(config, envs[0])
    explorer = Explorer(envs, replay, seeds, random_steps=config.learning_starts)
    run = (
        Run.open(resume)
        if resume
        else Run.create(run_directory(config.out, config.algo), recipe=RECIPE, config=to_json(config))
    )

    def evaluate(steps: int) -> list[Metrics]:
        return [
            play(
                exam_env,
                policy_of(learner, k, exam_env).greedy(),
                config.eval_episodes,
                derive_seed(seed, "exam", steps),
            ).metrics()
            for k, seed in enumerate(seeds)
        ]

    def policies() -> list[ControlPolicy]:
        return [cast(ControlPolicy, policy_of(learner, k, exam_env)) for k in range(len(seeds))]

    watch = Watch(run, callbacks, policies, exam_env, stop_at_return=config.stop_at_return, video=config.video)
    further = imagining(config, envs[0])
    parts: dict[str, Any] = {"learner": learner, "explorer": explorer, **further}
    if isinstance(replay, FrameReplay):
        parts["frames"] = replay
    with run:
        start = run.resume(**parts)
        title = f"{config.algo} {config.env}, " + (f"{len(seeds)} seeds" if len(seeds) > 1 else f"seed {config.seed}")
        with progress(config.steps, title, done=start) as bar:
            loop = Loop(
                run,
                config.steps,
                config.eval_every,
                config.save_every,
                bar,
                evaluate,
                explorer.metrics,
                parts,
                seeds,
                watch,
                start,
            )
            if start == 0:
                loop.begin()
            if not (start and reached(watch, run.directory, seeds)):
                fit(learner, explorer, config, loop, further)
        stopped = run.interrupted and explorer.steps < config.steps and not loop.over
        text = "" if stopped else finish(run, config)
    if stopped:
        print(f"Interrupted and saved. Continue with: onepolicy resume {run.directory}")
        raise SystemExit(EXIT_INTERRUPTED)
    return load(run, text)


Policy = GreedyPolicy | SoftmaxPolicy | JointPolicy | ActorPolicy | SquashedPolicy | PlanningPolicy


def policy_of(learner: Learner, k: int, env: ControlEnv) -> Policy:
    """What the k-th seed has learnt, for a world's own actions."""
    if isinstance(learner, dqn.Learner | sac.DiscreteLearner):
        found = (
            GreedyPolicy(alone(learner.q, k), learner.obs_dim)
            if isinstance(learner, dqn.Learner)
            else SoftmaxPolicy(alone(learner.actor, k), learner.obs_dim)
        )
        several = env.actions if isinstance(env.actions, MultiDiscrete) else None
        return JointPolicy(found, several.sizes, masked=several.masked) if several else found
    if isinstance(learner, pets.Learner):
        seed = derive_seed(learner.seeds[k], "plan exam")
        return PlanningPolicy(learner.model.dynamics.alone(k), learner.config.plan, *bounds(env), seed)
    if isinstance(learner, sac.Learner):
        return SquashedPolicy(alone(learner.actor, k), learner.obs_dim, *bounds(env))
    return ActorPolicy(alone(learner.actor, k), learner.obs_dim, *bounds(env))


def finish(run: Run, config: Config) -> str:
    """The report's first lines; report.md and curves.png in the run directory."""
    scores = last_of(run.directory, seeds_of(config), "eval/return")
    over = f"over {config.eval_episodes} greedy episodes after {config.steps:,} steps"
    if config.seeds == 1:
        text = f"{config.algo} on {config.env}, seed {config.seed}: mean return {scores[config.seed]:.1f} {over}."
        run.finish(text)
        return text
    text = f"{config.algo} on {config.env}, {config.seeds} seeds: mean return {over}; 95 % bootstrap over seeds."
    table = table_of(scores)
    run.finish(text, tables={"Return by seed": table})
    return f"{text}\n{table}"


def load(run: Run, text: str = "") -> Report:
    """A run's newest checkpoint: its policy, of several seeds that with the best last evaluation, and last metrics.

    Raises: CheckpointError when there is no valid checkpoint.
    """
    config = from_json(Config, run.config)
    env = make(config.env, 1, 0, replace(config.world, workers=0))
    learner = learner_of(config, numbered(config, env))
    step = run.load(learner=learner)
    scores = last_of(run.directory, seeds_of(config), "eval/return")
    best = max(scores, key=lambda seed: scores[seed])
    metrics = {"eval/return": scores[best]}
    words = text or f"{config.algo} on {config.env} at step {step:,}"
    return Report(run.directory, metrics, policy_of(learner, best - config.seed, env), words)
