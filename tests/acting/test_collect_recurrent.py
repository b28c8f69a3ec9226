"""Collecting with a policy that remembers: evaluated whole it says the same; bootstraps before resets; exact saving."""

import numpy as np
import pytest
import torch

from onepolicy.acting.collect import Collector, collect_episodes
from onepolicy.acting.normalised import NormalisedPolicy
from onepolicy.batch import SequenceInputs
from onepolicy.data.rollout import flatten, minibatches
from onepolicy.envs.batched import Batched
from onepolicy.envs.classic import dynamics_of
from onepolicy.envs.gym import GymEnv
from onepolicy.envs.normalise import Moments
from onepolicy.evaluation.returns import play
from onepolicy.nn.policies import CategoricalPolicy


def carts(num_envs=3, limit=15):
    """CartPole with many ends of both kinds."""
    return Batched(dynamics_of("CartPole-v1"), num_envs, 0, max_steps=limit)


def policy_of(cell="lstm"):
    policy = CategoricalPolicy(4, 2, hidden=(8,), seed=0, recurrent=cell)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    return policy


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_rollout_evaluated_whole_says_what_was_said_when_played(cell):
    policy = policy_of(cell)
    collector = Collector(carts(), policy, steps=20, seed=0)
    for _ in range(3):  # episodes go on from one rollout to the next
        rollout = collector.collect()
        batch = flatten(rollout.batch(torch.zeros_like(rollout.value)))
        assert isinstance(batch.inputs, SequenceInputs)
        assert batch.mask.shape == (3, 20)
        said = policy.evaluate(batch.inputs, batch.action)
        torch.testing.assert_close(said.logp, rollout.logp, rtol=0, atol=2e-6)
        torch.testing.assert_close(said.value, rollout.value, rtol=0, atol=2e-6)
    assert rollout.state.abs().max() > 0


def test_what_follows_a_step_is_valued_with_the_memory_of_its_own_episode():
    """Every next value against a policy that sees the episode from its first step to the observation that ended it."""
    policy, env = policy_of(), carts()
    collector, replay = Collector(env, policy, steps=40, seed=0), carts()
    rollout = collector.collect()
    seen = [[replay.obs[i]] for i in range(3)]
    cuts = 0
    for t in range(40):
        step = replay.step(rollout.action[:, t])
        for i in range(3):
            episode = torch.stack([*seen[i], step.final_obs[i]])[None]
            said = policy.evaluate(episode, torch.zeros(episode.shape[:2], dtype=torch.int64))
            expected = 0.0 if step.terminated[i] else said.value[0, -1].item()
            assert float(rollout.next_value[i, t]) == pytest.approx(expected, abs=2e-6), (i, t)
            cuts += bool(step.truncated[i] & ~step.terminated[i])
            over = bool(step.terminated[i] | step.truncated[i])
            seen[i] = [step.obs[i]] if over else [*seen[i], step.obs[i]]
    assert cuts > 2


@pytest.mark.parametrize("make_env", [carts, lambda: GymEnv("Acrobot-v1", 3, 1)])
def test_saved_between_rollouts_it_goes_on_as_if_never_stopped(make_env):
    env = make_env()
    policy = CategoricalPolicy(env.obs_dim, env.actions.n, hidden=(8,), recurrent="lstm")
    whole = Collector(env, policy, steps=12, seed=2)
    straight = [whole.collect() for _ in range(4)]
    first, second = Collector(make_env(), policy, steps=12, seed=2), Collector(make_env(), policy, steps=12, seed=9)
    for _ in range(2):
        first.collect()
    second.load_state_dict(first.state_dict())
    for expected in straight[2:]:
        rollout = second.collect()
        for name in ("obs", "action", "logp", "value", "next_value", "state"):
            assert torch.equal(getattr(rollout, name), getattr(expected, name)), name


def test_whole_episodes_begin_with_nothing_remembered():
    collector = Collector(carts(2), policy_of(), steps=6, seed=0)
    collector.collect()
    rollout = collect_episodes(collector, 4, seed=5)
    assert rollout.state.abs().max() == 0
    batch = flatten(rollout.batch(torch.zeros_like(rollout.value)))
    said = policy_of().evaluate(batch.inputs, batch.action)
    gap = (said.logp - rollout.logp).abs()[rollout.mask]
    assert gap.max() < 2e-6


def test_minibatches_are_of_whole_sequences():
    """Of 4 sequences of 10 steps, 25 steps hold 2; 5 hold one; each is there once."""
    rollout = Collector(carts(4), policy_of(), steps=10, seed=0).collect()
    batch = flatten(rollout.batch(torch.arange(40.0).view(4, 10)))
    for size, rows in ((25, [2, 2]), (5, [1, 1, 1, 1]), (40, [4])):
        parts = list(minibatches(batch, size, 0))
        assert [len(part) for part in parts] == rows
        assert sorted(x for part in parts for x in part.advantage.flatten().tolist()) == list(range(40))
        for part in parts:
            said = policy_of().evaluate(part.inputs, part.action)
            torch.testing.assert_close(said.logp, part.logp_behaviour, rtol=0, atol=2e-6)


def test_evaluation_forgets_between_episodes():
    """Twice the episodes of one world: the second's actions are those of a new start."""
    policy, env = policy_of(), carts(1)
    greedy, lengths = policy.greedy(), []
    for _ in range(2):
        lengths.append(play(env, greedy, 1, 3).lengths)
    assert lengths[0] == lengths[1]
    fresh = policy.greedy()
    inner, seen = fresh.act, []

    def watching(obs):
        seen.append(not fresh.memory.of(len(obs)).any())
        return inner(obs)

    fresh.act = watching
    found = play(carts(1), fresh, 3, 3)
    assert sum(seen) == 3
    assert len(seen) == sum(found.lengths)


def test_behind_a_normaliser_it_remembers_and_forgets():
    policy, moments = policy_of(), Moments(4)
    moments.update(np.random.default_rng(0).standard_normal((50, 4)) * 3 + 1)
    player = NormalisedPolicy(policy, moments)
    obs = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    value = [player.act(obs[:, t])[1].value for t in range(3)]
    start = torch.zeros(2, 3, dtype=torch.bool)
    inputs = SequenceInputs(obs, start, torch.zeros(2, policy.networks.memory.width))
    whole = player.evaluate(inputs, torch.zeros(2, 3, dtype=torch.int64)).value
    torch.testing.assert_close(torch.stack(value, 1), whole, rtol=0, atol=2e-6)
    player.forget()
    torch.testing.assert_close(player.act(obs[:, 0])[1].value, value[0], rtol=0, atol=1e-6)
    greedy, sampler = player.greedy(), player.sampler(np.random.default_rng(0))
    greedy(obs[:, 0].numpy()), sampler.draw(obs[:, 0].numpy())
    assert np.array_equal(greedy.memory.state, sampler.memory.state)
    assert greedy.memory.state.any()
