"""KL estimators: numbers by hand, their expectations and their gradients enumerated over a small action set."""

import math

import pytest
import torch

from onepolicy.core.kl import exact, k1, k2, k3


def pair(actions=5, seed=0):
    rng = torch.Generator().manual_seed(seed)
    logits, logits_ref = torch.randn(2, actions, generator=rng, dtype=torch.float64)
    return logits.requires_grad_(), logits_ref


def test_by_hand():
    """pi 0.5, ref 0.25: d = log 2. k1 = 0.6931, k2 = d^2 / 2 = 0.2402, k3 = 1/2 - 1 + log 2 = 0.1931."""
    logp, logp_ref = torch.tensor([0.5]).log(), torch.tensor([0.25]).log()
    assert k1(logp, logp_ref).item() == pytest.approx(math.log(2))
    assert k2(logp, logp_ref).item() == pytest.approx(math.log(2) ** 2 / 2)
    assert k3(logp, logp_ref).item() == pytest.approx(math.log(2) - 0.5)


def test_exact_by_hand():
    """pi = (1/2, 1/2), ref = (1/4, 3/4): log 2 / 2 + log(2/3) / 2 = log(4/3) / 2."""
    actual = exact(torch.zeros(2), torch.tensor([0.25, 0.75]).log())
    assert actual.item() == pytest.approx(math.log(4 / 3) / 2)


@pytest.mark.parametrize("seed", range(3))
def test_k1_and_k3_are_unbiased_and_k2_is_not(seed):
    """Expectations over all actions, weighted by pi."""
    logits, logits_ref = pair(seed=seed)
    logp, ref = logits.detach().log_softmax(-1), logits_ref.log_softmax(-1)
    mean = {estimator: float((logp.exp() * estimator(logp, ref)).sum()) for estimator in (k1, k2, k3)}
    truth = float(exact(logits, logits_ref).detach())
    assert mean[k1] == pytest.approx(truth, rel=1e-12)
    assert mean[k3] == pytest.approx(truth, rel=1e-12)
    assert abs(mean[k2] - truth) > 1e-3 * truth


def test_k2_and_k3_are_never_negative_and_zero_at_the_reference():
    logp = torch.randn(1000)
    for estimator in (k2, k3):
        assert estimator(logp, torch.randn(1000)).min() >= 0
        assert estimator(logp, logp).eq(0).all()
    torch.testing.assert_close(k1(logp, logp + 1), torch.full_like(logp, -1))  # the only one that can be negative


def test_close_to_the_reference_all_agree_to_second_order():
    d = torch.tensor([1e-3, -1e-3], dtype=torch.float64)
    torch.testing.assert_close(k3(d, torch.zeros_like(d)), k2(d, torch.zeros_like(d)), rtol=1e-3, atol=0)


def test_what_each_estimator_pulls_towards_when_used_as_a_loss():
    """With samples from pi held fixed, the mean gradient of k2 is that of KL(pi || ref), of k3 that of KL(ref || pi),
    and of k1 nothing at all."""
    logits, logits_ref = pair()
    logp, ref = logits.log_softmax(-1), logits_ref.log_softmax(-1)
    weight = logp.exp().detach()

    def gradient(loss):
        return torch.autograd.grad(loss, logits, retain_graph=True)[0]

    reverse, forward = gradient(exact(logits, logits_ref)), gradient(exact(logits_ref, logits))
    torch.testing.assert_close(gradient((weight * k2(logp, ref)).sum()), reverse)
    torch.testing.assert_close(gradient((weight * k3(logp, ref)).sum()), forward)
    assert gradient((weight * k1(logp, ref)).sum()).abs().max() < 1e-14


def test_impossible_actions():
    """-inf in both adds nothing; -inf only in the policy adds nothing; only in the reference: infinite."""
    inf = float("inf")
    assert exact(torch.tensor([0.0, 0.0, -inf]), torch.tensor([0.0, 0.0, -inf])).item() == 0.0
    assert exact(torch.tensor([0.0, -inf]), torch.tensor([0.0, 0.0])).item() == pytest.approx(math.log(2))
    assert exact(torch.tensor([0.0, 0.0]), torch.tensor([0.0, -inf])).item() == inf


def test_gradients():
    logits, logits_ref = pair()
    assert torch.autograd.gradcheck(exact, (logits, logits_ref.clone().requires_grad_()))
    logp = torch.randn(6, dtype=torch.float64, requires_grad=True)
    for estimator in (k1, k2, k3):
        assert torch.autograd.gradcheck(estimator, (logp, torch.randn(6, dtype=torch.float64)))
