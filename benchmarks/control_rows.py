"""What both sides of control_vs_sb3.py are given, and how both are examined. numpy and gymnasium, nothing else.

ROWS: (algorithm, world, environment steps, seeds). ZOO: rl-baselines3-zoo's hyperparameters of each row, as
stable-baselines3 takes them; on our side the preset of the same name has them. Our DQN is double. All else is equal,
state-dependent noise and the activations and first weights of the MuJoCo rows included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

EPISODES = 100
"""Greedy episodes of the examination of a trained policy; 20 in MuJoCo's worlds."""
ROWS = [
    ("ppo", "CartPole-v1", 100_000, 5),
    ("ppo", "Acrobot-v1", 200_000, 5),
    ("a2c", "CartPole-v1", 100_000, 5),
    ("trpo", "CartPole-v1", 100_000, 5),
    ("trpo", "Pendulum-v1", 100_000, 5),
    ("dqn", "CartPole-v1", 50_000, 5),
    ("dqn", "MountainCar-v0", 120_000, 5),
    ("ddpg", "Pendulum-v1", 20_000, 3),
    ("td3", "Pendulum-v1", 20_000, 3),
    ("sac", "Pendulum-v1", 20_000, 3),
    ("sac", "MountainCarContinuous-v0", 50_000, 6),
    ("ppo", "HalfCheetah-v5", 200_000, 3),
    ("ppo", "Hopper-v5", 200_000, 3),
    ("sac", "HalfCheetah-v5", 30_000, 3),
    ("sac", "Hopper-v5", 30_000, 3),
]
WIDE = {"net_arch": [400, 300]}
NOISY = {"gamma": 0.98, "buffer_size": 200_000, "learning_starts": 10_000, "learning_rate": 1e-3, "noise_std": 0.1}
MUJOCO_PPO = {
    "log_std_init": -2,
    "ortho_init": False,
    "activation": "relu",
    "net_arch": {"pi": [256, 256], "vf": [256, 256]},
}
ZOO: dict[tuple[str, str], dict[str, Any]] = {
    ("ppo", "CartPole-v1"): {
        "n_envs": 8, "n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20,
        "learning_rate": "lin_0.001", "clip_range": "lin_0.2",
    },
    ("ppo", "Acrobot-v1"): {"normalize": True, "n_envs": 16, "n_steps": 256, "gae_lambda": 0.94, "n_epochs": 4},
    ("a2c", "CartPole-v1"): {"n_envs": 8},
    ("trpo", "CartPole-v1"): {
        "n_envs": 2, "n_steps": 512, "batch_size": 512, "cg_damping": 1e-3, "gae_lambda": 0.98, "learning_rate": 1e-3,
        "n_critic_updates": 20,
    },
    ("trpo", "Pendulum-v1"): {
        "n_envs": 2, "n_steps": 1024, "gamma": 0.9, "n_critic_updates": 15, "use_sde": True, "sde_sample_freq": 4,
    },
    ("dqn", "CartPole-v1"): {
        "learning_rate": 2.3e-3, "batch_size": 64, "buffer_size": 100_000, "learning_starts": 1000,
        "target_update_interval": 10, "train_freq": 256, "gradient_steps": 128, "exploration_fraction": 0.16,
        "exploration_final_eps": 0.04, "net_arch": [256, 256],
    },
    ("dqn", "MountainCar-v0"): {
        "learning_rate": 4e-3, "batch_size": 128, "buffer_size": 10_000, "learning_starts": 1000, "gamma": 0.98,
        "target_update_interval": 600, "train_freq": 16, "gradient_steps": 8, "exploration_fraction": 0.2,
        "exploration_final_eps": 0.07, "net_arch": [256, 256],
    },
    ("ddpg", "Pendulum-v1"): NOISY | WIDE,
    ("td3", "Pendulum-v1"): NOISY | WIDE,
    ("sac", "Pendulum-v1"): {"learning_rate": 1e-3},
    ("sac", "MountainCarContinuous-v0"): {
        "learning_rate": 3e-4, "buffer_size": 50_000, "batch_size": 512, "ent_coef": 0.1, "train_freq": 32,
        "gradient_steps": 32, "gamma": 0.9999, "tau": 0.01, "learning_starts": 0, "use_sde": True,
        "log_std_init": -3.67, "net_arch": [64, 64],
    },
    ("ppo", "HalfCheetah-v5"): {
        "normalize": True, "batch_size": 64, "n_steps": 512, "gamma": 0.98, "learning_rate": 2.0633e-5,
        "ent_coef": 0.000401762, "clip_range": 0.1, "n_epochs": 20, "gae_lambda": 0.92, "max_grad_norm": 0.8,
        "vf_coef": 0.58096,
    } | MUJOCO_PPO,
    ("ppo", "Hopper-v5"): {
        "normalize": True, "batch_size": 32, "n_steps": 512, "gamma": 0.999, "learning_rate": 9.80828e-5,
        "ent_coef": 0.00229519, "clip_range": 0.2, "n_epochs": 5, "gae_lambda": 0.99, "max_grad_norm": 0.7,
        "vf_coef": 0.835671,
    } | MUJOCO_PPO,
    ("sac", "HalfCheetah-v5"): {"learning_starts": 10_000},
    ("sac", "Hopper-v5"): {"learning_starts": 10_000},
}  # fmt: skip


def examine(world: str, act: Callable[[np.ndarray], np.ndarray]) -> list[float]:
    """Returns of whole greedy episodes in gymnasium's own world, episode i seeded 10,000 + i; the same on both sides.

    act: observations [N, D] float32, as the world gives them -> actions [N] or [N, A].
    """
    count = 20 if world in ("HalfCheetah-v5", "Hopper-v5") else EPISODES
    worlds = [gymnasium.make(world) for _ in range(count)]
    obs = np.stack([env.reset(seed=10_000 + i)[0] for i, env in enumerate(worlds)]).astype(np.float32)
    total, playing = np.zeros(count), list(range(count))
    while playing:
        action = act(obs[playing])
        for i, chosen in zip(list(playing), action, strict=True):
            found, reward, terminated, truncated, _ = worlds[i].step(chosen)
            obs[i], total[i] = found, total[i] + float(reward)
            if terminated or truncated:
                playing.remove(i)
    return [float(x) for x in total]
