"""Losses on comparisons: numbers by hand, naive loops, and the fixed points theory asks for."""

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.core.preference import DPO_KINDS, all_pairs, bradley_terry, dpo, implicit_reward, kto, odds_ratio, simpo
from onepolicy.errors import ConfigError, DataError


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def pair(margin):
    """Four log-probabilities whose h = (chosen - its reference) - (rejected - its reference) is `margin`."""
    return torch.tensor([-1.0 + margin]), torch.tensor([-2.0]), torch.tensor([-1.5]), torch.tensor([-2.5])


def test_bradley_terry_by_hand():
    """Scores 2 and 1: -log sigmoid(1) = 0.3133; with a margin of 1 they are just even: log 2."""
    two, one = torch.tensor(2.0), torch.tensor(1.0)
    assert bradley_terry(two, one).item() == pytest.approx(0.313262)
    assert bradley_terry(two, one, margin=1.0).item() == pytest.approx(math.log(2))
    assert bradley_terry(two, one, margin=torch.tensor(1.0)).item() == pytest.approx(math.log(2))


def test_bradley_terry_is_the_cross_entropy_of_the_softmax_over_the_two():
    chosen, rejected = torch.randn(2, 20, dtype=torch.float64)
    softmax = torch.stack([chosen, rejected], -1).log_softmax(-1)[..., 0]
    torch.testing.assert_close(bradley_terry(chosen, rejected), -softmax)


def test_bradley_terry_stays_finite_at_any_distance():
    far = torch.tensor([1e4, -1e4])
    assert bradley_terry(far, torch.zeros(2)).tolist() == [0.0, 1e4]


def test_bradley_terry_gradient_is_the_probability_of_being_wrong():
    """d loss / d chosen = -sigmoid(-(chosen - rejected)): never pushes the rejected one up."""
    chosen, rejected = torch.randn(2, 20, dtype=torch.float64, requires_grad=True).unbind()
    gradient, other = torch.autograd.grad(bradley_terry(chosen, rejected).sum(), (chosen, rejected))
    torch.testing.assert_close(gradient, -torch.sigmoid(rejected - chosen))
    torch.testing.assert_close(other, -gradient)


def test_all_pairs_by_hand():
    """Scores 1, 0, -1 ranked in that order: pairs differ by 1, 2, 1, so
    (0.3133 + 0.1269 + 0.3133) / 3 = 0.2511."""
    loss = all_pairs(torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[1, 2, 3]]))
    assert loss.item() == pytest.approx((2 * -math.log(sigmoid(1)) - math.log(sigmoid(2))) / 3)
    assert loss.item() == pytest.approx(0.251151, abs=1e-6)


def test_all_pairs_of_two_is_bradley_terry():
    score = torch.randn(10, 2)
    rank = torch.tensor([[1, 2], [2, 1]] * 5)
    winner = rank.argmin(-1, keepdim=True)
    expected = bradley_terry(score.gather(1, winner), score.gather(1, 1 - winner)).squeeze(1)
    torch.testing.assert_close(all_pairs(score, rank), expected)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(2, 9))
def test_all_pairs_equals_a_naive_loop_with_ties_and_absent_outputs(seed, size):
    rng = torch.Generator().manual_seed(seed)
    score = torch.randn(4, size, generator=rng, dtype=torch.float64)
    rank = torch.randint(1, 5, (4, size), generator=rng)
    present = torch.rand(4, size, generator=rng) < 0.8
    actual = all_pairs(torch.where(present, score, math.nan), rank, present)
    for row in range(4):
        here = [k for k in range(size) if present[row, k]]
        total, pairs = 0.0, len(here) * (len(here) - 1) / 2
        for i, j in combinations(here, 2):
            if rank[row, i] != rank[row, j]:
                better, worse = (i, j) if rank[row, i] < rank[row, j] else (j, i)
                total -= math.log(sigmoid(float(score[row, better] - score[row, worse])))
        assert actual[row].item() == pytest.approx(total / pairs if pairs else 0.0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-10.0, 10.0))
def test_all_pairs_knows_neither_the_order_of_the_outputs_nor_the_zero_of_the_reward(seed, shift):
    rng = torch.Generator().manual_seed(seed)
    score, rank = torch.randn(3, 5, generator=rng, dtype=torch.float64), torch.randint(1, 6, (3, 5), generator=rng)
    order = torch.randperm(5, generator=rng)
    expected = all_pairs(score, rank)
    torch.testing.assert_close(all_pairs(score[:, order] + shift, rank[:, order]), expected)


