"""DQN where the right values are known: a chain against value iteration, and the bias of taking a maximum of noise."""

import numpy as np
import pytest
import torch

from onepolicy.acting.explore import Explorer
from onepolicy.algos import dqn
from onepolicy.data.replay import Replay
from onepolicy.evaluation.stats import bootstrap_interval
from onepolicy.learning.optim import OptimConfig


def train(envs, steps, *, gamma, hidden=(32,), lr=1e-2, capacity=2000, priority=0.0, fade=True, **fields):
    """The learner of as many seeds as there are sets of worlds, after `steps` steps of each; fade: lr goes to 0."""
    seeds = tuple(range(len(envs)))
    fields = {"batch_size": 32, "learning_starts": 100, "train_every": 16, "target_every": 128, "tau": 1.0} | fields
    config = dqn.Config(**fields, beta_steps=steps)
    env = envs[0]
    schedule = {"schedule": "linear", "total_steps": steps // 16} if fade else {}
    optim = OptimConfig(lr=lr, name="adam", **schedule)
    learner = dqn.Learner(seeds, env.obs_dim, env.actions.n, hidden, config, optim)
    replay = Replay(seeds, capacity, env.num_envs, env.obs_dim, None, gamma=gamma, priority=priority)
    dqn.fit(learner, Explorer(envs, replay, seeds), config, steps=steps, after_step=lambda *_: False)
    return learner


CHAIN = {
    # going right from states 0 to 3 pays 1 at the end of it; going left falls back to the start for 0.1
    "reward": [[0.1, 0.0], [0.1, 0.0], [0.1, 0.0], [0.1, 1.0]],
    "following": [[0, 1], [0, 2], [0, 3], [0, 3]],
    "terminal": [[False, False]] * 3 + [[False, True]],
}


def value_iteration(gamma, sweeps=500):
    q, reward, following = np.zeros((4, 2)), np.array(CHAIN["reward"]), np.array(CHAIN["following"])
    for _ in range(sweeps):
        q = reward + gamma * q.max(1)[following] * ~np.array(CHAIN["terminal"])
    return q


VARIANTS = {
    "single": {"double": False},
    "double": {},
    "dueling": {"dueling": True},
    "prioritised": {"priority": 0.6},
    "soft target": {"target_every": 16, "tau": 0.1},
}


@pytest.mark.parametrize("kind", VARIANTS)
def test_the_values_of_a_chain_are_those_of_value_iteration(kind, tabular):
    """Exploring at random, on a table of one-hot states: every Q(s, a) within 0.05, for three seeds at once."""
    envs = [tabular(**CHAIN, limit=10) for _ in range(3)]
    for seed, env in enumerate(envs):
        env.reset(seed)
    learner = train(envs, 16 * 700, gamma=0.8, epsilon_end=1.0, **VARIANTS[kind])
    found = learner.view(np.broadcast_to(np.eye(4, dtype=np.float32), (3, 4, 4)))
    assert np.abs(found - value_iteration(0.8)).max() < 0.05


def test_a_time_limit_taken_for_an_end_ruins_the_values(tabular):
    """The same chain cut after 3 steps: told as an end, the start is worth less than half of what it is."""
    learners = [train([tabular(**CHAIN, limit=3, honest=honest)], 16 * 500, gamma=0.9, epsilon_end=1.0)
                for honest in (True, False)]  # fmt: skip
    honest, cut = (learner.view(np.eye(4, dtype=np.float32)[None])[0] for learner in learners)
    expected = value_iteration(0.9)
    assert np.abs(honest - expected).max() < 0.1
    assert cut[0].max() < 0.5 * expected[0].max()


def test_double_dqn_overestimates_less(tabular):
    """The world of maximisation bias: state 0 leads to state 1, where each of 8 actions ends with a reward N(0, 1).

    All values are 0; what is learnt of state 0 is the mean of a maximum of noise. Sixteen seeds of each, the same
    worlds: single DQN lies above 0.2, double below it, with a 95 % bootstrap interval of the difference above 0.
    Source: Sutton and Barto 2018, example 6.7; van Hasselt et al. 2016, section 3.
    """

    class Noisy(tabular):
        def step(self, action):
            at = torch.from_numpy(self.state)
            found = super().step(action)
            found.reward[at == 1] = torch.from_numpy(self.rng.normal(size=int((at == 1).sum())).astype(np.float32))
            return found

    bias = {}
    for double in (False, True):
        envs = [Noisy(np.zeros((2, 8)), [[1] * 8, [0] * 8], [[False] * 8, [True] * 8]) for _ in range(16)]
        for seed, env in enumerate(envs):
            env.reset(seed)
        learner = train(
            envs, 16 * 600, gamma=1.0, hidden=(), lr=0.05, capacity=256, double=double, epsilon_end=1.0,
            target_every=160, fade=False,
        )  # fmt: skip
        bias[double] = learner.view(np.broadcast_to(np.eye(2, dtype=np.float32), (16, 2, 2)))[:, 0].mean(axis=-1)
    difference = bootstrap_interval((bias[False] - bias[True]).tolist())
    assert bias[False].mean() > 0.2
    assert difference.low > 0
