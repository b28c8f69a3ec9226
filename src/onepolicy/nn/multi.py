"""Policies of several choices at once (MultiDiscrete, MultiBinary): a head for each, independent given the state.

    log pi(a|s) = sum_k log pi_k(a_k|s),    H = sum_k H_k,    KL = sum_k KL_k

The heads lie in one row of logits; for arithmetic they are [choices, most values], the places that do not exist being
illegal. Source: Huang et al. 2022, The 37 implementation details of PPO, MultiDiscrete detail 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onepolicy.batch import Evaluation, Layout
from onepolicy.core.distributions import categorical_evaluate, categorical_sample, masked_logits
from onepolicy.errors import ConfigError
from onepolicy.nn.frozen import best_of
from onepolicy.nn.heads import Draw, draw_categorical
from onepolicy.nn.legal import LOWEST
from onepolicy.nn.mlp import Array, NetworkOptions
from onepolicy.nn.policies import HIDDEN, PLAIN, Greedy, Sampler, forget, networks_of, next_says, sampler_of, says
from onepolicy.nn.recurrent import Recurrent


@final
class Choices:
    """Several choices with sizes[k] values each, and where their values lie in a row of sum(sizes) numbers."""

    def __init__(self, sizes: Sequence[int]) -> None:
        if not sizes or min(sizes) < 1:
            raise ConfigError(f"sizes is {tuple(sizes)}; there is at least one choice, each with at least one value.")
        self.sizes, self.total = tuple(sizes), sum(sizes)
        first = np.cumsum((0, *sizes[:-1]))[:, None]
        ahead = np.arange(max(sizes))
        self.real: NDArray[np.bool_] = ahead < np.array(sizes)[:, None]
        self.place: NDArray[np.int64] = np.where(self.real, first + ahead, first)

    def heads(self, logits: Tensor) -> Tensor:
        """Logits [..., sum of sizes] as [..., choices, most values]."""
        if self.real.all():
            return logits.unflatten(-1, self.real.shape)
        place, real = (torch.from_numpy(x).to(logits.device) for x in (self.place, self.real))
        found = logits.index_select(-1, place.view(-1)).unflatten(-1, place.shape)
        return masked_logits(found, real)

    def numpy_heads(self, logits: Array) -> Array:
        """`heads` in numpy."""
        found: Array = np.where(self.real, logits[..., self.place], LOWEST)
        return found

    def evaluate(self, logits: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy [...], nats. logits [..., sum of sizes]; action [..., choices] int64."""
        logp, entropy = categorical_evaluate(self.heads(logits), action)
        return logp.sum(-1), entropy.sum(-1)

    def draw(self, logits: Array, rng: np.random.Generator) -> Draw:
        """Actions [N, choices] from logits [N, sum of sizes]."""
        heads = self.numpy_heads(logits)
        action, logp = draw_categorical(heads.reshape(-1, heads.shape[-1]), rng)
        shape = heads.shape[:2]
        return Draw(action.reshape(shape), logp.reshape(shape).sum(axis=1))


@final
class MultiCategoricalPolicy(nn.Module):
    """A softmax for each of several choices, with a critic. Action tensors are [..., choices] int64.

    sizes: values of each choice. masked: the last sum(sizes) numbers of an observation say which are legal, choice
    after choice. recurrent, options, layout: as CategoricalPolicy's.
    """

    def __init__(
        self,
        obs_dim: int,
        sizes: Sequence[int],
        *,
        hidden: Sequence[int] = HIDDEN,
        seed: int = 0,
        masked: bool = False,
        recurrent: Recurrent = "none",
        options: NetworkOptions = PLAIN,
        layout: Layout | None = None,
    ) -> None:
        super().__init__()
        self.obs_dim, self.choices = obs_dim, Choices(sizes)
        total = self.choices.total
        chosen: dict[str, Any] = {"recurrent": recurrent, "options": options, "layout": layout}
        self.networks = networks_of(obs_dim, total, hidden, seed, bits=total if masked else 0, **chosen)

    @torch.no_grad()
    def act(self, inputs: Tensor, *, rng: torch.Generator | None = None) -> tuple[Tensor, Evaluation]:
        """Actions [..., choices] drawn for observations [..., D], and what the policy says of them."""
        logits, value = next_says(self.networks, inputs)
        action = categorical_sample(self.choices.heads(logits), rng or torch.default_generator)
        return action, Evaluation(*self.choices.evaluate(logits, action), value)

    def evaluate(self, inputs: Any, action: Tensor) -> Evaluation:
        """Log-prob, entropy (nats) and value of observations [..., D] and actions [..., choices]."""
        logits, value = says(self.networks, inputs)
        return Evaluation(*self.choices.evaluate(logits, action), value)

    def forget(self, over: Tensor | None = None) -> None:
        """Nothing more is remembered of the episodes that are over, bool [N]; None for all."""
        forget(self.networks, over)

    def sampler(self, rng: np.random.Generator) -> Sampler:
        """The policy as it is now, for acting; draws from rng."""
        return sampler_of(self.networks, lambda logits: self.choices.draw(logits, rng))

    def greedy(self) -> Greedy:
        """The most probable value of each choice, as the policy is now."""
        return best_of(self.networks.frozen(), lambda logits: self.choices.numpy_heads(logits).argmax(axis=-1))
