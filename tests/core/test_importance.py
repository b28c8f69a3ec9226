"""Importance weights by hand, their bounds and the effective sample size."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.core.importance import CORRECTIONS, effective_sample_share, importance_weight
from onepolicy.errors import ConfigError

OLD = torch.log(torch.tensor([[0.5, 0.2, 0.9], [0.1, 0.4, 0.5]]))
BEHAVIOUR = torch.log(torch.tensor([[0.25, 0.4, 0.1], [0.4, 0.2, 0.5]]))
MASK = torch.tensor([[True, True, False], [True, True, True]])


@pytest.mark.parametrize(
    ("correction", "want"),
    [
        ("none", [[1, 1, 0], [1, 1, 1]]),
        ("token_truncate", [[1.5, 0.5, 0], [0.25, 1.5, 1]]),  # ratios 2, 1/2 and 1/4, 2, 1; cap 1.5
        ("token_mask", [[0, 0, 0], [0, 0, 1]]),
        ("sequence_truncate", [[1, 1, 0], [0.5, 0.5, 0.5]]),  # products 1 and 1/2
        ("sequence_mask", [[1, 1, 0], [0, 0, 0]]),
    ],
)
def test_each_correction_by_hand(correction, want):
    found = importance_weight(OLD, BEHAVIOUR, MASK, correction, cap=1.5)
    assert torch.allclose(found, torch.tensor(want, dtype=torch.float32), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(CORRECTIONS), st.floats(1.0, 10.0), st.integers(0, 1000))
def test_the_same_policy_weighs_one_and_padding_is_never_read(correction, cap, seed):
    generator = torch.Generator().manual_seed(seed)
    logp = -torch.rand(3, 4, generator=generator)
    mask = torch.rand(3, 4, generator=generator) < 0.7
    broken = torch.where(mask, logp, math.nan)
    assert torch.equal(importance_weight(broken, logp, mask, correction, cap), mask.float())


def test_kish_by_hand():
    """Weights 3, 1, 0 of three: 16 / (3 x 10)."""
    weight, mask = torch.tensor([3.0, 1.0, 0.0, math.nan]), torch.tensor([True, True, True, False])
    assert float(effective_sample_share(weight, mask)) == pytest.approx(16 / 30)
    assert float(effective_sample_share(torch.zeros(2), torch.ones(2, dtype=torch.bool))) == 0.0


def test_a_corrected_estimate_is_unbiased_without_a_bound():
    """E_behaviour[w f] = E_old[f] over three actions, exactly, by enumeration; with a cap of 1.2 it is not."""
    old, behaviour, f = (torch.tensor(x) for x in ([0.6, 0.3, 0.1], [0.2, 0.3, 0.5], [1.0, -2.0, 4.0]))
    mask = torch.ones(3, 1, dtype=torch.bool)
    for cap, same in ((math.inf, True), (1.2, False)):
        w = importance_weight(old.log()[:, None], behaviour.log()[:, None], mask, "token_truncate", cap)[:, 0]
        assert (abs(float((behaviour * w * f).sum() - (old * f).sum())) < 1e-6) is same


def test_bad_choices_are_named():
    with pytest.raises(ConfigError, match="Did you mean 'token_mask'"):
        importance_weight(OLD, BEHAVIOUR, MASK, "token_msk")
    with pytest.raises(ConfigError, match=r"cap is 0\.5"):
        importance_weight(OLD, BEHAVIOUR, MASK, "token_mask", cap=0.5)
