"""Distributions by hand, against torch.distributions, and their samples against their own densities."""

import math

import pytest
import torch
from torch import distributions as peer

from onepolicy.core.distributions import (
    categorical_entropy,
    categorical_evaluate,
    categorical_logp,
    categorical_sample,
    gaussian_entropy,
    gaussian_logp,
    gaussian_sample,
    masked_logits,
    tanh_gaussian_entropy,
    tanh_gaussian_logp,
    tanh_gaussian_sample,
    unsquash,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(rows=7, dimensions=3):
    mean = torch.randn(rows, dimensions, dtype=torch.float64)
    return mean, 0.5 * torch.randn(rows, dimensions, dtype=torch.float64)


def test_categorical_by_hand():
    """Logits log 1, log 3: probabilities 1/4, 3/4; entropy log 4 - 3/4 log 3 = 0.5623."""
    logits = torch.tensor([[1.0, 3.0], [1.0, 3.0]]).log()
    logp, entropy = categorical_evaluate(logits, torch.tensor([0, 1]))
    assert logp.exp().tolist() == pytest.approx([0.25, 0.75])
    assert entropy.tolist() == pytest.approx([math.log(4) - 0.75 * math.log(3)] * 2)


def test_categorical_equals_torch_distributions():
    logits, action = torch.randn(4, 5, 6, dtype=torch.float64), torch.randint(0, 6, (4, 5))
    reference = peer.Categorical(logits=logits)
    torch.testing.assert_close(categorical_logp(logits, action), reference.log_prob(action))
    torch.testing.assert_close(categorical_entropy(logits), reference.entropy())
    both = categorical_evaluate(logits, action)
    assert torch.equal(both[0], categorical_logp(logits, action))
    assert torch.equal(both[1], categorical_entropy(logits))


def test_categorical_limits():
    """Equal logits: entropy log A. One far ahead: 0. A shift of all logits: nothing."""
    assert categorical_entropy(torch.zeros(8)).item() == pytest.approx(math.log(8))
    assert categorical_entropy(torch.tensor([1e4, 0.0])).item() == 0.0
    logits = torch.randn(5, dtype=torch.float64)
    torch.testing.assert_close(categorical_entropy(logits + 100), categorical_entropy(logits))


def test_masked_actions_have_no_probability_no_entropy_no_gradient_and_no_nan():
    logits = torch.randn(50, 4, dtype=torch.float64, requires_grad=True)
    allowed = torch.tensor([True, False, True, False]).expand(50, 4)
    masked = masked_logits(logits, allowed)
    logp, entropy = categorical_evaluate(masked, torch.zeros(50, dtype=torch.int64))
    expected = categorical_evaluate(logits[:, [0, 2]], torch.zeros(50, dtype=torch.int64))
    torch.testing.assert_close(logp, expected[0])
    torch.testing.assert_close(entropy, expected[1])
    (gradient,) = torch.autograd.grad((logp + entropy).sum(), logits)
    assert gradient[:, [1, 3]].eq(0).all()
    assert gradient.isfinite().all()
    draws = categorical_sample(masked.detach().expand(200, 50, 4), generator())
    assert draws.unique().tolist() == [0, 2]


def test_categorical_samples_have_the_frequencies_they_should():
    """100,000 draws at probabilities 0.1, 0.2, 0.7: within four standard errors, and the same again by seed."""
    probability = torch.tensor([0.1, 0.2, 0.7])
    logits = probability.log().expand(100_000, 3)
    draws = categorical_sample(logits, generator())
    share = torch.bincount(draws, minlength=3) / 100_000
    assert ((share - probability).abs() < 4 * (probability * (1 - probability) / 100_000).sqrt()).all()
    assert torch.equal(draws, categorical_sample(logits, generator()))
    assert not torch.equal(draws, categorical_sample(logits, generator(1)))


def test_gaussian_by_hand():
    """Two dimensions at the mean with std 1: log-density -log(2 pi) = -1.8379, entropy 1 + log(2 pi) = 2.8379; one std
    away in one dimension: 1/2 less."""
    mean, log_std = torch.tensor([1.0, 2.0]), torch.zeros(2)
    assert gaussian_logp(mean, log_std, mean).item() == pytest.approx(-math.log(2 * math.pi))
    assert gaussian_logp(mean, log_std, torch.tensor([2.0, 2.0])).item() == pytest.approx(-math.log(2 * math.pi) - 0.5)
    assert gaussian_entropy(log_std).item() == pytest.approx(1 + math.log(2 * math.pi))


def test_gaussian_equals_torch_distributions_with_a_shared_std_too():
    mean, log_std = gaussian()
    action = torch.randn_like(mean)
    reference = peer.Independent(peer.Normal(mean, log_std.exp()), 1)
    torch.testing.assert_close(gaussian_logp(mean, log_std, action), reference.log_prob(action))
    torch.testing.assert_close(gaussian_entropy(log_std), reference.entropy())
    shared = peer.Independent(peer.Normal(mean, log_std[0].exp()), 1)
    torch.testing.assert_close(gaussian_logp(mean, log_std[0], action), shared.log_prob(action))


def test_gaussian_samples_have_the_mean_and_std_they_should():
    mean, log_std = torch.tensor([1.0, -2.0]), torch.tensor([0.0, 1.0])
    draws = gaussian_sample(mean.expand(100_000, 2), log_std, generator())
    error = log_std.exp() / math.sqrt(100_000)
    assert ((draws.mean(0) - mean).abs() < 4 * error).all()
    assert ((draws.std(0) - log_std.exp()).abs() < 4 * error).all()


def test_tanh_gaussian_equals_torch_distributions():
    mean, log_std = gaussian()
    unsquashed = mean + log_std.exp() * torch.randn_like(mean)
    base = peer.Normal(mean, log_std.exp())
    reference = peer.Independent(peer.TransformedDistribution(base, peer.TanhTransform()), 1)
    expected = reference.log_prob(torch.tanh(unsquashed))
    torch.testing.assert_close(tanh_gaussian_logp(mean, log_std, unsquashed), expected, rtol=1e-6, atol=1e-6)


def test_tanh_gaussian_density_integrates_to_one():
    """By hand in spirit: the density over actions, summed over a fine grid of (-1, 1), is 1."""
    action = torch.linspace(-1, 1, 200_001, dtype=torch.float64)[1:-1].unsqueeze(-1)
    mean, log_std = torch.tensor([0.3]).double(), torch.tensor([-0.2]).double()
    density = tanh_gaussian_logp(mean, log_std, torch.atanh(action)).exp()
    assert (density.sum() * 1e-5).item() == pytest.approx(1.0, rel=1e-5)


def test_tanh_gaussian_samples_carry_their_own_log_density():
    mean, log_std = (x.float() for x in gaussian())
    action, logp = tanh_gaussian_sample(mean, log_std, generator())
    assert action.abs().max() < 1
    torch.testing.assert_close(logp, tanh_gaussian_logp(mean, log_std, unsquash(action)), rtol=1e-3, atol=1e-3)


def test_far_out_samples_stay_finite():
    """Where 1 - tanh(u)^2 underflows to 0, its logarithm does not; without the stable form this is infinite."""
    mean = torch.tensor([40.0], requires_grad=True)
    logp = tanh_gaussian_logp(mean, torch.zeros(1), mean)
    assert logp.item() == pytest.approx(-0.5 * math.log(2 * math.pi) + 2 * (40 - math.log(2)), rel=1e-6)
    assert torch.autograd.grad(logp, mean)[0].isfinite().all()


@pytest.mark.parametrize("std", [0.1, 1.0, 4.0])
def test_tanh_gaussian_entropy_is_the_mean_of_minus_the_log_density(std):
    """Against 200,000 samples, within four standard errors."""
    mean = torch.tensor([0.5, -1.0], dtype=torch.float64)
    log_std = torch.full_like(mean, math.log(std))
    _, logp = tanh_gaussian_sample(mean.expand(200_000, 2), log_std.expand(200_000, 2), generator())
    error = (logp.std() / math.sqrt(200_000)).item()
    assert tanh_gaussian_entropy(mean, log_std).item() == pytest.approx(-logp.mean().item(), abs=4 * error + 2e-3)


def test_tanh_gaussian_entropy_limits():
    """Narrow at 0, tanh is the identity: the Gaussian's entropy. Never above log 2, the uniform's on (-1, 1)."""
    narrow = torch.tensor([-6.0], dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    torch.testing.assert_close(tanh_gaussian_entropy(zero, narrow), gaussian_entropy(narrow), rtol=0, atol=1e-4)
    for log_std in (-1.0, -0.2, 0.0, 1.0):
        assert tanh_gaussian_entropy(zero, torch.full_like(zero, log_std)) < math.log(2)


def test_unsquash_inverts_tanh_and_holds_the_ends():
    u = torch.linspace(-4, 4, 50, dtype=torch.float64)
    torch.testing.assert_close(unsquash(torch.tanh(u)), u)
    assert unsquash(torch.tensor([1.0, -1.0])).abs().tolist() == pytest.approx([7.25, 7.25], abs=0.1)


def test_gradients():
    mean, log_std = gaussian(3, 2)
    mean.requires_grad_()
    log_std.requires_grad_()
    u = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    action = torch.tensor([0, 3, 1])
    assert torch.autograd.gradcheck(lambda x: categorical_evaluate(x, action), (logits,))
    assert torch.autograd.gradcheck(gaussian_logp, (mean, log_std, u))
    assert torch.autograd.gradcheck(tanh_gaussian_logp, (mean, log_std, u))
    assert torch.autograd.gradcheck(tanh_gaussian_entropy, (mean, log_std))
    assert torch.autograd.gradcheck(lambda m, s: tanh_gaussian_sample(m, s, generator()), (mean, log_std))
