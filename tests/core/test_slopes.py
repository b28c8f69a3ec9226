"""The gradient of the policy loss in what the policy said: autograd's, by formula and otherwise."""

from functools import partial

import numpy as np
import pytest
import torch

from onepolicy.batch import Evaluation, PolicyBatch
from onepolicy.core import slopes
from onepolicy.core.policy import PolicyLoss, clipped, kl_penalised, policy_loss, reinforce
from onepolicy.core.slopes import policy_slopes, row_slopes
from onepolicy.errors import ConfigError, DataError

CLIPPED = partial(clipped, low=0.1, high=0.3)
ROWS = 200


def case(seed, *, dtype=torch.float64, counted=True):
    """What a policy says, ratios well outside of any clip on both sides, and the batch it says it of."""
    rng = torch.Generator().manual_seed(seed)

    def draw(scale=1.0):
        return scale * torch.randn(ROWS, 1, generator=rng, dtype=dtype)

    said = Evaluation(draw(), draw().abs(), draw())
    mask = torch.ones(ROWS, 1, dtype=torch.bool) if counted else torch.rand(ROWS, 1, generator=rng) < 0.7
    batch = PolicyBatch(
        inputs=None,
        action=torch.zeros(ROWS, 1),
        mask=mask,
        logp_behaviour=said.logp + draw(0.3),
        advantage=draw(),
        value_old=said.value + draw(0.3),
        value_target=draw(),
    )
    return said, batch, mask.to(dtype) / mask.sum()


def by_autograd(said, batch, weight, loss):
    leaves = [x.clone().requires_grad_() for x in (said.logp, said.entropy, said.value)]
    out = policy_loss(Evaluation(*leaves), batch, weight, loss)
    found = torch.autograd.grad(out.loss, leaves, allow_unused=True)
    return out, [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]


LOSSES = {
    "ppo": PolicyLoss(CLIPPED, value_coef=0.7, entropy_coef=0.02),
    "value clip": PolicyLoss(CLIPPED, value_coef=0.7, value_clip=0.2),
    "a2c": PolicyLoss(reinforce, value_coef=1.0, entropy_coef=0.01),
    "no critic's loss": PolicyLoss(CLIPPED, entropy_coef=0.02),
    "by autograd": PolicyLoss(partial(kl_penalised, beta=0.5), value_coef=0.7, entropy_coef=0.02),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("counted", [True, False])
def test_loss_metrics_and_slopes_are_those_of_policy_loss(name, counted, monkeypatch):
    """To 1e-12, and without a call of autograd where a formula is known."""
    loss = LOSSES[name]
    for seed in range(5):
        said, batch, weight = case(seed, counted=counted)
        expected, gradients = by_autograd(said, batch, weight, loss)
        if counted and name != "by autograd":
            monkeypatch.setattr(slopes, "policy_loss", None)
        out, found = policy_slopes(said, batch, weight, loss)
        torch.testing.assert_close(out.loss, expected.loss, atol=1e-12, rtol=1e-12)
        assert list(out.metrics) == list(expected.metrics)
        for key, value in expected.metrics.items():
            torch.testing.assert_close(out.metrics[key], value, atol=1e-12, rtol=1e-12)
        for mine, theirs in zip((found.logp, found.entropy, found.value), gradients, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=1e-12)
        assert float(found.logp.abs().max()) > 0


@pytest.mark.parametrize("name", LOSSES)
def test_each_of_several_learners_has_the_loss_and_slopes_of_its_own_row(name):
    """Four rows of 50 against the policy loss of each with the weights of a mean, to 1e-12."""
    said, batch, _ = case(3)
    rows = Evaluation(*(x.view(4, 50) for x in (said.logp, said.entropy, said.value)))
    metrics, found = row_slopes(rows, batch.map(lambda x: x.view(4, 50)), LOSSES[name])
    for k in range(4):
        mine = slice(50 * k, 50 * (k + 1))
        part = Evaluation(said.logp[mine], said.entropy[mine], said.value[mine])
        weight = torch.full((50, 1), 1 / 50, dtype=torch.float64)
        expected, gradients = by_autograd(part, batch.rows(mine), weight, LOSSES[name])
        for key, value in {**expected.metrics, "learner/loss": expected.loss.detach()}.items():
            torch.testing.assert_close(metrics[key][k], value, atol=1e-12, rtol=1e-12)
        for one, two in zip((found.logp, found.entropy, found.value), gradients, strict=True):
            torch.testing.assert_close(one[k], two.view(-1), atol=1e-12, rtol=1e-12)


def test_the_proximal_policy_is_the_one_of_logp_old():
    said, batch, weight = case(0)
    old = batch.map(lambda x: x)
    old = PolicyBatch(**{**vars(old), "logp_old": batch.logp_behaviour, "logp_behaviour": batch.logp_behaviour - 1.0})
    mine, theirs = (policy_slopes(said, data, weight, LOSSES["ppo"])[1].logp for data in (old, batch))
    torch.testing.assert_close(mine, theirs, atol=0, rtol=0)


def test_float32_stays_float32_and_ratios_beyond_its_end_are_infinite_as_autograd_s():
    said, batch, weight = case(1, dtype=torch.float32)
    out, found = policy_slopes(said, batch, weight, LOSSES["ppo"])
    assert {found.logp.dtype, found.entropy.dtype, found.value.dtype, out.loss.dtype} == {torch.float32}
    far = PolicyBatch(**{**vars(batch), "logp_behaviour": batch.logp_behaviour - 200.0})
    expected, _ = by_autograd(said, far, weight, LOSSES["ppo"])
    out, _ = policy_slopes(said, far, weight, LOSSES["ppo"])
    assert out.loss.item() == expected.loss.item() == np.inf


def test_what_does_not_fit_is_named():
    said, batch, weight = case(0)
    with pytest.raises(DataError, match="advantage has shape"):
        policy_slopes(said, PolicyBatch(**{**vars(batch), "advantage": torch.zeros(3, 1)}), weight, LOSSES["ppo"])
    with pytest.raises(ConfigError, match="value_target is None"):
        policy_slopes(said, PolicyBatch(**{**vars(batch), "value_target": None}), weight, LOSSES["ppo"])
