"""Every control algorithm where the right answer is known, and wrong where its feature is switched off."""

import numpy as np
import pytest
import torch


def says(policy, states):
    """Probabilities [S, A] and values [S] in all states."""
    obs = torch.eye(states)
    with torch.no_grad():
        logits, value = policy.networks(obs)
    return torch.softmax(logits, -1).numpy(), value.numpy()


def test_bandit(train, tabular):
    """One step, four arms: the best arm is pulled, and the baseline is what that pays."""
    env = tabular([[0.0, 0.2, 0.9, 0.5]], [[0] * 4], [[True] * 4])
    policy, metrics = train(env, 240, gamma=0.9)
    p, value = says(policy, 1)
    assert p[0, 2] > 0.9
    assert value[0] == pytest.approx(p[0] @ [0.0, 0.2, 0.9, 0.5], abs=0.1)
    assert metrics["rollout/length"] == 1


def test_identity(train, tabular):
    """Reward for the action that equals the state, the next state random: every state's own action is learnt."""
    policy, metrics = train(tabular(np.eye(4), limit=10), 320, gamma=0.5)
    p, _ = says(policy, 4)
    assert p.argmax(1).tolist() == [0, 1, 2, 3]
    assert p.diagonal().min() > 0.7
    assert metrics["rollout/return"] > 7


INVEST = {
    # state 0: staying pays 0.1, moving costs 0.3; state 1: staying pays 1, moving back nothing
    "reward": [[0.1, -0.3], [1.0, 0.0]],
    "following": [[0, 1], [1, 0]],
    "limit": 20,
}


def test_two_state_mdp_with_a_delayed_reward(train, tabular):
    """At gamma 0.9 staying in state 0 is worth 1, moving -0.3 + 0.9 * 10: it pays to give up 0.4 now."""
    policy, _ = train(tabular(**INVEST), 320, gamma=0.9)
    p, _ = says(policy, 2)
    assert p[0, 1] > 0.8
    assert p[1, 0] > 0.8


def test_two_state_mdp_fails_without_the_future(train, tabular):
    """At gamma 0 the same world teaches to stay."""
    policy, _ = train(tabular(**INVEST), 320, gamma=0.0)
    p, _ = says(policy, 2)
    assert p[0, 0] > 0.8


def test_a_time_limit_does_not_end_the_value(train, tabular):
    """Reward 1 forever under gamma 0.9 is worth 1 / (1 - 0.9) = 10, though episodes are cut after 10 steps."""
    policy, metrics = train(tabular([[1.0]], [[0]], limit=10), 320, gamma=0.9)
    _, value = says(policy, 1)
    assert value[0] == pytest.approx(10.0, abs=0.4)
    assert metrics["rollout/return"] == 10.0


def test_a_time_limit_taken_for_an_end_ruins_the_value(train, tabular):
    """Without the bootstrap about 4 is learnt, the mean over the ten steps of (1 - 0.9^left) / 0.1."""
    policy, _ = train(tabular([[1.0]], [[0]], limit=10, honest=False), 320, gamma=0.9)
    _, value = says(policy, 1)
    assert value[0] < 6.0
