"""SAC on numbered actions: losses by hand, an update by plain torch, seeds beside others, masks, settings."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch

from onepolicy.algos.sac import Config, DiscreteLearner, clipped_critic_loss, expectation
from onepolicy.data.replay import Transitions
from onepolicy.errors import ConfigError
from onepolicy.learning.optim import OptimConfig
from onepolicy.nn.discrete import SoftmaxPolicy
from onepolicy.nn.stacked import alone

OPTIM = OptimConfig(lr=1e-2, name="adam", max_grad_norm=0.0)
NETWORKS = ("actor", "critic", "target_critic")


def learner(seeds=(3,), masked=False, **choices):
    return DiscreteLearner(seeds, 2 + 3 * masked, 3, (8, 8), Config(batch_size=8, **choices), OPTIM, masked=masked)


def batch(rng, learners=1, rows=8, masked=False):
    def draw(*shape):
        return torch.from_numpy(rng.standard_normal((learners, rows, *shape), dtype=np.float32))

    def see():
        legal = torch.from_numpy(rng.integers(0, 2, (learners, rows, 3)).astype(np.float32))
        legal[..., 0] = 1.0
        return torch.cat([draw(2), legal], dim=-1) if masked else draw(2)

    action = torch.from_numpy(rng.integers(0, 1 if masked else 3, (learners, rows)))
    discount = torch.where(draw() > 1, 0.0, 0.9)
    return Transitions(see(), action, draw(), see(), discount, np.zeros((learners, rows), np.int64))


def test_expectation_by_hand():
    """p = (1/4, 3/4, 0): value (4 + 3 * 8) / 4, entropy log 4 - 3/4 log 3; the illegal action's 1e6 counts nothing."""
    logits = torch.tensor([0.0, math.log(3.0), -1e30])
    worth, entropy = expectation(logits, torch.tensor([4.0, 8.0, 1e6]))
    assert worth.item() == pytest.approx(7.0)
    assert entropy.item() == pytest.approx(math.log(4) - 0.75 * math.log(3))


def test_the_clip_holds_critics_near_their_slow_copies():
    """y = 0, Q' = 2, c = 0.5. Q = 1 counts as 1.5, so that it has no gradient; Q = 3 counts as itself."""
    q = torch.tensor([[[1.0, 3.0]]], requires_grad=True)
    loss = clipped_critic_loss(q, torch.full((1, 1, 2), 2.0), torch.zeros(1, 2), 0.5)
    assert loss.item() == pytest.approx(0.5 * (1.5**2 + 3.0**2) / 2)
    assert torch.autograd.grad(loss.sum(), q)[0].tolist() == [[[0.0, 1.5]]]


