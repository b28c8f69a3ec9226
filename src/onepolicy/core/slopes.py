"""`policy_loss` with its gradient in what the policy said, for policies that carry it on to their weights by hand.

For the losses of control on a CPU the gradient is a formula, in numpy: for a few hundred elements what autograd notes
down takes longer than the arithmetic. Any other loss is differentiated by autograd down to the same three tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onepolicy.batch import Evaluation, LossOutput, PolicyBatch
from onepolicy.core.policy import PolicyLoss, clipped, policy_loss, reinforce, require_fitting

Array = NDArray[Any]
Formula = Callable[..., tuple[Array, Array, Array | None]]
"""(log_ratio, logp, advantage, constants), each [N] -> loss, its slope in logp, where a clip stops the gradient."""


def policy_slopes(
    evaluation: Evaluation, batch: PolicyBatch, weight: Tensor, loss: PolicyLoss
) -> tuple[LossOutput, Evaluation]:
    """`policy_loss` of an evaluation without a graph, and its gradient in each tensor of that evaluation.

    All as in `policy_loss`. Returns: its output, and d loss / d logp, d entropy, d value, [B, T] each; equal to
    autograd's to rounding.
    """
    require_fitting(evaluation, batch, weight, loss)
    formula = _formula(loss, batch)
    if formula is not None:
        return _by_formula(formula, evaluation, batch, weight, loss)
    said = (evaluation.logp, evaluation.entropy, evaluation.value)
    leaves = [x.detach().requires_grad_() for x in said if x is not None]
    out = policy_loss(Evaluation(*leaves), batch, weight, loss)
    out.loss.backward()  # type: ignore[no-untyped-call]
    slopes = (torch.zeros_like(x) if x.grad is None else x.grad for x in leaves)
    return LossOutput(out.loss.detach(), out.metrics), Evaluation(*slopes)


@np.errstate(over="ignore", invalid="ignore")
def _by_formula(
    formula: Formula, evaluation: Evaluation, batch: PolicyBatch, weight: Tensor, loss: PolicyLoss
) -> tuple[LossOutput, Evaluation]:
    shape, share = weight.shape, _flat(weight)
    logp, entropy, advantage = _flat(evaluation.logp), _flat(evaluation.entropy), _flat(batch.advantage)
    change = logp - _flat(batch.logp_behaviour if batch.logp_old is None else batch.logp_old)
    element, slope, held = formula(change, logp, advantage)
    names, parts = ["policy/loss", "policy/entropy"], [element, entropy]
    slopes, coefs = [share * slope, share * -loss.entropy_coef], [1.0, -loss.entropy_coef]
    if evaluation.value is not None and batch.value_target is not None:
        error, rate = _value_error(_flat(evaluation.value), batch, loss.value_clip)
        names, parts, coefs = [*names, "value/loss"], [*parts, error], [*coefs, loss.value_coef]
        slopes.append(share * rate * loss.value_coef)
    names, parts = [*names, "policy/kl_old"], [*parts, np.expm1(change) - change]
    if held is not None:
        names, parts = [*names, "policy/clip_fraction"], [*parts, held]
    found = [np.dot(share, part) for part in parts]
    total = sum(coef * part for coef, part in zip(coefs, found, strict=False))
    sums = torch.from_numpy(np.array([*found, total], share.dtype)).unbind()
    gradient = Evaluation(*(torch.from_numpy(x).view(shape) for x in slopes))
    return LossOutput(sums[-1], dict(zip(names, sums[:-1], strict=True))), gradient


def _value_error(value: Array, batch: PolicyBatch, clip: float | None) -> tuple[Array, Array]:
    """Half the squared error [N] and its slope in the value; see core/value.py."""
    assert batch.value_target is not None
    error = value - _flat(batch.value_target)
    if clip is None or batch.value_old is None:
        return 0.5 * np.square(error), error
    moved = value - _flat(batch.value_old)
    held = np.minimum(np.maximum(moved, -clip), clip)
    still = error - moved + held
    stops = (held != moved) & (np.square(still) > np.square(error))
    return 0.5 * np.square(np.where(stops, still, error)), np.where(stops, 0.0, error)


def _reinforce(change: Array, logp: Array, advantage: Array) -> tuple[Array, Array, Array | None]:
    return -advantage * logp, -advantage, None


def _clipped(
    change: Array, logp: Array, advantage: Array, *, low: float, high: float
) -> tuple[Array, Array, Array | None]:
    ratio, cost = np.exp(change), -advantage
    free = ratio * cost
    still = np.minimum(np.maximum(ratio, 1.0 - low), 1.0 + high) * cost
    acts = still > free
    return np.where(acts, still, free), np.where(acts, 0.0, free), acts


_FORMULAS: dict[Callable[..., Tensor], Formula] = {reinforce: _reinforce, clipped: _clipped}


def _formula(loss: PolicyLoss, batch: PolicyBatch) -> Formula | None:
    """The surrogate's formula: for token ratios without a reference, where all elements count, on a CPU."""
    bound = loss.surrogate if isinstance(loss.surrogate, partial) else partial(loss.surrogate)
    if bound.func not in _FORMULAS or bound.args or loss.level != "token" or batch.logp_ref is not None:
        return None
    if batch.mask.device.type != "cpu" or not bool(batch.mask.all()):
        return None
    return partial(_FORMULAS[bound.func], **bound.keywords)


def _flat(x: Tensor) -> Array:
    return x.numpy().reshape(-1)
