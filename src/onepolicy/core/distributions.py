"""Log-probabilities, entropies and samples of the action distributions, by hand and without torch.distributions.

The last axis is the one summed over: actions A for a categorical, dimensions D for a Gaussian. A Gaussian's
dimensions are independent; its log-probabilities and entropies are sums over them. Samples take the generator they
draw from. Log-probabilities of samples are exact, those of `evaluate` and of `sample` come from the same formula.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
LOWEST = -1e30
"""The logit of a forbidden action: below every other, yet so far from float32's end that no weight or temperature takes
a product there."""
NODES = 64
"""Points of the quadrature behind tanh_gaussian_entropy: error under 0.002 nats per dimension up to a std of 4."""


def masked_logits(logits: Tensor, allowed: Tensor) -> Tensor:
    """The logits with the forbidden actions at LOWEST: probability 0, no NaN in any gradient.

    logits [..., A]; allowed [..., A] bool with at least one True in each row (a row without any is uniform).
    Returns: [..., A], for the other functions of a categorical.
    """
    return logits.masked_fill(~allowed, LOWEST)


def categorical_logp(logits: Tensor, action: Tensor) -> Tensor:
    """The log-probability of the action taken, log softmax(logits)[action].

    logits [..., A]: unnormalised. action [...] int64 in [0, A). Returns: [...], nats.
    """
    return torch.log_softmax(logits, dim=-1).gather(-1, action.unsqueeze(-1)).squeeze(-1)


def categorical_entropy(logits: Tensor) -> Tensor:
    """The entropy -sum_a p(a) log p(a), between 0 and log A.

    logits [..., A]: unnormalised, finite. Returns: [...], nats.
    """
    logp = torch.log_softmax(logits, dim=-1)
    return -(logp.exp() * logp).sum(-1)


def categorical_evaluate(logits: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """`categorical_logp` and `categorical_entropy` from one softmax.

    logits [..., A]; action [...] int64. Returns: (logp [...], entropy [...]), nats.

    >>> import torch
    >>> logp, entropy = categorical_evaluate(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
    >>> torch.allclose(logp, torch.tensor([0.5]).log()) and torch.allclose(entropy, torch.tensor([2.0]).log())
    True
    """
    logp = torch.log_softmax(logits, dim=-1)
    taken = logp.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    return taken, -(logp.exp() * logp).sum(-1)


def categorical_sample(logits: Tensor, rng: torch.Generator) -> Tensor:
    """A draw from softmax(logits) by the exponential race, argmax_a logit(a) - log E(a).

    logits [..., A]; rng on the same device. Returns: action [...] int64.
    Source: Gumbel 1954; -log E is Gumbel distributed for E ~ Exp(1).
    """
    noise = torch.empty_like(logits).exponential_(generator=rng)
    return (logits.detach() - noise.clamp_(min=torch.finfo(logits.dtype).tiny).log_()).argmax(-1)


def gaussian_logp(mean: Tensor, log_std: Tensor, action: Tensor) -> Tensor:
    """The log-density of a diagonal Gaussian, -sum_d ((a - mean) / std)^2 / 2 + log std + log(2 pi) / 2.

    mean, action [..., D]; log_std [..., D] or [D], nats. Returns: [...], nats.
    """
    standard = (action - mean) * torch.exp(-log_std)
    return -(0.5 * standard.square() + log_std + HALF_LOG_TWO_PI).sum(-1)


def gaussian_entropy(log_std: Tensor) -> Tensor:
    """The entropy of a diagonal Gaussian, sum_d log std + (1 + log(2 pi)) / 2; negative for a narrow one.

    log_std [..., D]. Returns: [...], nats.
    """
    return (log_std + (0.5 + HALF_LOG_TWO_PI)).sum(-1)


def gaussian_sample(mean: Tensor, log_std: Tensor, rng: torch.Generator) -> Tensor:
    """A reparameterised draw mean + std * noise, differentiable in mean and log_std.

    mean [..., D]; log_std [..., D] or [D]; rng on the same device. Returns: [..., D].
    """
    noise = torch.empty_like(mean).normal_(generator=rng)
    return mean + torch.exp(log_std) * noise


def tanh_gaussian_logp(mean: Tensor, log_std: Tensor, unsquashed: Tensor) -> Tensor:
    """The log-density of the action tanh(u), log N(u) - sum_d log(1 - tanh(u)^2), given u.

    mean, unsquashed u [..., D]; log_std [..., D] or [D]. Returns: [...], nats, finite for every finite u.
    Source: Haarnoja et al. 2018 (SAC, arXiv 1801.01290), appendix C; the stable form of the Jacobian is
    log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)).
    """
    return gaussian_logp(mean, log_std, unsquashed) - _log_slope(unsquashed).sum(-1)


def tanh_gaussian_sample(mean: Tensor, log_std: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """A reparameterised draw from a Gaussian squashed into (-1, 1), with its log-density.

    mean [..., D]; log_std [..., D] or [D]. Returns: (action [..., D], logp [...]), both differentiable.
    """
    unsquashed = gaussian_sample(mean, log_std, rng)
    return torch.tanh(unsquashed), tanh_gaussian_logp(mean, log_std, unsquashed)


def tanh_gaussian_entropy(mean: Tensor, log_std: Tensor) -> Tensor:
    """The entropy of a squashed Gaussian, H(N) + sum_d E[log(1 - tanh(u)^2)], by Gauss-Hermite quadrature.

    It has no closed form; the expectation is one-dimensional in each dimension, so a fixed rule is accurate,
    differentiable and without noise. mean, log_std [..., D]. Returns: [...], nats, at most D log 2.
    """
    nodes, weights = _hermite(NODES)
    node = torch.as_tensor(nodes, dtype=mean.dtype, device=mean.device)
    weight = torch.as_tensor(weights, dtype=mean.dtype, device=mean.device)
    points = mean.unsqueeze(-1) + torch.exp(log_std).unsqueeze(-1) * node
    return gaussian_entropy(log_std) + (_log_slope(points) * weight).sum(-1).sum(-1)


def unsquash(action: Tensor, margin: float = 1e-6) -> Tensor:
    """The u with tanh(u) = action, for actions that come from data.

    action [...] in [-1, 1], held `margin` inside the ends, where u would be infinite: at the default, u is at most
    7.25. Returns: [...].
    """
    return torch.atanh(action.clamp(-1.0 + margin, 1.0 - margin))


def _log_slope(u: Tensor) -> Tensor:
    return 2.0 * (math.log(2.0) - u - torch.nn.functional.softplus(-2.0 * u))


@cache
def _hermite(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights such that sum w f(x) is about E[f(x)] for x ~ N(0, 1)."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    return points, weights / math.sqrt(2.0 * math.pi)
