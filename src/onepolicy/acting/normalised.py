"""A policy that learnt from standardised observations, for observations as the world gives them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onepolicy.batch import Evaluation, SequenceInputs
from onepolicy.envs.normalise import Moments
from onepolicy.nn.frozen import Remembering
from onepolicy.nn.mlp import Array
from onepolicy.nn.policies import ControlPolicy, Greedy, Sampler


@final
class NormalisedPolicy:
    """`policy` behind the statistic it learnt with, which stands still here: acting never changes it.

    moments: of the observations; what follows sees them as they are when it is asked for.
    """

    def __init__(self, policy: ControlPolicy, moments: Moments) -> None:
        self.policy, self.moments = policy, moments

    @property
    def obs_dim(self) -> int:
        """D of its observations."""
        return self.policy.obs_dim

    def act(self, inputs: Tensor, *, rng: torch.Generator | None = None) -> tuple[Tensor, Evaluation]:
        """Actions drawn for observations [..., D], and what the policy says of them."""
        inner: Any = self.policy
        found: tuple[Tensor, Evaluation] = inner.act(self._seen(inputs), rng=rng)
        return found

    def evaluate(self, inputs: Any, action: Tensor) -> Evaluation:
        """What the policy says of observations [..., D], or of sequences of them, and actions taken there."""
        if isinstance(inputs, SequenceInputs):
            return self.policy.evaluate(replace(inputs, obs=self._seen(inputs.obs)), action)
        return self.policy.evaluate(self._seen(inputs), action)

    def forget(self, over: Tensor | None = None) -> None:
        """Nothing more is remembered of the episodes that are over, bool [N]; None for all."""
        inner: Any = self.policy
        inner.forget(over)

    def sampler(self, rng: np.random.Generator) -> Sampler:
        """The policy as it is now, for acting; draws from rng."""
        inner, moments = self.policy.sampler(rng), self.moments.copy()
        return Sampler(
            lambda obs: inner.draw(moments.standardise(obs)),
            lambda obs: inner.value(moments.standardise(obs)),
            inner.memory,
        )

    def greedy(self) -> Greedy:
        """The policy's best action, as it is now."""
        inner, moments = self.policy.greedy(), self.moments.copy()

        def act(obs: Array) -> NDArray[Any]:
            return inner(moments.standardise(obs))

        return Remembering(act, inner.memory) if isinstance(inner, Remembering) else act

    def _seen(self, obs: Tensor) -> Tensor:
        return torch.from_numpy(self.moments.standardise(obs.numpy()))
