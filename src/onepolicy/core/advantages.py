"""Advantages across samples of the same prompt, and whitening across a batch. Along time: returns.py."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onepolicy.core import check
from onepolicy.errors import ConfigError, DataError, nearest

Center = Literal["none", "mean", "leave_one_out"]
Scale = Literal["none", "std", "std_biased", "leave_one_out_std"]
CENTERS: tuple[Center, ...] = get_args(Center)
SCALES: tuple[Scale, ...] = get_args(Scale)


def group_advantage(score: Tensor, center: Center = "mean", scale: Scale = "none", eps: float = 1e-6) -> Tensor:
    """The advantage of each of G samples over the others of its prompt, (score - baseline) / (spread + eps).

    score [P, G]: reward units; NaN where a sample could not be judged: it enters no mean and no spread, and its own
    advantage is 0. center: none | mean of the group | leave_one_out, the mean of the other samples. scale: none | std
    (unbiased, n - 1) | std_biased (n) | leave_one_out_std, the unbiased spread of the other samples.
    A spread that is zero or undefined (fewer than two samples to take it from) divides by 1, not by eps; with a
    center, a group whose scores are all equal, or of which fewer than two were judged, gets exactly 0.
    Returns: advantage [P, G].
    Raises: ConfigError for unknown names and for G = 1 with a center, which would leave nothing to learn from.
    Source: Shao et al. 2024 (GRPO: mean, std); Liu et al. 2025 (Dr. GRPO: mean, none); Ahmadian et al. 2024 (RLOO:
    leave_one_out, none). Which library uses which: conventions.py.

    >>> import torch
    >>> group_advantage(torch.tensor([[1.0, 2.0, 3.0, float("nan")]]), "leave_one_out")
    tensor([[-1.5000,  0.0000,  1.5000,  0.0000]])
    """
    for name, known in ((center, CENTERS), (scale, SCALES)):
        if name not in known:
            raise ConfigError(f"unknown center or scale {name!r}. {nearest(name, known)}")
    if score.dim() != 2:
        raise DataError(f"score has shape {tuple(score.shape)}; it must be [P, G], one row per prompt.")
    group = score.shape[1]
    if group < 2 and center != "none":
        raise ConfigError(
            f"group_size is {group}; GRPO's baseline needs at least 2 completions per prompt. "
            'Set group_size >= 2, or center="none".'
        )
    judged = ~score.isnan()
    exact = torch.where(judged, score, 0.0).double()
    whole = judged.unsqueeze(1)
    advantage = exact
    if center != "none":
        difference = exact - _mean(exact, whole)
        if center == "leave_one_out":  # x - (sum - x) / (n - 1) = (x - mean) n / (n - 1)
            count = judged.sum(-1, keepdim=True)
            difference = difference * count / (count - 1).clamp(min=1)
        equal = _low(exact, whole) == _high(exact, whole)
        advantage = torch.where(equal, 0.0, difference)
    if scale != "none":
        pool = whole if scale != "leave_one_out_std" else whole & ~torch.eye(group, dtype=torch.bool).to(whole.device)
        advantage = advantage / _spread(exact, pool, 0 if scale == "std_biased" else 1, eps)
    return torch.where(judged, advantage, 0.0).to(score.dtype)


def whiten(x: Tensor, mask: Tensor, center: bool = True, unbiased: bool = True, eps: float = 1e-8) -> Tensor:
    """The counted elements scaled to unit standard deviation, (x - mean) / (std + eps), over all axes together.

    x [...]; mask [...] bool. center False puts the mean back, (x - mean) / (std + eps) + mean, as reward whitening
    does. unbiased: divide the variance by n - 1, else by n. Under two counted elements there is no spread: 0 (or the
    element itself when the mean is kept).
    Returns: [...], 0 where mask is False. Computed in float64, so that equal elements give 0 and not rounding noise.
    Source: Huang et al. 2022, The 37 implementation details of PPO, detail 7; center False: openai/lm-human-preferences
    `utils/core.py: whiten(shift_mean=False)`, which adds eps to the variance instead.
    """
    check.same_shape(x=x, mask=mask)
    if x.device.type == "cpu" and not x.requires_grad and bool(mask.all()):
        return torch.from_numpy(_whiten(x.numpy(), center, int(unbiased), eps)).to(x.dtype)
    exact = torch.where(mask, x, 0.0).double()
    count = mask.sum()
    mean = exact.sum() / count.clamp(min=1)
    deviation = torch.where(mask, exact - mean, 0.0)
    std = (deviation.square().sum() / (count - int(unbiased)).clamp(min=1)).sqrt()
    white = deviation / (std + eps)
    return (white if center else torch.where(mask, white + mean, 0.0)).to(x.dtype)


def _whiten(x: NDArray[Any], center: bool, less: int, eps: float) -> NDArray[np.float64]:
    """`whiten` where all elements count: in numpy, in a quarter of the time for a minibatch."""
    exact = x.astype(np.float64)
    mean = np.add.reduce(exact, axis=None) / max(x.size, 1)
    deviation = exact - mean
    std = math.sqrt(np.vdot(deviation, deviation) / max(x.size - less, 1))
    white: NDArray[np.float64] = deviation / (std + eps)
    return white if center else white + mean


def _mean(score: Tensor, pool: Tensor) -> Tensor:
    """Mean [P, G] of score [P, G] over the samples in pool [P, 1 or G, G]; 0 for an empty pool."""
    return torch.where(pool, score.unsqueeze(1), 0.0).sum(-1) / pool.sum(-1).clamp(min=1)


def _low(score: Tensor, pool: Tensor) -> Tensor:
    return torch.where(pool, score.unsqueeze(1), torch.inf).amin(-1)


def _high(score: Tensor, pool: Tensor) -> Tensor:
    return torch.where(pool, score.unsqueeze(1), -torch.inf).amax(-1)


def _spread(score: Tensor, pool: Tensor, correction: int, eps: float) -> Tensor:
    """Standard deviation plus eps over the pool, [P, 1 or G]; 1 where the pool has no spread."""
    deviation = torch.where(pool, score.unsqueeze(1) - _mean(score, pool).unsqueeze(-1), 0.0)
    std = (deviation.square().sum(-1) / (pool.sum(-1) - correction).clamp(min=1)).sqrt()
    return torch.where(_low(score, pool) < _high(score, pool), std + eps, 1.0)
