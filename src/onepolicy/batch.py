"""The tensor side's vocabulary: what policies say, what environments return, what the learner takes.

Dimension letters: B batch, T time or tokens, N environments, D features, A actions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

X = TypeVar("X")


@dataclass(frozen=True)
class Evaluation:
    """What a policy says of actions already taken.

    logp [..., T]: log pi(a|s), nats, float32. entropy [..., T]: nats. value [..., T] or None: V(s), reward units.
    """

    logp: Tensor
    entropy: Tensor
    value: Tensor | None = None


@dataclass(frozen=True)
class TokenInputs:
    """A batch of token sequences, each row one sequence, padding anywhere outside `attention`.

    tokens [B, T] int64: prompt and completion. attention [B, T] bool: True at real tokens.
    is_action [B, T] bool: True where the token at that position is to be evaluated as an action, that is, its
    log-probability given all real tokens before it in its row.
    """

    tokens: Tensor
    attention: Tensor
    is_action: Tensor

    def to(self, device: torch.device) -> TokenInputs:
        """The same batch on a device."""
        return map_tensors(self, lambda x: x.to(device))


@dataclass(frozen=True)
class Image:
    """A picture of bytes, [channels, height, width]; `full` is the byte of full brightness."""

    channels: int
    height: int
    width: int
    full: int = 255

    @property
    def size(self) -> int:
        """Bytes of it."""
        return self.channels * self.height * self.width


@dataclass(frozen=True)
class Layout:
    """What a row of bytes holds in a world of images, so that what is seen stays one tensor [..., width] uint8.

    `stack` frames from the oldest on, each of them the images one after the other and then `numbers` float32 numbers
    as their bytes.
    """

    images: tuple[Image, ...]
    numbers: int = 0
    stack: int = 1

    @property
    def frame(self) -> int:
        """Bytes of one frame."""
        return sum(image.size for image in self.images) + 4 * self.numbers

    @property
    def width(self) -> int:
        """Bytes of a row."""
        return self.stack * self.frame

    def images_of(self, rows: Tensor) -> list[Tensor]:
        """Each image of rows [..., width], uint8 [..., stack * channels, H, W], the oldest frame's channels first."""
        lead, frames = rows.shape[:-1], rows.reshape(*rows.shape[:-1], self.stack, self.frame)
        found, first = [], 0
        for image in self.images:
            part = frames[..., first : first + image.size]
            found.append(part.reshape(*lead, self.stack * image.channels, image.height, image.width))
            first += image.size
        return found

    def numbers_of(self, rows: Tensor) -> Tensor:
        """The numbers of rows [..., width], float32 [..., stack * numbers], the oldest frame's first."""
        frames = rows.reshape(*rows.shape[:-1], self.stack, self.frame)
        part = frames[..., self.frame - 4 * self.numbers :]
        return part.clone(memory_format=torch.contiguous_format).view(torch.float32).flatten(-2)


@dataclass(frozen=True)
class SequenceInputs:
    """What recurrent policies see: each row the steps of one world in order, episodes following one another.

    obs [B, T, D]. start [B, T] bool: True at the first step of an episode, before which nothing is remembered.
    state [B, K]: what was remembered before the first step when it was played; not differentiated.
    """

    obs: Tensor
    start: Tensor
    state: Tensor


@dataclass(frozen=True)
class PolicyBatch:
    """The meeting point of CartPole and language models; every tensor is [B, T] but inputs.

    inputs: [B, T, D] observations, SequenceInputs or TokenInputs. action: what was taken ([B, T] or [B, T, D]). mask:
    True where the element counts. logp_behaviour: log-prob when sampled. advantage: reward units (or whitened).
    logp_old: of the proximal policy; None means logp_behaviour. logp_ref: of the reference policy, for a KL term.
    value_old, value_target: for the critic's loss.
    """

    inputs: Any
    action: Tensor
    mask: Tensor
    logp_behaviour: Tensor
    advantage: Tensor
    logp_old: Tensor | None = None
    logp_ref: Tensor | None = None
    value_old: Tensor | None = None
    value_target: Tensor | None = None

    def __len__(self) -> int:
        return int(self.mask.shape[0])

    def map(self, function: Callable[[Tensor], Tensor]) -> PolicyBatch:
        """The batch with `function` applied to every tensor, those inside `inputs` too."""
        return map_tensors(self, function)

    def rows(self, index: Tensor | slice) -> PolicyBatch:
        """The rows at `index` (int64 or bool [B], or a slice)."""
        return self.map(lambda x: x[index])


@dataclass(frozen=True)
class LossOutput:
    """A scalar to minimise and what it was made of (detached weighted sums or means, keyed `area/name`)."""

    loss: Tensor
    metrics: dict[str, Tensor]


@dataclass(frozen=True)
class EnvStep:
    """One step of N environments; finished ones were already reset (SAME_STEP).

    obs [N, ...]: to act on next. reward [N] float32. terminated, truncated [N] bool, apart.
    final_obs [N, ...]: the observation that ended the step, before any reset; equals obs where nothing ended.
    raw_reward [N] or None: what the world paid, where reward is scaled; returns are reported of it.
    """

    obs: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    final_obs: Tensor
    raw_reward: Tensor | None = None


class Policy(Protocol):
    """Anything that acts: CategoricalPolicy, GaussianPolicy, TokenPolicy. All are torch modules."""

    def act(self, inputs: Any, *, rng: torch.Generator) -> tuple[Tensor, Evaluation]: ...

    def evaluate(self, inputs: Any, action: Tensor) -> Evaluation: ...


class VectorEnv(Protocol):
    """N copies of a world, stepped together."""

    num_envs: int

    def reset(self, seed: int) -> Tensor: ...

    def step(self, action: Tensor) -> EnvStep: ...


@cache
def _fields_of(kind: type) -> tuple[str, ...] | None:
    """A dataclass's fields, all of which its constructor takes; None for other types."""
    return tuple(f.name for f in fields(kind)) if is_dataclass(kind) else None


def map_tensors(tree: X, function: Callable[[Tensor], Tensor]) -> X:
    """A frozen dataclass, tuple, list or dict with `function` applied to every tensor inside; the rest unchanged."""
    if isinstance(tree, Tensor):
        return function(tree)  # type: ignore[return-value]
    kind: Any = type(tree)
    names = _fields_of(kind)
    if names is not None:
        return kind(**{name: map_tensors(getattr(tree, name), function) for name in names})  # type: ignore[no-any-return]
    if isinstance(tree, dict):
        return {key: map_tensors(value, function) for key, value in tree.items()}  # type: ignore[return-value]
    if isinstance(tree, tuple | list):
        return type(tree)(map_tensors(value, function) for value in tree)  # type: ignore[return-value]
    return tree
