"""Small worlds whose optimum is known, and one way to train any control algorithm in them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onepolicy.acting.collect import Collector
from onepolicy.algos import a2c, ppo, reinforce, trpo
from onepolicy.batch import EnvStep
from onepolicy.envs.vector import Discrete
from onepolicy.learning.learner import PolicyLearner
from onepolicy.learning.optim import OptimConfig
from onepolicy.nn.policies import CategoricalPolicy


class Tabular:
    """N copies of a finite world, its state seen as one-hot; with `seen`, what is seen in each state instead.

    reward, following, terminal: by [state][action]; following None means a random state. limit: steps after which an
    episode is truncated. Starts in a random state. honest False reports the time limit as a termination.
    """

    def __init__(self, reward, following=None, terminal=None, *, limit=100, num_envs=16, honest=True, seen=None):
        self.reward = np.array(reward, dtype=np.float32)
        self.states, n = self.reward.shape
        self.following = following
        self.terminal = np.zeros(self.reward.shape, dtype=bool) if terminal is None else np.array(terminal)
        self.limit, self.num_envs, self.honest = limit, num_envs, honest
        self.seen = (
            np.eye(self.states, dtype=np.float32) if seen is None else np.eye(max(seen) + 1, dtype=np.float32)[seen]
        )
        self.env_id, self.obs_dim, self.actions = "Tabular", self.seen.shape[1], Discrete(n)
        self.layout = None
        self.reset(0)

    @property
    def obs(self):
        return self._see(self.state)

    def _see(self, state):
        return torch.from_numpy(self.seen[state])

    def reset(self, seed):
        self.rng = np.random.default_rng(seed)
        self.state = self.rng.integers(self.states, size=self.num_envs)
        self.elapsed = np.zeros(self.num_envs, dtype=np.int64)
        return self.obs

    def step(self, action):
        now = (self.state, action.numpy())
        self.elapsed += 1
        fresh = self.rng.integers(self.states, size=self.num_envs)
        last = fresh if self.following is None else np.array(self.following)[now]
        terminated, over = self.terminal[now], self.elapsed >= self.limit
        self.state = np.where(terminated | over, self.rng.integers(self.states, size=self.num_envs), last)
        self.elapsed[terminated | over] = 0
        return EnvStep(
            obs=self.obs,
            reward=torch.from_numpy(self.reward[now]),
            terminated=torch.from_numpy(terminated if self.honest else terminated | over),
            truncated=torch.from_numpy(over if self.honest else over & False),
            final_obs=self._see(last),
        )

    def state_dict(self):
        return {"state": self.state.copy(), "elapsed": self.elapsed.copy(), "rng": self.rng.bit_generator.state}

    def load_state_dict(self, state):
        self.state, self.elapsed = state["state"].copy(), state["elapsed"].copy()
        self.rng.bit_generator.state = state["rng"]


FOREVER = 10**9


def train_ppo(env, updates, *, gamma, seed=0, lr=1e-2):
    """A policy trained by PPO with rollouts of 8 steps, and the metrics of its last update."""
    config = ppo.Config(gamma=gamma, lam=0.9, epochs=4, batch_size=64)

    def fit(learner, collector, after):
        ppo.fit(learner, collector, config, steps=FOREVER, seed=seed, after_step=after)

    adam = OptimConfig(lr=lr, name="adam", eps=1e-5, max_grad_norm=0.5)
    return _train(env, seed, adam, ppo.loss(config, 1.0), 8, fit, updates // 8)


def train_a2c(env, updates, *, gamma, seed=0, lr=5e-3):
    """A policy trained by A2C, 5 steps an update."""
    config = a2c.Config(gamma=gamma)

    def fit(learner, collector, after):
        a2c.fit(learner, collector, config, steps=FOREVER, after_step=after)

    rmsprop = OptimConfig(lr=lr, name="rmsprop", betas=(0.9, 0.99), eps=1e-5, max_grad_norm=0.5)
    return _train(env, seed, rmsprop, a2c.loss(config), 5, fit, updates)


def train_reinforce(env, updates, *, gamma, seed=0, lr=1e-2):
    """A policy trained by REINFORCE, an episode of each world an update."""
    config = reinforce.Config(gamma=gamma, episodes=env.num_envs)

    def fit(learner, collector, after):
        reinforce.fit(learner, collector, config, steps=FOREVER, seed=seed, after_step=after)

    adam = OptimConfig(lr=lr, name="adam", eps=1e-5, max_grad_norm=0.5)
    return _train(env, seed, adam, reinforce.loss(config), 10, fit, updates)


def train_trpo(env, updates, *, gamma, seed=0, lr=1e-2):
    """A policy trained by TRPO with rollouts of 8 steps, twice as many as PPO."""
    config = trpo.Config(gamma=gamma, lam=0.9, target_kl=0.02, damping=0.01, epochs=10, batch_size=64)

    def fit(learner, collector, after):
        trpo.fit(learner, collector, config, trpo.Failures(), steps=FOREVER, seed=seed, after_step=after)

    adam = OptimConfig(lr=lr, name="adam", eps=1e-5, max_grad_norm=0.0)
    return _train(env, seed, adam, trpo.loss(), 8, fit, updates // 4)


def _train(env, seed, optim, loss, steps, fit, iterations):
    policy = CategoricalPolicy(env.obs_dim, env.actions.n, hidden=(32,), seed=seed)
    learner = PolicyLearner(policy, loss, optim=optim)
    history = []

    def after_step(_, metrics):
        history.append(metrics)
        return len(history) == iterations

    fit(learner, Collector(env, policy, steps=steps, seed=seed), after_step)
    return policy, history[-1]


@pytest.fixture(params=[train_ppo, train_a2c, train_reinforce, train_trpo], ids=["ppo", "a2c", "reinforce", "trpo"])
def train(request):
    """One of the algorithms."""
    return request.param


@pytest.fixture
def tabular():
    """The class of worlds."""
    return Tabular
