"""Cutting rollouts for learning: every counted step once, in an order that depends on the seed alone."""

from dataclasses import replace

import pytest
import torch

from onepolicy.batch import PolicyBatch
from onepolicy.data import rollout as rollouts
from onepolicy.data.rollout import Ended, Rollout, concatenate, critic_metrics, first_episodes, flatten, minibatches
from onepolicy.errors import ConfigError


def numbered(n, t):
    """An [n, t] batch whose every tensor holds the number of the element."""
    number = torch.arange(n * t, dtype=torch.float32).view(n, t)
    return PolicyBatch(
        inputs=number.unsqueeze(-1).expand(n, t, 3),
        action=number.long(),
        mask=torch.ones(n, t, dtype=torch.bool),
        logp_behaviour=number,
        advantage=number,
        value_old=number,
        value_target=number,
    )


def rollout(ends):
    """A rollout [N, T] whose terminations are given as rows of "." and "t"; the reward numbers the steps."""
    over = torch.tensor([[what == "t" for what in row] for row in ends])
    number = torch.arange(over.numel(), dtype=torch.float32).view(over.shape)
    ended = tuple(Ended(int(w), int(t), 1.0, 1) for w, t in over.nonzero())
    return Rollout(
        number.unsqueeze(-1), number.long(), number, number, number, number, over, over & False, ~over | over, ended
    )


def test_flattening_keeps_each_step_together():
    flat = flatten(numbered(2, 3))
    assert flat.mask.shape == (6, 1)
    assert flat.inputs.shape == (6, 1, 3)
    assert flat.action.flatten().tolist() == list(range(6))
    assert torch.equal(flat.inputs[:, 0, 0], flat.advantage[:, 0])


def test_flattening_leaves_out_what_does_not_count():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    flat = flatten(replace(numbered(2, 3), mask=mask))
    assert flat.action.flatten().tolist() == [0, 1, 3]
    assert bool(flat.mask.all())


def test_an_epoch_has_every_step_once_and_keeps_its_tensors_together():
    batch = flatten(numbered(4, 25))
    parts = list(minibatches(batch, 32, 0, "epoch", 1))
    assert [len(p) for p in parts] == [32, 32, 32, 4]
    seen = torch.cat([p.action.flatten() for p in parts])
    assert sorted(seen.tolist()) == list(range(100))
    assert seen.tolist() != list(range(100))
    for p in parts:
        assert torch.equal(p.inputs[:, 0, 2], p.value_target[:, 0])


def test_batches_too_large_to_shuffle_at_once_are_cut_into_the_same_parts(monkeypatch):
    batch = flatten(numbered(4, 25))
    whole = list(minibatches(batch, 32, 0, "epoch", 1))
    monkeypatch.setattr(rollouts, "AT_ONCE", 100)
    for one, two in zip(whole, minibatches(batch, 32, 0, "epoch", 1), strict=True):
        assert torch.equal(one.inputs, two.inputs)
        assert torch.equal(one.advantage, two.advantage)


def test_the_order_is_derived_from_the_seed_alone():
    batch = flatten(numbered(4, 25))

    def order(*seed):
        return torch.cat([p.action.flatten() for p in minibatches(batch, 10, *seed)]).tolist()

    assert order(0, "epoch", 1) == order(0, "epoch", 1)
    assert len({tuple(order(*seed)) for seed in ((0, "epoch", 1), (0, "epoch", 2), (1, "epoch", 1))}) == 3


def test_one_part_is_the_batch_itself():
    batch = flatten(numbered(2, 3))
    assert list(minibatches(batch, 6, 0)) == [batch]


def test_no_batch_size_is_refused():
    with pytest.raises(ConfigError, match="batch_size is 0"):
        next(minibatches(flatten(numbered(2, 3)), 0, 0))


def test_rollouts_join_in_time():
    joined = concatenate([rollout(["..t", "..."]), rollout(["t.", ".t"])])
    assert joined.reward.tolist() == [[0, 1, 2, 0, 1], [3, 4, 5, 2, 3]]
    assert [(e.world, e.step) for e in joined.ended] == [(0, 2), (0, 3), (1, 4)]


def test_first_episodes_are_cut_after_the_last_counted_step():
    kept = first_episodes(rollout([".t.t..", "...t.t"]), 1)
    assert kept.mask.tolist() == [[True, True, False, False], [True] * 4]
    assert [(e.world, e.step) for e in kept.ended] == [(0, 1), (1, 3)]


def test_a_critic_that_knows_the_target_explains_all_of_it():
    batch = numbered(2, 3)
    assert critic_metrics(batch)["value/explained_variance"] == 1.0
    constant = replace(batch, value_old=torch.full((2, 3), 9.0))
    assert critic_metrics(constant)["value/explained_variance"] == pytest.approx(0.0)
