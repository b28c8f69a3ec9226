"""What both sides of ppo_vs_sb3.py are given. Standard library only."""

ENV = "CartPole-v1"
ZOO = {
    "num_envs": 8,
    "n_steps": 32,
    "batch_size": 256,
    "epochs": 20,
    "gamma": 0.98,
    "lam": 0.8,
    "lr": 1e-3,
    "clip": 0.2,
}
"""rl-baselines3-zoo hyperparams/ppo.yml for CartPole-v1; learning rate and clip range fall linearly to 0."""
SOLVED = 475.0
"""Mean return at which CartPole-v1 counts as solved."""
EPISODES = 100
"""Greedy episodes of an evaluation."""
EVERY = 20 * 256
"""Environment steps between evaluations: 20 rollouts."""
