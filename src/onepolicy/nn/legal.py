"""Masks of actions: the numbers behind the features of an observation, and logits without the illegal actions.

An illegal action has LOWEST for a logit: probability exactly 0, no gradient, and no part in entropy, divergence or
greatest value.
Source: Huang and Ontanon 2022 (arXiv 2006.14171): the policy gradient stays a policy gradient.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from onepolicy.core import distributions
from onepolicy.nn.mlp import Array

LOWEST = np.float32(distributions.LOWEST)


def features(obs: Tensor, bits: int) -> Tensor:
    """Observations [..., D] without the last `bits` numbers."""
    return obs[..., :-bits] if bits else obs


def legal_of(obs: Tensor, bits: int) -> Tensor | None:
    """Which actions are legal, bool [..., bits]; None where there are no masks.

    Where none is, all are: nobody acts there, and its value is still a number.
    """
    if not bits:
        return None
    legal = obs[..., -bits:] > 0.5
    return legal | ~legal.any(dim=-1, keepdim=True)


def masked(logits: Tensor, obs: Tensor, bits: int) -> Tensor:
    """The logits [..., bits] of actions that are legal by obs [..., D], and LOWEST elsewhere."""
    return distributions.masked_logits(logits, obs[..., -bits:] > 0.5) if bits else logits


def numpy_masked(logits: Array, obs: Array, bits: int) -> Array:
    """`masked` in numpy."""
    return np.where(obs[..., -bits:] > 0.5, logits, LOWEST) if bits else logits


def numpy_features(obs: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """`features` in numpy."""
    return obs[..., :-bits] if bits else obs
