"""Q of plain layers, its error on transitions and the gradient of that, by hand in arrays made once.

What autograd does, without it: for small networks its bookkeeping takes longer than their arithmetic. What is seen and
what followed go through the network together. Not in: dueling streams, images, masks, which autograd differentiates.
"""

from __future__ import annotations

from typing import cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onepolicy.nn.products import product
from onepolicy.nn.stacked import StackedQ
from onepolicy.nn.stacked_layers import affine, outer

Values = NDArray[np.float32]


def by_hand(q: StackedQ) -> bool:
    """Whether the gradient of a network is known here: plain layers on a CPU, all actions legal."""
    weight = cast(Tensor, q.body.weight0)
    return q.eyes is None and not q.dueling and q.bits == 0 and weight.device.type == "cpu"


@final
class QGradient:
    """Mean Huber loss (bound 1) of the TD error of S networks on B rows each, and its gradients.

    gradients: of each parameter of `q`, in their order, overwritten by the next call.
    """

    def __init__(self, q: StackedQ, rows: int) -> None:
        found = [cast(Tensor, q.body._parameters[name]).detach() for pair in q.body.layers for name in pair]
        self.weights, self.biases, self.rows = found[::2], found[1::2], rows
        learners, width, _ = self.weights[0].shape
        self.x = torch.empty(learners, 2 * rows, width)
        self.rooms = [torch.empty(learners, 2 * rows, w.shape[2]) for w in self.weights[:-1]]
        self.hidden = list(self.rooms)
        self.rates = [torch.empty(learners, rows, w.shape[2]) for w in self.weights]
        self.rate = self.rates[-1].numpy()
        self.places = np.arange(learners)[:, None], np.arange(rows)[None]

    @torch.no_grad()
    def forward(self, obs: Tensor, next_obs: Tensor | None = None) -> tuple[Values, Values]:
        """Q [S, B, A] of obs and next_obs [S, B, D]; of obs alone without the other, [S, 0, A] beside it."""
        rows = self.rows
        self.x[:, :rows] = obs
        if next_obs is not None:
            self.x[:, rows:] = next_obs
        seen = rows if next_obs is None else 2 * rows
        h = self.x[:, :seen]
        for place, room in enumerate(self.rooms):
            out = room if next_obs is not None else room[:, :rows]
            h = torch.relu_(product(h, self.weights[place], self.biases[place], out))
            self.hidden[place] = h
        q = affine(h, self.weights[-1], self.biases[-1]).numpy()
        return q[:, :rows], q[:, rows:]

    @torch.no_grad()
    def backward(self, action: NDArray[np.int64], slope: NDArray[np.float32]) -> list[Tensor]:
        """The gradients, from that of each learner's loss in the Q of the action taken, [S, B]; after `forward`."""
        rows, found, rate = self.rows, list[Tensor](), self.rates[-1]
        self.rate[:] = 0.0
        self.rate[(*self.places, action)] = slope
        for place in reversed(range(len(self.weights))):
            into = (self.hidden[place - 1] if place else self.x)[:, :rows]
            found = [outer(into, rate), rate.sum(1, keepdim=True), *found]
            if place:
                rate = product(rate, self.weights[place].transpose(1, 2), out=self.rates[place - 1])
                torch.ops.aten.threshold_backward.grad_input(rate, into, 0, grad_input=rate)
        return found


def huber(error: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """e^2 / 2 up to 1 and |e| - 1 / 2 beyond, and its slope, of errors e of any shape.

    >>> import numpy as np
    >>> [part.tolist() for part in huber(np.array([0.5, -3.0], np.float32))]
    [[0.125, 2.5], [0.5, -1.0]]
    """
    slope = np.clip(error, -1.0, 1.0)
    return slope * (error - 0.5 * slope), slope
