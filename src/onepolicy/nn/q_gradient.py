"""Q of plain layers, its error on transitions and the gradient of that, by hand in arrays made once.

What autograd does, without it: for small networks its bookkeeping takes longer than their arithmetic. What is seen and
what followed go through the network together. Not in: dueling streams, images, masks, which autograd differentiates.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onepolicy.nn.products import Product
from onepolicy.nn.stacked import StackedQ
from onepolicy.nn.stacked_layers import NARROW

Values = NDArray[np.float32]
_ONE = np.float32(1.0)


def by_hand(q: StackedQ) -> bool:
    """Whether the gradient of a network is known here: plain layers on a CPU, all actions legal."""
    weight = cast(Tensor, q.body.weight0)
    return q.eyes is None and not q.dueling and q.bits == 0 and weight.device.type == "cpu"


class QValues:
    """Q of S networks on up to B rows each, in arrays that every call overwrites.

    rooms: what each layer sees, and the values, [S, B, width].
    """

    def __init__(self, q: StackedQ, rows: int) -> None:
        self.parameters = [cast(Tensor, q.body._parameters[name]).detach() for pair in q.body.layers for name in pair]
        self.weights, self.biases, self.rows = self.parameters[::2], self.parameters[1::2], rows
        learners, width, _ = self.weights[0].shape
        widths = [width, *(weight.shape[2] for weight in self.weights)]
        self.rooms = [torch.empty(learners, rows, width) for width in widths]
        self._values = self.rooms[-1].numpy()
        self._programs: dict[int, list[Callable[[], object]]] = {}

    @torch.no_grad()
    def forward(self, *obs: Tensor) -> Values:
        """Q [S, B, A] of observations [S, ., D], one after the other."""
        rows = 0
        for part in obs:
            self.rooms[0][:, rows : rows + part.shape[1]] = part
            rows += part.shape[1]
        if rows not in self._programs:
            self._programs[rows] = self._program(rows)
        for layer in self._programs[rows]:
            layer()
        return self._values[:, :rows]

    def _program(self, rows: int) -> list[Callable[[], object]]:
        """The layers, on the first `rows` rows: each fills the next room."""
        *hidden, last = (room[:, :rows] for room in self.rooms)
        found: list[Callable[[], object]] = [
            Product(x, weight, out, bias, relu=True)
            for x, weight, out, bias in zip(hidden, self.weights, hidden[1:], self.biases, strict=False)
        ]
        weight, bias = self.weights[-1], self.biases[-1]
        if weight.shape[2] > NARROW:
            return [*found, Product(hidden[-1], weight, last, bias)]
        across = weight.transpose(1, 2).contiguous()  # a narrow layer's weight, the other way round
        turn = partial(across.copy_, weight.transpose(1, 2))
        return [*found, turn, Product(hidden[-1], across.transpose(1, 2), last, bias)]


@final
class QGradient(QValues):
    """Mean Huber loss (bound 1) of the TD error of S networks on B rows each, and its gradients.

    The first B rows of a `forward`, of up to 2 B, are those that are learnt from. gradients: of each parameter of `q`,
    in their order, overwritten by the next `backward`.
    """

    def __init__(self, q: StackedQ, rows: int) -> None:
        super().__init__(q, 2 * rows)
        self.batch = rows
        self.gradients = [torch.empty_like(parameter) for parameter in self.parameters]
        self.places = np.arange(len(self.weights[0]))[:, None], np.arange(rows)[None]
        self._backward = self._back()

    @torch.no_grad()
    def backward(self, action: NDArray[np.int64], slope: Values) -> list[Tensor]:
        """The gradients, from that of each learner's loss in the Q of the action taken, [S, B]; after `forward`."""
        self.rate[:] = 0.0
        self.rate[(*self.places, action)] = slope
        for stage in self._backward:
            stage()
        return self.gradients

    def _back(self) -> list[Callable[[], object]]:
        """From the rate of the last layer, the gradients of all, last layer first."""
        rates = [torch.empty(len(w), self.batch, w.shape[2]) for w in self.weights]
        self.rate = rates[-1].numpy()
        found: list[Callable[[], object]] = []
        for place in reversed(range(len(self.weights))):
            into, rate, weight = self.rooms[place][:, : self.batch], rates[place], self.weights[place]
            mine, bias = self.gradients[2 * place : 2 * place + 2]
            if weight.shape[2] > NARROW:
                found.append(Product(into.transpose(1, 2), rate, mine))
            else:
                across = torch.empty(len(weight), weight.shape[2], weight.shape[1])
                found += [Product(rate.transpose(1, 2), into, across), partial(mine.copy_, across.transpose(1, 2))]
            found.append(partial(torch.sum, rate, 1, keepdim=True, out=bias))
            if place:
                below = rates[place - 1]
                undo = partial(torch.ops.aten.threshold_backward.grad_input, below, into, 0, grad_input=below)
                found += [Product(rate, weight.transpose(1, 2), below), undo]
        return found


def huber(error: Values) -> tuple[Values, Values]:
    """e^2 / 2 up to 1 and |e| - 1 / 2 beyond, and its slope, of errors e of any shape.

    >>> import numpy as np
    >>> [part.tolist() for part in huber(np.array([0.5, -3.0], np.float32))]
    [[0.125, 2.5], [0.5, -1.0]]
    """
    slope: Values = np.maximum(np.minimum(error, _ONE), -_ONE)  # a third of the time of np.clip
    return slope * (error - 0.5 * slope), slope
