"""The critic's loss per element, and how well it explains its targets. No reduction, no coefficient."""

from __future__ import annotations

import torch
from torch import Tensor

from onepolicy.core import check


def squared_error(value: Tensor, target: Tensor) -> Tensor:
    """Half the squared error, (V - target)^2 / 2.

    value, target [...]: reward units. Returns: [...], squared reward units.
    """
    return 0.5 * (value - target).square()


def clipped_squared_error(value: Tensor, value_old: Tensor, target: Tensor, *, clip: float) -> Tensor:
    """The larger of the squared error and that of V held within +-clip of the old value, halved.

    max((V - target)^2, (V_old + clamp(V - V_old, -clip, clip) - target)^2) / 2: no gradient once V has moved more than
    `clip` towards the target. value, value_old, target [...]; clip > 0, all in reward units.
    Returns: [...], squared reward units.
    Source: openai/baselines ppo2/model.py; Huang et al. 2022, The 37 implementation details of PPO, detail 9.
    """
    held = value_old + (value - value_old).clamp(-clip, clip)
    return 0.5 * torch.maximum((value - target).square(), (held - target).square())


def explained_variance(value: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """The share of the targets' variance that the critic explains, 1 - Var(target - V) / Var(target).

    1 is perfect, 0 no better than a constant, negative worse. value, target [...]; mask [...] bool.
    Returns: 0-d tensor; NaN when the counted targets do not vary.
    """
    check.same_shape(value=value, target=target, mask=mask)
    target = target[mask].double()
    share = 1.0 - _variance(target - value[mask].double()) / _variance(target)
    return torch.where((target != target[:1]).any(), share, torch.nan).to(value.dtype)


def _variance(x: Tensor) -> Tensor:
    return (x - x.mean()).square().mean()
