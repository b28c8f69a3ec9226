"""stable-baselines3's side of ppo_vs_sb3.py: run in its own environment as MODE SEED STEPS OUT.

MODE speed: seconds of `learn` for STEPS environment steps. MODE solve: seconds of training and of evaluation until a
mean greedy return of 475 over 100 episodes, evaluated every EVERY steps, at most STEPS. The evaluation is timed in two
ways: in 100 worlds at once, and in one world as `EvalCallback` does when left at its default.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from common import write_json
from ppo_settings import ENV, EPISODES, EVERY, SOLVED, ZOO


def make(seed: int) -> PPO:
    """The zoo's PPO for CartPole-v1 on the CPU."""
    return PPO(
        "MlpPolicy",
        make_vec_env(ENV, ZOO["num_envs"], seed=seed),
        n_steps=ZOO["n_steps"],
        batch_size=ZOO["batch_size"],
        n_epochs=ZOO["epochs"],
        gamma=ZOO["gamma"],
        gae_lambda=ZOO["lam"],
        ent_coef=0.0,
        learning_rate=lambda left: left * ZOO["lr"],
        clip_range=lambda left: left * ZOO["clip"],
        device="cpu",
        seed=seed,
    )


class Exam(BaseCallback):
    """Evaluates at the end of the rollout that reaches each multiple of EVERY steps; stops training when solved."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.many = make_vec_env(ENV, EPISODES, seed=10_000 + seed)
        self.one = make_vec_env(ENV, 1, seed=20_000 + seed)
        self.seconds = {"many": 0.0, "one": 0.0}
        self.solved_at: int | None = None

    def _on_rollout_start(self) -> None:
        """The updates of the rollout before are done here."""
        if self.num_timesteps and self.num_timesteps % EVERY == 0 and self.solved_at is None:
            score = self.sit("many", self.many)
            self.sit("one", self.one)
            if score >= SOLVED:
                self.solved_at = self.num_timesteps

    def sit(self, name: str, worlds: object) -> float:
        started = time.perf_counter()
        mean, _ = evaluate_policy(self.model, worlds, n_eval_episodes=EPISODES, deterministic=True, warn=False)
        self.seconds[name] += time.perf_counter() - started
        return float(np.asarray(mean))

    def _on_step(self) -> bool:
        return self.solved_at is None


def main(mode: str, seed: int, steps: int, out: str) -> None:
    torch.set_num_threads(1)
    make(seed).learn(512)  # imports, allocator and kernels are warm on both sides
    model = make(seed)
    exam = Exam(seed) if mode == "solve" else None
    started, cpu = time.perf_counter(), time.process_time()
    model.learn(steps, callback=exam)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    if exam is None:
        write_json(out, {"seconds": seconds, "cpu_seconds": cpu, "steps": model.num_timesteps})
        return
    train = seconds - sum(exam.seconds.values())
    write_json(out, {"train": train, "solved_at": exam.solved_at, **exam.seconds})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
