"""Returns of whole episodes: fair to long ones, the same whatever plays beside them, and no trace left in training."""

import numpy as np
import pytest
import torch

from onepolicy.batch import EnvStep
from onepolicy.envs.classic import CartPole
from onepolicy.envs.vector import Discrete
from onepolicy.errors import ConfigError, DataError
from onepolicy.evaluation.returns import Returns, evaluate_policy, over_seeds, play
from onepolicy.nn.policies import CategoricalPolicy, GaussianPolicy


class Counting:
    """World i's episodes last i + 1 steps and pay what action says."""

    env_id, obs_dim, actions = "Counting", 1, Discrete(9)

    def __init__(self, num_envs):
        self.num_envs = num_envs

    def reset(self, seed):
        self.elapsed = np.zeros(self.num_envs)
        return torch.zeros(self.num_envs, 1)

    def step(self, action):
        self.elapsed += 1
        over = self.elapsed > np.arange(self.num_envs)
        self.elapsed[over] = 0
        obs = torch.zeros(self.num_envs, 1)
        return EnvStep(obs, action.float(), torch.from_numpy(over), torch.zeros(self.num_envs).bool(), obs)


def test_every_world_plays_as_many_episodes():
    """Three worlds, lengths 1, 2, 3, two episodes each at reward 2: the short ones do not crowd out the long."""
    found = play(Counting(3), lambda obs: np.full(len(obs), 2), 6, seed=0)
    assert found == Returns((2.0, 2.0, 4.0, 4.0, 6.0, 6.0), (1, 1, 2, 2, 3, 3))


def test_a_number_of_episodes_that_does_not_share_out_evenly():
    assert play(Counting(3), lambda obs: np.ones(len(obs)), 4, seed=0).lengths == (1, 1, 2, 2)


def test_cartpole_greedy_against_one_world_at_a_time():
    policy = CategoricalPolicy(4, 2, seed=3)
    together = evaluate_policy(policy, env="CartPole-v1", episodes=6, seed=10)
    act = policy.greedy()
    for i in range(6):
        assert play(CartPole(1, 0), act, 1, seed=10 + i).returns[0] == together.returns[i]


def test_metrics_have_the_mean_and_its_interval():
    metrics = Returns((1.0, 2.0, 3.0, 10.0), (1, 2, 3, 4)).metrics()
    assert metrics["eval/return"] == 4.0
    assert 1.0 <= metrics["eval/return_low"] < 4.0 < metrics["eval/return_high"] <= 10.0
    assert metrics["eval/length"] == 2.5


def test_over_seeds_by_hand():
    """Of 0, 1, 2, 100 the middle half is 1, 2."""
    found = over_seeds([0.0, 1.0, 2.0, 100.0])
    assert found["mean"].value == 25.75
    assert found["iqm"].value == 1.5
    assert found["mean"].low < found["mean"].value < found["mean"].high


def test_what_cannot_be_evaluated_is_refused():
    with pytest.raises(ConfigError, match="eval_episodes is 0"):
        play(Counting(1), lambda obs: np.ones(len(obs)), 0, seed=0)
    with pytest.raises(ConfigError, match="observes 4 numbers, this policy takes 3"):
        evaluate_policy(GaussianPolicy(3, 1), env="CartPole-v1", episodes=2)
    with pytest.raises(ConfigError, match="Did you mean 'CartPole-v1'"):
        evaluate_policy(CategoricalPolicy(4, 2), env="CartPol-v1")


def test_a_world_that_breaks_is_named():
    class Broken(Counting):
        def step(self, action):
            step = super().step(action)
            step.reward[0] = float("nan")
            return step

    with pytest.raises(DataError, match="Counting gave a non-finite"):
        play(Broken(2), lambda obs: np.ones(len(obs)), 2, seed=0)
