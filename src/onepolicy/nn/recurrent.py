"""Actor and critic that remember: tanh layers, then an LSTM or GRU each, side by side.

`evaluate` runs whole sequences from the state that was remembered when they were played, with resets where episodes
begin; acting goes step by step. Both say the same to rounding. Not in: the cells' arithmetic (cells.py), what the
outputs mean (policies.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor, nn

from onepolicy.batch import SequenceInputs
from onepolicy.errors import ConfigError
from onepolicy.nn import cells
from onepolicy.nn.frozen import Frozen, Memory
from onepolicy.nn.heads import Head
from onepolicy.nn.legal import features, masked, numpy_features, numpy_masked
from onepolicy.nn.mlp import Array, StackedMLP

Recurrent = Literal["none", "lstm", "gru"]
"""What a policy's last hidden layer is: "none" for tanh as the others."""


@final
class RecurrentActorCritic(nn.Module):
    """The two networks: forward maps sequences to the actor's output [B, T, out] and the value [B, T].

    hidden: widths; the last is the cell's, those before are tanh layers. bits: numbers at the end of an observation
    that say which outputs are legal; the networks do not see them.
    Source: Huang et al. 2022, The 37 implementation details of PPO, LSTM details 1 to 5; here actor and critic share
    nothing, as elsewhere.
    """

    def __init__(
        self, obs_dim: int, out: int, hidden: Sequence[int], seed: int, *, cell: cells.Cell, bits: int = 0
    ) -> None:
        super().__init__()
        if obs_dim - bits < 1 or out < 1 or not hidden or min(hidden) < 1:
            raise ConfigError(
                f"a recurrent policy from {obs_dim - bits} numbers through {tuple(hidden)} to {out}; all are at least "
                "1, and the last of the hidden widths is the cell's."
            )
        rng = torch.Generator().manual_seed(seed)
        self.bits, self.size = bits, hidden[-1]
        self.body = StackedMLP(2, (obs_dim - bits, *hidden[:-1]), rng=rng) if len(hidden) > 1 else None
        before = hidden[-2] if self.body else obs_dim - bits
        self.acting, self.judging = (cells.make(cell, before, self.size, rng) for _ in range(2))
        self.actor = Head(self.size, out, gain=0.01, rng=rng)
        self.critic = Head(self.size, 1, gain=1.0, rng=rng)
        self.memory = Memory(cells.PARTS[cell] * 2 * self.size)

    def forward(self, inputs: SequenceInputs) -> tuple[Tensor, Tensor]:
        rows, steps = inputs.obs.shape[:2]
        x = features(inputs.obs, self.bits).reshape(rows * steps, -1)
        x = (x.expand(2, *x.shape) if self.body is None else self.body(x)).view(2, rows, steps, -1)
        state = inputs.state.to(x.dtype).view(rows, -1, 2, self.size).permute(2, 1, 0, 3)
        acting = cells.sequence(self.acting, x[0], inputs.start, state[0])
        judging = cells.sequence(self.judging, x[1], inputs.start, state[1])
        return masked(self.actor(acting), inputs.obs, self.bits), self.critic(judging).squeeze(-1)

    def frozen(self) -> Frozen:
        """The networks as they are now, with a memory of their own in which nothing is remembered yet."""
        run, memory = self._numpy(), Memory(self.memory.width)

        def both(obs: Array) -> tuple[Array, Array]:
            out, value, memory.state = run(obs, memory.of(len(obs)))
            return out, value

        return Frozen(both, lambda obs: run(obs, memory.of(len(obs)))[1], memory)

    def remembered(self, obs: Tensor) -> SequenceInputs:
        """Observations [N, D] as sequences of one step from what `memory` holds, which then holds them too."""
        state = self.memory.of(len(obs))
        self.memory.state = self._numpy()(obs.numpy(), state)[2]
        return SequenceInputs(obs[:, None], torch.zeros((len(obs), 1), dtype=torch.bool), torch.from_numpy(state))

    def _numpy(self) -> Callable[[Array, Array], tuple[Array, Array, Array]]:
        """One step: obs [N, D] and state [N, K] -> outputs [N, out], values [N], the state after it."""
        body = self.body.numpy_copy() if self.body else lambda x: np.broadcast_to(x, (2, *x.shape))
        actor, critic = self.actor.numpy_copy(), self.critic.numpy_copy()
        step = cells.Step([self.acting, self.judging])

        def run(obs: Array, state: Array) -> tuple[Array, Array, Array]:
            parts = state.reshape(len(obs), -1, 2, self.size).transpose(1, 2, 0, 3)
            found = step(body(numpy_features(obs, self.bits)), parts)
            acting, judging = found[0]
            after = np.ascontiguousarray(found.transpose(2, 0, 1, 3)).reshape(len(obs), -1)
            return numpy_masked(actor(acting), obs, self.bits), critic(judging)[:, 0], after

        return run


def whole(obs: Tensor, width: int) -> SequenceInputs:
    """Observations [B, T, D] as sequences that begin with an episode, of a policy that remembers `width` numbers."""
    start = torch.zeros(obs.shape[:2], dtype=torch.bool)
    return SequenceInputs(obs, start, torch.zeros((len(obs), width), dtype=obs.dtype))
