"""Actors where the best is known in closed form: one step, reward -k (a - c)^2 / 2, so the soft optimum is a Gaussian.

The best policy is exp(r(a) / alpha), up to its factor: mean c, standard deviation sqrt(alpha / k).
"""

import math

import numpy as np
import pytest
import torch

from onepolicy.algos import sac, td3
from onepolicy.data.replay import Transitions
from onepolicy.learning.optim import OptimConfig

K, C = 4.0, 0.25
UPDATES = 1500


def bandits(learner, learners, updates=UPDATES, rows=64):
    """Learns from actions drawn alike over all of [-1, 1], the same for all learners; rewards are certain."""
    rng = np.random.default_rng(0)
    obs, ended = torch.zeros(learners, rows, 1), torch.zeros(learners, rows)
    for _ in range(updates):
        action = torch.from_numpy(rng.uniform(-1, 1, (1, rows, 1)).astype(np.float32)).expand(learners, -1, -1)
        reward = -0.5 * K * (action.squeeze(-1) - C).square()
        learner.update(Transitions(obs, action, reward, obs, ended, np.zeros((learners, rows), np.int64)))
    return learner


def optim(updates=UPDATES):
    return OptimConfig(lr=5e-3, name="adam", max_grad_norm=0.0, schedule="linear", total_steps=updates)


def spread(learner):
    """Mean and standard deviation of each learner's actions."""
    obs = np.zeros((len(learner.rngs), 20_000, 1), np.float32)
    action = learner.explore(0)(obs, [np.random.default_rng(0) for _ in learner.rngs])[..., 0]
    return action.mean(1), action.std(1)


def test_sac_s_gaussian_is_the_closed_form_at_each_temperature():
    """Three seeds at temperatures 0.02, 0.06, 0.12: means at c, standard deviations sqrt(alpha / k)."""
    alphas = np.array([0.02, 0.06, 0.12])
    config = sac.Config(temperature=1.0)
    learner = sac.Learner((0, 1, 2), 1, 1, (32, 32), config, optim())
    with torch.no_grad():
        learner.log_temperature.copy_(torch.from_numpy(np.log(alphas)))
    mean, std = spread(bandits(learner, 3))
    np.testing.assert_allclose(mean, C, atol=0.03)
    np.testing.assert_allclose(std, np.sqrt(alphas / K), rtol=0.1)


def test_a_learnt_temperature_is_that_of_the_entropy_it_aims_at():
    """Entropy log(std sqrt(2 pi e)) = H fixes the standard deviation, and alpha = k std^2 with it."""
    std = 0.15
    config = sac.Config(target_entropy=math.log(std * math.sqrt(2 * math.pi * math.e)))
    learner = bandits(sac.Learner((0, 1), 1, 1, (32, 32), config, optim()), 2)
    mean, found = spread(learner)
    np.testing.assert_allclose(mean, C, atol=0.03)
    np.testing.assert_allclose(found, std, rtol=0.1)
    np.testing.assert_allclose(learner.log_temperature.detach().exp(), K * std**2, rtol=0.2)


@pytest.mark.parametrize("plain", [False, True], ids=["td3", "ddpg"])
def test_a_deterministic_actor_climbs_to_the_best_action(plain):
    """To where a critic of straight pieces has its peak; what is lost there is less than 0.01 of a range of 3."""
    config = td3.Config(critics=1, delay=1, target_noise=0.0) if plain else td3.Config()
    learner = bandits(td3.Learner((0, 1, 2), 1, 1, (32, 32), config, optim()), 3)
    np.testing.assert_allclose(learner.greedy(np.zeros((3, 1, 1), np.float32)).ravel(), C, atol=0.07)
