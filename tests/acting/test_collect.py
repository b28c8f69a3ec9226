"""Collecting: what is recorded, what follows each step, and that stopping between rollouts changes nothing."""

import numpy as np
import pytest
import torch

from onepolicy.acting.collect import Collector, collect_episodes, episode_metrics
from onepolicy.batch import EnvStep
from onepolicy.core.returns import gae
from onepolicy.envs.classic import CartPole
from onepolicy.envs.gym import GymEnv
from onepolicy.envs.vector import Discrete, make
from onepolicy.errors import ConfigError, DataError
from onepolicy.nn.heads import Draw
from onepolicy.nn.policies import CategoricalPolicy, GaussianPolicy, Sampler


class Script:
    """Worlds that play a given script: each has its own tuple of endings, "t", "u" (truncated), "b" (both) or ".".

    The observation is (world, steps since reset + 1, episodes so far), the final one of an episode included; the
    reward of a step is the count of steps in its episode.
    """

    env_id, obs_dim, actions = "Script", 3, Discrete(2)

    def __init__(self, *scripts, spoil=None):
        self.scripts, self.num_envs, self.spoil = scripts, len(scripts), spoil
        self.reset(0)

    def reset(self, seed):
        self.clock, self.count = 0, np.zeros((2, self.num_envs))
        return self.obs

    @property
    def obs(self):
        return self._see()

    def _see(self):
        seen = np.stack([np.arange(self.num_envs), self.count[0] + 1, self.count[1]], axis=1)
        return torch.from_numpy(seen.astype(np.float32))

    def step(self, action):
        now = [script[self.clock % len(script)] for script in self.scripts]
        self.clock += 1
        self.count[0] += 1
        reward = torch.from_numpy(self.count[0].astype(np.float32))
        final = self._see()
        for i, what in enumerate(now):
            if what != ".":
                self.count[0, i] = 0
                self.count[1, i] += 1
        obs = self._see()
        if self.spoil is not None and self.clock == self.spoil[0]:
            {"obs": obs, "final": final, "reward": reward}[self.spoil[1]][1] = float("nan")
        terminated = torch.tensor([what in "tb" for what in now])
        truncated = torch.tensor([what in "ub" for what in now])
        return EnvStep(obs, reward, terminated, truncated, final)

    def state_dict(self):
        return {"clock": self.clock, "count": self.count.copy()}

    def load_state_dict(self, state):
        self.clock, self.count = state["clock"], state["count"].copy()


class Known:
    """A policy that always takes action 1 and values an observation by 100 world + 10 episode + step."""

    obs_dim = 3

    def sampler(self, rng):
        def value(obs):
            return (obs @ np.array([100.0, 1.0, 10.0])).astype(np.float32)

        def draw(obs):
            return Draw(np.ones(len(obs), dtype=np.int64), np.full(len(obs), -0.5, dtype=np.float32)), value(obs)

        return Sampler(draw, value)


def test_next_values_are_those_of_what_truly_followed():
    """After 2 steps world 0 is truncated, world 1 terminates, world 2 does both. Values are 100 w + 10 e + s."""
    rollout = Collector(Script(".u..", ".t..", ".b.."), Known(), steps=4, seed=0).collect()
    assert rollout.value.tolist() == [[1, 2, 11, 12], [101, 102, 111, 112], [201, 202, 211, 212]]
    # The truncated step led to step 3 of episode 0, the rollout's last one to step 3 of episode 1.
    assert rollout.next_value.tolist() == [[2, 3, 12, 13], [102, 0, 112, 113], [202, 0, 212, 213]]
    assert rollout.terminated[:, 1].tolist() == [False, True, True]
    assert rollout.truncated[:, 1].tolist() == [True, False, True]
    assert rollout.discount(0.5)[:, 1].tolist() == [0.5, 0.0, 0.0]
    assert rollout.carry[:, 1].tolist() == [0.0, 0.0, 0.0]
    assert rollout.carry.sum() == 9
    assert bool(rollout.mask.all())


def test_gae_through_the_masks_by_hand():
    """gamma = lam = 1: up to a cut, the advantage is the rewards to go plus what followed, minus V.

    World 0, truncated after rewards 1, 2 into value 3: A = (1 + 2 + 3 - 1, 2 + 3 - 2). World 1, terminated: no 3.
    """
    rollout = Collector(Script(".u", ".t"), Known(), steps=2, seed=0).collect()
    discount = rollout.discount(1.0)
    advantage = gae(rollout.reward, rollout.value, rollout.next_value, discount, rollout.carry, 1.0)
    assert advantage.tolist() == [[5.0, 3.0], [1 + 2 - 101, 2 - 102]]


def test_episodes_that_span_rollouts_keep_their_returns():
    """Endings every 5 steps, rollouts of 2: each return is 1 + 2 + 3 + 4 + 5, each length 5."""
    collector = Collector(Script("....t", "....u"), Known(), steps=2, seed=0)
    ended = [e for _ in range(10) for e in collector.collect().ended]
    assert [(e.total, e.length) for e in ended] == [(15.0, 5)] * 8
    assert {e.world for e in ended} == {0, 1}
    assert list(collector.window) == ended
    assert collector.env_steps == 40
    assert episode_metrics(collector.window) == {"rollout/return": 15.0, "rollout/length": 5.0}
    assert episode_metrics([]) == {}


