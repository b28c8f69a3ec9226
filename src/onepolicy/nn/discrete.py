"""Actors and critics for numbered actions, S learners' as one network: all actions' probabilities and values at once.

In: a softmax actor, critics that are vectors, and the policy of one learner. Not in: losses, who draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast, final

import torch
from torch import Tensor, nn

from onepolicy.batch import Evaluation
from onepolicy.core.distributions import categorical_evaluate, categorical_sample, masked_logits
from onepolicy.nn.legal import features, legal_of, numpy_features, numpy_masked
from onepolicy.nn.mlp import Array
from onepolicy.nn.policies import Greedy
from onepolicy.nn.stacked import Stacked


class StackedSoftmax(nn.Module):
    """Logits of S learners: forward maps obs [S, B, D] to [S, B, A].

    masked: the last A numbers of an observation say which actions are legal; the others have probability 0.
    """

    def __init__(
        self, seeds: Sequence[int], obs_dim: int, actions: int, hidden: Sequence[int], *, masked: bool = False
    ) -> None:
        super().__init__()
        self.bits = actions if masked else 0
        self.body = Stacked(seeds, (obs_dim - self.bits, *hidden, actions), name="actor")

    def forward(self, obs: Tensor) -> Tensor:
        logits: Tensor = self.body(features(obs, self.bits))
        legal = legal_of(obs, self.bits)
        return logits if legal is None else masked_logits(logits, legal)

    def numpy_view(self) -> Callable[[Array], Array]:
        """The logits in numpy, [S, N, D] -> [S, N, A], as they learn."""
        view = self.body.numpy_view()
        return lambda obs: numpy_masked(view(numpy_features(obs, self.bits)), obs, self.bits)


class StackedVectorCritic(nn.Module):
    """Twin critics Q_k(s, .) of each of S learners; forward: obs [S, B, D] -> [S, 2, B, A], of illegal actions too."""

    def __init__(self, seeds: Sequence[int], obs_dim: int, actions: int, hidden: Sequence[int], *, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.body = Stacked(seeds, (obs_dim - bits, *hidden, actions), each=2, name="critic")

    def forward(self, obs: Tensor) -> Tensor:
        seen = features(obs, self.bits)
        learners, rows, width = seen.shape
        q = self.body(seen.unsqueeze(1).expand(learners, 2, rows, width).reshape(-1, rows, width))
        return cast(Tensor, q).view(learners, 2, rows, -1)


@final
class SoftmaxPolicy(nn.Module):
    """The softmax actor of one learner. Actions are [...] int64 for observations [..., D]."""

    def __init__(self, actor: StackedSoftmax, obs_dim: int) -> None:
        super().__init__()
        self.actor, self.obs_dim = actor, obs_dim

    @torch.no_grad()
    def act(self, inputs: Tensor, *, rng: torch.Generator | None = None) -> tuple[Tensor, Evaluation]:
        """Actions drawn, their log-probability and the entropy, nats."""
        logits = self.actor(inputs.reshape(1, -1, self.obs_dim)).view(*inputs.shape[:-1], -1)
        action = categorical_sample(logits, rng or torch.default_generator)
        return action, Evaluation(*categorical_evaluate(logits, action))

    def greedy(self) -> Greedy:
        """The most probable action, in numpy, [N, D] -> [N]."""
        view = self.actor.numpy_view()
        return lambda obs: view(obs[None])[0].argmax(axis=-1)
