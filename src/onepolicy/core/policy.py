"""The policy-gradient losses: a ratio level, a surrogate, and the terms around it.

What makes one algorithm differ from the next is how `batch.advantage` was filled (not here), the level of the ratio,
the surrogate, and the reduction (reduce.py: the weights). A surrogate is a function (log_ratio, logp, advantage) ->
loss per element, its constants bound with functools.partial. Nothing is whitened or reduced here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from onepolicy.batch import Evaluation, LossOutput, PolicyBatch
from onepolicy.core import check, kl
from onepolicy.core.value import clipped_squared_error, squared_error
from onepolicy.errors import ConfigError, nearest

Level = Literal["token", "sequence"]
Surrogate = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(log_ratio, logp, advantage), each [B, T] -> loss per element to minimise, [B, T]; constants already bound."""


def log_ratio(logp: Tensor, logp_old: Tensor, mask: Tensor, level: Level = "token") -> Tensor:
    """The log importance ratio of the policy to the one that is being improved on, 0 where mask is False.

    token: log pi(a_t) - log pi_old(a_t). sequence: the mean of those over the row's counted elements, broadcast back
    to them (the geometric mean of the token ratios); its gradient reaches every token of the row with weight 1/len,
    as GSPO's does.
    logp, logp_old [..., T]: nats; may hold anything where mask [..., T] is False. Returns: [..., T].
    Raises: ConfigError for an unknown level.
    Source: Zheng et al. 2025 (GSPO, arXiv 2507.18071), equation 7.

    >>> import torch
    >>> new, old = torch.tensor([[-1.0, -2.0, 7.0]]), torch.tensor([[-2.0, -5.0, 0.0]])
    >>> mask = torch.tensor([[True, True, False]])
    >>> log_ratio(new, old, mask, "token")
    tensor([[1., 3., 0.]])
    >>> log_ratio(new, old, mask, "sequence")
    tensor([[2., 2., 0.]])
    """
    ratio = torch.where(mask, logp - logp_old, 0.0)
    if level == "token":
        return ratio
    if level != "sequence":
        raise ConfigError(f"unknown ratio level {level!r}. {nearest(level, ('token', 'sequence'))}")
    mean = ratio.sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(mask, mean, 0.0)


def reinforce(log_ratio: Tensor, logp: Tensor, advantage: Tensor) -> Tensor:
    """The score-function loss, -A log pi(a|s): its gradient is the policy gradient on-policy. Ignores the ratio.

    All [...]; returns: [...], reward units.
    Source: Williams 1992, REINFORCE; Sutton and Barto 2018, section 13.4.
    """
    return -advantage * logp


def clipped(log_ratio: Tensor, logp: Tensor, advantage: Tensor, *, low: float, high: float) -> Tensor:
    """PPO's clipped surrogate, -min(r A, clip(r, 1 - low, 1 + high) A) with r = exp(log_ratio).

    low, high >= 0: DAPO's clip-higher has high > low. All tensors [...]; returns: [...], reward units.
    Source: Schulman et al. 2017 (PPO, arXiv 1707.06347), equation 7; Yu et al. 2025 (DAPO, arXiv 2503.14476),
    equation 8.
    """
    ratio, cost = torch.exp(log_ratio), -advantage
    free = ratio * cost
    held = ratio.detach().clamp(1.0 - low, 1.0 + high) * cost  # a constant wherever it is the larger of the two
    return torch.where(held > free, held, free)


def kl_penalised(log_ratio: Tensor, logp: Tensor, advantage: Tensor, *, beta: float) -> Tensor:
    """The surrogate with a KL penalty in place of the clip, -r A + beta (r - 1 - log r), with r = exp(log_ratio).

    The penalty's mean over actions of the old policy is KL(old || new), and its gradient that of the KL; no element of
    it is negative. beta >= 0: reward units per nat. All tensors [...]; returns: [...], reward units.
    Source: Schulman et al. 2017 (PPO, arXiv 1707.06347), equation 8, its KL estimated from the actions taken.
    """
    excess = torch.expm1(log_ratio)
    return beta * (excess - log_ratio) - (1.0 + excess) * advantage


def dual_clipped(log_ratio: Tensor, logp: Tensor, advantage: Tensor, *, low: float, high: float, c: float) -> Tensor:
    """The clipped surrogate, for A < 0 not above -c A: without it a huge ratio with A < 0 has an unbounded loss.

    -max(min(r A, clip(r) A), c A) where A < 0, `clipped` elsewhere; c > 1 + high. All tensors [...]; returns: [...].
    Source: Ye et al. 2020 (Mastering complex control in MOBA games with deep RL, arXiv 1912.09729), dual-clip PPO.
    """
    loss = clipped(log_ratio, logp, advantage, low=low, high=high)
    return torch.where(advantage < 0, torch.minimum(loss, -c * advantage), loss)


