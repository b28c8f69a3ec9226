"""Recalling a cue: learnt in seconds with a memory, not above chance without; with masks and Dict observations too."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from onepolicy.acting.collect import Collector
from onepolicy.algos import a2c, ppo, reinforce
from onepolicy.envs.gym import GymEnv
from onepolicy.evaluation.returns import play
from onepolicy.learning.learner import PolicyLearner
from onepolicy.learning.optim import OptimConfig
from onepolicy.recipes.control import policy_of
from onepolicy.recipes.control_config import Config

FOREVER = 10**9
WAIT = 3
"""Steps between the cue and the question."""


class Recall(gymnasium.Env):
    """A cue, -1 or 1, is seen at step 0 and asked for at step WAIT + 1: reward 1 for action 0 or 1 to match, else 0.

    What is seen else is the step alone. Masked, action 2, which would be worth 2 at the end, is illegal there, and the
    observation is a Dict with the mask in it.
    """

    action_space = spaces.Discrete(2)
    observation_space = spaces.Box(-9.0, 9.0, (2,))

    def see(self):
        cue = 2 * self.cue - 1 if self.t == 0 else 0
        return np.array([cue, self.t / WAIT], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.cue = 0, int(self.np_random.integers(2))
        return self.see(), {}

    def step(self, action):
        last = self.t > WAIT
        reward = float(action == self.cue or 2 * (action == 2)) if last else 0.0
        self.t += 1
        return self.see(), reward, last, False, {}


class MaskedRecall(Recall):
    action_space = spaces.Discrete(3)
    observation_space = spaces.Dict(
        {
            "cue": spaces.Discrete(3),
            "clock": spaces.Box(0.0, 9.0, (1,)),
            "action_mask": spaces.Box(0, 1, (3,), np.int8),
        }
    )

    def see(self):
        mask = [1, 1, int(self.t <= WAIT)]
        cue = 1 + self.cue if self.t == 0 else 0
        return {"cue": cue, "clock": np.array([self.t / WAIT], np.float32), "action_mask": np.array(mask, np.int8)}


@pytest.fixture(scope="module", autouse=True)
def registered():
    worlds = {"Recall-v0": Recall, "MaskedRecall-v0": MaskedRecall}
    for name, world in worlds.items():
        gymnasium.register(name, world)
    yield
    for name in worlds:
        del gymnasium.registry[name]


def trained(algo, recurrent, updates, *, env_id="Recall-v0", lr=1e-2):
    """Mean greedy return over 64 episodes, and the policy."""
    torch.set_num_threads(1)
    env = GymEnv(env_id, 16, 0)
    policy = policy_of(Config(hidden=(16,), recurrent=recurrent), env)
    collector = Collector(env, policy, steps=10, seed=0)
    made = {"ppo": ppo.Config(gamma=0.9, lam=0.9, epochs=4, batch_size=80),
            "a2c": a2c.Config(gamma=0.9),
            "reinforce": reinforce.Config(gamma=0.9, episodes=16)}  # fmt: skip
    config, left = made[algo], [updates]

    def after(*_):
        left[0] -= 1
        return left[0] <= 0

    loss = ppo.loss(config, 1.0) if algo == "ppo" else {"a2c": a2c, "reinforce": reinforce}[algo].loss(config)
    learner = PolicyLearner(policy, loss, optim=OptimConfig(lr=lr, name="adam", eps=1e-5, max_grad_norm=0.5))
    if algo == "a2c":
        a2c.fit(learner, collector, config, steps=FOREVER, after_step=after)
    else:
        fit = ppo.fit if algo == "ppo" else reinforce.fit
        fit(learner, collector, config, steps=FOREVER, seed=0, after_step=after)
    return np.mean(play(GymEnv(env_id, 64, 7), policy.greedy(), 64, 7).returns), policy


@pytest.mark.parametrize(
    ("algo", "recurrent", "updates"),
    [("ppo", "lstm", 20), ("ppo", "gru", 25), ("a2c", "lstm", 120), ("reinforce", "lstm", 60)],
)
def test_a_policy_that_remembers_recalls_the_cue(algo, recurrent, updates):
    assert trained(algo, recurrent, updates)[0] == 1.0


def test_one_that_does_not_cannot_exceed_chance():
    """Whatever it does at the question, half of the cues are the other; 64 episodes: 0.5 +- 4 * 0.0625."""
    assert trained("ppo", "none", 25)[0] == pytest.approx(0.5, abs=0.25)


def test_with_a_mask_and_a_dict_observation_at_the_same_time():
    """The tempting action is never taken where it is illegal, and the cue is recalled."""
    score, policy = trained("ppo", "lstm", 25, env_id="MaskedRecall-v0")
    assert score == 1.0
    env = GymEnv("MaskedRecall-v0", 8, 3)
    seen = Collector(env, policy, steps=50, seed=1).collect()
    question = seen.obs[..., -1] == 0
    assert 0 < question.sum() < question.numel()
    assert not bool((seen.action[question] == 2).any())
