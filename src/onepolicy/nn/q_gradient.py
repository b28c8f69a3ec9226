"""Q of plain layers, its error on transitions and the gradient of that, by hand in arrays made once (bound.py).

What is seen and what followed go through the network together. Not in: dueling streams, images, masks, which autograd
differentiates.
"""

from __future__ import annotations

from typing import cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onepolicy.nn.bound import Bound
from onepolicy.nn.stacked import StackedQ

Values = NDArray[np.float32]
_ONE = np.float32(1.0)


def by_hand(q: StackedQ) -> bool:
    """Whether the gradient of a network is known here: plain layers on a CPU, all actions legal."""
    weight = cast(Tensor, q.body.weight0)
    return q.eyes is None and not q.dueling and q.bits == 0 and weight.device.type == "cpu"


class QValues:
    """Q of S networks on up to B rows each, in arrays that every call overwrites. learn: see QGradient."""

    def __init__(self, q: StackedQ, rows: int, *, learn: int = 0) -> None:
        parameters = [cast(Tensor, q.body._parameters[name]) for pair in q.body.layers for name in pair]
        self.rows, self.layers = rows, Bound(parameters, rows, "relu", learn=learn)

    @torch.no_grad()
    def forward(self, *obs: Tensor) -> Values:
        """Q [S, B, A] of observations [S, ., D], one after the other."""
        rows = 0
        for part in obs:
            self.layers.seen[:, rows : rows + part.shape[1]] = part
            rows += part.shape[1]
        return self.layers.forward(rows).numpy()


@final
class QGradient(QValues):
    """Mean Huber loss (bound 1) of the TD error of S networks on B rows each, and its gradients.

    The first B rows of a `forward`, of up to 2 B, are those that are learnt from.
    """

    def __init__(self, q: StackedQ, rows: int) -> None:
        super().__init__(q, 2 * rows, learn=rows)
        self.batch = rows
        self.places = np.arange(q.body.learners)[:, None], np.arange(rows)[None]
        self._rate = self.layers.rates[-1].numpy()

    @torch.no_grad()
    def backward(self, action: NDArray[np.int64], slope: Values) -> list[Tensor]:
        """The gradients of each parameter of `q`, in their order, from that of each learner's loss in the Q of the
        action taken, [S, B]; after `forward`. The next call overwrites them."""
        self._rate[:] = 0.0
        self._rate[(*self.places, action)] = slope
        return self.layers.backward()


def huber(error: Values) -> tuple[Values, Values]:
    """e^2 / 2 up to 1 and |e| - 1 / 2 beyond, and its slope, of errors e of any shape.

    >>> import numpy as np
    >>> [part.tolist() for part in huber(np.array([0.5, -3.0], np.float32))]
    [[0.125, 2.5], [0.5, -1.0]]
    """
    slope: Values = np.maximum(np.minimum(error, _ONE), -_ONE)  # a third of the time of np.clip
    return slope * (error - 0.5 * slope), slope
