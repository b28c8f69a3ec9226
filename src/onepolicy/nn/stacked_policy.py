"""S plain control policies as one: their networks side by side in batched products, each policy still itself.

In: actor and critic of several learners, how they act. Not in: their gradient (policy_gradient.py); policies with a
memory, with masks of actions or with eyes, which train in processes of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onepolicy.errors import ModelError
from onepolicy.nn.heads import draw_categorical, draw_gaussian
from onepolicy.nn.mlp import IN_PLACE, Array
from onepolicy.nn.policies import ActorCritic, CategoricalPolicy, GaussianPolicy
from onepolicy.nn.policy_gradient import flat_name, rows_of

Plain = CategoricalPolicy | GaussianPolicy


@final
class Streams:
    """The draws of several generators as one's: rows of equal number for each, the learners' in their order."""

    def __init__(self, rngs: Sequence[np.random.Generator]) -> None:
        self.rngs = list(rngs)

    def random(self, rows: int, dtype: type[np.float32]) -> Array:
        """Uniform numbers in [0, 1), [rows]."""
        return np.concatenate([rng.random(rows // len(self.rngs), dtype=dtype) for rng in self.rngs])

    def standard_normal(self, shape: tuple[int, int], dtype: type[np.float32]) -> Array:
        """Standard normal numbers, [rows, dim]."""
        rows = shape[0] // len(self.rngs)
        return np.concatenate([rng.standard_normal((rows, shape[1]), dtype=dtype) for rng in self.rngs])


@final
class StackedPolicy(nn.Module):
    """`policies`, all of one kind and shape, as one whose tensors have the learners as their first axis.

    From here on the policies' own parameters are views of the stack's: what the stack learns, each has learnt.
    Raises: ModelError for policies of different kinds or shapes, and for kinds other than the plain two.
    """

    def __init__(self, policies: Sequence[Plain]) -> None:
        super().__init__()
        first = policies[0]
        shapes = [[p.shape for p in policy.parameters()] for policy in policies]
        if any(type(policy) is not type(first) for policy in policies) or any(each != shapes[0] for each in shapes):
            raise ModelError("policies of different kinds or shapes cannot be stacked; train them one by one.")
        if not plain(first):
            raise ModelError(f"this {type(first).__name__} cannot be stacked; train its seeds one by one.")
        networks = cast(ActorCritic, first.networks)
        self.learners, self.obs_dim = len(policies), first.obs_dim
        self.activation = networks.body.options.activation
        self.names = [name for name, _ in first.named_parameters()]
        parts = [dict(policy.named_parameters()) for policy in policies]
        for name in self.names:
            own = [part[name] for part in parts]
            rows = torch.cat([rows_of(name, p.detach()) for p in own])
            self.register_parameter(flat_name(name), nn.Parameter(rows))
            for learner, p in enumerate(own):
                each = rows.shape[0] // len(own)
                p.data = rows[learner * each : (learner + 1) * each].view(p.shape)
        self._body = [flat_name(f"networks.body.{part}") for pair in networks.body.layers for part in pair]
        self._heads = [
            flat_name(f"networks.{head}.{part}") for head in ("actor", "critic") for part in ("weight", "bias")
        ]
        self.log_std: Tensor | None = cast("Tensor | None", self._parameters.get("log_std"))

    def numpy_view(self) -> Callable[[Array], tuple[Array, Array]]:
        """The networks in numpy, sharing their memory: obs [S N, D] -> output [S N, out] and value [S N]."""
        found = {name: p.detach().numpy() for name, p in cast("dict[str, Tensor]", self._parameters).items()}
        seeds = self.learners
        body = [(found[w], found[b]) for w, b in zip(self._body[::2], self._body[1::2], strict=True)]
        first, *others = [(w.reshape(seeds, 2, *w.shape[1:]), b.reshape(seeds, 2, 1, -1)) for w, b in body]
        actor, actor_bias, critic, critic_bias = (found[name] for name in self._heads)
        activate = IN_PLACE[self.activation]
        act, judge = np.swapaxes(actor, 1, 2), np.swapaxes(critic, 1, 2)

        def forward(obs: Array) -> tuple[Array, Array]:
            h = np.matmul(obs.reshape(seeds, 1, -1, self.obs_dim), first[0])
            h += first[1]
            activate(h)
            for weight, bias in others:
                h = np.matmul(h, weight)
                h += bias
                activate(h)
            out = np.matmul(h[:, 0], act) + actor_bias
            value = np.matmul(h[:, 1], judge) + critic_bias
            return out.reshape(len(obs), -1), value.reshape(len(obs))

        return forward

    def sampler(self, streams: Streams) -> Callable[[Array], tuple[NDArray[Any], Array, Array]]:
        """Actions, their log-probabilities and values for rows [S N, D], each learner's from its own generator."""
        forward, rng = self.numpy_view(), cast(np.random.Generator, streams)
        spread = None if self.log_std is None else self.log_std.detach().numpy()

        def draw(obs: Array) -> tuple[NDArray[Any], Array, Array]:
            out, value = forward(obs)
            if spread is None:
                return *draw_categorical(out, rng), value
            log_std = np.repeat(spread[:, 0], len(obs) // self.learners, axis=0)
            return *draw_gaussian(out, log_std, rng), value

        return draw


def plain(policy: nn.Module) -> bool:
    """Whether a policy is of the kinds that can be stacked: networks over numbers, all actions legal."""
    if not isinstance(policy, CategoricalPolicy | GaussianPolicy) or not isinstance(policy.networks, ActorCritic):
        return False
    return policy.networks.bits == 0
