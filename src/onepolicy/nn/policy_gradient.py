"""What plain policies say of actions and the gradient of that in their weights, by hand.

In: actor and critic of plain layers on a CPU, softmax or Gaussian, of one learner or of several side by side. Not in:
images, memories, masks of actions, which autograd differentiates; the gradient of a loss in what was said
(core/slopes.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onepolicy.batch import Evaluation
from onepolicy.core.distributions import HALF_LOG_TWO_PI
from onepolicy.nn.bound import Bound, Stage
from onepolicy.nn.mlp import Array
from onepolicy.nn.policies import ActorCritic, CategoricalPolicy, GaussianPolicy
from onepolicy.nn.products import Product

SIZES = 4
"""Numbers of rows whose arrays are kept; for one more the oldest go."""
ROWS = 1 << 15
"""Rows whose arrays are kept, all sizes together, where there are several sizes."""
_HALF, _ONE, _CONSTANT = (np.float32(number) for number in (0.5, 1.0, HALF_LOG_TWO_PI))


def gradient_of(policy: Any) -> PolicyGradient | None:
    """The gradient of a lone policy by hand, or None where, as it is now, it is not known here."""
    if not isinstance(policy, CategoricalPolicy | GaussianPolicy) or not isinstance(policy.networks, ActorCritic):
        return None
    fitting = (p.requires_grad and p.dtype == torch.float32 and p.device.type == "cpu" for p in policy.parameters())
    if policy.networks.bits or not all(fitting):
        return None
    return PolicyGradient(policy, policy.networks.body.options.activation)


def flat_name(name: str) -> str:
    """A parameter's name without dots, which a module's own may not have: body_weight0, actor_bias, log_std."""
    return name.replace("networks.", "").replace(".", "_")


def rows_of(name: str, parameter: Tensor) -> Tensor:
    """One learner's parameter as its rows of a stack: networks of a body stay apart, all else is one row."""
    return parameter if flat_name(name).startswith("body_") else parameter.reshape(1, -1, parameter.shape[-1])


@final
class PolicyGradient:
    """`evaluate` of one policy, or of a stack of them, and from a loss's gradient in what it said that in its weights.

    Parameters have the learners as their first axis, as StackedPolicy's do, or are one policy's. It sees them where
    they were in memory when it was made: see `current`.
    """

    def __init__(self, policy: nn.Module, activation: Literal["relu", "tanh"], *, stacked: bool = False) -> None:
        self.policy, self.activation = policy, activation
        named = dict(policy.named_parameters())
        self.parameters = list(named.values())
        self.seen = {flat_name(name): p.detach() if stacked else rows_of(name, p.detach()) for name, p in named.items()}
        self._places = [p.data_ptr() for p in self.parameters]
        self._known: dict[int, _Rows] = {}

    @property
    def current(self) -> bool:
        """Whether the parameters are still where they were, and all of them learn."""
        return self._places == [p.data_ptr() for p in self.parameters if p.requires_grad]

    def evaluate(self, obs: Tensor, action: Tensor) -> Evaluation:
        """Log-probability, entropy (nats) and value [...] of obs [..., D] and actions [...] or [..., dim]; no graph.

        A stack's first axis is its learners.
        """
        lead = obs.shape[:-1]
        mine = self._of(lead.numel())
        said = mine.forward(obs.reshape(mine.body.seen.shape), action.numpy())
        return Evaluation(*(torch.from_numpy(part).view(lead) for part in said))

    @torch.no_grad()
    def gradients(self, slopes: Evaluation) -> list[Tensor]:
        """Of each parameter, from those [...] in the last evaluation of so many rows; the next one overwrites them."""
        mine = self._of(slopes.logp.numel())
        assert slopes.value is not None
        mine.backward(*(x.numpy() for x in (slopes.logp, slopes.entropy, slopes.value)))
        return mine.gradients

    def backward(self, slopes: Evaluation) -> None:
        """Adds them to the parameters' own."""
        earlier = [None if p.grad is None else p.grad.clone() for p in self.parameters]
        for p, found, before in zip(self.parameters, self.gradients(slopes), earlier, strict=True):
            p.grad = found if before is None else before.add_(found)

    def _of(self, rows: int) -> _Rows:
        if rows not in self._known:
            while self._known and (len(self._known) == SIZES or sum(self._known) + rows > ROWS):
                del self._known[next(iter(self._known))]
            self._known[rows] = _Rows(self.seen, rows, self.activation, [p.shape for p in self.parameters])
        return self._known[rows]