def test_all_pairs_of_ties_or_of_one_output_teach_nothing():
    score = torch.randn(2, 3, requires_grad=True)
    loss = all_pairs(score, torch.ones(2, 3))
    assert loss.tolist() == [0.0, 0.0]
    assert torch.autograd.grad(loss.sum(), score)[0].eq(0).all()
    one = torch.tensor([[True, False, False]] * 2)
    assert all_pairs(score, torch.tensor([[1, 2, 3]] * 2), one).tolist() == [0.0, 0.0]


def test_what_is_absent_gets_no_gradient():
    score = torch.tensor([[1.0, math.nan, 0.0]], requires_grad=True)
    loss = all_pairs(score, torch.tensor([[1, 2, 3]]), torch.tensor([[True, False, True]]))
    (gradient,) = torch.autograd.grad(loss.sum(), score)
    assert gradient[0, 1] == 0.0
    assert gradient[0, 0] == pytest.approx(-sigmoid(-1))


@pytest.mark.parametrize(
    ("kind", "smoothing", "expected"),
    [
        ("sigmoid", 0.0, -math.log(sigmoid(0.2))),
        ("sigmoid", 0.1, -0.9 * math.log(sigmoid(0.2)) - 0.1 * math.log(sigmoid(-0.2))),
        ("robust", 0.1, (-0.9 * math.log(sigmoid(0.2)) + 0.1 * math.log(sigmoid(-0.2))) / 0.8),
        ("ipo", 0.0, (2.0 - 5.0) ** 2),
        ("hinge", 0.0, 0.8),
    ],
)
def test_dpo_by_hand(kind, smoothing, expected):
    """h = 2, beta = 0.1: sigmoid's argument is 0.2; ipo wants h at 1 / (2 beta) = 5; hinge 1 - 0.2."""
    assert dpo(*pair(2.0), 0.1, kind, smoothing).item() == pytest.approx(expected)


def test_dpo_at_the_reference():
    """The policy is the reference: h = 0, so log 2, 1, and IPO's (1 / 2 beta)^2."""
    logp = torch.randn(2, 5)
    for kind, expected in {"sigmoid": math.log(2), "robust": math.log(2), "hinge": 1.0, "ipo": 25.0}.items():
        torch.testing.assert_close(dpo(*logp, *logp, 0.1, kind), torch.full((5,), expected))


def test_dpo_gradient_is_the_course_s_coefficient():
    """beta sigmoid(beta logratio(rejected) - beta logratio(chosen)), raising the chosen, lowering the rejected."""
    chosen, rejected, ref_chosen, ref_rejected = torch.randn(4, 10, dtype=torch.float64)
    chosen.requires_grad_()
    rejected.requires_grad_()
    loss = dpo(chosen, rejected, ref_chosen, ref_rejected, 0.3).sum()
    up, down = torch.autograd.grad(loss, (chosen, rejected))
    coefficient = 0.3 * torch.sigmoid(0.3 * (rejected - ref_rejected) - 0.3 * (chosen - ref_chosen)).detach()
    torch.testing.assert_close(up, -coefficient)
    torch.testing.assert_close(down, coefficient)


def test_robust_loss_is_unbiased_under_flipped_labels():
    """With a share s of labels flipped, its mean is the clean sigmoid loss: the point of the paper."""
    right, beta, s = pair(1.3), 0.5, 0.2
    flipped = (right[1], right[0], right[3], right[2])
    mean = (1 - s) * dpo(*right, beta, "robust", s) + s * dpo(*flipped, beta, "robust", s)
    torch.testing.assert_close(mean, dpo(*right, beta, "sigmoid"))


def test_smoothed_sigmoid_loss_has_its_minimum_at_the_smoothed_probability():
    """Conservative DPO stops where sigmoid(beta h) = 1 - s."""
    logit = math.log(0.9 / 0.1)
    h = torch.tensor([logit / 0.5], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(dpo(h, zero, zero, zero, 0.5, "sigmoid", 0.1).sum(), h)
    assert gradient.item() == pytest.approx(0.0, abs=1e-12)


def test_the_optimal_policy_has_the_reward_as_its_implicit_reward():
    """pi* = ref exp(r / beta) / Z: implicit rewards differ from r by the constant beta log Z only, and the DPO loss of
    every pair is then the Bradley-Terry loss of the true rewards."""
    reward, logp_ref = torch.randn(6, dtype=torch.float64), torch.randn(6, dtype=torch.float64).log_softmax(-1)
    beta = 0.7
    optimal = (logp_ref + reward / beta).log_softmax(-1)
    gap = implicit_reward(optimal, logp_ref, beta) - reward
    torch.testing.assert_close(gap, gap[:1].expand(6))
    i, j = torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5])
    loss = dpo(optimal[i], optimal[j], logp_ref[i], logp_ref[j], beta)
    torch.testing.assert_close(loss, bradley_terry(reward[i], reward[j]))


