"""policy_loss as a whole: a batch by hand, a naive loop, and what must not change it."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.batch import Evaluation, PolicyBatch
from onepolicy.core.kl import k1, k2, k3
from onepolicy.core.policy import PolicyLoss, cispo, clipped, dual_clipped, policy_loss, reinforce
from onepolicy.core.reduce import REDUCTIONS, loss_count, loss_weights
from onepolicy.errors import ConfigError, DataError

NAN = float("nan")
FULL = PolicyLoss(partial(clipped, low=0.2, high=0.28), value_coef=0.5, value_clip=0.3, entropy_coef=0.01, kl_coef=0.04)


def world(rows=4, steps=6, seed=0, dtype=torch.float64):
    """A random evaluation with gradients and a random batch, every field filled."""
    rng = torch.Generator().manual_seed(seed)
    logp, behaviour, old, ref, advantage, value, value_old, target = (
        torch.randn(rows, steps, generator=rng, dtype=dtype) for _ in range(8)
    )
    mask = torch.rand(rows, steps, generator=rng) < 0.7
    mask[0, 0] = True
    evaluation = Evaluation(
        (0.3 * logp - 1).requires_grad_(),
        torch.rand(rows, steps, generator=rng, dtype=dtype).requires_grad_(),
        value.requires_grad_(),
    )
    batch = PolicyBatch(
        inputs=None,
        action=torch.zeros(rows, steps),
        mask=mask,
        logp_behaviour=0.3 * behaviour - 1,
        advantage=advantage,
        logp_old=0.3 * old - 1,
        logp_ref=0.3 * ref - 1,
        value_old=value_old,
        value_target=target,
    )
    return evaluation, batch


def gradients(output, evaluation):
    leaves = [x for x in (evaluation.logp, evaluation.entropy, evaluation.value) if x is not None]
    found = torch.autograd.grad(output.loss, leaves, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found)]


def test_by_hand():
    """Two counted steps, weight 1/2 each, entropy 1, advantage 1, clip 0.2. Ratios e^0 = 1 and e^1 = 2.718 (clipped to
    1.2): surrogate (-1 - 1.2) / 2 = -1.1. Value errors 0 and 2: (0 + 2^2 / 2) / 2 = 1. KL k3 to a reference equal to
    the policy: 0. Loss -1.1 + 0.5 * 1 - 0.1 * 1 = -0.7; one of two steps is clipped; KL to old (e^1 - 1 - 1) / 2."""
    evaluation = Evaluation(torch.tensor([[-1.0, -1.0]]), torch.ones(1, 2), torch.tensor([[3.0, 3.0]]))
    batch = PolicyBatch(
        inputs=None,
        action=torch.zeros(1, 2),
        mask=torch.ones(1, 2).bool(),
        logp_behaviour=torch.tensor([[-1.0, -2.0]]),
        advantage=torch.ones(1, 2),
        logp_ref=torch.tensor([[-1.0, -1.0]]),
        value_target=torch.tensor([[3.0, 1.0]]),
    )
    loss = PolicyLoss(partial(clipped, low=0.2, high=0.2), value_coef=0.5, entropy_coef=0.1, kl_coef=9.0)
    output = policy_loss(evaluation, batch, torch.full((1, 2), 0.5), loss)
    assert output.loss.item() == pytest.approx(-0.7)
    assert {name: value.item() for name, value in output.metrics.items()} == pytest.approx(
        {
            "policy/loss": -1.1,
            "policy/entropy": 1.0,
            "policy/clip_fraction": 0.5,
            "policy/kl_old": (math.e - 2) / 2,
            "policy/kl_ref": 0.0,
            "value/loss": 1.0,
        }
    )


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_equals_a_naive_loop(level):
    """Element by element over the counted ones, in Python floats, for the whole loss."""
    evaluation, batch = world()
    weight = loss_weights(batch.mask, "sequence_mean", dtype=torch.float64)
    output = policy_loss(evaluation, batch, weight, replace(FULL, level=level))
    value, logp, entropy = evaluation.value.detach(), evaluation.logp.detach(), evaluation.entropy.detach()
    total = 0.0
    for i in range(4):
        counted = [t for t in range(6) if batch.mask[i, t]]
        d = {t: float(logp[i, t] - batch.logp_old[i, t]) for t in counted}
        mean = sum(d.values()) / max(1, len(counted))
        for t in counted:
            ratio = math.exp(d[t] if level == "token" else mean)
            advantage = float(batch.advantage[i, t])
            surrogate = -min(ratio * advantage, min(max(ratio, 0.8), 1.28) * advantage)
            v, old, target = float(value[i, t]), float(batch.value_old[i, t]), float(batch.value_target[i, t])
            held = old + min(max(v - old, -0.3), 0.3)
            critic = max((v - target) ** 2, (held - target) ** 2) / 2
            inverse = float(batch.logp_ref[i, t] - logp[i, t])
            divergence = math.exp(inverse) - 1 - inverse
            element = surrogate + 0.5 * critic - 0.01 * float(entropy[i, t]) + 0.04 * divergence
            total += float(weight[i, t]) * element
    assert output.loss.item() == pytest.approx(total)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    cut=st.integers(0, 4),
    left=st.integers(0, 3),
    right=st.integers(0, 3),
    mode=st.sampled_from(REDUCTIONS),
    level=st.sampled_from(["token", "sequence"]),
)
def test_micro_batches_padding_and_its_content_change_nothing(seed, cut, left, right, mode, level):
    """The sum of the parts' losses, metrics and gradients is the whole's, after padding with NaN on either side."""
    evaluation, batch = world(seed=seed)
    length = 10.0 if mode == "fixed_length" else None
    loss = replace(FULL, level=level)
    whole = policy_loss(evaluation, batch, loss_weights(batch.mask, mode, None, length, dtype=torch.float64), loss)
    count = loss_count(batch.mask, mode)

    def padded(x):
        value = False if x.dtype == torch.bool else NAN
        return torch.nn.functional.pad(x, (left, right), value=value)

    total, metrics = torch.zeros((), dtype=torch.float64), {}
    for rows in (slice(0, cut), slice(cut, 4)):
        part = batch.rows(rows).map(padded)
        says = Evaluation(*(padded(x[rows]) for x in (evaluation.logp, evaluation.entropy, evaluation.value)))
        output = policy_loss(says, part, loss_weights(part.mask, mode, count, length, dtype=torch.float64), loss)
        total = total + output.loss
        metrics = {name: metrics.get(name, 0.0) + value for name, value in output.metrics.items()}
    torch.testing.assert_close(total, whole.loss)
    for name, value in whole.metrics.items():
        torch.testing.assert_close(metrics[name], value)
    for mine, expected in zip(gradients(replace(whole, loss=total), evaluation), gradients(whole, evaluation)):
        torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    "surrogate",
    [
        reinforce,
        partial(clipped, low=0.2, high=0.2),
        partial(dual_clipped, low=0.2, high=0.2, c=3.0),
        partial(cispo, low=0.2, high=0.2),
    ],
)
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_what_does_not_count_may_hold_anything(surrogate, level):
    """NaN or infinity in every field outside the mask: same loss, same metrics, zero gradient there and no NaN."""
    evaluation, batch = world()
    loss = replace(FULL, surrogate=surrogate, level=level)
    weight = loss_weights(batch.mask, "token_mean", dtype=torch.float64)
    clean = policy_loss(evaluation, batch, weight, loss)
    for garbage in (NAN, math.inf, -math.inf, 1e30):

        def spoil(x, garbage=garbage):
            return x if x.dtype == torch.bool else torch.where(batch.mask, x.detach(), garbage)

        spoilt = Evaluation(
            *(spoil(x).requires_grad_() for x in (evaluation.logp, evaluation.entropy, evaluation.value))
        )
        output = policy_loss(spoilt, batch.map(spoil), weight, loss)
        torch.testing.assert_close(output.loss, clean.loss)
        for name, value in clean.metrics.items():
            torch.testing.assert_close(output.metrics[name], value)
        for mine, expected in zip(gradients(output, spoilt), gradients(clean, evaluation)):
            assert mine[~batch.mask].eq(0).all()
            torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_a_batch_in_which_everything_counts_is_no_special_case(level):
    """The same numbers when one padded row, which counts nothing, keeps the mask from being all True."""
    evaluation, batch = world()
    batch = replace(batch, mask=torch.ones_like(batch.mask))
    loss = replace(FULL, level=level)
    whole = policy_loss(evaluation, batch, loss_weights(batch.mask, "token_mean", dtype=torch.float64), loss)

    def longer(x):
        return torch.cat([x, x[:1] if x.dtype != torch.bool else torch.zeros_like(x[:1])])

    more = batch.map(longer)
    says = Evaluation(longer(evaluation.logp), longer(evaluation.entropy), longer(evaluation.value))
    output = policy_loss(says, more, loss_weights(more.mask, "token_mean", dtype=torch.float64), loss)
    torch.testing.assert_close(output.loss, whole.loss)
    for mine, expected in zip(gradients(output, evaluation), gradients(whole, evaluation)):
        torch.testing.assert_close(mine, expected)


def test_nothing_counted_gives_zero_and_zero_gradient():
    evaluation, batch = world()
    batch = replace(batch, mask=torch.zeros_like(batch.mask))
    output = policy_loss(evaluation, batch, loss_weights(batch.mask, "token_mean"), FULL)
    assert output.loss.item() == 0.0
    assert all(g.eq(0).all() for g in gradients(output, evaluation))


def test_logp_old_falls_back_to_the_behaviour():
    evaluation, batch = world()
    weight = loss_weights(batch.mask, "token_mean", dtype=torch.float64)
    without = policy_loss(evaluation, replace(batch, logp_old=None), weight, FULL)
    named = policy_loss(evaluation, replace(batch, logp_old=batch.logp_behaviour), weight, FULL)
    assert torch.equal(without.loss, named.loss)
    assert not torch.equal(without.loss, policy_loss(evaluation, batch, weight, FULL).loss)


def test_on_policy_the_clipped_loss_has_the_gradient_of_reinforce():
    evaluation, batch = world()
    batch = replace(batch, logp_old=evaluation.logp.detach())
    weight = loss_weights(batch.mask, "token_mean", dtype=torch.float64)
    ppo = policy_loss(evaluation, batch, weight, PolicyLoss(partial(clipped, low=0.2, high=0.2)))
    vanilla = policy_loss(evaluation, batch, weight, PolicyLoss(reinforce))
    for a, b in zip(gradients(ppo, evaluation), gradients(vanilla, evaluation)):
        torch.testing.assert_close(a, b)
    assert ppo.metrics["policy/kl_old"].item() == 0.0
    assert ppo.metrics["policy/clip_fraction"].item() == 0.0


def test_gradients_have_the_signs_they_should():
    """More of what was better than expected, less of what was worse, more entropy, values towards their targets, and
    log-probs towards the reference (k2), each alone."""
    evaluation, batch = world()
    weight = loss_weights(batch.mask, "token_mean", dtype=torch.float64)
    on = batch.mask
    loss = PolicyLoss(reinforce, value_coef=1.0, entropy_coef=0.1)
    logp, entropy, value = gradients(policy_loss(evaluation, batch, weight, loss), evaluation)
    assert torch.equal(logp[on].sign(), -batch.advantage[on].sign())
    assert (entropy[on] < 0).all()
    assert torch.equal(value[on].sign(), (evaluation.value - batch.value_target)[on].sign())
    still = replace(batch, advantage=torch.zeros_like(batch.advantage))
    pulled = policy_loss(evaluation, still, weight, PolicyLoss(reinforce, kl_coef=1.0, kl=k2))
    logp = gradients(pulled, evaluation)[0]
    assert torch.equal(logp[on].sign(), (evaluation.logp - batch.logp_ref)[on].sign())


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("estimator", [k1, k2, k3])
def test_gradcheck(level, estimator):
    evaluation, batch = world(rows=2, steps=4)
    weight = loss_weights(batch.mask, "sequence_mean", dtype=torch.float64)
    loss = replace(FULL, level=level, kl=estimator)

    def total(logp, entropy, value):
        return policy_loss(Evaluation(logp, entropy, value), batch, weight, loss).loss

    assert torch.autograd.gradcheck(total, (evaluation.logp, evaluation.entropy, evaluation.value))


def test_grpo_gradient_coefficient_on_policy():
    """The course's coefficient per token, A + beta (pi_ref / pi - 1), with k3 and ratio 1 (to be ascended)."""
    evaluation, batch = world()
    batch = replace(batch, logp_old=evaluation.logp.detach())
    weight = loss_weights(batch.mask, "sequence_mean", dtype=torch.float64)
    loss = PolicyLoss(partial(clipped, low=0.2, high=0.2), kl_coef=0.04)
    gradient = gradients(policy_loss(evaluation, batch, weight, loss), evaluation)[0]
    toward_reference = (batch.logp_ref - evaluation.logp.detach()).exp() - 1
    torch.testing.assert_close(gradient, -weight * (batch.advantage + 0.04 * toward_reference))