@final
class _Rows:
    """The networks of S learners on so many rows of all together. gradients: of their parameters, in their order and of
    their shapes, parts of one tensor."""

    @torch.no_grad()
    def __init__(
        self,
        seen: Mapping[str, Tensor],
        rows: int,
        activation: Literal["relu", "tanh"],
        shapes: Sequence[torch.Size],
    ) -> None:
        layers = [name for name in seen if name.startswith("body_")]
        actor, critic = seen["actor_weight"], seen["critic_weight"]
        learners, width, _ = actor.shape
        each = rows // learners
        found = parts_of_one(seen)
        given = [found[name] for name in layers]
        body = Bound([seen[name] for name in layers], each, activation, each=2, learn=each, last=True, gradients=given)
        acting, judging = body.rooms[-1].view(learners, 2, each, -1).unbind(1)
        out, value = torch.empty(learners, each, width), torch.empty(learners, each, 1)
        slope, rate = torch.empty_like(out), torch.empty_like(value)
        above, beside = body.rates[-1].view(learners, 2, each, -1).unbind(1)
        self.body = body
        self.gradients = [part.view(shape) for part, shape in zip(found.values(), shapes, strict=True)]
        self.out, self.value, self._rate = out.numpy(), value.numpy(), rate.numpy()
        self._forward: list[Stage] = [
            Product(acting, actor.transpose(1, 2), out, seen["actor_bias"]),
            Product(judging, critic.transpose(1, 2), value, seen["critic_bias"]),
        ]
        self._backward: list[Stage] = [
            Product(slope.transpose(1, 2), acting, found["actor_weight"]),
            partial(torch.sum, slope, 1, keepdim=True, out=found["actor_bias"]),
            Product(rate.transpose(1, 2), judging, found["critic_weight"]),
            partial(torch.sum, rate, 1, keepdim=True, out=found["critic_bias"]),
            Product(slope, actor, above),
            partial(torch.mul, rate, critic, out=beside),
            body.backward,
        ]
        log_std = seen.get("log_std")
        self._choice = (
            _Softmax(slope.numpy())
            if log_std is None
            else _Gaussian(slope.numpy(), log_std.numpy(), found["log_std"].numpy())
        )

    @torch.no_grad()
    def forward(self, obs: Tensor, action: NDArray[Any]) -> tuple[Array, Array, Array]:
        """Log-probability, entropy and value, [S, B] each, of obs [S, B, D] and actions."""
        self.body.seen.copy_(obs)
        self.body.forward(obs.shape[1])
        for stage in self._forward:
            stage()
        return *self._choice.says(self.out, action), self.value.copy()

    def backward(self, logp: Array, entropy: Array, value: Array) -> None:
        """The gradients, from those in what `forward` gave."""
        shape = self._rate.shape[:2]
        self._choice.slope(logp.reshape(shape), entropy.reshape(shape))
        self._rate[:] = value.reshape(self._rate.shape)
        for stage in self._backward:
            stage()


def parts_of_one(like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A tensor of the shape of each of these, all of them parts of one, the largest first."""
    order = sorted(like, key=lambda name: -like[name].numel())
    whole = torch.empty(sum(p.numel() for p in like.values()))
    cut = whole.split([like[name].numel() for name in order])
    found = {name: part.view(like[name].shape) for name, part in zip(order, cut, strict=True)}
    return {name: found[name] for name in like}


class _Softmax:
    """Numbered actions. out: where the gradient in the logits goes, [S, B, A]."""

    def __init__(self, out: Array) -> None:
        self.out = out
        learners, rows, _ = out.shape
        self.places = np.arange(learners)[:, None], np.arange(rows)[None]

    def says(self, logits: Array, action: NDArray[np.int64]) -> tuple[Array, Array]:
        """Log-probability and entropy [S, B] of actions [S B] in any shape."""
        logp = logits - logits.max(axis=2, keepdims=True)
        logp -= np.log(np.exp(logp).sum(axis=2, keepdims=True))
        self.logp, self.chance, self.action = logp, np.exp(logp), action.reshape(logp.shape[:2])
        self.entropy = -np.vecdot(self.chance, logp)
        return logp[(*self.places, self.action)], self.entropy

    def slope(self, logp: Array, entropy: Array) -> None:
        """d logp = 1[a] - p, d entropy = -p (log p + H)."""
        along = self.logp + self.entropy[..., None]
        along *= entropy[..., None]
        along += logp[..., None]
        np.multiply(self.chance, along, out=self.out)
        np.negative(self.out, out=self.out)
        self.out[(*self.places, self.action)] += logp


class _Gaussian:
    """Real numbers. out: where the gradient in the mean goes, [S, B, dim]; found: that in log_std [S, 1, dim]."""

    def __init__(self, out: Array, log_std: Array, found: Array) -> None:
        self.out, self.log_std, self.found = out, log_std, found

    def says(self, mean: Array, action: Array) -> tuple[Array, Array]:
        """Log-density and entropy [S, B] of actions [S B, dim] in any shape."""
        self.precision = np.exp(-self.log_std)
        self.standard = (action.reshape(mean.shape) - mean) * self.precision
        spread, numbers = np.add.reduce(self.log_std, axis=2), np.float32(mean.shape[2])
        logp = -_HALF * np.vecdot(self.standard, self.standard) - (spread + numbers * _CONSTANT)
        return logp, np.repeat(spread + numbers * (_HALF + _CONSTANT), mean.shape[1], axis=1)

    def slope(self, logp: Array, entropy: Array) -> None:
        """d logp = z / std in the mean, z^2 - 1 in log_std, with z = (a - mean) / std; d entropy = 1 in log_std."""
        np.multiply(self.standard * self.precision, logp[..., None], out=self.out)
        np.matmul(logp[:, None], np.square(self.standard) - _ONE, out=self.found)
        self.found += entropy.sum(axis=1)[:, None, None]