def cispo(log_ratio: Tensor, logp: Tensor, advantage: Tensor, *, low: float, high: float) -> Tensor:
    """CISPO's loss, -stop_gradient(clip(r, 1 - low, 1 + high)) A log pi(a|s): clips the weight, never the gradient.

    The bounds are distances from 1, as everywhere in this module: low >= 1 leaves the weight unbounded below, as the
    paper does. All tensors [...]; returns: [...], reward units.
    Source: MiniMax 2025 (MiniMax-M1, arXiv 2506.13585), equations 4 and 5.
    """
    weight = torch.exp(log_ratio.detach()).clamp(1.0 - low, 1.0 + high)
    return -weight * advantage * logp


def dppo(log_ratio: Tensor, logp: Tensor, advantage: Tensor, *, low: float, high: float) -> Tensor:
    """The importance-weighted loss -r A, without the elements whose *probability* has moved too far.

    An element is left out (loss and gradient 0) when pi - pi_old > high with A > 0, or pi - pi_old < -low with A < 0:
    the total variation of a binary variable, which unlike the ratio does not explode at rare tokens. Token ratios
    only: the old probability is exp(logp - log_ratio). All tensors [...]; low, high in [0, 1]; returns: [...].
    Source: DPPO (arXiv 2602.04879), the binary total-variation mask; prime-rl `trainer/rl/loss.py`.
    """
    beyond = _dppo_acts(log_ratio, logp, advantage, low=low, high=high)
    return -(torch.exp(log_ratio) * advantage).masked_fill(beyond, 0.0)


@dataclass(frozen=True)
class PolicyLoss:
    """What is minimised, per element: surrogate + value_coef * value - entropy_coef * entropy + kl_coef * KL.

    surrogate: with its constants bound, e.g. partial(clipped, low=0.2, high=0.2). level: of the ratio.
    value_coef: on 0.5 * squared error; 0 when there is no critic. value_clip: reward units, None for no clipping.
    entropy_coef: on the entropy bonus. kl_coef: on KL(pi || reference) by the estimator `kl`; needs batch.logp_ref.
    """

    surrogate: Surrogate
    level: Level = "token"
    value_coef: float = 0.0
    value_clip: float | None = None
    entropy_coef: float = 0.0
    kl_coef: float = 0.0
    kl: kl.KlEstimator = kl.k3