def test_metrics_are_detached_and_only_those_that_apply():
    evaluation, batch = world()
    weight = loss_weights(batch.mask, "token_mean", dtype=torch.float64)
    bare = replace(batch, logp_ref=None, value_target=None, value_old=None)
    metrics = policy_loss(Evaluation(evaluation.logp, evaluation.entropy), bare, weight, PolicyLoss(reinforce)).metrics
    assert sorted(metrics) == ["policy/entropy", "policy/kl_old", "policy/loss"]
    full = policy_loss(evaluation, batch, weight, FULL).metrics
    assert sorted(full) == [
        "policy/clip_fraction",
        "policy/entropy",
        "policy/kl_old",
        "policy/kl_ref",
        "policy/loss",
        "value/loss",
    ]
    assert not any(value.requires_grad for value in full.values())
    watched = policy_loss(evaluation, batch, weight, replace(FULL, value_coef=0.0, kl_coef=0.0))
    for name in ("value/loss", "policy/kl_ref"):
        assert torch.equal(watched.metrics[name], full[name])
    assert gradients(watched, evaluation)[2].eq(0).all()


@pytest.mark.parametrize(
    ("missing", "option"),
    [("logp_ref", "kl_coef"), ("value_target", "value_coef"), ("value_old", "value_clip")],
)
def test_a_coefficient_without_what_it_needs_is_an_error(missing, option):
    evaluation, batch = world()
    weight = loss_weights(batch.mask, "token_mean", dtype=torch.float64)
    with pytest.raises(ConfigError, match=f"{missing} is None; {option} needs it"):
        policy_loss(evaluation, replace(batch, **{missing: None}), weight, FULL)


def test_a_policy_without_a_critic_cannot_have_a_value_loss():
    evaluation, batch = world()
    weight = loss_weights(batch.mask, "token_mean", dtype=torch.float64)
    with pytest.raises(ConfigError, match="value is None; value_coef needs it"):
        policy_loss(replace(evaluation, value=None), batch, weight, FULL)


def test_shapes_that_disagree_are_named():
    evaluation, batch = world()
    with pytest.raises(DataError, match=r"weight has shape \(4, 5\) but mask has shape \(4, 6\)"):
        policy_loss(evaluation, batch, torch.ones(4, 5), FULL)
