"""What a policy's update is measured from: the reference of a KL, and the proximal policy of a corrected ratio."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor

from onepolicy.batch import PolicyBatch
from onepolicy.core.importance import Correction, effective_sample_share, importance_weight
from onepolicy.learning.learner import evaluate_in_parts
from onepolicy.nn.token_policy import TokenPolicy
from onepolicy.recipes.language import Language
from onepolicy.types import Metrics


@final
class Reference:
    """A frozen copy of the policy as it is now, replaced by the policy every `every` rollouts; 0 keeps it for ever.

    budget: padded tokens evaluated at once.
    """

    def __init__(self, language: Language, *, every: int, budget: int | None) -> None:
        self.policy = language.policy
        self.frozen: TokenPolicy = language.frozen_policy()
        self.every = every
        self.budget = budget

    def logp(self, batch: PolicyBatch) -> Tensor:
        """Log-probabilities [B, T] of the batch's actions under the reference."""
        return evaluate_in_parts(self.frozen, batch, self.budget).logp

    def renew(self, step: int) -> None:
        """Before rollout `step` (from 0): the reference becomes the policy where it is time."""
        if self.every and step and step % self.every == 0:
            self.load_state_dict(dict(self.policy.named_parameters()))

    def state_dict(self) -> dict[str, Tensor]:
        """The reference's parameters by name."""
        return {name: p.detach().clone() for name, p in self.frozen.named_parameters()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of state_dict."""
        for name, p in self.frozen.named_parameters():
            p.copy_(state[name])


def proximal_of(
    policy: Any, *, correction: Correction, cap: float, budget: int | None, decoupled: bool = False
) -> Callable[[PolicyBatch], tuple[PolicyBatch, Metrics]] | None:
    """The function that makes a batch of another policy's samples one to learn from; None where nothing is to do.

    logp_old becomes the policy's own log-probability before the step, so that the clip holds on to it, and the
    advantages are weighed by pi_old / pi_behaviour as `correction` says. decoupled: do so without a weight too.
    """
    if correction == "none" and not decoupled:
        return None

    def apply(batch: PolicyBatch) -> tuple[PolicyBatch, Metrics]:
        old = evaluate_in_parts(policy, batch, budget).logp
        weight = importance_weight(old, batch.logp_behaviour, batch.mask, correction, cap)
        ratio = importance_weight(old, batch.logp_behaviour, batch.mask, "token_truncate", torch.inf)
        metrics = {
            "rollout/effective_share": float(effective_sample_share(weight, batch.mask)),
            "rollout/importance_max": float(ratio.max()),
        }
        if correction.startswith("token"):
            cut = ((weight != ratio) & batch.mask).sum() / batch.mask.sum().clamp(min=1)
            metrics["rollout/importance_cut"] = float(cut)
        return replace(batch, logp_old=old, advantage=batch.advantage * weight), metrics

    return apply


def surrogate_of(policy: Any, *, budget: int | None) -> Callable[[PolicyBatch], float]:
    """The function that measures ratio times advantage on a batch, its counted elements' mean, with today's weights."""

    def measure(batch: PolicyBatch) -> float:
        logp = evaluate_in_parts(policy, batch, budget).logp
        old = batch.logp_behaviour if batch.logp_old is None else batch.logp_old
        gain = torch.exp(logp - old) * batch.advantage
        return float(gain[batch.mask].mean())

    return measure
