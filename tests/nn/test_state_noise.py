"""gSDE: the density against stable-baselines3's numbers and draws, when the noise changes, who learns from it."""

import numpy as np
import pytest
import torch

from onepolicy.core.distributions import gaussian_entropy, gaussian_logp, tanh_gaussian_logp
from onepolicy.errors import ConfigError
from onepolicy.nn.state_noise import SdeOptions, StackedStateNoise, StateNoisePolicy, state_log_std

FEATURES = torch.tensor([[0.5, -1.0, 2.0], [0.1, 0.0, -0.3]])
LOG_STD = torch.tensor([[-1.0, 0.2], [0.0, -0.5], [-2.0, 0.3]])
MEAN, ACTION = torch.tensor([[0.3, -0.4], [0.0, 1.0]]), torch.tensor([[1.0, 0.5], [-0.2, 0.8]])


def policy(**options):
    """Weights far from their start; features of about 1."""
    made = StateNoisePolicy(3, 2, hidden=(6, 5), seed=1, log_std=-0.5, **options)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(len(p))))
    return made


def observations(rows):
    return np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)


def test_the_deviation_by_hand():
    """h = (3, 4), sigma = (1, 1) for the first action, (0, 0.5) for the second: 5 and 2."""
    sigma = torch.tensor([[1.0, 1e-9], [1.0, 0.5]])
    assert state_log_std(torch.tensor([[3.0, 4.0]]), sigma.log()).exp().tolist() == [
        [pytest.approx(5), pytest.approx(2)]
    ]


