"""S learners' networks as one: every weight has the learners as its first axis, every layer is one batched product.

In: the stack and its numpy view, for acting; critics and values on top of it; targets that follow. Not in: losses.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from onepolicy.batch import Layout
from onepolicy.core.distributions import masked_logits
from onepolicy.errors import ConfigError
from onepolicy.nn.conv import StackedEncoder
from onepolicy.nn.legal import features, legal_of
from onepolicy.nn.mlp import IN_PLACE, Array
from onepolicy.nn.stacked_layers import Activation, layers
from onepolicy.run.seeding import derive_seed

Network = TypeVar("Network", bound=nn.Module)


class Stacked(nn.Module):
    """`each` networks for each of S learners, none of which shares anything: G = S * each, the learners outermost.

    sizes: numbers in, hidden widths, numbers out. Layer k has weight{k} [G, in, out] and bias{k} [G, 1, out], uniform
    within 1 / sqrt(in) as torch's own linear layers begin; learner s draws its own from seeds[s], whoever learns beside
    it. forward: [G, B, in] -> [G, B, out], no activation after the last layer; learn: whether the weights get
    gradients.
    """

    def __init__(
        self, seeds: Sequence[int], sizes: Sequence[int], *, each: int = 1, activation: Activation = "relu", name: str
    ) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1 or not seeds or each < 1:
            raise ConfigError(
                f"sizes is {tuple(sizes)} for {len(seeds)} learners; a network has an input and an output."
            )
        self.learners, self.each, self.activation = len(seeds), each, activation
        self.layers = [(f"weight{k}", f"bias{k}") for k in range(len(sizes) - 1)]
        rngs = [torch.Generator().manual_seed(derive_seed(seed, name)) for seed in seeds]
        for (weight, bias), (before, after) in zip(self.layers, pairwise(sizes), strict=True):
            bound = 1.0 / math.sqrt(before)
            for parameter, rows in ((weight, before), (bias, 1)):
                values = [torch.empty(each, rows, after).uniform_(-bound, bound, generator=rng) for rng in rngs]
                self.register_parameter(parameter, nn.Parameter(torch.cat(values)))

    def forward(self, x: Tensor, *, learn: bool = True) -> Tensor:
        return self._run(x, slice(None), learn)

    def first(self, x: Tensor, *, learn: bool = True) -> Tensor:
        """The first of each learner's networks alone: [S, B, in] -> [S, B, out]."""
        return self._run(x, slice(None, None, self.each), learn)

    def of(self, networks: Tensor, x: Tensor) -> Tensor:
        """The networks at these places among all G, each for its own rows: [n, B, in] -> [n, B, out], no gradient."""
        found = [parameter[networks] for parameter in self.parameters()]
        return layers(x, found, activation=self.activation, learn=False)

    def _run(self, x: Tensor, networks: slice, learn: bool) -> Tensor:
        found = cast("dict[str, Tensor]", self._parameters)  # a lookup costs a twentieth of a module's attribute
        parameters = [
            found[name] if networks.step is None else found[name][networks] for pair in self.layers for name in pair
        ]
        return layers(x, parameters, activation=self.activation, learn=learn)

    def alone(self, learner: int) -> Stacked:
        """A copy of one learner's networks."""
        found = copy.deepcopy(self)
        mine = slice(learner * self.each, (learner + 1) * self.each)
        for name, parameter in self.named_parameters():
            found.register_parameter(name, nn.Parameter(parameter.detach()[mine].clone()))
        found.learners = 1
        return found

    def numpy_view(self) -> Callable[[Array], Array]:
        """The networks in numpy, [G, N, in] -> [G, N, out]. It shares their memory: what is learnt, it does at once."""
        layers = [
            tuple(cast(Tensor, self._parameters[name]).detach().cpu().numpy() for name in pair) for pair in self.layers
        ]
        activate = IN_PLACE[self.activation]

        def forward(x: Array) -> Array:
            for place, (weight, bias) in enumerate(layers):
                x = np.matmul(x, weight)
                x += bias
                if place < len(layers) - 1:
                    x = activate(x)
            return x

        return forward


