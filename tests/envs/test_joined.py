"""Worlds of several learners in one step are each one's own, whatever kind they are."""

import pytest
import torch

from onepolicy.envs.batched import Batched
from onepolicy.envs.joined import Joined, joined
from onepolicy.envs.scaled import Scaled
from onepolicy.envs.vector import Discrete, WorldOptions, make
from onepolicy.errors import ConfigError

SEEDS, COPIES, STEPS = (3, 40, 500), 2, 250


def worlds(name, scaled):
    found = [make(name, COPIES, seed, WorldOptions()) for seed in SEEDS]
    return [Scaled(env) for env in found] if scaled else found


@pytest.mark.parametrize(
    ("name", "scaled", "kind"),
    [
        ("CartPole-v1", False, Batched),
        ("Pendulum-v1", False, Batched),
        ("Pendulum-v1", True, Scaled),
        ("Blackjack-v1", False, Joined),
    ],
)
def test_each_copy_does_what_it_does_alone(name, scaled, kind):
    together, apart = joined(worlds(name, scaled)), worlds(name, scaled)
    assert type(together) is kind
    if kind is Scaled:
        assert isinstance(together.inner, Batched)
    rng = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        rows = len(SEEDS) * COPIES
        if isinstance(together.actions, Discrete):
            action = torch.randint(together.actions.n, (rows,), generator=rng)
        else:
            action = 2 * torch.rand(rows, together.actions.dim, generator=rng) - 1
        step = together.step(action)
        own = [env.step(part) for env, part in zip(apart, action.split(COPIES), strict=True)]
        for field in ("obs", "reward", "terminated", "truncated", "final_obs"):
            assert torch.equal(getattr(step, field), torch.cat([getattr(each, field) for each in own])), field
    assert torch.equal(together.obs, torch.cat([env.obs for env in apart]))


def test_one_world_is_that_world():
    env = make("CartPole-v1", 2, 0)
    assert joined([env]) is env


def test_different_worlds_are_refused():
    with pytest.raises(ConfigError, match="cannot be joined; all must be the same world"):
        joined([make("CartPole-v1", 1, 0), make("Pendulum-v1", 1, 0)])