@pytest.mark.parametrize("kind", DPO_KINDS)
def test_dpo_gradcheck(kind):
    inputs = [torch.randn(6, dtype=torch.float64).requires_grad_() for _ in range(4)]
    smoothing = 0.1 if kind in ("sigmoid", "robust") else 0.0
    assert torch.autograd.gradcheck(lambda *x: dpo(*x, 0.3, kind, smoothing), inputs)


def test_bad_requests():
    with pytest.raises(ConfigError, match="Did you mean 'hinge'"):
        dpo(*pair(0.0), 0.1, "hing")
    with pytest.raises(ConfigError, match="beta is 0"):
        dpo(*pair(0.0), 0.0)
    with pytest.raises(ConfigError, match="kind 'ipo' has none"):
        dpo(*pair(0.0), 0.1, "ipo", 0.1)
    with pytest.raises(ConfigError, match=r"in \[0, 0.5\)"):
        dpo(*pair(0.0), 0.1, "robust", 0.5)
    with pytest.raises(DataError, match=r"rejected has shape \(3,\)"):
        bradley_terry(torch.zeros(2), torch.zeros(3))
    with pytest.raises(DataError, match=r"must be \[B, K\]"):
        all_pairs(torch.zeros(3), torch.zeros(3))


def test_a_ranking_s_margin_is_each_of_its_pairs():
    """Row 0: all_pairs with K = 2 is bradley_terry with the margin; row 1: the mean of three such."""
    score = torch.tensor([[0.3, -0.4, 0.0], [0.1, 0.9, -0.5]], dtype=torch.float64)
    rank = torch.tensor([[1.0, 2.0, 0.0], [1.0, 2.0, 3.0]])
    present = torch.tensor([[True, True, False], [True, True, True]])
    margin = torch.tensor([0.5, 2.0], dtype=torch.float64)
    pair = bradley_terry(score[:1, 0], score[:1, 1], 0.5)
    three = bradley_terry(score[1, [0, 0, 1]], score[1, [1, 2, 2]], 2.0).mean()
    found = all_pairs(score, rank.double(), present, margin)
    assert found.tolist() == pytest.approx([pair.item(), three.item()], abs=1e-12)


def test_simpo_is_bradley_and_terry_on_scaled_means():
    c, r = torch.tensor([-0.3, -2.0]), torch.tensor([-1.1, -0.4])
    assert torch.allclose(simpo(c, r, beta=2.5, margin=0.7), bradley_terry(2.5 * c, 2.5 * r, 0.7))
    with pytest.raises(ConfigError, match="beta is 0"):
        simpo(c, r, beta=0)
    with pytest.raises(ConfigError, match="margin is -1"):
        simpo(c, r, beta=1, margin=-1)


def test_the_odds_ratio_against_the_formula_and_its_gradient():
    """-log sigmoid(log OR) is log(1 + 1/OR); in float64, and finite for an answer of probability 1."""
    c, r = torch.tensor([-0.2, -1.0], dtype=torch.float64), torch.tensor([-0.9, -0.1], dtype=torch.float64)
    odds = [p.exp() / (1 - p.exp()) for p in (c, r)]
    assert torch.allclose(odds_ratio(c, r), torch.log1p(odds[1] / odds[0]), atol=1e-12)
    inputs = (c.clone().requires_grad_(), r.clone().requires_grad_())
    assert torch.autograd.gradcheck(odds_ratio, inputs)
    assert torch.isfinite(odds_ratio(torch.zeros(1), torch.full((1,), -3.0))).all()


def test_kto_counts_gains_from_the_divergence_and_saturates():
    """One minus sigmoid(beta (h - z)) for good, sigmoid of the same for bad; far gains no longer count."""
    h = torch.tensor([0.0, 2.0, 50.0, -50.0], dtype=torch.float64)
    zero = torch.zeros_like(h)
    for good in (True, False):
        found = kto(h, zero, torch.full((4,), good), 1.0, beta=0.5, good_weight=1.0, bad_weight=2.0)
        for i, x in enumerate(h.tolist()):
            p = 1 / (1 + math.exp(-0.5 * (x - 1.0)))
            assert found[i].item() == pytest.approx(1 - p if good else 2 * p, abs=1e-12)
    logp = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    kto(logp, torch.zeros(1, dtype=torch.float64), torch.tensor([True]), 0.0, beta=0.1).sum().backward()
    assert logp.grad.item() < 0  # a good answer is made likelier
    with pytest.raises(ConfigError, match="weights are -1"):
        kto(h, zero, torch.ones(4, dtype=torch.bool), 0.0, beta=0.1, good_weight=-1.0)