class StackedQ(nn.Module):
    """Q(s, .) of S learners: forward maps obs [S, B, D] to [S, B, A].

    dueling: the last hidden layer is two, of hidden[-1] each; V(s) sees one, the advantages A(s, .) the other, and
    Q = V + A - mean_a A. Source: Wang et al. 2016, equation 9. layout: of rows of bytes, which go through convolutions
    first; `hidden` are the layers after them. masked: the last `actions` numbers of an observation say which are legal;
    the Q of the others is LOWEST, and the mean is over the legal ones.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        obs_dim: int,
        actions: int,
        hidden: Sequence[int],
        *,
        dueling: bool = False,
        layout: Layout | None = None,
        masked: bool = False,
    ) -> None:
        super().__init__()
        self.dueling, self.bits = dueling, actions if masked else 0
        obs_dim -= self.bits
        self.eyes: StackedEncoder | None = None
        if layout is not None:
            self.eyes = StackedEncoder(seeds, layout, name="eyes")
            obs_dim = self.eyes.features
        if not dueling:
            self.body = Stacked(seeds, (obs_dim, *hidden, actions), name="q")
            return
        if not hidden:
            raise ConfigError(
                "hidden is () with dueling; the two streams need a hidden layer. Set hidden, as (64, 64)."
            )
        self.body = Stacked(seeds, (obs_dim, *hidden[:-1], 2 * hidden[-1]), name="q")
        self.value = Stacked(seeds, (hidden[-1], 1), name="value")
        self.advantage = Stacked(seeds, (hidden[-1], actions), name="advantage")

    def forward(self, obs: Tensor) -> Tensor:
        seen, legal = features(obs, self.bits), legal_of(obs, self.bits)
        q: Tensor = self.body(seen if self.eyes is None else self.eyes(seen))
        if self.dueling:
            left, right = torch.relu(q).chunk(2, dim=-1)
            above: Tensor = self.advantage(right)
            mean = above.mean(dim=-1, keepdim=True)
            if legal is not None:
                mean = (above * legal).sum(dim=-1, keepdim=True) / legal.sum(dim=-1, keepdim=True)
            q = self.value(left) + above - mean
        return q if legal is None else masked_logits(q, legal)

    def numpy_view(self) -> Callable[[Array], Array]:
        """Q in numpy, [S, N, D] -> [S, N, A], of the networks as they learn; of images and with masks by torch."""
        if self.eyes is not None or self.bits:
            return self._seen
        body = self.body.numpy_view()
        if not self.dueling:
            return body
        value, advantage = self.value.numpy_view(), self.advantage.numpy_view()

        def forward(obs: Array) -> Array:
            left, right = np.split(np.maximum(body(obs), 0), 2, axis=-1)
            above = advantage(right)
            return value(left) + above - above.mean(axis=-1, keepdims=True)

        return forward

    @torch.no_grad()
    def _seen(self, obs: Array) -> Array:
        return self.forward(torch.from_numpy(obs)).numpy()


class StackedCritic(nn.Module):
    """`count` critics Q_k(s, a) of each of S learners; forward: obs [S, B, D], action [S, B, A] -> [S, count, B].

    learn: whether the critics get gradients; the action gets one either way.
    """

    def __init__(
        self, seeds: Sequence[int], obs_dim: int, action_dim: int, hidden: Sequence[int], *, count: int = 2
    ) -> None:
        super().__init__()
        self.count = count
        self.body = Stacked(seeds, (obs_dim + action_dim, *hidden, 1), each=count, name="critic")

    def forward(self, obs: Tensor, action: Tensor, *, learn: bool = True) -> Tensor:
        x = torch.cat([obs, action], dim=-1)
        learners, rows, width = x.shape
        x = x.unsqueeze(1).expand(learners, self.count, rows, width).reshape(-1, rows, width)
        return cast(Tensor, self.body(x, learn=learn)).view(learners, self.count, rows)

    def first(self, obs: Tensor, action: Tensor, *, learn: bool = True) -> Tensor:
        """The first critic alone, [S, B]."""
        return self.body.first(torch.cat([obs, action], dim=-1), learn=learn).squeeze(-1)


def target_of(network: Network) -> Network:
    """A copy that learns nothing by itself; see `follow`."""
    target = copy.deepcopy(network)
    for parameter in target.parameters():
        parameter.requires_grad_(False)
    return target


@torch.no_grad()
def follow(target: nn.Module, network: nn.Module, tau: float) -> None:
    """target += tau (network - target); with tau 1 a copy. Source: Lillicrap et al. 2015, section 3."""
    torch._foreach_lerp_(list(target.parameters()), list(network.parameters()), tau)


def alone(network: Network, learner: int) -> Network:
    """A copy of one learner's part of a network made of stacks, and of parameters of its own with a row a learner."""
    found = copy.deepcopy(network)
    for name, parameter in network.named_parameters(recurse=False):
        found.register_parameter(name, nn.Parameter(parameter.detach()[learner : learner + 1].clone()))
    for name, part in network.named_children():
        whole = part.alone(learner) if isinstance(part, Stacked | StackedEncoder) else alone(part, learner)
        found.add_module(name, whole)
    return found
