"""S plain control policies as one: their networks side by side in batched products, each policy still itself.

In: actor and critic of several learners with a forward and backward by hand, what they say of actions, how they act.
Not in: policies with a memory, with masks of actions or with eyes: those train in processes of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onepolicy.batch import Evaluation
from onepolicy.core.distributions import categorical_evaluate, gaussian_entropy, gaussian_logp
from onepolicy.errors import ModelError
from onepolicy.nn.heads import draw_categorical, draw_gaussian
from onepolicy.nn.mlp import Array
from onepolicy.nn.policies import ActorCritic, CategoricalPolicy, GaussianPolicy
from onepolicy.nn.stacked_layers import tanh_back, tanh_in_place

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


class _ActorCritics(torch.autograd.Function):
    """obs [S, B, D], then weight [2S, in, out] and bias [2S, 1, out] of each tanh layer, the actors' head [S, A, H] and
    [S, 1, A], the critics' [S, 1, H] and [S, 1, 1] -> the actors' output [S, B, A] and the values [S, B]."""

    @staticmethod
    def forward(ctx: Any, obs: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        body, (actor, actor_bias, critic, critic_bias) = parameters[:-4], parameters[-4:]
        seeds, rows, width = obs.shape
        into = [obs.unsqueeze(1).expand(seeds, 2, rows, width).reshape(2 * seeds, rows, width)]
        for weight, bias in zip(body[::2], body[1::2], strict=True):
            into.append(tanh_in_place(torch.baddbmm(bias, into[-1], weight)))
        acting, judging = into[-1].view(seeds, 2, rows, -1).unbind(1)
        ctx.save_for_backward(*into, *body[::2], actor, critic)
        out = torch.baddbmm(actor_bias, acting, actor.transpose(1, 2))
        return out, torch.baddbmm(critic_bias, judging, critic.transpose(1, 2)).squeeze(2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (out, value), saved = gradients, ctx.saved_tensors
        layers = (len(saved) - 3) // 2
        into, weights, (actor, critic) = saved[: layers + 1], saved[layers + 1 : -2], saved[-2:]
        seeds, rows = value.shape
        acting, judging = into[-1].view(seeds, 2, rows, -1).unbind(1)
        rate = torch.empty_like(into[-1]).view(seeds, 2, rows, -1)
        torch.bmm(out, actor, out=rate[:, 0])
        torch.mul(value.unsqueeze(2), critic, out=rate[:, 1])
        heads = [
            torch.bmm(out.transpose(1, 2), acting),
            out.sum(1, keepdim=True),
            torch.bmm(value.unsqueeze(1), judging),
            value.sum(1).view(-1, 1, 1),
        ]
        rate, found = rate.view(2 * seeds, rows, -1), list[Tensor | None]()
        for place in reversed(range(layers)):
            tanh_back(rate, into[place + 1])
            found = [torch.bmm(into[place].transpose(1, 2), rate), rate.sum(1, keepdim=True), *found]
            if place:
                rate = torch.bmm(rate, weights[place].transpose(1, 2))
        return None, *found, *heads


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
        self.names = [name for name, _ in first.named_parameters()]
        parts = [dict(policy.named_parameters()) for policy in policies]
        for name in self.names:
            own = [part[name] for part in parts]
            rows = torch.cat([_rows(name, p.detach()) for p in own])
            self.register_parameter(_flat(name), nn.Parameter(rows))
            for learner, p in enumerate(own):
                each = rows.shape[0] // len(own)
                p.data = rows[learner * each : (learner + 1) * each].view(p.shape)
        self._body = [_flat(f"networks.body.{part}") for pair in networks.body.layers for part in pair]
        self._heads = [_flat(f"networks.{head}.{part}") for head in ("actor", "critic") for part in ("weight", "bias")]
        self.log_std: Tensor | None = cast("Tensor | None", self._parameters.get("log_std"))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """The actors' output [S, B, out] and the values [S, B] of obs [S, B, D]."""
        found = cast("dict[str, Tensor]", self._parameters)
        parameters = [found[name] for name in (*self._body, *self._heads)]
        return cast("tuple[Tensor, Tensor]", _ActorCritics.apply(obs, *parameters))  # type: ignore[no-untyped-call]

    def evaluate(self, inputs: Tensor, action: Tensor) -> Evaluation:
        """Log-probability, entropy (nats) and value, [S, B], of obs [S, B, D] and actions [S, B] or [S, B, dim]."""
        out, value = self(inputs)
        if self.log_std is None:
            return Evaluation(*categorical_evaluate(out, action), value)
        entropy = gaussian_entropy(self.log_std).expand(value.shape)
        return Evaluation(gaussian_logp(out, self.log_std, action), entropy, value)

    def numpy_view(self) -> Callable[[Array], tuple[Array, Array]]:
        """The networks in numpy, sharing their memory: obs [S N, D] -> output [S N, out] and value [S N]."""
        found = {name: p.detach().numpy() for name, p in cast("dict[str, Tensor]", self._parameters).items()}
        seeds = self.learners
        body = [(found[w], found[b]) for w, b in zip(self._body[::2], self._body[1::2], strict=True)]
        first, *others = [(w.reshape(seeds, 2, *w.shape[1:]), b.reshape(seeds, 2, 1, -1)) for w, b in body]
        actor, actor_bias, critic, critic_bias = (found[name] for name in self._heads)
        act, judge = np.swapaxes(actor, 1, 2), np.swapaxes(critic, 1, 2)

        def forward(obs: Array) -> tuple[Array, Array]:
            h = np.matmul(obs.reshape(seeds, 1, -1, self.obs_dim), first[0])
            h += first[1]
            np.tanh(h, out=h)
            for weight, bias in others:
                h = np.matmul(h, weight)
                h += bias
                np.tanh(h, out=h)
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
    """Whether a policy is of the kinds that can be stacked: tanh networks over numbers, all actions legal."""
    if not isinstance(policy, CategoricalPolicy | GaussianPolicy) or not isinstance(policy.networks, ActorCritic):
        return False
    return policy.networks.bits == 0 and policy.networks.body.options.activation == "tanh"


def _flat(name: str) -> str:
    """A parameter's name without dots, which a module's own may not have."""
    return name.replace("networks.", "").replace(".", "_")


def _rows(name: str, parameter: Tensor) -> Tensor:
    """One learner's parameter as its rows of the stack: networks of a body stay apart, all else is one row."""
    if name.startswith("networks.body."):
        return parameter
    return parameter.reshape(1, -1, parameter.shape[-1])
