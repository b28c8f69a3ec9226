"""Importance weights for samples of another policy: an older one, or the sampler's slightly different arithmetic.

The surrogate's ratio is to the *proximal* policy, `logp_old`; when the samples come from a third one, `logp_behaviour`,
each carries the weight pi_old / pi_behaviour, bounded here, without gradient. Source: Hilton et al. 2022 (Batch
size-invariance for policy optimization, arXiv 2110.00641), section 3 (decoupled PPO); Fu et al. 2025 (AReaL, arXiv
2505.24298), section 5.2.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from onepolicy.core import check
from onepolicy.errors import ConfigError, nearest

Correction = Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]
CORRECTIONS: tuple[Correction, ...] = get_args(Correction)


def importance_weight(
    logp_old: Tensor, logp_behaviour: Tensor, mask: Tensor, correction: Correction, cap: float = 2.0
) -> Tensor:
    """The weight pi_old / pi_behaviour of each element, bounded, 0 where mask is False; no gradient.

    token: of the element; sequence: of the whole row, the product of its elements', given to each of them. truncate:
    min(w, cap) (TIS). mask: w where 1 / cap <= w <= cap, else 0 (MIS, IcePop). none: 1.
    logp_old, logp_behaviour [B, T]: nats; may hold anything where mask [B, T] is False. cap >= 1. Returns: [B, T].
    Raises: ConfigError for an unknown correction or a cap below 1.
    Source: Ionides 2008 (truncated importance sampling); Yao et al. 2025 (Your efficient RL framework secretly brings
    you off-policy RL training).

    >>> old, behaviour = torch.tensor([[0.0, 0.0]]), torch.tensor([[-1.0, -0.5]])
    >>> mask = torch.ones(1, 2, dtype=torch.bool)
    >>> importance_weight(old, behaviour, mask, "token_truncate", cap=2.0)
    tensor([[2.0000, 1.6487]])
    >>> importance_weight(old, behaviour, mask, "sequence_mask", cap=4.0)
    tensor([[0., 0.]])
    """
    check.same_shape(logp_old=logp_old, logp_behaviour=logp_behaviour, mask=mask)
    if correction not in CORRECTIONS:
        raise ConfigError(f"unknown correction {correction!r}. {nearest(correction, CORRECTIONS)}")
    if not cap >= 1.0:
        raise ConfigError(f"cap is {cap}; an importance weight of 1 must pass. Set it >= 1.")
    with torch.no_grad():
        gap = torch.where(mask, logp_old - logp_behaviour, 0.0)
        if correction == "none":
            return mask.to(gap.dtype)
        if correction.startswith("sequence"):
            gap = gap.sum(-1, keepdim=True).expand_as(gap)
        weight = torch.exp(gap)
        inside = (weight >= 1.0 / cap) & (weight <= cap)
        weight = weight.clamp(max=cap) if correction.endswith("truncate") else torch.where(inside, weight, 0.0)
        return torch.where(mask, weight, 0.0)


def effective_sample_share(weight: Tensor, mask: Tensor) -> Tensor:
    """Kish's effective sample size as a share, (sum w)^2 / (n sum w^2), of the counted elements; 1 when all are equal.

    weight, mask [...]. Returns: a number in [0, 1]; 0 when no weight is left.
    Source: Kish 1965; Liu 2001, section 2.5.3.

    >>> float(effective_sample_share(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([True, True, True])))
    0.6666666865348816
    """
    w = torch.where(mask, weight, 0.0)
    square = w.square().sum() * mask.sum()
    return torch.where(square > 0, w.sum().square() / square.clamp(min=torch.finfo(w.dtype).tiny), 0.0)
