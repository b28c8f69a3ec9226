"""Group advantages in every centre and scale, the table of six libraries, and whitening."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.core.advantages import CENTERS, SCALES, group_advantage, whiten
from onepolicy.core.conventions import convention
from onepolicy.errors import ConfigError, DataError

NAN = float("nan")
LIBRARIES = {
    "TRL": ("mean", "std", 1e-4),
    "verl, SkyRL, Tunix, slime": ("mean", "std", 1e-6),
    "open-instruct standard": ("mean", "std_biased", 1e-8),
    "open-instruct default, prime-rl, Tinker": ("mean", "none", 1e-6),
    "NeMo RL": ("leave_one_out", "leave_one_out_std", 1e-6),
    "RLOO": ("leave_one_out", "none", 1e-6),
}
TABLE = {
    (1.0, 2.0, 3.0): [
        (-0.9999, 0.0, 0.9999),
        (-1.0, 0.0, 1.0),
        (-1.2247, 0.0, 1.2247),
        (-1.0, 0.0, 1.0),
        (-2.1213, 0.0, 2.1213),
        (-1.5, 0.0, 1.5),
    ],
    (1.0, 0.0, 0.0, 0.0): [
        (1.4997, -0.4999, -0.4999, -0.4999),
        (1.5, -0.5, -0.5, -0.5),
        (1.7321, -0.5774, -0.5774, -0.5774),
        (0.75, -0.25, -0.25, -0.25),
        (1.0, -0.5773, -0.5773, -0.5773),
        (1.0, -0.3333, -0.3333, -0.3333),
    ],
}


def spread(values, correction):
    """Standard deviation, or 1 where there is none."""
    if len(values) < 2 or min(values) == max(values):
        return None
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - correction))


def naive(score, center, scale, eps):
    """The definition for one prompt, sample by sample over Python lists."""
    out = []
    for i, own in enumerate(score):
        judged = [s for s in score if not math.isnan(s)]
        others = [s for j, s in enumerate(score) if j != i and not math.isnan(s)]
        if math.isnan(own) or (center != "none" and len(judged) < 2):
            out.append(0.0)
            continue
        base = {"none": [0.0], "mean": judged, "leave_one_out": others}[center]
        pool, correction = {
            "none": ([], 1),
            "std": (judged, 1),
            "std_biased": (judged, 0),
            "leave_one_out_std": (others, 1),
        }[scale]
        std = spread(pool, correction)
        out.append((own - sum(base) / len(base)) / (1.0 if std is None else std + eps))
    return out


@pytest.mark.parametrize("rewards", TABLE)
@pytest.mark.parametrize("column", range(6), ids=list(LIBRARIES))
def test_the_same_rewards_get_six_different_advantages(rewards, column):
    """The table of what each library computes from {1, 2, 3} and {1, 0, 0, 0}; e.g. TRL's first entry is
    (1 - 2) / (1 + 1e-4) = -0.9999, NeMo's (1 - 2.5) / std{2, 3} = -1.5 / 0.7071 = -2.1213, and where the three others
    are all 0 their spread is none and the difference 1 - 0 is left as it is."""
    center, scale, eps = list(LIBRARIES.values())[column]
    actual = group_advantage(torch.tensor([rewards]), center, scale, eps)[0].tolist()
    assert actual == pytest.approx(TABLE[rewards][column], abs=6e-5)


def test_the_conventions_carry_those_choices():
    for name, column in {"trl": 0, "verl": 1, "open-instruct": 3, "prime-rl": 3, "nemo": 4}.items():
        each = convention(name)
        for rewards, rows in TABLE.items():
            actual = group_advantage(torch.tensor([rewards]), each.center, each.scale, each.eps)[0].tolist()
            assert actual == pytest.approx(rows[column], abs=6e-5)


@pytest.mark.parametrize(("center", "scale"), list(product(CENTERS, SCALES)))
def test_equals_a_naive_loop_with_unjudged_samples(center, scale):
    rng = torch.Generator().manual_seed(0)
    score = torch.randint(0, 4, (40, 6), generator=rng).double()
    score[torch.rand(score.shape, generator=rng) < 0.3] = NAN
    score[0], score[1, 1:] = NAN, NAN
    actual = group_advantage(score, center, scale, 1e-3)
    expected = torch.tensor([naive(row.tolist(), center, scale, 1e-3) for row in score], dtype=torch.float64)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(("center", "scale"), list(product(CENTERS, SCALES)))
def test_an_unjudged_sample_changes_nothing_for_the_others(center, scale):
    score = torch.tensor([[1.0, 4.0, 2.0]])
    with_hole = torch.tensor([[1.0, NAN, 4.0, 2.0]])
    alone = group_advantage(score, center, scale)
    together = group_advantage(with_hole, center, scale)
    torch.testing.assert_close(together[:, [0, 2, 3]], alone)
    assert together[0, 1] == 0.0


@pytest.mark.parametrize("center", ["mean", "leave_one_out"])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("value", [0.0, 0.1, -1e6, 1 / 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_group_without_variance_gets_exactly_zero(center, scale, value, dtype):
    """Not rounding noise divided by a small eps."""
    for group in (3, 6, 7, 10):
        assert group_advantage(torch.full((2, group), value, dtype=dtype), center, scale, 1e-17).eq(0.0).all()


@pytest.mark.parametrize("center", ["mean", "leave_one_out"])
def test_one_judged_sample_has_nothing_to_be_compared_with(center):
    assert group_advantage(torch.tensor([[NAN, 5.0, NAN], [NAN, NAN, NAN]]), center, "std").eq(0.0).all()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000), group=st.integers(2, 9), center=st.sampled_from(CENTERS), scale=st.sampled_from(SCALES)
)
def test_order_within_a_group_and_other_prompts_do_not_matter(seed, group, center, scale):
    rng = torch.Generator().manual_seed(seed)
    score = torch.randn(5, group, generator=rng, dtype=torch.float64)
    order = torch.randperm(group, generator=rng)
    whole = group_advantage(score, center, scale)
    torch.testing.assert_close(group_advantage(score[:, order], center, scale), whole[:, order])
    torch.testing.assert_close(group_advantage(score[2:3], center, scale), whole[2:3])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-50.0, 50.0), factor=st.floats(0.1, 20.0))
def test_a_shift_of_the_rewards_cancels_and_a_scale_does_when_divided_by_the_std(seed, shift, factor):
    score = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for center in ("mean", "leave_one_out"):
        plain = group_advantage(score, center)
        torch.testing.assert_close(group_advantage(score + shift, center), plain)
        torch.testing.assert_close(group_advantage(score * factor, center), plain * factor)
        scaled = group_advantage(score, center, "std", 0.0)
        torch.testing.assert_close(group_advantage(score * factor + shift, center, "std", 0.0), scaled)


def test_leave_one_out_is_the_mean_centre_stretched():
    """x_i - mean of the others = (x_i - mean) G / (G - 1)."""
    score = torch.randn(4, 6, dtype=torch.float64)
    torch.testing.assert_close(group_advantage(score, "leave_one_out"), group_advantage(score, "mean") * 6 / 5)


def test_leave_one_out_gives_the_exact_policy_gradient_on_a_bandit():
    """Three arms, two samples a group. The expectation over all nine groups of sum_i A_i grad log pi(a_i) / G, each
    with its probability, is grad sum_a pi(a) r(a), to machine precision: the baseline costs no bias."""
    logits = torch.tensor([0.3, -0.5, 1.1], dtype=torch.float64, requires_grad=True)
    reward = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    logp = torch.log_softmax(logits, -1)
    surrogate = torch.zeros((), dtype=torch.float64)
    for pair in product(range(3), repeat=2):
        chosen = torch.tensor(pair)
        advantage = group_advantage(reward[chosen].unsqueeze(0), "leave_one_out")[0]
        surrogate = surrogate + logp[chosen].sum().exp().detach() * (advantage * logp[chosen]).mean()
    (estimate,) = torch.autograd.grad(surrogate, logits, retain_graph=True)
    (exact,) = torch.autograd.grad((logp.exp() * reward).sum(), logits)
    torch.testing.assert_close(estimate, exact)


@pytest.mark.parametrize("center", ["mean", "leave_one_out"])
def test_a_group_of_one_is_an_error_that_says_what_to_do(center):
    with pytest.raises(ConfigError, match=r'group_size is 1; .* Set group_size >= 2, or center="none"'):
        group_advantage(torch.ones(4, 1), center)
    assert group_advantage(torch.ones(4, 1), "none").eq(1.0).all()


def test_unknown_names_offer_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'leave_one_out'"):
        group_advantage(torch.ones(1, 2), "leave_one")
    with pytest.raises(ConfigError, match="Did you mean 'std_biased'"):
        group_advantage(torch.ones(1, 2), "mean", "std_biassed")
    with pytest.raises(DataError, match=r"must be \[P, G\]"):
        group_advantage(torch.ones(4))


def test_whiten_by_hand():
    """1, 2, 3: mean 2, unbiased std 1, so -1, 0, 1; biased std sqrt(2/3), so -1.2247, 0, 1.2247; with the mean put
    back 1, 2, 3 again. What does not count is 0, whatever it held."""
    x = torch.tensor([1.0, NAN, 2.0, 3.0])
    mask = torch.tensor([True, False, True, True])
    assert whiten(x, mask).tolist() == pytest.approx([-1.0, 0.0, 0.0, 1.0])
    assert whiten(x, mask, unbiased=False).tolist() == pytest.approx([-1.2247449, 0.0, 0.0, 1.2247449])
    assert whiten(x, mask, center=False).tolist() == pytest.approx([1.0, 0.0, 2.0, 3.0])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), pads=st.integers(0, 5))
def test_whitened_elements_have_mean_zero_and_std_one_whatever_the_padding(seed, pads):
    rng = torch.Generator().manual_seed(seed)
    x = 5.0 + 3.0 * torch.randn(4, 6, generator=rng, dtype=torch.float64)
    mask = torch.rand(4, 6, generator=rng) < 0.7
    mask[0, :2] = True
    white = whiten(x, mask)
    assert float(white[mask].mean()) == pytest.approx(0.0, abs=1e-12)
    assert float(white[mask].std()) == pytest.approx(1.0, rel=1e-6)
    padded = whiten(
        torch.cat([torch.full((4, pads), NAN, dtype=torch.float64), x], 1),
        torch.cat([torch.zeros(4, pads).bool(), mask], 1),
    )
    torch.testing.assert_close(padded[:, pads:], white)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("unbiased", [True, False])
def test_where_all_elements_count_the_numbers_are_those_of_a_batch_with_holes(center, unbiased):
    x = 5.0 + 3.0 * torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    holes = torch.cat([x, torch.full((4, 2), NAN)], 1)
    counted = torch.cat([torch.ones(4, 6), torch.zeros(4, 2)], 1).bool()
    whole = whiten(x, torch.ones(4, 6).bool(), center, unbiased)
    torch.testing.assert_close(whole, whiten(holes, counted, center, unbiased)[:, :6], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("value", [0.1, 1e4 / 3, 0.0])
def test_whitening_equal_elements_gives_zero_and_not_noise(value):
    x = torch.full((64,), value)
    assert whiten(x, torch.ones(64).bool()).abs().max() < 1e-5


def test_whitening_nothing_or_one_element():
    x = torch.tensor([3.0, 4.0])
    assert whiten(x, torch.tensor([False, False])).tolist() == [0.0, 0.0]
    assert whiten(x, torch.tensor([True, False])).tolist() == [0.0, 0.0]
    assert whiten(x[:1], torch.tensor([True])).tolist() == [0.0]
    assert whiten(x[:0], torch.ones(0).bool()).tolist() == []
