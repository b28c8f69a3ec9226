"""Checks at the boundaries: they pass what is right and say what is wrong."""

import pytest
import torch

from onepolicy.core import check
from onepolicy.errors import ConfigError, DataError, TrainingError


def test_shapes():
    a = torch.zeros(2, 3)
    check.same_shape(a=a, missing=None, b=a.bool())
    check.same_shape()
    with pytest.raises(DataError, match=r"c has shape \(3, 2\) but a has shape \(2, 3\); they must be equal"):
        check.same_shape(a=a, b=a, c=a.T)


def test_masks_are_boolean():
    check.boolean("mask", torch.zeros(2).bool())
    with pytest.raises(DataError, match=r"mask has dtype torch.int64; a mask is torch.bool"):
        check.boolean("mask", torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_finiteness_names_the_place(bad):
    x = torch.zeros(2, 3)
    check.finite("reward", x)
    x[1, 2] = bad
    with pytest.raises(TrainingError, match=r"reward has 1 non-finite element of 6, the first at \(1, 2\)"):
        check.finite("reward", x)
    mask = torch.ones(2, 3).bool()
    mask[1, 2] = False
    check.finite("reward", x, mask)
    x[0, 0] = bad
    with pytest.raises(TrainingError, match=r"1 non-finite element of 5, the first at \(0, 0\)"):
        check.finite("reward", x, mask)


def test_fractions():
    assert check.fraction("lam", 0.95) == 0.95
    with pytest.raises(ConfigError, match=r"lam is 1.5; it must lie in \[0.0, 1.0\]"):
        check.fraction("lam", 1.5)
    with pytest.raises(ConfigError, match="lam is nan"):
        check.fraction("lam", float("nan"))


def test_presence():
    check.present("kl_coef", logp_ref=torch.zeros(1))
    with pytest.raises(ConfigError, match="logp_ref is None; kl_coef needs it"):
        check.present("kl_coef", logp_ref=None)
