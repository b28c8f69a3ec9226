"""Losses on comparisons: reward models on pairs and rankings, and direct preference optimisation.

All return one number per pair or per ranking; the mean over a batch is the caller's.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from onepolicy.core import check
from onepolicy.errors import ConfigError, DataError, nearest

DpoKind = Literal["sigmoid", "ipo", "hinge", "robust"]
DPO_KINDS: tuple[DpoKind, ...] = get_args(DpoKind)


def bradley_terry(chosen: Tensor, rejected: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    """The negative log-likelihood that the chosen one wins, -log sigmoid(chosen - rejected - margin).

    chosen, rejected [...]: scores, reward units; only their difference matters. margin [...] or a number: by how
    much the chosen one should lead (Llama 2's graded preferences). Returns: [...], nats; log 2 at equal scores.
    Source: Bradley and Terry 1952; Christiano et al. 2017 (arXiv 1706.03741), equation 1; margin: Touvron et al. 2023
    (Llama 2, arXiv 2307.09288), equation 2.

    >>> import torch
    >>> bradley_terry(torch.tensor([0.0, 2.0]), torch.tensor([0.0, 0.0]))
    tensor([0.6931, 0.1269])
    """
    check.same_shape(chosen=chosen, rejected=rejected)
    return -logsigmoid(chosen - rejected - margin)


def all_pairs(score: Tensor, rank: Tensor, present: Tensor | None = None, margin: Tensor | float = 0.0) -> Tensor:
    """InstructGPT's loss of a whole ranking, -1/C(K,2) sum over pairs of log sigmoid(score_w - score_l - margin).

    All pairs of one prompt are one element, weighted so that long rankings do not dominate: trained as shuffled
    pairs, a reward model sees each output K - 1 times and overfits. Ties add nothing but are counted in C(K,2), so a
    ranking with many ties weighs less. A pair is all_pairs with K = 2.
    score [B, K]: reward units. rank [B, K]: 1 is best, equal numbers are ties, any real numbers do. present [B, K]
    bool: False where a row has fewer outputs; K is counted per row. margin [B] or a number: as in bradley_terry, the
    same for all pairs of a row; the paper has none. Returns: [B], nats; 0 for fewer than 2 outputs.
    Source: Ouyang et al. 2022 (InstructGPT, arXiv 2203.02155), equation 1.

    >>> import torch
    >>> all_pairs(torch.zeros(1, 3), torch.tensor([[1, 2, 2]]))  # two of three pairs are not ties: 2/3 log 2
    tensor([0.4621])
    """
    check.same_shape(score=score, rank=rank, present=present)
    if score.dim() != 2:
        raise DataError(f"score has shape {tuple(score.shape)}; it must be [B, K], one row per ranking.")
    wins = rank.unsqueeze(2) < rank.unsqueeze(1)
    size = torch.full_like(score[:, 0], score.shape[1])
    if present is not None:
        wins = wins & present.unsqueeze(2) & present.unsqueeze(1)
        score, size = score.masked_fill(~present, 0.0), present.sum(-1).to(score.dtype)
    lead = margin[:, None, None] if isinstance(margin, Tensor) else margin
    loss = -logsigmoid(score.unsqueeze(2) - score.unsqueeze(1) - lead)
    pairs = (size * (size - 1.0) / 2.0).clamp(min=1.0)
    return torch.where(wins, loss, 0.0).sum((1, 2)) / pairs


def implicit_reward(logp: Tensor, logp_ref: Tensor, beta: float) -> Tensor:
    """The reward a policy is optimal for, up to a constant per prompt: beta (log pi(y|x) - log pi_ref(y|x)).

    logp, logp_ref [...]: of whole responses, nats. Returns: [...], reward units.
    Source: Rafailov et al. 2023 (DPO, arXiv 2305.18290), equation 5.
    """
    return beta * (logp - logp_ref)


def dpo(
    logp_chosen: Tensor,
    logp_rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    beta: float,
    kind: DpoKind = "sigmoid",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The direct preference loss of a pair, in the margin h = (log pi/ref of chosen) - (log pi/ref of rejected).

    sigmoid: -(1 - s) log sigmoid(beta h) - s log sigmoid(-beta h), with s the label smoothing (conservative DPO).
    robust: (-(1 - s) log sigmoid(beta h) + s log sigmoid(-beta h)) / (1 - 2s), unbiased when a share s < 1/2 of the
    labels is flipped. ipo: (h - 1 / (2 beta))^2. hinge: max(0, 1 - beta h).
    The four log-probabilities [...] are of whole responses, nats: sums over the response's tokens, stop token
    included. Averages per token instead make the length-normalised form, which is what IPO's authors use.
    beta > 0, the inverse of how far the policy may leave the reference.
    Returns: [...]; log 2 for sigmoid and 1 for hinge where the policy is the reference.
    Raises: ConfigError for an unknown kind, beta <= 0, or a smoothing the kind has no use for.
    Source: Rafailov et al. 2023 (DPO, arXiv 2305.18290), equation 7; Mitchell 2023, A note on DPO with noisy
    preferences; Chowdhury et al. 2024 (robust DPO, arXiv 2403.00409); Azar et al. 2023 (IPO, arXiv
    2310.12036), equation 17; Zhao et al. 2023 (SLiC, arXiv 2305.10425).
    """
    check.same_shape(
        logp_chosen=logp_chosen, logp_rejected=logp_rejected, ref_chosen=ref_chosen, ref_rejected=ref_rejected
    )
    if kind not in DPO_KINDS:
        raise ConfigError(f"unknown DPO kind {kind!r}. {nearest(kind, DPO_KINDS)}")
    _positive(beta)
    if label_smoothing and kind in ("ipo", "hinge"):
        raise ConfigError(f"label_smoothing is {label_smoothing}; kind {kind!r} has none. Set it to 0.")
    if not 0.0 <= label_smoothing < 0.5:
        raise ConfigError(f"label_smoothing is {label_smoothing}; it is a share of flipped labels, in [0, 0.5).")
    h = (logp_chosen - ref_chosen) - (logp_rejected - ref_rejected)
    if kind == "ipo":
        return (h - 1.0 / (2.0 * beta)).square()
    if kind == "hinge":
        return torch.relu(1.0 - beta * h)
    right, wrong = -logsigmoid(beta * h), -logsigmoid(-beta * h)
    if kind == "sigmoid":
        return (1.0 - label_smoothing) * right + label_smoothing * wrong
    return ((1.0 - label_smoothing) * right - label_smoothing * wrong) / (1.0 - 2.0 * label_smoothing)


def simpo(mean_chosen: Tensor, mean_rejected: Tensor, beta: float, margin: float = 0.0) -> Tensor:
    """SimPO's loss, -log sigmoid(beta (c - r) - margin), of mean log-probabilities per token; no reference.

    mean_chosen, mean_rejected [...]: nats per token. beta > 0; margin >= 0, reward units (the paper's gamma).
    Returns: [...], nats. Raises: ConfigError for beta <= 0 or a negative margin.
    Source: Meng et al. 2024 (SimPO, arXiv 2405.14734), equation 6.

    >>> import torch
    >>> simpo(torch.tensor([-1.0]), torch.tensor([-1.5]), beta=2.0, margin=1.0)
    tensor([0.6931])
    """
    check.same_shape(mean_chosen=mean_chosen, mean_rejected=mean_rejected)
    _positive(beta)
    if margin < 0:
        raise ConfigError(f"margin is {margin}; SimPO's gamma is at least 0.")
    return -logsigmoid(beta * (mean_chosen - mean_rejected) - margin)


def odds_ratio(mean_chosen: Tensor, mean_rejected: Tensor) -> Tensor:
    """ORPO's penalty, -log sigmoid(log odds(c) - log odds(r)) with odds p / (1 - p), p = exp(mean log-probability).

    mean_chosen, mean_rejected [...]: nats per token, below 0. The whole loss is the chosen answer's negative
    log-likelihood plus a coefficient times this. Returns: [...], nats.
    Source: Hong et al. 2024 (ORPO, arXiv 2403.07691), equations 3 to 7.

    >>> import torch
    >>> half, fifth = torch.tensor([0.5]).log(), torch.tensor([0.2]).log()
    >>> odds_ratio(half, fifth)  # odds 1 against 1/4: log(1 + 1/4)
    tensor([0.2231])
    """
    check.same_shape(mean_chosen=mean_chosen, mean_rejected=mean_rejected)
    return -logsigmoid(_log_odds(mean_chosen) - _log_odds(mean_rejected))


def kto(
    logp: Tensor,
    logp_ref: Tensor,
    good: Tensor,
    divergence: Tensor | float,
    beta: float,
    good_weight: float = 1.0,
    bad_weight: float = 1.0,
) -> Tensor:
    """KTO's loss of answers judged one by one, w (1 - sigmoid(+-beta (log pi / pi_ref - z))), + for good ones.

    logp, logp_ref [...]: of whole answers, nats. good [...] bool. divergence: z, the policy's KL to the reference, a
    number or [...], at least 0 and without gradient: the point from which gains and losses are counted. weights: of
    good and of bad answers; with n of each, the paper keeps good_weight n_good / (bad_weight n_bad) in [1, 4/3].
    Returns: [...], in (0, weight). Raises: ConfigError for beta <= 0 or a weight below 0.
    Source: Ethayarajh et al. 2024 (KTO, arXiv 2402.01306), equation 8.

    >>> import torch
    >>> kto(torch.tensor([0.0, 0.0]), torch.tensor([0.0, 0.0]), torch.tensor([True, False]), 0.0, beta=0.1)
    tensor([0.5000, 0.5000])
    """
    check.same_shape(logp=logp, logp_ref=logp_ref, good=good)
    _positive(beta)
    if good_weight < 0 or bad_weight < 0:
        raise ConfigError(f"weights are {good_weight} and {bad_weight}; they are at least 0.")
    lead = beta * (logp - logp_ref - divergence)
    return torch.where(good, good_weight * torch.sigmoid(-lead), bad_weight * torch.sigmoid(lead))


def _positive(beta: float) -> None:
    if not beta > 0:
        raise ConfigError(f"beta is {beta}; it must be positive: 0 would ignore the preferences.")


def _log_odds(logp: Tensor) -> Tensor:
    """log p - log(1 - p), from log p < 0."""
    return logp - torch.log(-torch.expm1(logp.clamp(max=-1e-6)))
