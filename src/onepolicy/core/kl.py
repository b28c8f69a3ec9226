"""Divergence of the policy from a reference, KL(pi || ref): three one-sample estimators and the exact ones.

With d = log pi(a) - log ref(a) and a drawn from pi, all three estimate KL(pi || ref) per element. As a *value* k1 and
k3 are unbiased and k2 is not; as a *loss to differentiate* through logp, k2's gradient is the unbiased one of the
reverse KL per element (of a whole sequence it forgets that tokens decide later prefixes: docs/laboratory.md), k3's is
that of KL(ref || pi) on-policy, and k1's has expectation zero (use k1 in the reward, not in the loss). Nothing is
clamped here. Some libraries number these from 0: open-instruct's estimator 2 is k3.

Source: Schulman 2020, Approximating KL divergence (joschu.net/blog/kl-approx.html).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

KlEstimator = Callable[[Tensor, Tensor], Tensor]
"""(logp, logp_ref) -> KL per element, nats."""


def k1(logp: Tensor, logp_ref: Tensor) -> Tensor:
    """The log-ratio d = logp - logp_ref: unbiased, high variance, of either sign.

    logp, logp_ref [...]: log-probabilities of the actions taken, nats. Returns: [...], nats.
    """
    return logp - logp_ref


def k2(logp: Tensor, logp_ref: Tensor) -> Tensor:
    """Half the squared log-ratio, d^2 / 2: biased (to third order), never negative.

    logp, logp_ref [...]: log-probabilities of the actions taken, nats. Returns: [...], nats.
    """
    return 0.5 * (logp - logp_ref).square()


def k3(logp: Tensor, logp_ref: Tensor) -> Tensor:
    """The estimator e^{-d} - 1 + d: unbiased, low variance, never negative; GRPO's KL term.

    logp, logp_ref [...]: log-probabilities of the actions taken, nats. Returns: [...], nats.
    Source: Shao et al. 2024 (DeepSeekMath, arXiv 2402.03300), equation 4.
    """
    inverse = logp_ref - logp
    return torch.expm1(inverse) - inverse


def exact(logits: Tensor, logits_ref: Tensor) -> Tensor:
    """The divergence itself, sum_a pi(a) (log pi(a) - log ref(a)).

    logits, logits_ref [..., A]: unnormalised log-probabilities; an action that both exclude (-inf) adds nothing, one
    that only the reference excludes makes the divergence infinite. Returns: [...], nats.
    """
    logp = torch.log_softmax(logits, dim=-1)
    logp_ref = torch.log_softmax(logits_ref, dim=-1)
    possible = logp > -torch.inf
    difference = torch.where(possible, logp, 0.0) - torch.where(possible, logp_ref, 0.0)
    return (logp.exp() * difference).sum(-1)


def exact_gaussian(mean: Tensor, log_std: Tensor, mean_ref: Tensor, log_std_ref: Tensor) -> Tensor:
    """The divergence of one diagonal Gaussian from another, sum_d log(q / p) + (p^2 + (m - n)^2) / (2 q^2) - 1/2.

    p, m: std and mean of the first; q, n: of the reference. means [..., D]; log_stds [..., D] or [D], nats.
    Returns: [...], nats.
    """
    gap = log_std_ref - log_std
    spread = torch.exp(-2.0 * gap) + ((mean - mean_ref) * torch.exp(-log_std_ref)).square()
    return (gap + 0.5 * spread - 0.5).sum(-1)


def adapted(coef: float, kl: float, *, target: float, samples: int, horizon: int) -> float:
    """A KL coefficient moved towards a target: coef (1 + clip(kl / target - 1, -0.2, 0.2) samples / horizon).

    kl, target: nats per sequence. samples: sequences since the last call; horizon: sequences over which the coefficient
    may change by about a fifth of its logarithm's unit. Source: Ziegler et al. 2019 (arXiv 1909.08593), section 2.2;
    openai/lm-human-preferences `train_policy.py: AdaptiveKLController`.

    >>> adapted(0.1, 12.0, target=6.0, samples=500, horizon=10_000)  # +20 % at most, 1/20 of it
    0.101
    """
    error = min(0.2, max(-0.2, kl / target - 1.0))
    return coef * (1.0 + error * samples / horizon)
