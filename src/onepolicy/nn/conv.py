"""Networks for images: convolutions over bytes, and what stands beside the images, as features for the layers after.

Bytes become numbers of 0 to 1 here and nowhere before. In: the convolutions of S learners, actor and critic on top of
one. Not in: values (stacked.py), which bytes are images (batch.Layout).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from onepolicy.batch import Image, Layout
from onepolicy.errors import ConfigError
from onepolicy.nn.frozen import Frozen
from onepolicy.nn.heads import Head
from onepolicy.nn.legal import features, masked
from onepolicy.nn.mlp import Array, orthogonal
from onepolicy.run.seeding import derive_seed

Filters = tuple[tuple[int, int, int], ...]
"""Of each layer: channels out, side of the kernel, stride."""
NATURE: Filters = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Mnih et al. 2015, methods: for images of at least 36 by 36."""
MIDDLE: Filters = ((32, 4, 2), (64, 3, 1))
"""Ours, for images of at least 16 by 16."""
MINIATURE: Filters = ((16, 3, 1),)
"""Young and Tian 2019 (MinAtar, 10 by 10), for smaller ones."""


def filters_for(image: Image) -> Filters:
    """The convolutions that an image is large enough for. Raises: ConfigError where it is too small for any."""
    side = min(image.height, image.width)
    if side < 3:
        raise ConfigError(
            f"an image of {image.height} by {image.width} is too small for a convolution; show it with world.flat."
        )
    return NATURE if side >= 36 else MIDDLE if side >= 16 else MINIATURE


class StackedEncoder(nn.Module):
    """Features of rows of bytes for S learners who share nothing: [S, B, layout.width] to [S, B, features].

    Each image has convolutions of its own with ReLU after each; their outputs are flattened, the layout's numbers
    follow as they are. Weights are conv{image}_{layer} [S, out, in, side, side] with bias [S, out]: uniform within
    1 / sqrt(in side^2) as torch's own begin, or orthogonal with gain sqrt(2) and bias 0; learner s draws its own from
    seeds[s]. With gradients several layers run with the channels last in memory, which takes a quarter less time for a
    batch of 256 on a CPU, and no less without.
    """

    def __init__(self, seeds: Sequence[int], layout: Layout, *, orthogonal: bool = False, name: str) -> None:
        super().__init__()
        self.layout, self.learners = layout, len(seeds)
        self.features = layout.stack * layout.numbers
        self.nets: list[list[tuple[str, int]]] = []
        rngs = [torch.Generator().manual_seed(derive_seed(seed, name)) for seed in seeds]
        for place, image in enumerate(layout.images):
            channels, height, width = layout.stack * image.channels, image.height, image.width
            net: list[tuple[str, int]] = []
            for layer, (out, side, stride) in enumerate(filters_for(image)):
                label = f"conv{place}_{layer}"
                weight = [_begin((out, channels, side, side), orthogonal, rng) for rng in rngs]
                bias = [_bias(out, channels * side * side, orthogonal, rng) for rng in rngs]
                self.register_parameter(label, nn.Parameter(torch.stack(weight)))
                self.register_parameter(f"{label}_bias", nn.Parameter(torch.stack(bias)))
                net.append((label, stride))
                channels, height, width = out, (height - side) // stride + 1, (width - side) // stride + 1
            self.nets.append(net)
            self.features += channels * height * width

    def forward(self, rows: Tensor) -> Tensor:
        if self.learners == 1:
            return self._one(rows[0], 0)[None]
        return torch.stack([self._one(rows[learner], learner) for learner in range(self.learners)])

    def alone(self, learner: int) -> StackedEncoder:
        """A copy of one learner's."""
        found = copy.deepcopy(self)
        for name, parameter in self.named_parameters():
            mine = parameter.detach()[learner : learner + 1].clone()
            found.register_parameter(name, nn.Parameter(mine, requires_grad=parameter.requires_grad))
        found.learners = 1
        return found

    def _one(self, rows: Tensor, learner: int) -> Tensor:
        """One learner's features of rows [B, width]."""
        parameters = cast("dict[str, Tensor]", self._parameters)
        found = []
        for image, net, pixels in zip(self.layout.images, self.nets, self.layout.images_of(rows), strict=True):
            x = pixels.to(parameters[net[0][0]].dtype).mul_(1.0 / image.full)
            order = torch.channels_last if torch.is_grad_enabled() and len(net) > 1 else torch.contiguous_format
            x = x.contiguous(memory_format=order)
            for label, stride in net:
                weight, bias = parameters[label][learner], parameters[f"{label}_bias"][learner]
                weight = weight.contiguous(memory_format=order)
                x = torch.relu_(nn.functional.conv2d(x, weight, bias, stride))
            found.append(x.flatten(1))
        if self.layout.numbers:
            found.append(self.layout.numbers_of(rows).to(found[0].dtype))
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)


def _begin(shape: tuple[int, ...], orthogonally: bool, rng: torch.Generator) -> Tensor:
    fan_in = math.prod(shape[1:])
    if orthogonally:
        return orthogonal(shape[0], fan_in, gain=math.sqrt(2), rng=rng).detach().view(shape)
    bound = 1.0 / math.sqrt(fan_in)
    return torch.empty(shape).uniform_(-bound, bound, generator=rng)


def _bias(out: int, fan_in: int, orthogonally: bool, rng: torch.Generator) -> Tensor:
    bound = 0.0 if orthogonally else 1.0 / math.sqrt(fan_in)
    return torch.empty(out).uniform_(-bound, bound, generator=rng)


class ImageActorCritic(nn.Module):
    """Actor and critic that see with the same eyes: forward maps rows [..., width] uint8 to the actor's output
    [..., out] and the value [...].

    hidden: widths of the ReLU layers after the convolutions, shared too. seed: of the first weights, all orthogonal,
    with gain sqrt(2), 0.01 for the actor's last layer and 1 for the critic's. bits: of a mask of actions at the end of
    a row (legal.py).
    Source: Mnih et al. 2016; Huang et al. 2022, 37 details of PPO, Atari details 8 and 9.
    """

    def __init__(self, layout: Layout, out: int, hidden: Sequence[int], seed: int, *, bits: int = 0) -> None:
        super().__init__()
        self.bits = bits
        rng = torch.Generator().manual_seed(seed)
        self.eyes = StackedEncoder((seed,), layout, orthogonal=True, name="eyes")
        widths = [self.eyes.features, *hidden]
        layers = [Head(before, after, gain=math.sqrt(2), rng=rng) for before, after in pairwise(widths)]
        self.body = nn.ModuleList(layers)
        self.actor = Head(widths[-1], out, gain=0.01, rng=rng)
        self.critic = Head(widths[-1], 1, gain=1.0, rng=rng)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        lead = obs.shape[:-1]
        seen = features(obs, self.bits)
        x = self.eyes(seen.reshape(1, -1, seen.shape[-1]))[0]
        for layer in self.body:
            x = torch.relu_(layer(x))
        return masked(self.actor(x).view(*lead, -1), obs, self.bits), self.critic(x).view(lead)

    def frozen(self) -> Frozen:
        """The networks as they are now, for rows in numpy."""
        now = copy.deepcopy(self)

        def both(obs: Any) -> tuple[Array, Array]:
            with torch.no_grad():
                out, value = now(torch.from_numpy(obs))
            return out.numpy(), value.numpy()

        return Frozen(both, lambda obs: both(obs)[1])
