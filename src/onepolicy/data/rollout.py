"""What acting on control yields, and how it is cut for learning.

In: the rollout of N worlds over T steps, its flattening into rows of one step, seeded minibatches. Not in: acting
(acting/collect.py), advantages (each algorithm's `credit`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from onepolicy.batch import PolicyBatch, SequenceInputs
from onepolicy.core.value import explained_variance
from onepolicy.errors import ConfigError
from onepolicy.run.seeding import derive_rng
from onepolicy.types import Metrics


class Ended(NamedTuple):
    """An episode that ended: in which world, at which step of the rollout, its undiscounted return and its steps."""

    world: int
    step: int
    total: float
    length: int


@dataclass(frozen=True)
class Rollout:
    """T steps of N worlds.

    obs [N, T, D] float32, uint8 of images. action [N, T] or [N, T, choices] int64, or [N, T, dim] float32. logp
    [N, T]: nats, when drawn.
    value [N, T]: V(obs), reward units. next_value [N, T]: V of the observation that truly followed, that is the next
    row's or, where the episode was truncated, that of the observation it ended on; 0 where it terminated.
    reward [N, T]. terminated, truncated [N, T] bool; both can be true, then terminated counts.
    mask [N, T] bool: True where the step belongs to the data. ended: the episodes that ended here, wherever they began.
    state [N, K]: what a recurrent policy remembered before step 0; None for one that remembers nothing.
    """

    obs: Tensor
    action: Tensor
    logp: Tensor
    value: Tensor
    next_value: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    mask: Tensor
    ended: tuple[Ended, ...] = ()
    state: Tensor | None = None

    def discount(self, gamma: float) -> Tensor:
        """The factor on what follows each step, gamma (1 - terminated), [N, T]: a time limit ends nothing of value."""
        return gamma * (~self.terminated).to(self.reward.dtype)

    @property
    def carry(self) -> Tensor:
        """Where the next row is the same episode, 1 - (terminated or truncated), [N, T]: recurrences stop at 0."""
        return (~(self.terminated | self.truncated)).to(self.reward.dtype)

    def batch(self, advantage: Tensor) -> PolicyBatch:
        """The [N, T] batch to learn from. advantage [N, T]: over V; the critic's target is advantage + value."""
        return PolicyBatch(
            inputs=self.obs if self.state is None else SequenceInputs(self.obs, self._start, self.state),
            action=self.action,
            mask=self.mask,
            logp_behaviour=self.logp,
            advantage=advantage,
            value_old=self.value,
            value_target=advantage + self.value,
        )

    @property
    def _start(self) -> Tensor:
        """True at the first step of an episode, [N, T]; at step 0 the state itself says what is remembered."""
        start = torch.zeros_like(self.terminated)
        start[:, 1:] = (self.terminated | self.truncated)[:, :-1]
        return start


def concatenate(rollouts: Sequence[Rollout]) -> Rollout:
    """Rollouts of the same worlds, one after the other in time."""
    names = [f.name for f in fields(Rollout) if f.name not in _ONCE]
    joined = {name: torch.cat([getattr(r, name) for r in rollouts], dim=1) for name in names}
    starts = [sum(r.mask.shape[1] for r in rollouts[:k]) for k in range(len(rollouts))]
    ended = (e._replace(step=e.step + start) for r, start in zip(rollouts, starts, strict=True) for e in r.ended)
    return Rollout(**joined, ended=tuple(ended), state=rollouts[0].state)


_ONCE = ("ended", "state")
"""Fields of a rollout that are not [N, T]."""


def first_episodes(rollout: Rollout, count: int) -> Rollout:
    """The rollout with only the first `count` episodes of each world in the mask and among those that ended.

    All worlds start an episode at step 0. Taking as many from each, and not the first to end, keeps the sample fair
    to long episodes.
    """
    ends = (rollout.terminated | rollout.truncated).long()
    mask = rollout.mask & (ends.cumsum(1) - ends < count)
    ended = tuple(e for e in rollout.ended if bool(mask[e.world, e.step]))
    last = int(mask.any(0).nonzero().max()) + 1
    cut = {f.name: getattr(rollout, f.name)[:, :last] for f in fields(Rollout) if f.name not in (*_ONCE, "mask")}
    return replace(rollout, **cut, mask=mask[:, :last], ended=ended)


def flatten(batch: PolicyBatch) -> PolicyBatch:
    """The batch's counted steps as rows of one step: [N, T, ...] to [B, 1, ...], B the number of True in the mask.

    A batch of sequences stays as it is: what was remembered at a step is known only by going there.
    """
    if isinstance(batch.inputs, SequenceInputs):
        return batch
    mask = batch.mask
    if bool(mask.all()):
        return batch.map(lambda x: x.reshape(-1, 1, *x.shape[2:]))
    return batch.map(lambda x: x[mask].unsqueeze(1))


def critic_metrics(batch: PolicyBatch) -> Metrics:
    """How well the values at collection explain the targets: value/explained_variance, 1 is perfect, 0 a constant."""
    assert batch.value_old is not None
    assert batch.value_target is not None
    return {"value/explained_variance": float(explained_variance(batch.value_old, batch.value_target, batch.mask))}


def minibatches(batch: PolicyBatch, size: int, *seed: int | str) -> Iterator[PolicyBatch]:
    """The rows once each, in random parts of `size` steps (the last may be smaller), shuffled over the whole batch.

    Rows of several steps stay whole: as many as do not exceed `size`, at least one.
    seed: what the order is derived from (run seed, iteration, epoch), so that no generator has to be saved.
    A part that would be the whole batch is the batch itself, in its own order: a sum over it has no order.
    Raises: ConfigError for a size below 1.
    """
    if size < 1:
        raise ConfigError(f"batch_size is {size}; a minibatch holds at least 1 step. Set batch_size >= 1.")
    size = max(1, size // batch.mask.shape[1])
    if size >= len(batch):
        yield batch
        return
    order = torch.from_numpy(derive_rng(*seed).permutation(len(batch)))
    if _bytes(batch.inputs) > AT_ONCE:
        yield from (batch.rows(part) for part in order.split(size))
        return
    shuffled = batch.rows(order)
    yield from (shuffled.rows(slice(start, start + size)) for start in range(0, len(batch), size))


AT_ONCE = 1 << 26
"""Bytes of observations up to which a batch is shuffled at once, so that its parts are views: a tenth of the calls."""


def _bytes(inputs: Any) -> int:
    """Of observations, or of sequences."""
    obs = inputs.obs if isinstance(inputs, SequenceInputs) else inputs
    return int(obs.numel() * obs.element_size())
