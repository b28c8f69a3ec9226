"""Networks as they are at one moment, for acting; what a recurrent one remembers of the episodes under way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from onepolicy.nn.mlp import Array


@final
class Memory:
    """What is remembered of N episodes under way, `state` [N, width] float32; 0 is nothing."""

    def __init__(self, width: int) -> None:
        self.width, self.state = width, np.zeros((0, width), np.float32)

    def of(self, rows: int) -> Array:
        """The state of so many episodes; nothing is remembered of them if there were another number."""
        if len(self.state) != rows:
            self.state = np.zeros((rows, self.width), np.float32)
        return self.state

    def forget(self, over: NDArray[np.bool_]) -> None:
        """Nothing is remembered of the episodes that are over, bool [N]."""
        if over.any():
            self.state = np.where(over[:, None], np.float32(0.0), self.of(len(over)))


@dataclass(frozen=True)
class Frozen:
    """Actor and critic in numpy, for observations [N, D].

    both: the actor's output [N, out] and the values [N]; what is seen is then remembered. value: V [N] alone, nothing
    remembered. memory: of a recurrent network, None for one that remembers nothing. actor: its output [N, out] alone,
    where that is half the work: of networks that share nothing.
    """

    both: Callable[[Array], tuple[Array, Array]]
    value: Callable[[Array], Array]
    memory: Memory | None = None
    actor: Callable[[Array], Array] | None = None


@final
class Remembering:
    """The best actions of a recurrent policy: `act` with the memory it uses. Who plays must let it forget."""

    def __init__(self, act: Callable[[Array], NDArray[Any]], memory: Memory) -> None:
        self.act, self.memory = act, memory

    def __call__(self, obs: Array) -> NDArray[Any]:
        """The best action for each row, [N, D] -> [N] or [N, A]; the rows are the next steps of their episodes."""
        return self.act(obs)


def best_of(frozen: Frozen, best: Callable[[Array], NDArray[Any]]) -> Callable[[Array], NDArray[Any]]:
    """`best` of the actor's outputs as a function of observations."""

    actor = frozen.actor

    def act(obs: Array) -> NDArray[Any]:
        return best(frozen.both(obs)[0] if actor is None else actor(obs))

    return act if frozen.memory is None else Remembering(act, frozen.memory)
