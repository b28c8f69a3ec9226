"""How a token is drawn: reproducible uniforms, and inverse-CDF draws from filtered, tempered logits.

In: one uniform number per token as a hash of (seed, k, position), and the draw with the log-probability of what was
drawn from. Not in: beam search, penalties on repeated tokens; they would make the reported log-probability a lie.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from onepolicy.errors import ConfigError
from onepolicy.types import Sampling

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_UNIFORM = np.float64(2.0**-52)


def check_sampling(sampling: Sampling) -> None:
    """Nothing, when `sampling` can be carried out.

    Raises ConfigError naming the field that cannot.
    """
    if sampling.max_tokens < 1:
        raise ConfigError(
            f"max_tokens is {sampling.max_tokens}; a completion has at least 1 token. Set max_tokens >= 1."
        )
    if not 0.0 <= sampling.temperature < float("inf"):
        raise ConfigError(f"temperature is {sampling.temperature}; expected a number >= 0 (0 is greedy).")
    if sampling.top_k < 0:
        raise ConfigError(f"top_k is {sampling.top_k}; expected an integer >= 0 (0 keeps every token).")
    if not 0.0 < sampling.top_p <= 1.0:
        raise ConfigError(f"top_p is {sampling.top_p}; expected 0 < top_p <= 1 (1 keeps every token).")
    if any(text == "" for text in sampling.stop):
        raise ConfigError("stop has an empty string, which would end every completion at once. Remove it.")


def mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64, a bijection of 64-bit integers whose output bits look independent.

    x uint64, any shape. Returns uint64, same shape.

    Source: Steele, Lea, Flood (2014), Fast Splittable Pseudorandom Number Generators, figure 14.
    """
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def streams(seeds: Sequence[int], n: int) -> np.ndarray:
    """One random stream per sample: `mix(mix(seed) + (k + 1) golden)`.

    seeds: one per prompt, taken modulo 2^64. n: samples per prompt. Returns uint64 [len(seeds) * n], prompt-major.
    """
    seed = np.array([int(s) & 0xFFFFFFFFFFFFFFFF for s in seeds], dtype=np.uint64)
    k = np.arange(1, n + 1, dtype=np.uint64)
    return mix(mix(seed)[:, None] + k[None, :] * _GOLDEN).reshape(-1)


def uniforms(stream: np.ndarray, position: np.ndarray) -> np.ndarray:
    """The uniform number in [0, 1) of each stream at a position, a pure function of the two (counter based).

    stream: uint64 [R] from `streams`. position: int64 [R], index of the token in its completion.
    Returns float64 [R], multiples of 2^-52.
    """
    bits = mix(stream + (position.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    return (bits >> np.uint64(12)).astype(np.float64) * _UNIFORM


def draw(logits: Tensor, u: Tensor, *, temperature: float, top_k: int, top_p: float) -> tuple[Tensor, Tensor]:
    """One token per row and its log-probability under the distribution it was drawn from.

    The logits are divided by the temperature, cut to the top_k largest, then to the smallest set whose probability
    reaches top_p, and renormalised; the token is the first, in the vocabulary's order, whose cumulative probability
    exceeds u: the same on every path that gives the same logits.
    temperature 0 takes the largest logit; its log-probability is then that of the untempered, unfiltered softmax.

    logits [R, V], any float dtype. u [R] float64 in [0, 1). temperature >= 0. top_k: 0 keeps all. top_p in (0, 1].
    Returns token [R] int64 and logp [R] float32, nats.
    """
    logits = logits.float()
    if temperature == 0.0:
        token = logits.argmax(-1, keepdim=True)
        return token[:, 0], (logits.gather(-1, token)[:, 0] - logits.logsumexp(-1))
    if temperature != 1.0:
        logits = logits / temperature
    if 0 < top_k < logits.shape[-1] or top_p < 1.0:
        logits = _keep(logits, top_k if 0 < top_k < logits.shape[-1] else logits.shape[-1], top_p)
    logp = logits.log_softmax(-1)
    cdf = logp.double().exp().cumsum(-1)
    token = torch.searchsorted(cdf, u[:, None] * cdf[:, -1:], right=True).clamp_(max=logits.shape[-1] - 1)
    return token[:, 0], logp.gather(-1, token)[:, 0]


def _keep(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """The logits [R, V] with all but the top_k largest, and of these all but the nucleus of top_p, at -infinity."""
    kept, index = logits.topk(top_k, dim=-1)  # largest first
    probability = kept.double().softmax(-1)
    before = probability.cumsum(-1) - probability  # of all larger tokens: the first is always kept
    kept = kept.masked_fill(before >= top_p, float("-inf"))
    return torch.full_like(logits, float("-inf")).scatter_(-1, index, kept)