def test_several_episodes_in_one_rollout():
    rollout = Collector(Script("t.t", "..."), Known(), steps=6, seed=0).collect()
    assert [(e.world, e.step, e.total, e.length) for e in rollout.ended] == [
        (0, 0, 1.0, 1), (0, 2, 3.0, 2), (0, 3, 1.0, 1), (0, 5, 3.0, 2),
    ]  # fmt: skip


def test_each_action_goes_with_its_observation_and_its_world():
    env = CartPole(3, 0)
    policy = CategoricalPolicy(4, 2, seed=0)
    replay = CartPole(3, 0)
    rollout = Collector(env, policy, steps=60, seed=0).collect()
    for t in range(60):
        assert torch.equal(rollout.obs[:, t], replay.obs)
        step = replay.step(rollout.action[:, t])
        assert torch.equal(rollout.terminated[:, t], step.terminated)
    said = policy.evaluate(rollout.obs, rollout.action)
    assert torch.allclose(rollout.logp, said.logp, atol=2e-6)
    assert torch.allclose(rollout.value, said.value, atol=2e-6)


def test_continuous_actions_are_recorded_as_drawn():
    policy = GaussianPolicy(3, 1, log_std=2.0, seed=0)  # mostly outside of Pendulum's [-2, 2]
    rollout = Collector(make("Pendulum-v1", 2, 0), policy, steps=20, seed=0).collect()
    assert rollout.action.shape == (2, 20, 1)
    assert rollout.action.abs().max() > 2
    assert torch.allclose(rollout.logp, policy.evaluate(rollout.obs, rollout.action).logp, atol=2e-6)


@pytest.mark.parametrize("make_env", [lambda: CartPole(4, 1), lambda: GymEnv("Acrobot-v1", 4, 1)])
def test_saved_between_rollouts_it_goes_on_as_if_never_stopped(make_env):
    policy = CategoricalPolicy(make_env().obs_dim, make_env().actions.n, seed=0)
    whole = Collector(make_env(), policy, steps=50, seed=2)
    straight = [whole.collect() for _ in range(6)]
    for stop in range(1, 6):
        first, second = Collector(make_env(), policy, steps=50, seed=2), Collector(make_env(), policy, steps=50, seed=9)
        for _ in range(stop):
            first.collect()
        second.load_state_dict(first.state_dict())
        for k in range(stop, 6):
            rollout = second.collect()
            for name in ("obs", "action", "logp", "next_value", "reward", "truncated"):
                assert torch.equal(getattr(rollout, name), getattr(straight[k], name)), (stop, k, name)
            assert rollout.ended == straight[k].ended
        assert second.env_steps == whole.env_steps
        assert second.window == whole.window


def test_whole_episodes_as_many_from_each_world():
    """World 0 ends every 2 steps, world 1 every 5: two episodes each are 4 and 10 steps, whatever the chunk."""
    for steps in (1, 3, 7):
        collector = Collector(Script(".t", "....t"), Known(), steps=steps, seed=0)
        rollout = collect_episodes(collector, 4, seed=0)
        assert rollout.mask.sum(1).tolist() == [4, 10]
        assert rollout.mask.shape == (2, 10)
        assert [e.length for e in rollout.ended if e.world == 0] == [2, 2]
        assert [e.length for e in rollout.ended if e.world == 1] == [5, 5]
        assert rollout.reward[1].tolist() == [1, 2, 3, 4, 5] * 2
        assert rollout.next_value[1].tolist() == [102, 103, 104, 105, 0, 112, 113, 114, 115, 0]


def test_whole_episodes_start_anew_each_time():
    collector = Collector(CartPole(2, 0), CategoricalPolicy(4, 2, seed=0), steps=8, seed=0)
    first = collect_episodes(collector, 2, seed=5)
    collector.collect()
    again = collect_episodes(collector, 2, seed=5)
    assert torch.equal(first.obs[:, 0], again.obs[:, 0])
    assert first.ended[0].length >= 8


def test_episodes_must_share_out_evenly():
    with pytest.raises(ConfigError, match="multiple of 2"):
        collect_episodes(Collector(Script(".t", ".t"), Known(), steps=2, seed=0), 3, seed=0)
    with pytest.raises(ConfigError, match="n_steps is 0"):
        Collector(Script("."), Known(), steps=0, seed=0)


def play(collector):
    for _ in range(3):
        collector.collect()


@pytest.mark.parametrize(("what", "words"), [("obs", "observation"), ("reward", "reward"), ("final", "observation")])
@pytest.mark.parametrize("at", [3, 8])
def test_a_number_that_is_none_names_env_world_and_step(what, words, at):
    """World 1 goes bad at step 3 (inside a rollout of 4) or 8 (at the end of the second)."""
    script = ["....", "...."]
    script[1] = "".join("u" if t == at - 1 and what == "final" else "." for t in range(8))
    collector = Collector(Script(*script, spoil=(at, what)), Known(), steps=4, seed=0)
    with pytest.raises(DataError, match=rf"Script gave the {words} .*nan.* in world 1 after {at} steps"):
        play(collector)