@pytest.mark.parametrize(
    "choices", [{}, {"temperature": 0.2}, {"critics": "mean", "q_clip": 0.1, "entropy_penalty": 0.5}]
)
def test_an_update_by_plain_torch(choices):
    """One seed, three updates: everything drawn out, the critics of before the step in the actor's loss."""
    mine, plain = learner(**choices), learner(**choices)
    slow_actor, rng = deepcopy(plain.actor), np.random.default_rng(0)
    log_alpha = torch.tensor(math.log(choices.get("temperature", 1.0)), requires_grad=True)
    nets = [plain.actor.parameters(), plain.critic.parameters(), [log_alpha]]
    adams = [torch.optim.Adam(part, lr=1e-2) for part in nets]
    counts = (lambda q: q.mean(0)) if "critics" in choices else (lambda q: q.min(0).values)
    for _ in range(3):
        data = batch(rng)
        mine.update(data)
        alpha = log_alpha.detach().exp()
        with torch.no_grad():
            ahead = torch.distributions.Categorical(logits=plain.actor(data.next_obs)[0])
            worth = (ahead.probs * counts(plain.target_critic(data.next_obs)[0])).sum(-1)
            goal = data.reward[0] + data.discount[0] * (worth + alpha * ahead.entropy())
            slow = plain.target_critic(data.obs)[0]
            known = counts(plain.critic(data.obs)[0])
            before = torch.distributions.Categorical(logits=slow_actor(data.obs)[0]).entropy()
        rows = torch.arange(8)
        loss = 0.0
        for k in range(2):
            q, old = plain.critic(data.obs)[0, k, rows, data.action[0]], slow[k, rows, data.action[0]]
            errors = (q - goal) ** 2
            if "q_clip" in choices:
                errors = torch.max(errors, (old + (q - old).clamp(-0.1, 0.1) - goal) ** 2)
            loss = loss + 0.5 * errors.mean()
        now = torch.distributions.Categorical(logits=plain.actor(data.obs)[0])
        climb = (now.probs * (alpha * now.logits - known)).sum(-1)
        climb = climb + 0.5 * choices.get("entropy_penalty", 0.0) * (before - now.entropy()) ** 2
        lack = 0.98 * math.log(3) - now.entropy().detach().mean()
        losses = [climb.mean(), loss, -log_alpha * lack]
        for k, (adam, each) in enumerate(zip(adams, losses, strict=True)):
            if k < 2 or "temperature" not in choices:
                adam.zero_grad()
                each.backward()
                adam.step()
        with torch.no_grad():
            for target, net in ((plain.target_critic, plain.critic), (slow_actor, plain.actor)):
                for t, p in zip(target.parameters(), net.parameters(), strict=True):
                    t.copy_(0.995 * t + 0.005 * p)
    assert mine.log_temperature.item() == pytest.approx(log_alpha.item(), abs=1e-5)
    for name in NETWORKS:
        for key, value in getattr(mine, name).state_dict().items():
            torch.testing.assert_close(value, getattr(plain, name).state_dict()[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_a_seed_learns_beside_others_what_it_learns_alone(masked):
    together, single = learner((2, 5, 9), masked), learner((5,), masked)
    rng = np.random.default_rng(0)
    for _ in range(6):
        three = batch(rng, learners=3, masked=masked)
        together.update(three)
        parts = (three.obs, three.action, three.reward, three.next_obs, three.discount)
        single.update(Transitions(*(part[1:2] for part in parts), row=three.row[1:2]))
    assert together.log_temperature[1].item() == pytest.approx(single.log_temperature.item(), abs=1e-5)
    for name in NETWORKS:
        for key, value in alone(getattr(together, name), 1).state_dict().items():
            torch.testing.assert_close(value, getattr(single, name).state_dict()[key], rtol=1e-5, atol=1e-5)
    obs = np.repeat(batch(rng, masked=masked).obs.numpy(), 3, axis=0)
    found = together.explore(0)(obs, [np.random.default_rng(k) for k in range(3)])[1]
    assert np.array_equal(found, single.explore(0)(obs[1:2], [np.random.default_rng(1)])[0])


def test_illegal_actions_are_neither_drawn_nor_learnt_of():
    """The actor's weights of an action that is illegal everywhere stay; all metrics stay finite, at any temperature."""
    part = learner(masked=True)
    data = batch(np.random.default_rng(0), masked=True)
    for obs in (data.obs, data.next_obs):
        obs[..., 2:] = torch.tensor([1.0, 0.0, 1.0])
    data.next_obs[0, 0, 2:] = 0.0  # where an episode has ended nothing need be legal
    with torch.no_grad():
        part.log_temperature.fill_(3.0)
    before = part.actor.body.weight2.detach().clone()
    for _ in range(5):
        part.update(data)
    moved = (part.actor.body.weight2.detach() - before).abs().sum(dim=(0, 1))
    assert (moved[1] == 0, moved[0] > 0, moved[2] > 0) == (True, True, True)
    assert all(bool(torch.isfinite(value).all()) for value in part.metrics.values())
    drawn = part.explore(0)(np.tile(data.obs.numpy(), (1, 200, 1)), [np.random.default_rng(0)])
    assert set(np.unique(drawn)) == {0, 2}
    policy = SoftmaxPolicy(alone(part.actor, 0), 5)
    assert not bool((policy.act(data.obs[0])[0] == 1).any())
    assert np.array_equal(policy.greedy()(data.obs[0].numpy()), part.greedy(data.obs.numpy())[0])


def test_the_entropy_aimed_at_is_a_share_of_that_of_the_legal_actions():
    part = learner(masked=True, entropy_share=0.5)
    obs = torch.tensor([[[0.0, 0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0, 0.0]]])
    assert part._target_entropy(obs)[0].tolist() == pytest.approx([0.5 * math.log(3), 0.5 * math.log(2), 0.0])


def test_loaded_it_goes_on_as_it_would_have():
    first, second = learner((1, 2), entropy_penalty=0.5), learner((7, 8), entropy_penalty=0.5)
    rng = np.random.default_rng(0)
    first.update(batch(rng, 2))
    second.load_state_dict(deepcopy(first.state_dict()))
    data = batch(rng, 2)
    first.update(data), second.update(data)
    assert torch.equal(first.log_temperature, second.log_temperature)
    for name in (*NETWORKS, "target_actor"):
        for key, value in getattr(first, name).state_dict().items():
            assert torch.equal(value, getattr(second, name).state_dict()[key])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"entropy_share": 1.5}, "entropy_share is 1.5"),
        ({"critics": "men"}, "critics is 'men'. Did you mean 'mean'"),
        ({"q_clip": 0.0}, "q_clip is 0.0; it is positive"),
        ({"entropy_penalty": -1.0}, "entropy_penalty is -1.0"),
        ({"hold": 3}, r"hold is 3, sde\.use False; numbered actions are drawn anew"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, words):
    with pytest.raises(ConfigError, match=words):
        learner(**wrong)
