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
from onepolicy.core.policy import PolicyLoss, clipped, loss_elements, policy_loss, reinforce, require_fitting

Array = NDArray[Any]
LOSS = "learner/loss"
"""What the loss itself is called among its parts."""
Formula = Callable[..., tuple[Array, Array, Array | None]]
"""(log_ratio, logp, advantage, constants), each [R, n] -> loss, its slope in logp, where a clip stops the gradient."""


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
        metrics, slopes = _by_formula(formula, evaluation, batch, weight.reshape(1, -1), loss)
        found = {name: value[0] for name, value in metrics.items()}
        return LossOutput(found.pop(LOSS), found), slopes
    said = _leaves(evaluation)
    out = policy_loss(said, batch, weight, loss)
    out.loss.backward()  # type: ignore[no-untyped-call]
    return LossOutput(out.loss.detach(), out.metrics), _slopes(said)


def row_slopes(evaluation: Evaluation, batch: PolicyBatch, loss: PolicyLoss) -> tuple[dict[str, Tensor], Evaluation]:
    """The same for learners side by side, each row [B] one learner's batch, of which its loss is the mean.

    Every element is counted: a batch of this kind has no holes. Returns: the metrics of `policy_loss` and LOSS, [S]
    each; the gradient of the losses' sum, [S, B] each.
    """
    rows = torch.full_like(evaluation.logp, 1.0 / evaluation.logp.shape[1])
    require_fitting(evaluation, batch, rows, loss)
    formula = _formula(loss, batch)
    if formula is not None:
        return _by_formula(formula, evaluation, batch, rows, loss)
    said = _leaves(evaluation)
    element, parts = loss_elements(said, batch, loss)
    element.mean(-1).sum().backward()  # type: ignore[no-untyped-call]
    return {name: part.detach().mean(-1) for name, part in {**parts, LOSS: element}.items()}, _slopes(said)


@np.errstate(over="ignore", invalid="ignore")
def _by_formula(
    formula: Formula, evaluation: Evaluation, batch: PolicyBatch, weight: Tensor, loss: PolicyLoss
) -> tuple[dict[str, Tensor], Evaluation]:
    """weight [R, n]: the sums are over each of the R rows, [R]; elements in the order of the batch."""
    share = weight.numpy()

    def row(x: Tensor) -> Array:
        return x.numpy().reshape(share.shape)

    logp, entropy, advantage = row(evaluation.logp), row(evaluation.entropy), row(batch.advantage)
    change = logp - row(batch.logp_behaviour if batch.logp_old is None else batch.logp_old)
    element, slope, held = formula(change, logp, advantage)
    names, parts = ["policy/loss", "policy/entropy"], [element, entropy]
    slopes, coefs = [share * slope, share * -loss.entropy_coef], [1.0, -loss.entropy_coef]
    if evaluation.value is not None and batch.value_target is not None:
        old = None if batch.value_old is None or loss.value_clip is None else row(batch.value_old)
        error, rate = _value_error(row(evaluation.value), row(batch.value_target), old, loss.value_clip)
        names, parts, coefs = [*names, "value/loss"], [*parts, error], [*coefs, loss.value_coef]
        slopes.append(share * rate * loss.value_coef)
    names, parts = [*names, "policy/kl_old"], [*parts, np.expm1(change) - change]
    if held is not None:
        names, parts = [*names, "policy/clip_fraction"], [*parts, held]
    sums = [np.vecdot(share, part) for part in parts]
    sums.append(sum((coef * part for coef, part in zip(coefs, sums, strict=False)), np.zeros_like(sums[0])))
    found = torch.from_numpy(np.array(sums, share.dtype)).unbind()
    shape = evaluation.logp.shape
    gradient = Evaluation(*(torch.from_numpy(x).view(shape) for x in slopes))
    return dict(zip([*names, LOSS], found, strict=True)), gradient


def _value_error(value: Array, target: Array, old: Array | None, clip: float | None) -> tuple[Array, Array]:
    """Half the squared error and its slope in the value; see core/value.py."""
    error = value - target
    if clip is None or old is None:
        return 0.5 * np.square(error), error
    moved = value - old
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


def _leaves(evaluation: Evaluation) -> Evaluation:
    """The evaluation as tensors that a loss is differentiated down to."""
    said = (evaluation.logp, evaluation.entropy, evaluation.value)
    return Evaluation(*(x.detach().requires_grad_() for x in said if x is not None))


def _slopes(leaves: Evaluation) -> Evaluation:
    """Their gradients; 0 where the loss does not depend on them."""
    said = (leaves.logp, leaves.entropy, leaves.value)
    return Evaluation(*(torch.zeros_like(x) if x.grad is None else x.grad for x in said if x is not None))