def test_stable_baselines3_s_numbers():
    """StateDependentNoiseDistribution of stable-baselines3 2.9 with these features, deviations, means and actions."""
    spread = state_log_std(FEATURES, LOG_STD)
    torch.testing.assert_close(spread.exp(), torch.tensor([[1.0522, 2.8336], [0.0548, 0.4230]]), atol=1e-4, rtol=0)
    found = gaussian_logp(MEAN, spread, ACTION), gaussian_entropy(spread)
    for mine, theirs in zip(found, ([-3.2020, -4.8457], [3.9303, -0.9267]), strict=True):
        torch.testing.assert_close(mine, torch.tensor(theirs), atol=1e-3, rtol=0)
    one = state_log_std(FEATURES, LOG_STD[:, :1].expand(-1, 2))
    found = gaussian_logp(MEAN, one, ACTION), gaussian_entropy(one)
    for mine, theirs in zip(found, ([-2.5267, -9.3507], [2.9396, -2.9703]), strict=True):
        torch.testing.assert_close(mine, torch.tensor(theirs), atol=1e-3, rtol=0)
    squashed = tanh_gaussian_logp(MEAN, spread, ACTION)
    torch.testing.assert_close(squashed, torch.tensor([-2.0942, -4.2244]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("full_std", [True, False])
def test_the_sampler_says_what_the_policy_says(full_std):
    made, obs = policy(full_std=full_std), observations(7)
    draw, value = made.sampler(np.random.default_rng(0)).draw(obs)
    said = made.evaluate(torch.from_numpy(obs), torch.from_numpy(draw.action))
    np.testing.assert_allclose(draw.logp, said.logp.detach(), atol=1e-5)
    np.testing.assert_allclose(value, said.value.detach(), atol=1e-5)
    assert made.networks(torch.from_numpy(obs))[0].detach().numpy() == pytest.approx(made.greedy()(obs), abs=1e-5)


def test_over_draws_of_the_matrix_actions_have_the_density_s_mean_and_deviation():
    """20,000 worlds in one state, each with a matrix of its own: mean and deviation within 4 standard errors."""
    made, obs = policy(), observations(1)
    mean, log_std, _ = made._says(torch.from_numpy(obs))
    action = made.sampler(np.random.default_rng(0)).draw(np.repeat(obs, 20_000, axis=0))[0].action
    std = log_std.exp().detach().numpy()[0]
    np.testing.assert_allclose(action.mean(0), mean.detach().numpy()[0], atol=4 * std.max() / 20_000**0.5)
    np.testing.assert_allclose(action.std(0) / std, 1.0, atol=4 / 40_000**0.5)


def test_the_noise_is_a_function_of_the_state_until_it_is_drawn_anew():
    """sample_freq 3: equal states get equal actions in calls 0 to 2 and others from 3 on; each world has its own."""
    obs = np.repeat(observations(1), 2, axis=0)
    draw = policy(sample_freq=3).sampler(np.random.default_rng(0)).draw
    actions = np.stack([draw(obs)[0].action for _ in range(6)])
    assert (actions[:3] == actions[0]).all()
    assert (actions[3:] == actions[3]).all()
    assert not np.isclose(actions[0], actions[3]).any()
    assert not np.isclose(actions[0, 0], actions[0, 1]).any()
    kept = policy().sampler(np.random.default_rng(0)).draw
    assert (np.stack([kept(obs)[0].action for _ in range(9)]) == kept(obs)[0].action).all()


def test_a_policy_for_rollouts_does_not_learn_its_features_from_the_noise():
    """The entropy has a gradient in log_std alone; of SAC's, the log-density has one in the features too."""
    made = policy()
    entropy = made.evaluate(torch.from_numpy(observations(4)), torch.zeros(4, 2)).entropy.sum()
    found = dict(zip(dict(made.named_parameters()), torch.autograd.grad(entropy, made.parameters(), allow_unused=True)))
    assert found["log_std"].abs().min() > 0
    assert all(g is None or not g.any() for name, g in found.items() if name != "log_std")
    actor = StackedStateNoise((0,), 3, 2, (6, 5))
    _, log_std = actor(torch.from_numpy(observations(4))[None])
    assert torch.autograd.grad(log_std.sum(), actor.body.weight0)[0].abs().sum() > 0


def test_the_squashed_draw_is_its_density_and_has_its_gradients():
    """u = mean + W^T h: log pi is core's tanh_gaussian_logp there, in value and in every parameter's gradient."""
    actor = StackedStateNoise((3, 8), 3, 2, (6, 5), log_std=-0.5).double()
    obs = torch.from_numpy(observations(8)).double().view(2, 4, 3)
    noise = torch.randn(2, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    action, logp = actor.draw(obs, noise)
    mean, features, log_std = actor._says(obs)
    u = mean + features @ (log_std.exp() * noise)
    expected = tanh_gaussian_logp(mean, state_log_std(features, log_std), u)
    torch.testing.assert_close(action, torch.tanh(u))
    torch.testing.assert_close(logp, expected)
    for one, two in zip(*(torch.autograd.grad(x.sum(), actor.parameters()) for x in (logp, expected)), strict=True):
        torch.testing.assert_close(one, two)


def test_its_matrices_push_every_row_with_the_deviation_it_says():
    actor = StackedStateNoise((3, 8), 3, 2, (6, 5), log_std=-0.5)
    obs = torch.from_numpy(observations(2)).view(2, 1, 3)
    mean, features = actor.numpy_view()(obs.numpy())
    said_mean, said = actor(obs)
    np.testing.assert_allclose(mean, said_mean.detach(), atol=1e-6)
    matrices = actor.matrices(20_000, [np.random.default_rng(k) for k in range(2)])
    pushed = np.einsum("sh,srha->sra", features[:, 0], matrices)
    np.testing.assert_allclose(pushed.std(1), said.exp().detach()[:, 0], rtol=4 / 40_000**0.5)


def test_bad_options_are_refused():
    with pytest.raises(ConfigError, match=r"sde.sample_freq is -1.*Set 0"):
        SdeOptions(sample_freq=-1)
    with pytest.raises(ConfigError, match="hidden is"):
        StackedStateNoise((0,), 3, 1, ())
