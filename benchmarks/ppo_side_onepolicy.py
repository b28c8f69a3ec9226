"""onepolicy's side of ppo_vs_sb3.py: MODE SEED STEPS OUT, the same work as ppo_side_sb3.py."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from common import write_json
from onepolicy.acting.collect import Collector
from onepolicy.envs.vector import make
from onepolicy.evaluation.returns import play
from onepolicy.learning.learner import PolicyLearner
from onepolicy.recipes.control import PRESETS, Config, method_of, optimizer_of, policy_of
from onepolicy.types import Metrics
from ppo_settings import ENV, EPISODES, EVERY, SOLVED, ZOO

PRESET = PRESETS[f"ppo/{ENV}"]
"""What `onepolicy train ppo --env CartPole-v1` trains with; main() compares it with the settings of both sides."""
FAST = PRESETS[f"ppo/{ENV}-fast"]
"""What MODE solve-fast trains with: other settings than stable-baselines3's."""


def train(seed: int, steps: int, after_step: Callable[[Collector], bool], preset: Config = PRESET) -> Collector:
    """The preset's PPO, with schedules that end at `steps`, until then or until after_step says so."""
    config = replace(preset, steps=steps, seed=seed)
    env = make(ENV, config.num_envs, seed)
    policy = policy_of(config, env)
    method = method_of(config)
    learner = PolicyLearner(policy, method.loss, optim=optimizer_of(config, method.updates))
    collector = Collector(env, policy, steps=config.n_steps, seed=seed)

    def after(_: int, __: Metrics) -> bool:
        return after_step(collector)

    method.fit(learner, collector, after)
    return collector


class Exam:
    """Evaluates after the updates of the rollout that reaches each multiple of EVERY steps; True when solved."""

    def __init__(self, seed: int) -> None:
        self.worlds = make(ENV, EPISODES, 10_000 + seed)
        self.seed = seed
        self.seconds = 0.0
        self.solved_at: int | None = None

    def __call__(self, collector: Collector) -> bool:
        if collector.env_steps % EVERY:
            return False
        started = time.perf_counter()
        score = play(self.worlds, collector.policy.greedy(), EPISODES, self.seed + collector.env_steps)
        self.seconds += time.perf_counter() - started
        if sum(score.returns) / EPISODES >= SOLVED:
            self.solved_at = collector.env_steps
        return self.solved_at is not None


def main(mode: str, seed: int, steps: int, out: str) -> None:
    assert all(getattr(PRESET, name) == value for name, value in ZOO.items())
    assert (PRESET.schedule, PRESET.hidden, PRESET.max_grad_norm) == ("linear", (64, 64), 0.5)
    torch.set_num_threads(1)
    train(seed, 512, lambda _: False)  # imports, allocator and kernels are warm on both sides
    exam = Exam(seed)
    started, cpu = time.perf_counter(), time.process_time()
    preset = FAST if mode == "solve-fast" else PRESET
    collector = train(seed, steps, exam if mode.startswith("solve") else lambda _: False, preset)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    if mode == "speed":
        write_json(out, {"seconds": seconds, "cpu_seconds": cpu, "steps": collector.env_steps})
    else:
        write_json(out, {"train": seconds - exam.seconds, "solved_at": exam.solved_at, "many": exam.seconds})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
