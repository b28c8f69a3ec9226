"""SAC: target, losses and temperature; that a seed learns beside others what it learns alone; settings."""

import math
from copy import deepcopy
from itertools import pairwise

import numpy as np
import pytest
import torch

from onepolicy.algos.sac import Config, Learner, actor_loss, critic_loss, soft_target, temperature_loss
from onepolicy.core.distributions import tanh_gaussian_logp
from onepolicy.data.replay import Transitions
from onepolicy.errors import ConfigError
from onepolicy.learning.optim import OptimConfig
from onepolicy.nn.stacked import alone
from onepolicy.nn.state_noise import SdeOptions

OPTIM = OptimConfig(lr=1e-2, name="adam", max_grad_norm=0.0)
NETWORKS = ("actor", "critic", "target_critic")


def learner(seeds=(3,), **choices):
    return Learner(seeds, 2, 2, (8, 8), Config(batch_size=8, **choices), OPTIM)


def batch(rng, learners=1, rows=8):
    def draw(*shape):
        return torch.from_numpy(rng.standard_normal((learners, rows, *shape), dtype=np.float32))

    action, discount = torch.tanh(draw(2)), torch.where(draw() > 1, 0.0, 0.9)
    return Transitions(draw(2), action, draw(), draw(2), discount, np.zeros((learners, rows), np.int64))


