"""Several seeds of PPO or A2C in lockstep: S policies, their worlds and their updates side by side in one process.

Each seed has its own worlds, generators, minibatches and optimizer state; its numbers are those it has alone, to
rounding. In: the loop of both algorithms over S learners, and the run around it. Not in: what differs by learner in how
many steps or updates it takes (REINFORCE's episodes, TRPO's line search, PPO's early stop and penalty), images, masks:
such seeds train in processes of their own (seeds.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from onepolicy.acting.together import Together
from onepolicy.algos import a2c, ppo
from onepolicy.batch import PolicyBatch
from onepolicy.envs.batched import Batched
from onepolicy.envs.normalise import Normalised
from onepolicy.envs.vector import ControlEnv, make
from onepolicy.evaluation.returns import MOST_WORLDS, play
from onepolicy.learning.stacked import StackedPolicyLearner
from onepolicy.nn.policies import ControlPolicy
from onepolicy.nn.stacked_policy import Plain, StackedPolicy, plain
from onepolicy.recipes import control
from onepolicy.recipes.callbacks import Callback
from onepolicy.recipes.control_config import Config
from onepolicy.recipes.side_by_side import Loop, last_of, reached, table_of
from onepolicy.run.config import EXIT_INTERRUPTED
from onepolicy.run.progress import progress
from onepolicy.run.report import Report
from onepolicy.run.run import Run
from onepolicy.run.seeding import derive_rng, derive_seed
from onepolicy.types import Metrics

WIDEST = 128
"""Hidden width up to which lockstep beats a process for each core."""
AfterStep = Callable[[int, Mapping[str, Tensor]], bool]


def in_lockstep(config: Config, env: ControlEnv) -> bool:
    """Whether the seeds of a run train in lockstep: PPO or A2C, small plain policies, in a world of arrays.

    Where the world or the networks take most of the time, processes on several cores are faster.
    """
    alike = config.algo == "a2c" or (config.algo == "ppo" and config.target_kl is None and config.penalty is None)
    return alike and isinstance(env, Batched) and max(config.hidden) <= WIDEST and plain(control.policy_of(config, env))


def seeds_of(config: Config) -> tuple[int, ...]:
    """The seed of each learner."""
    return tuple(range(config.seed, config.seed + config.seeds))


def whitened(advantage: Tensor) -> Tensor:
    """Each row of [S, B] with mean 0 and standard deviation 1, as `core.advantages.whiten` does with a whole batch."""
    if advantage.shape[-1] == 1:
        return advantage
    exact = advantage.double()
    deviation = exact - exact.mean(-1, keepdim=True)
    return (deviation / (exact.std(-1, keepdim=True) + 1e-8)).to(advantage.dtype)


def minibatches(batch: PolicyBatch, config: Config, start: int) -> Iterator[PolicyBatch]:
    """PPO's minibatches [S, b] of every epoch, each seed's in an order of its own, advantages whitened."""
    seeds, rows = batch.mask.shape
    if config.batch_size >= rows:
        yield from [replace(batch, advantage=whitened(batch.advantage))] * config.epochs
        return
    learner = torch.arange(seeds).unsqueeze(1)
    for epoch in range(config.epochs):
        orders = [derive_rng(seed, "minibatch", start, epoch).permutation(rows) for seed in seeds_of(config)]
        for index in torch.from_numpy(np.stack(orders)).split(config.batch_size, dim=1):
            part = batch.map(lambda x, index=index: x[learner, index])  # type: ignore[misc]
            yield replace(part, advantage=whitened(part.advantage))


def explained(batch: PolicyBatch) -> Tensor:
    """1 - Var(target - V) / Var(target) of each row, [S]; NaN where the targets do not vary."""
    assert batch.value_old is not None
    assert batch.value_target is not None
    target, left = batch.value_target.double(), (batch.value_target - batch.value_old).double()
    share = 1.0 - left.var(-1, correction=0) / target.var(-1, correction=0)
    return torch.where((target != target[:, :1]).any(-1), share, torch.nan)


def fit(learner: StackedPolicyLearner, together: Together, config: Config, after_step: AfterStep) -> None:
    """Train every seed until it has played its steps, from as many as it has behind it.

    after_step(environment steps of each seed so far, metrics [S]): after each rollout's updates; True stops.
    """
    chosen = (
        ppo.Config(gamma=config.gamma, lam=config.lam, clip=config.clip, value_clip=config.value_clip,
                   value_coef=config.value_coef, entropy_coef=config.entropy_coef)
        if config.algo == "ppo"
        else a2c.Config(gamma=config.gamma, lam=config.lam, value_coef=config.value_coef,
                        entropy_coef=config.entropy_coef)
    )  # fmt: skip
    while together.env_steps < config.steps:
        start = together.env_steps
        rollout = together.collect()
        if isinstance(chosen, ppo.Config):
            share = 1.0 - start / config.steps if config.schedule == "linear" else 1.0
            learner.loss, credited = ppo.loss(chosen, share), ppo.credit(rollout, chosen)
        else:
            learner.loss, credited = a2c.loss(chosen), a2c.credit(rollout, chosen)
        batch = credited.map(lambda x: x.reshape(config.seeds, -1, *x.shape[2:]))
        parts = minibatches(batch, config, start) if config.algo == "ppo" else [batch]
        updates = [learner.step(part) for part in parts]
        metrics = {name: torch.stack([update[name] for update in updates]).mean(0) for name in updates[0]}
        metrics["value/explained_variance"] = explained(batch)
        metrics["rollout/logp_gap"] = updates[0]["learner/logp_gap"]
        if after_step(together.env_steps, metrics):
            return


def main(config: Config, resume: Path | None = None, callbacks: Sequence[Callback] = ()) -> Report:
    """Train, or continue training, all seeds.

    callbacks: called at each line that is logged; see `callbacks.Event`.
    Raises: SystemExit with EXIT_INTERRUPTED when a signal ended it early; everything is saved then.
    """
    torch.set_num_threads(config.threads)
    seeds = seeds_of(config)
    start_of = [derive_seed(seed, "env") for seed in seeds]
    worlds = [make(config.env, config.num_envs, start, config.world, training=True) for start in start_of]
    exam = make(config.env, min(config.eval_episodes, MOST_WORLDS), derive_seed(config.seed, "exam"), config.world)
    learner, players, worlds = learners(config, worlds)
    together = Together(worlds, learner.policy, steps=config.n_steps, seeds=seeds)
    run = control.open_run(config, resume)

    def evaluate(steps: int) -> list[Metrics]:
        return [
            play(exam, player.greedy(), config.eval_episodes, derive_seed(seed, "exam", steps)).metrics()
            for player, seed in zip(players, seeds, strict=True)
        ]

    watch = control.watch_of(run, config, callbacks, players, exam)
    parts: dict[str, Any] = {"learner": learner, "together": together, **normalisers(worlds, seeds)}
    with run:
        start = run.resume(**parts)
        with progress(config.steps, f"{config.algo} {config.env}, {config.seeds} seeds", done=start) as bar:
            every = (config.eval_every, config.save_every)
            loop = Loop(run, config.steps, *every, bar, evaluate, together.metrics, parts, seeds, watch, start)
            if start == 0:
                control.say_if_short(run, config)
                loop.begin()
            if not (start and reached(watch, run.directory, seeds)):
                fit(learner, together, config, loop.after_step)
        stopped = run.interrupted and together.env_steps < config.steps and not loop.over
        text = "" if stopped else finish(run, config)
    if stopped:
        print(f"Interrupted and saved. Continue with: onepolicy resume {run.directory}")
        raise SystemExit(EXIT_INTERRUPTED)
    return load(run, config, text)


def learners(
    config: Config, worlds: Sequence[ControlEnv]
) -> tuple[StackedPolicyLearner, list[ControlPolicy], list[ControlEnv]]:
    """All seeds' learner, each seed's policy for the world as it is, and the worlds they train in."""
    seeds = seeds_of(config)
    configs = [replace(config, seed=seed, seeds=1) for seed in seeds]
    policies = [cast(Plain, control.policy_of(each, env)) for each, env in zip(configs, worlds, strict=True)]
    found = [control.scaled(c, env, policy) for c, env, policy in zip(configs, worlds, policies, strict=True)]
    method = control.method_of(configs[0])
    optim = control.optimizer_of(configs[0], method.updates)
    learner = StackedPolicyLearner(StackedPolicy(policies), seeds, method.loss, optim=optim)
    return learner, [player for _, player, _ in found], [env for env, _, _ in found]


def normalisers(worlds: Sequence[ControlEnv], seeds: Sequence[int]) -> dict[str, Any]:
    """The statistics of observations as checkpoint parts, by seed; nothing where none are kept."""
    pairs = zip(worlds, seeds, strict=True)
    return {f"normaliser_{s}": env.obs_moments for env, s in pairs if isinstance(env, Normalised) and env.obs_moments}


def finish(run: Run, config: Config) -> str:
    """The report's first lines; report.md and curves.png in the run directory."""
    table = table_of(last_of(run.directory, seeds_of(config), "eval/return"))
    text = (
        f"{config.algo} on {config.env}, {config.seeds} seeds: mean return over {config.eval_episodes} greedy episodes "
        f"of each seed's last policy, after {config.steps:,} steps; intervals are 95 % bootstrap over seeds."
    )
    run.finish(text, tables={"Return by seed": table})
    return f"{text}\n{table}"


def load(run: Run, config: Config, text: str = "") -> Report:
    """A run's newest checkpoint: the policy with the best last evaluation, and that.

    Raises: CheckpointError when there is no valid checkpoint.
    """
    seeds = seeds_of(config)
    alone = replace(config.world, workers=0)
    learner, players, worlds = learners(config, [make(config.env, 1, 0, alone) for _ in seeds])
    step = run.load(learner=learner, **normalisers(worlds, seeds))
    scores = last_of(run.directory, seeds, "eval/return")
    best = max(scores, key=lambda seed: scores[seed])
    words = text or f"{config.algo} on {config.env} at step {step:,}"
    return Report(run.directory, {"eval/return": scores[best]}, players[best - config.seed], words)
