"""Numbered actions, one step: the best soft policy is softmax(r / alpha) among the legal ones, in closed form."""

import math

import numpy as np
import pytest
import torch

from onepolicy.algos import sac
from onepolicy.data.replay import Transitions
from onepolicy.learning.optim import OptimConfig

REWARD = np.array([0.0, 0.3, 1.0, 0.5], np.float32)
UPDATES = 300


def bandits(learner, learners, masks=None, updates=UPDATES, rows=32):
    """Learns from actions drawn alike over all legal ones; rewards are certain, every step ends."""
    rng = np.random.default_rng(0)
    ended = torch.zeros(learners, rows)
    for _ in range(updates):
        seen = np.ones((learners, rows, 1), np.float32)
        action = rng.integers(0, 4, (learners, rows))
        if masks is not None:
            legal = masks[rng.integers(len(masks), size=(learners, rows))]
            seen = np.concatenate([seen, legal], axis=-1, dtype=np.float32)
            action = np.where(legal, rng.random(legal.shape), -1).argmax(-1)
        obs = torch.from_numpy(seen)
        reward = torch.from_numpy(REWARD[action])
        learner.update(Transitions(obs, torch.from_numpy(action), reward, obs, ended, np.zeros_like(action)))
    return learner


def learner(seeds, bits=0, **choices):
    optim = OptimConfig(lr=2e-2, name="adam", max_grad_norm=0.0, schedule="linear", total_steps=UPDATES)
    return sac.DiscreteLearner(seeds, 1 + bits, 4, (16,), sac.Config(**choices), optim, masked=bits > 0)


def probabilities(found, obs):
    return torch.softmax(torch.from_numpy(found.view(np.asarray(obs, np.float32))), dim=-1).numpy()


def soft(alpha, legal=(1, 1, 1, 1)):
    mass = np.exp(REWARD / alpha) * legal
    return mass / mass.sum()


@pytest.mark.parametrize("fixes", [{}, {"critics": "mean", "q_clip": 0.5, "entropy_penalty": 0.5, "tau": 0.1}])
def test_the_policy_is_the_closed_form_at_each_temperature(fixes):
    """Three seeds at temperatures 0.2, 0.5, 2; also with the fixes of Zhou et al., which move no optimum."""
    alphas = np.array([0.2, 0.5, 2.0])
    found = learner((0, 1, 2), temperature=1.0, **fixes)
    with torch.no_grad():
        found.log_temperature.copy_(torch.from_numpy(np.log(alphas)))
    bandits(found, 3)
    p = probabilities(found, np.ones((3, 1, 1)))[:, 0]
    np.testing.assert_allclose(p, [soft(alpha) for alpha in alphas], atol=0.01)
    q = found.critic(torch.ones(3, 1, 1)).detach()[:, :, 0]
    np.testing.assert_allclose(q, np.broadcast_to(REWARD, (3, 2, 4)), atol=0.02)


def test_a_learnt_temperature_is_that_of_the_entropy_it_aims_at():
    """Half of log 4: alpha solves H(softmax(r / alpha)) = log 2, found here by bisection."""
    low, high = 0.01, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        p = soft(middle)
        low, high = (middle, high) if -(p * np.log(p)).sum() < math.log(2) else (low, middle)
    found = bandits(learner((0, 1), entropy_share=0.5), 2)
    np.testing.assert_allclose(found.log_temperature.detach().exp(), low, rtol=0.1)
    np.testing.assert_allclose(probabilities(found, np.ones((2, 1, 1)))[:, 0], [soft(low)] * 2, atol=0.03)


def test_masked_it_is_the_closed_form_of_the_legal_actions():
    masks = np.array([[1, 1, 0, 1], [0, 1, 1, 0]], bool)
    found = bandits(learner((0,), 4, temperature=0.5), 1, masks)
    obs = np.concatenate([np.ones((2, 1)), masks], axis=1)[None]
    p = probabilities(found, obs)[0]
    assert (p[~masks] == 0).all()
    # what is seen is the same in both, so that one row of logits serves both masks
    np.testing.assert_allclose(p, [soft(0.5, mask) for mask in masks], atol=0.02)