def test_target_and_losses_by_hand():
    """1 + 0.9 (min(4, 3) - 0.5 * -2) = 4.6; 0 ahead of an end. Critics: half the sum of both means."""
    q = torch.tensor([[[4.0, 4.0], [3.0, 9.0]]])
    logp, half = torch.tensor([[-2.0, 1.0]]), torch.tensor([[0.5]])
    found = soft_target(q, logp, half, torch.tensor([[1.0, 2.0]]), torch.tensor([[0.9, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([[4.6, 2.0]]))
    assert critic_loss(q, torch.tensor([[3.0, 4.0]])).tolist() == [0.25 * (1 + 0 + 0 + 25)]
    assert actor_loss(q, logp, half).tolist() == [((-1.0 - 3.0) + (0.5 - 4.0)) / 2]


def test_temperature_rises_where_entropy_lacks_at_the_same_rate_at_any_temperature():
    """Entropies 1 and 3 against 2: gradients of log alpha -(-1 + 2) and -(-3 + 2), whatever alpha."""
    for start in (0.0, -5.0):
        log_alpha = torch.full((2,), start, requires_grad=True)
        loss = temperature_loss(log_alpha, torch.tensor([[-1.0, -1.0], [-2.0, -4.0]]), 2.0)
        assert torch.autograd.grad(loss.sum(), log_alpha)[0].tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("temperature", [None, 0.2])
def test_an_update_by_plain_torch(temperature):
    """One seed, three updates, in the order of stable-baselines3, with autograd over everything and core's density."""
    mine, plain = learner(temperature=temperature), learner(temperature=temperature)
    noises, rng = learner().rngs[0], np.random.default_rng(0)
    log_alpha = torch.tensor(math.log(temperature or 1.0), requires_grad=True)
    nets = [plain.actor.parameters(), plain.critic.parameters(), [log_alpha]]
    actor_adam, critic_adam, alpha_adam = (torch.optim.Adam(part, lr=1e-2) for part in nets)

    def policy(obs, noise):
        mean, log_std = plain.actor(obs)
        u = mean + log_std.exp() * noise
        return torch.tanh(u), tanh_gaussian_logp(mean, log_std, u)

    for _ in range(3):
        data = batch(rng)
        mine.update(data)
        first, second = torch.from_numpy(noises.standard_normal((2, 8, 2), dtype=np.float32)).unsqueeze(1)
        alpha = log_alpha.detach().exp()
        action, logp = policy(data.obs, first)
        if temperature is None:
            alpha_adam.zero_grad()
            (-(log_alpha * (logp.detach() - 2.0)).mean()).backward()
            alpha_adam.step()
        with torch.no_grad():
            ahead, ahead_logp = policy(data.next_obs, second)
            worth = plain.target_critic(data.next_obs, ahead).min(dim=1).values - alpha * ahead_logp
            goal = data.reward + data.discount * worth
        q = plain.critic(data.obs, data.action)
        critic_adam.zero_grad()
        (0.5 * sum(((q[:, k] - goal) ** 2).mean() for k in range(2))).backward()
        critic_adam.step()
        actor_adam.zero_grad()
        (alpha * logp - plain.critic(data.obs, action).min(dim=1).values).mean().backward()
        actor_adam.step()
        with torch.no_grad():
            for t, p in zip(plain.target_critic.parameters(), plain.critic.parameters(), strict=True):
                t.copy_(0.995 * t + 0.005 * p)
    assert mine.log_temperature.item() == pytest.approx(log_alpha.item(), abs=1e-5)
    for name in NETWORKS:
        for key, value in getattr(mine, name).state_dict().items():
            torch.testing.assert_close(value, getattr(plain, name).state_dict()[key], rtol=1e-4, atol=1e-5)


def test_a_seed_learns_beside_others_what_it_learns_alone():
    """Seed 5 of (2, 5, 9), on its own data and noise: parameters to 1e-5 after six updates, actions too."""
    together, single = learner((2, 5, 9)), learner((5,))
    rng = np.random.default_rng(0)
    for _ in range(6):
        three = batch(rng, learners=3)
        together.update(three)
        parts = (three.obs, three.action, three.reward, three.next_obs, three.discount)
        single.update(Transitions(*(part[1:2] for part in parts), row=three.row[1:2]))
    assert together.log_temperature[1].item() == pytest.approx(single.log_temperature.item(), abs=1e-5)
    for name in NETWORKS:
        for key, value in alone(getattr(together, name), 1).state_dict().items():
            torch.testing.assert_close(value, getattr(single, name).state_dict()[key], rtol=1e-5, atol=1e-5)
    obs = np.ones((3, 4, 2), np.float32)
    found = together.explore(0)(obs, [np.random.default_rng(k) for k in range(3)])[1]
    expected = single.explore(0)(obs[1:2], [np.random.default_rng(1)])[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_exploring_draws_from_the_policy():
    """Mean and spread of atanh of the actions are those the actor says."""
    part = learner()
    obs = np.full((1, 20_000, 2), 0.3, np.float32)
    mean, log_std = (x[0, 0] for x in part.view(obs))
    u = np.arctanh(part.explore(0)(obs, [np.random.default_rng(0)])[0].astype(np.float64).clip(-1 + 1e-7, 1 - 1e-7))
    np.testing.assert_allclose(u.mean(0), mean, atol=3 * np.exp(log_std).max() / 20_000**0.5)
    np.testing.assert_allclose(u.std(0), np.exp(log_std), rtol=0.02)
    np.testing.assert_allclose(part.greedy(obs)[0, 0], np.tanh(mean), rtol=1e-6)


def test_held_noise_is_drawn_anew_after_its_steps():
    """hold 3: the same action in the same state for steps 0 to 2, another for 3 to 5; each world its own."""
    part, rngs = learner(hold=3), [np.random.default_rng(0)]
    obs = np.ones((1, 4, 2), np.float32)
    found = np.stack([part.explore(step)(obs, rngs) for step in range(6)])
    for first in (0, 3):
        assert (found[first : first + 3] == found[first]).all()
    assert (found[0] != found[3]).all()
    assert len(np.unique(found[0, 0, :, 0])) == 4


def test_noise_by_state_is_drawn_anew_where_learning_may_follow():
    """train_every 8 in 4 worlds: steps 0 and 1 alike, then others; sample_freq 1: each step its own; one per world."""
    obs = np.ones((1, 4, 2), np.float32)
    for every, alike in ((0, [True, False, True]), (1, [False] * 3)):
        part, rngs = learner(train_every=8, sde=SdeOptions(use=True, sample_freq=every)), [np.random.default_rng(0)]
        found = np.stack([part.explore(step)(obs, rngs) for step in range(4)])
        assert [bool((a == b).all()) for a, b in pairwise(found)] == alike
        assert len(np.unique(found[0, 0, :, 0])) == 4


def test_an_update_with_noise_by_state_by_plain_torch():
    """The critics' loss: one matrix pushes the whole batch and what followed it, as stable-baselines3's SAC has it."""
    part, noises = learner(temperature=0.2, sde=SdeOptions(use=True)), learner().rngs[0]
    noise = torch.from_numpy(noises.standard_normal(part.actor.log_std.shape[1:], dtype=np.float32))[None]
    data = batch(np.random.default_rng(0))
    with torch.no_grad():
        action, logp = part.actor.draw(data.next_obs, noise)
        ahead = part.target_critic(data.next_obs, action).amin(1) - 0.2 * logp
        loss = critic_loss(part.critic(data.obs, data.action), data.reward + data.discount * ahead)
    before = part.actor.log_std.clone()
    part.update(data)
    torch.testing.assert_close(part.metrics["value/loss"], loss)
    assert (part.actor.log_std != before).any()


def test_loaded_it_goes_on_as_it_would_have():
    first, second = learner((1, 2)), learner((7, 8))
    rng = np.random.default_rng(0)
    first.update(batch(rng, 2))
    second.load_state_dict(deepcopy(first.state_dict()))
    data = batch(rng, 2)
    first.update(data), second.update(data)
    assert torch.equal(first.log_temperature, second.log_temperature)
    assert first.metrics.keys() == second.metrics.keys()
    for name in NETWORKS:
        for key, value in getattr(first, name).state_dict().items():
            assert torch.equal(value, getattr(second, name).state_dict()[key])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"temperature": 0.0}, "temperature is 0.0; it is positive, or None"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"hold": 0}, "hold is 0"),
        ({"gradient_steps": 0}, "gradient_steps is 0"),
        ({"tau": 0.0}, "tau is 0.0"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, words):
    with pytest.raises(ConfigError, match=words):
        Config(**wrong)
