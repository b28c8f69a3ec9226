"""Ratios and surrogates: numbers by hand, their gradients, and where their clips act."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.core.policy import cispo, clip_acts, clipped, dppo, dual_clipped, log_ratio, reinforce
from onepolicy.errors import ConfigError

NAN = float("nan")
CLIPPED = partial(clipped, low=0.2, high=0.2)
DUAL = partial(dual_clipped, low=0.2, high=0.2, c=3.0)
CISPO = partial(cispo, low=0.2, high=0.2)
DPPO = partial(dppo, low=0.2, high=0.2)
RATIOS = torch.tensor([0.5, 0.9, 1.0, 1.1, 1.5, 4.0], dtype=torch.float64)


def at(surrogate, ratio, advantage, logp=-1.0):
    """The surrogate's loss and its gradient in logp, the old log-prob held fixed, for one advantage."""
    old = torch.full_like(ratio, logp) - ratio.log()
    new = torch.full_like(ratio, logp, requires_grad=True)
    loss = surrogate(new - old, new, torch.full_like(ratio, advantage))
    (gradient,) = torch.autograd.grad(loss.sum(), new)
    return loss.detach(), gradient


def test_token_ratio_is_the_difference_of_log_probs_and_zero_where_masked():
    new, old = torch.tensor([[-1.0, NAN, -3.0]]), torch.tensor([[-2.0, 0.0, -2.5]])
    mask = torch.tensor([[True, False, True]])
    assert log_ratio(new, old, mask, "token").tolist() == [[1.0, 0.0, -0.5]]


def test_sequence_ratio_is_the_masked_mean_broadcast():
    """Row 1: (1 - 0.5) / 2 = 0.25 at its two counted tokens. Row 2 counts nothing: 0."""
    new = torch.tensor([[-1.0, NAN, -3.0], [NAN, NAN, NAN]])
    old = torch.tensor([[-2.0, 0.0, -2.5], [0.0, 0.0, 0.0]])
    mask = torch.tensor([[True, False, True], [False, False, False]])
    assert log_ratio(new, old, mask, "sequence").tolist() == [[0.25, 0.0, 0.25], [0.0, 0.0, 0.0]]


def test_sequence_ratio_of_one_token_is_the_token_ratio():
    new, old, mask = torch.randn(4, 1), torch.randn(4, 1), torch.ones(4, 1).bool()
    assert torch.equal(log_ratio(new, old, mask, "sequence"), log_ratio(new, old, mask, "token"))


def test_sequence_level_has_the_gradient_of_gspo():
    """GSPO, equation 8: the loss 1/B sum_i -s_i A_i with s_i = (prod of token ratios)^(1/len_i) has the gradient
    -A_i s_i / (B len_i) at each of its tokens (weights sequence_mean, ratios inside the clip)."""
    mask = torch.tensor([[True, True, True], [True, False, False]])
    old = torch.randn(2, 3, dtype=torch.float64)
    new = (old + 0.02 * torch.randn(2, 3, dtype=torch.float64)).requires_grad_()
    advantage = torch.tensor([[2.0], [-1.0]], dtype=torch.float64).expand(2, 3)
    weight = mask / mask.sum(-1, keepdim=True) / 2
    loss = weight * clipped(log_ratio(new, old, mask, "sequence"), new, advantage, low=0.2, high=0.2)
    (gradient,) = torch.autograd.grad(loss.sum(), new)
    length = mask.sum(-1, keepdim=True)
    s = (((new - old) * mask).sum(-1, keepdim=True) / length).exp().detach()
    torch.testing.assert_close(gradient, torch.where(mask, -advantage * s / (2 * length), 0.0))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), left=st.integers(0, 4), level=st.sampled_from(["token", "sequence"]))
