"""From a loss per element to one number: the weights that make loss = sum(weight * per_element).

The weights are computed once per optimizer step from the whole step's mask, over all ranks, before it is split into
micro-batches; a part of the batch then simply keeps its part of the weights, and gradients add up to the same sum
however it was split, padded or packed. One row is one sequence.

Rows without a counted element (a truncated completion that was masked out, padding rows) get weight 0 and are not
sequences: they do not enter the number of sequences B below.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from onepolicy.core import check
from onepolicy.errors import ConfigError, nearest

Reduction = Literal["token_mean", "sequence_mean", "sequence_sum", "fixed_length"]
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)


def loss_weights(
    mask: Tensor,
    mode: Reduction,
    count: Tensor | float | None = None,
    length: float | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The weight of each element of a loss: [B, T] from mask [B, T].

    With len_i the counted elements of row i and B the rows that have any:
    token_mean: 1 / sum_i len_i. sequence_mean: 1 / (B len_i). sequence_sum: 1 / B. fixed_length: 1 / (B length).
    count: when the mask is only a part of the optimizer step (a micro-batch, one rank's share), the whole step's
    number of counted tokens (token_mean) or of sequences (the others), as `loss_count` gives it for each part.
    length: the constant of fixed_length, in tokens (Dr. GRPO: the completion limit).
    Returns: weights [B, T], 0 where mask is False; all 0 when nothing counts.
    Raises: ConfigError for an unknown mode, a count or length that is not positive, a length missing or unused.
    Source: Shao et al. 2024 (GRPO, sequence_mean), Yu et al. 2025 (DAPO, token_mean), Liu et al. 2025 (Dr. GRPO,
    fixed_length), Ahmadian et al. 2024 (RLOO, sequence_sum).

    Two sequences of 1 and 3 tokens and a dropped one:

    >>> import torch
    >>> mask = torch.tensor([[1, 0, 0], [1, 1, 1], [0, 0, 0]]).bool()
    >>> loss_weights(mask, "token_mean")[:2, 0]
    tensor([0.2500, 0.2500])
    >>> loss_weights(mask, "sequence_mean")[:2, 0]
    tensor([0.5000, 0.1667])
    >>> loss_weights(mask, "sequence_sum")[:2, 0]
    tensor([0.5000, 0.5000])
    >>> loss_weights(mask, "fixed_length", length=10)[:2, 0]
    tensor([0.0500, 0.0500])
    """
    check.boolean("mask", mask)
    if mode not in REDUCTIONS:
        raise ConfigError(f"unknown reduction {mode!r}. {nearest(mode, REDUCTIONS)}")
    if (length is not None) != (mode == "fixed_length"):
        need = "needs length, the constant number of tokens" if length is None else "takes no length"
        raise ConfigError(f"length is {length}; reduction {mode!r} {need}.")
    for name, number in (("count", count), ("length", length)):
        if isinstance(number, int | float) and not number > 0:
            raise ConfigError(f"{name} is {number}; it must be positive.")
    if count is None:
        count = loss_count(mask, mode).clamp(min=1)
    weight = mask.to(dtype) / count
    if mode == "sequence_mean":
        return weight / mask.sum(-1, keepdim=True).clamp(min=1)
    return weight if length is None else weight / length


def loss_count(mask: Tensor, mode: Reduction) -> Tensor:
    """What `count` of `loss_weights` counts in this mask: tokens for token_mean, sequences for the other modes.

    mask [B, T] bool. Returns: a 0-d int64 tensor; add it over micro-batches and ranks.
    """
    return mask.sum() if mode == "token_mean" else mask.any(-1).sum()
