"""stable-baselines3's side of control_vs_sb3.py: run in its own environment as ALGORITHM WORLD STEPS SEED OUT."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import sb3_contrib
import stable_baselines3
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import VecNormalize

from common import write_json
from control_rows import ZOO, examine

POLICY = ("net_arch", "log_std_init", "ortho_init")
"""Hyperparameters of the policy, not of the algorithm."""


def model_of(algo: str, world: str, seed: int) -> Any:
    """The zoo's model for a row, on the CPU."""
    settings = dict(ZOO[algo, world])
    env = make_vec_env(world, settings.pop("n_envs", 1), seed=seed)
    if settings.pop("normalize", False):
        env = VecNormalize(env, gamma=settings.get("gamma", 0.99))
    policy = {name: settings.pop(name) for name in POLICY if name in settings}
    if settings.pop("activation", None):
        policy["activation_fn"] = torch.nn.ReLU
    if "noise_std" in settings:
        size = env.action_space.shape[0]
        settings["action_noise"] = NormalActionNoise(np.zeros(size), settings.pop("noise_std") * np.ones(size))
    for name, value in settings.items():
        if isinstance(value, str):
            settings[name] = falling(float(value.removeprefix("lin_")))
    kind = sb3_contrib.TRPO if algo == "trpo" else getattr(stable_baselines3, algo.upper())
    return kind("MlpPolicy", env, policy_kwargs=policy or None, seed=seed, device="cpu", **settings)


def falling(first: float) -> Any:
    """A linear schedule to 0."""
    return lambda left: left * first


def main(algo: str, world: str, steps: int, seed: int, out: str) -> None:
    torch.set_num_threads(1)
    model = model_of(algo, world, seed)
    started = time.process_time()
    model.learn(steps)
    seconds = time.process_time() - started
    normal = model.get_vec_normalize_env()
    returns = examine(
        world, lambda obs: model.predict(normal.normalize_obs(obs) if normal else obs, deterministic=True)[0]
    )
    write_json(out, {"returns": returns, "seconds": seconds, "steps": model.num_timesteps})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