def test_padding_of_any_content_changes_no_ratio(seed, left, level):
    rng = torch.Generator().manual_seed(seed)
    new, old = torch.randn(2, 3, 5, generator=rng)
    mask = torch.rand(3, 5, generator=rng) < 0.6
    pad = partial(torch.nn.functional.pad, pad=(left, 1), value=NAN)
    padded_mask = torch.nn.functional.pad(mask, (left, 1))
    padded = log_ratio(pad(new), pad(old), padded_mask, level)
    torch.testing.assert_close(padded[:, left : left + 5], log_ratio(new, old, mask, level))
    assert padded[~padded_mask].eq(0).all()


def test_unknown_level():
    with pytest.raises(ConfigError, match="Did you mean 'sequence'"):
        log_ratio(torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 1).bool(), "sequences")


def test_reinforce_is_minus_advantage_times_logp():
    loss, gradient = at(reinforce, RATIOS, 2.0, logp=-0.5)
    assert loss.tolist() == [1.0] * 6
    assert gradient.tolist() == [-2.0] * 6


def test_clipped_by_hand():
    """A = 2, bounds 0.8 and 1.2: -min(2 r, 2 clip(r)). r = 0.5: -min(1, 1.6) = -1; 1.5: -min(3, 2.4) = -2.4.
    A = -2: -min(-2 r, -2 clip(r)). r = 0.5: -min(-1, -1.6) = 1.6; 1.5: -min(-3, -2.4) = 3."""
    assert at(CLIPPED, RATIOS, 2.0)[0].tolist() == pytest.approx([-1.0, -1.8, -2.0, -2.2, -2.4, -2.4])
    assert at(CLIPPED, RATIOS, -2.0)[0].tolist() == pytest.approx([1.6, 1.8, 2.0, 2.2, 3.0, 8.0])


def test_clipped_gradient_vanishes_exactly_on_the_side_the_advantage_pushes_to():
    """Elsewhere it is that of -r A, which is -A r in logp."""
    assert at(CLIPPED, RATIOS, 2.0)[1].tolist() == pytest.approx([-1.0, -1.8, -2.0, -2.2, 0.0, 0.0])
    assert at(CLIPPED, RATIOS, -2.0)[1].tolist() == pytest.approx([0.0, 1.8, 2.0, 2.2, 3.0, 8.0])


def test_clip_higher_lets_good_tokens_rise_further():
    """DAPO: with high = 0.28 a ratio of 1.25 still learns."""
    ratio = torch.tensor([1.25], dtype=torch.float64)
    assert at(CLIPPED, ratio, 1.0)[1].item() == 0.0
    assert at(partial(clipped, low=0.2, high=0.28), ratio, 1.0)[1].item() == pytest.approx(-1.25)


def test_a_bound_at_least_as_low_as_zero_never_clips_below():
    """DeepSeek-R1's range of 10."""
    loss, gradient = at(partial(clipped, low=10.0, high=10.0), RATIOS, -1.0)
    torch.testing.assert_close(loss, RATIOS)
    torch.testing.assert_close(gradient, RATIOS)


def test_dual_clip_by_hand():
    """c = 3, A = -2: the loss stops at 6 (r = 4 would be 8) and gives no gradient there; A > 0 is untouched."""
    loss, gradient = at(DUAL, RATIOS, -2.0)
    assert loss.tolist() == pytest.approx([1.6, 1.8, 2.0, 2.2, 3.0, 6.0])
    assert gradient.tolist() == pytest.approx([0.0, 1.8, 2.0, 2.2, 3.0, 0.0])
    assert torch.equal(at(DUAL, RATIOS, 2.0)[0], at(CLIPPED, RATIOS, 2.0)[0])


def test_cispo_by_hand():
    """-clip(r) A logp with the weight held fixed: at logp -1 and A = 2 that is 2 clip(r), its gradient -2 clip(r); no
    element ever loses its gradient."""
    held = [0.8, 0.9, 1.0, 1.1, 1.2, 1.2]
    loss, gradient = at(CISPO, RATIOS, 2.0)
    assert loss.tolist() == pytest.approx([2 * w for w in held])
    assert gradient.tolist() == pytest.approx([-2 * w for w in held])