def loss_elements(evaluation: Evaluation, batch: PolicyBatch, loss: PolicyLoss) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss per element, not yet weighed, and what it is made of, [B, T] each; see `policy_loss`.

    policy/kl_old and policy/clip_fraction carry no gradient.
    """
    counted = _counted(batch.mask)
    old = counted(batch.logp_behaviour if batch.logp_old is None else batch.logp_old)
    logp, entropy, advantage = counted(evaluation.logp), counted(evaluation.entropy), counted(batch.advantage)
    token_ratio = logp - old
    ratio = token_ratio if loss.level == "token" else log_ratio(logp, old, batch.mask, loss.level)
    element = loss.surrogate(ratio, logp, advantage)
    parts = {"policy/loss": element, "policy/entropy": entropy}
    if loss.entropy_coef:
        element = torch.sub(element, entropy, alpha=loss.entropy_coef)
    if evaluation.value is not None and batch.value_target is not None:
        error = _value_error(evaluation.value, batch.value_target, batch.value_old, loss.value_clip, counted)
        parts["value/loss"] = error
        if loss.value_coef:
            element = torch.add(element, error, alpha=loss.value_coef)
    if batch.logp_ref is not None:
        divergence = loss.kl(logp, counted(batch.logp_ref))
        parts["policy/kl_ref"] = divergence
        if loss.kl_coef:
            element = torch.add(element, divergence, alpha=loss.kl_coef)
    with torch.no_grad():
        parts["policy/kl_old"] = torch.expm1(token_ratio) - token_ratio
        acting = clip_acts(loss.surrogate, ratio, logp, advantage)
        if acting is not None:
            parts["policy/clip_fraction"] = acting.to(element.dtype)
    return element, parts


def policy_loss(evaluation: Evaluation, batch: PolicyBatch, weight: Tensor, loss: PolicyLoss) -> LossOutput:
    """The loss of a batch or of a part of one, sum(weight * per_element), and its parts.

    evaluation: of batch.action by the policy being trained. weight [B, T]: from reduce.loss_weights, 0 where
    batch.mask is False; there the other tensors may hold anything, NaN included, without touching loss or gradient.
    logp_old is batch.logp_old, or logp_behaviour when that is None.
    Returns: the scalar and detached weighted sums, which add up over micro-batches: policy/loss (the surrogate
    alone), policy/entropy, policy/kl_old (e^d - 1 - d with d the token log-ratio; 0 on-policy), policy/clip_fraction
    (the share of weight the clip acts on, for this module's clipping surrogates), policy/kl_ref with a reference,
    value/loss with a critic.
    Raises: ConfigError when a coefficient needs what the batch or the policy lacks; DataError for unequal shapes.
    """
    require_fitting(evaluation, batch, weight, loss)
    element, parts = loss_elements(evaluation, batch, loss)
    with torch.no_grad():
        rows = torch.stack(list(parts.values())).view(len(parts), -1)
        sums = rows.mv(weight.reshape(-1).to(rows.dtype)).unbind()
    return LossOutput((element * weight).sum(), dict(zip(parts, sums)))


def clip_acts(surrogate: Surrogate, log_ratio: Tensor, logp: Tensor, advantage: Tensor) -> Tensor | None:
    """Where a surrogate's clip acts: bool [...], or None for one that has no clip or is not of this module.

    clipped, dual_clipped, dppo: where it stops the gradient, that is, outside the bounds on the side to which the
    advantage pushes (dual_clipped: or above c with A < 0). cispo: where the weight is cut, whatever the advantage.
    """
    if not isinstance(surrogate, partial) or surrogate.func not in _ACTS:
        return None
    return _ACTS[surrogate.func](log_ratio, logp, advantage, **surrogate.keywords)


def _excess(log_ratio: Tensor, low: float, high: float) -> Tensor:
    """How far the log-ratio is outside its bounds: 0 inside, positive above, negative below."""
    return log_ratio - log_ratio.clamp(math.log1p(-low) if low < 1.0 else -math.inf, math.log1p(high))


def _clipped_acts(log_ratio: Tensor, logp: Tensor, advantage: Tensor, *, low: float, high: float) -> Tensor:
    return _excess(log_ratio, low, high) * advantage > 0


def _dual_clipped_acts(
    log_ratio: Tensor, logp: Tensor, advantage: Tensor, *, low: float, high: float, c: float
) -> Tensor:
    return (_excess(log_ratio, low, high) * advantage > 0) | ((advantage < 0) & (log_ratio > math.log(c)))


def _cispo_acts(log_ratio: Tensor, logp: Tensor, advantage: Tensor, *, low: float, high: float) -> Tensor:
    return _excess(log_ratio, low, high) != 0


def _dppo_acts(log_ratio: Tensor, logp: Tensor, advantage: Tensor, *, low: float, high: float) -> Tensor:
    rise = (logp.exp() - (logp - log_ratio).exp()).detach()
    return ((rise > high) & (advantage > 0)) | ((rise < -low) & (advantage < 0))


_ACTS: dict[Callable[..., Tensor], Callable[..., Tensor]] = {
    clipped: _clipped_acts,
    dual_clipped: _dual_clipped_acts,
    cispo: _cispo_acts,
    dppo: _dppo_acts,
}


def _counted(mask: Tensor) -> Callable[[Tensor], Tensor]:
    """The function that puts 0 where the mask is False; no work on a CPU when everything counts (control tasks)."""
    if mask.device.type == "cpu" and bool(mask.all()):
        return _unchanged
    hole = ~mask
    return lambda x: x.masked_fill(hole, 0.0)


def _unchanged(x: Tensor) -> Tensor:
    return x


def _value_error(
    value: Tensor, target: Tensor, old: Tensor | None, clip: float | None, counted: Callable[[Tensor], Tensor]
) -> Tensor:
    """Half the squared error of the critic, clipped when there is an old value and a clip."""
    if old is None or clip is None:
        return squared_error(counted(value), counted(target))
    return clipped_squared_error(counted(value), counted(old), counted(target), clip=clip)


def require_fitting(evaluation: Evaluation, batch: PolicyBatch, weight: Tensor, loss: PolicyLoss) -> None:
    """Raises: ConfigError when a coefficient needs what the batch or the policy lacks; DataError for unequal shapes."""
    check.same_shape(
        mask=batch.mask,
        weight=weight,
        logp=evaluation.logp,
        entropy=evaluation.entropy,
        value=evaluation.value,
        logp_behaviour=batch.logp_behaviour,
        advantage=batch.advantage,
        logp_old=batch.logp_old,
        logp_ref=batch.logp_ref,
        value_old=batch.value_old,
        value_target=batch.value_target,
    )
    if loss.kl_coef:
        check.present("kl_coef", logp_ref=batch.logp_ref)
    if loss.value_coef:
        check.present("value_coef", value=evaluation.value, value_target=batch.value_target)
        if loss.value_clip is not None:
            check.present("value_clip", value_old=batch.value_old)
