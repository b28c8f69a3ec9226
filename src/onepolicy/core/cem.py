"""The cross-entropy method: a search for the best of many numbers, by sampling, keeping the best and sampling there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from onepolicy.errors import ConfigError


@dataclass(frozen=True)
class Search:
    """population: samples a round. elites: the best of them, which the next round's mean and deviation are from.
    rounds: how often. keep: how much of the last round's mean and deviation stays, in [0, 1).
    least_std: the deviation never falls below it, so that a search goes on.

    The constants are those of PETS (Chua et al. 2018): 400 samples, 40 elites, 5 rounds, 0.1 kept.
    """

    population: int = 400
    elites: int = 40
    rounds: int = 5
    keep: float = 0.1
    least_std: float = 1e-3

    def __post_init__(self) -> None:
        if not 1 <= self.elites <= self.population:
            raise ConfigError(f"elites is {self.elites} of {self.population} samples; it is at least 1, at most all.")
        if self.rounds < 1:
            raise ConfigError(f"rounds is {self.rounds}; a search has at least 1. Set rounds >= 1.")
        if not 0.0 <= self.keep < 1.0:
            raise ConfigError(f"keep is {self.keep}; it is a share, in [0, 1).")


def cross_entropy(
    score: Callable[[Tensor], Tensor],
    mean: Tensor,
    std: Tensor,
    search: Search,
    rngs: Sequence[torch.Generator],
    *,
    low: float = -1.0,
    high: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Where `score` is high, for S searches that do not see each other: the last round's mean and deviation [S, ...].

    score: samples [S, P, ...] -> [S, P], greater is better; what is not finite is worst. mean, std [S, ...]: where to
    begin. rngs: one a search, or one for as many neighbours each. Samples are held within [low, high].
    Source: Rubinstein 1999; Chua et al. 2018, algorithm 1.
    """
    if not rngs or len(mean) % len(rngs):
        raise ConfigError(f"{len(rngs)} generators for {len(mean)} searches; give one for each, or for equal shares.")
    shape = len(mean) // len(rngs), search.population, *mean.shape[1:]
    for _ in range(search.rounds):
        noise = torch.cat([torch.randn(shape, generator=rng) for rng in rngs])
        samples = (mean.unsqueeze(1) + std.unsqueeze(1) * noise).clamp(low, high)
        scores = torch.nan_to_num(score(samples), nan=-torch.inf, posinf=-torch.inf)
        best = scores.topk(search.elites, dim=1).indices
        chosen = samples[torch.arange(len(mean)).unsqueeze(1), best]
        mean = search.keep * mean + (1.0 - search.keep) * chosen.mean(1)
        std = search.keep * std + (1.0 - search.keep) * chosen.std(1, correction=0)
        std = std.clamp(min=search.least_std)
    return mean, std