def test_cispo_with_a_wide_range_is_importance_weighted_reinforce():
    """With high = 4 the weight is the ratio itself up to 5: an upper bound of `high` alone, as one library has it,
    would multiply every token by 0.2."""
    _, gradient = at(partial(cispo, low=1.0, high=4.0), RATIOS, 1.0)
    torch.testing.assert_close(gradient, -RATIOS)


def test_dppo_by_hand():
    """pi = 0.5; a ratio r means pi_old = 0.5 / r. Rises of 0.5 - 0.5/r: r = 1.5 gives 0.167, within 0.2; r = 4 gives
    0.375, left out for A > 0. r = 0.5 gives -0.5, left out for A < 0."""
    loss, gradient = at(DPPO, RATIOS, 2.0, logp=math.log(0.5))
    assert loss.tolist() == pytest.approx([-1.0, -1.8, -2.0, -2.2, -3.0, 0.0])
    assert gradient.tolist() == pytest.approx([-1.0, -1.8, -2.0, -2.2, -3.0, 0.0])
    loss, gradient = at(DPPO, RATIOS, -2.0, logp=math.log(0.5))
    assert loss.tolist() == pytest.approx([0.0, 1.8, 2.0, 2.2, 3.0, 8.0])


def test_dppo_does_not_mind_the_ratios_of_rare_tokens():
    """From 1e-6 to 1e-4 the ratio is 100 and the probability has hardly moved."""
    _, gradient = at(DPPO, torch.tensor([100.0], dtype=torch.float64), 1.0, logp=math.log(1e-4))
    assert gradient.item() == pytest.approx(-100.0)
    assert at(CLIPPED, torch.tensor([100.0], dtype=torch.float64), 1.0)[1].item() == 0.0


@pytest.mark.parametrize("surrogate", [reinforce, CLIPPED, DUAL, CISPO, DPPO])
def test_on_policy_every_surrogate_has_the_policy_gradient(surrogate):
    """At ratio 1 the gradient in logp is -A."""
    one = torch.ones(1, dtype=torch.float64)
    for advantage in (-1.5, 0.0, 2.0):
        assert at(surrogate, one, advantage)[1].item() == pytest.approx(-advantage)


@pytest.mark.parametrize("surrogate", [CLIPPED, DUAL, CISPO, DPPO])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_no_surrogate_pushes_against_the_advantage(surrogate, seed):
    """The gradient step on logp is zero or of the advantage's sign, for any ratio."""
    rng = torch.Generator().manual_seed(seed)
    new, old, advantage = torch.randn(3, 50, generator=rng, dtype=torch.float64)
    new = (new - 2).requires_grad_()
    (gradient,) = torch.autograd.grad(surrogate(new - (old - 2), new, advantage).sum(), new)
    assert (-gradient * advantage).min() >= 0


@pytest.mark.parametrize("surrogate", [CLIPPED, DUAL, DPPO])
def test_the_clip_acts_exactly_where_the_gradient_is_zero(surrogate):
    new, old, advantage = torch.randn(3, 500, dtype=torch.float64)
    new, old = (new - 2).requires_grad_(), old - 2
    (gradient,) = torch.autograd.grad(surrogate(new - old, new, advantage).sum(), new)
    acts = clip_acts(surrogate, (new - old).detach(), new.detach(), advantage)
    assert acts.any()
    assert torch.equal(acts, gradient == 0)


def test_where_cispo_cuts_the_weight_and_what_has_no_clip():
    lr = RATIOS.log()
    assert clip_acts(CISPO, lr, lr, torch.ones(6)).tolist() == [True, False, False, False, True, True]
    assert clip_acts(reinforce, lr, lr, lr) is None
    assert clip_acts(lambda ratio, logp, advantage: ratio, lr, lr, lr) is None


@pytest.mark.parametrize("surrogate", [reinforce, CLIPPED, DUAL, DPPO])
def test_gradcheck(surrogate):
    """In float64 against finite differences (cispo's weight is a constant by intention, so it has none)."""
    old, advantage = torch.randn(2, 20, dtype=torch.float64)
    new = (old - 2 + 0.5 * torch.randn(20, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: surrogate(x - (old - 2), x, advantage), (new,))
