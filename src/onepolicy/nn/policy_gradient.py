"""What a plain policy says of actions and the gradient of that in its weights, by hand.

In: actor and critic of plain layers on a CPU, softmax or Gaussian. Not in: images, memories, masks of actions, which
autograd differentiates; the gradient of a loss in what was said (core/slopes.py).
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onepolicy.batch import Evaluation
from onepolicy.core.distributions import HALF_LOG_TWO_PI
from onepolicy.nn.bound import Bound, Stage
from onepolicy.nn.mlp import Array
from onepolicy.nn.policies import ActorCritic, CategoricalPolicy, GaussianPolicy

SIZES = 4
"""Numbers of rows whose arrays are kept; for one more the oldest go."""
_HALF, _ONE, _TWO, _CONSTANT = (np.float32(number) for number in (0.5, 1.0, 2.0, HALF_LOG_TWO_PI))


def by_hand(policy: Any) -> bool:
    """Whether the gradient of a policy is known here, as it is now."""
    if not isinstance(policy, CategoricalPolicy | GaussianPolicy):
        return False
    return (
        isinstance(policy.networks, ActorCritic)
        and policy.networks.bits == 0
        and all(p.requires_grad and p.dtype == torch.float32 and p.device.type == "cpu" for p in policy.parameters())
    )


@final
class PolicyGradient:
    """`evaluate` of one policy and, from a loss's gradient in what it said, the gradient in its parameters.

    It sees the parameters where they were in memory when it was made: see `current`.
    """

    def __init__(self, policy: CategoricalPolicy | GaussianPolicy) -> None:
        self.policy = policy
        self.parameters = list(policy.parameters())
        self._places = [p.data_ptr() for p in self.parameters]
        self._known: dict[int, _Rows] = {}

    @property
    def current(self) -> bool:
        """Whether the parameters are still where they were, and all of them learn."""
        return self._places == [p.data_ptr() for p in self.parameters if p.requires_grad]

    def evaluate(self, obs: Tensor, action: Tensor) -> Evaluation:
        """Log-probability, entropy (nats) and value [...] of obs [..., D] and actions [...] or [..., dim]; no graph."""
        lead = obs.shape[:-1]
        rows = lead.numel()
        if rows not in self._known:
            if len(self._known) == SIZES:
                del self._known[next(iter(self._known))]
            self._known[rows] = _Rows(self.policy, rows)
        chosen = action.reshape(rows, *action.shape[len(lead) :]).numpy()
        said = self._known[rows].forward(obs.reshape(rows, -1), chosen)
        return Evaluation(*(torch.from_numpy(part).view(lead) for part in said))

    @torch.no_grad()
    def backward(self, slopes: Evaluation) -> None:
        """Adds to the parameters' gradients, from those [...] in the last evaluation of so many rows."""
        assert slopes.value is not None
        mine = self._known[slopes.logp.numel()]
        earlier = [None if p.grad is None else p.grad.clone() for p in self.parameters]
        mine.backward(*(x.reshape(-1).numpy() for x in (slopes.logp, slopes.entropy, slopes.value)))
        for p, found, before in zip(self.parameters, mine.gradients, earlier, strict=True):
            p.grad = found if before is None else before.add_(found)


class _Rows:
    """The networks on so many rows. gradients: of the policy's parameters, in their order."""

    @torch.no_grad()
    def __init__(self, policy: CategoricalPolicy | GaussianPolicy, rows: int) -> None:
        networks = cast(ActorCritic, policy.networks)
        layers = [getattr(networks.body, name) for pair in networks.body.layers for name in pair]
        activation = networks.body.options.activation
        body = self.body = Bound(layers, rows, activation, learn=rows, last=True, shared=True)
        actor, critic = networks.actor, networks.critic
        acting, judging = body.rooms[-1]
        out, value = torch.empty(rows, len(actor.bias)), torch.empty(rows)
        self.out, self.value = out.numpy(), value.numpy()
        weight, bias = critic.weight.detach()[0], critic.bias.detach()
        across = actor.weight.detach()
        self._forward: list[Stage] = [
            partial(torch.addmm, actor.bias.detach(), acting, across.t(), out=out),
            partial(torch.addmv, bias, judging, weight, out=value),
        ]
        slope, rate = torch.empty_like(out), torch.empty_like(value)
        heads = [torch.empty_like(p) for head in (actor, critic) for p in head.parameters()]
        below = body.rates[-1]
        self._backward: list[Stage] = [
            partial(torch.mm, slope.t(), acting, out=heads[0]),
            partial(torch.sum, slope, 0, out=heads[1]),
            partial(torch.mv, judging.t(), rate, out=heads[2][0]),
            partial(torch.sum, rate, 0, keepdim=True, out=heads[3]),
            partial(torch.mm, slope, across, out=below[0]),
            partial(torch.mul, rate.unsqueeze(1), weight, out=below[1]),
            body.backward,
        ]
        self._rate = rate.numpy()
        self.choice = _Softmax(slope.numpy()) if isinstance(policy, CategoricalPolicy) else _Gaussian(policy, slope)
        known: dict[int, Tensor] = dict(zip(map(id, layers), body.gradients, strict=True))
        known |= zip(map(id, (*actor.parameters(), *critic.parameters())), heads, strict=True)
        known |= {id(p): found for p, found in self.choice.own}
        self.gradients = [known[id(p)] for p in policy.parameters()]

    @torch.no_grad()
    def forward(self, obs: Tensor, action: NDArray[Any]) -> tuple[Array, Array, Array]:
        """Log-probability, entropy and value, [B] each, of obs [B, D] and actions."""
        self.body.seen[0] = obs
        self.body.forward(len(obs))
        for stage in self._forward:
            stage()
        return *self.choice.says(self.out, action), self.value.copy()

    def backward(self, logp: Array, entropy: Array, value: Array) -> None:
        """The gradients, from those in what `forward` gave, [B] each."""
        self.choice.slope(logp, entropy)
        self._rate[:] = value
        for stage in self._backward:
            stage()


class _Softmax:
    """Numbered actions. out: where the gradient in the logits goes, [B, A]."""

    own: tuple[tuple[nn.Parameter, Tensor], ...] = ()

    def __init__(self, out: Array) -> None:
        self.out = out
        self.places = np.arange(len(out))

    def says(self, logits: Array, action: NDArray[np.int64]) -> tuple[Array, Array]:
        logp = logits - logits.max(axis=1, keepdims=True)
        logp -= np.log(np.exp(logp).sum(axis=1, keepdims=True))
        self.logp, self.chance, self.action = logp, np.exp(logp), action
        self.entropy = -np.vecdot(self.chance, logp)
        return logp[self.places, action], self.entropy

    def slope(self, logp: Array, entropy: Array) -> None:
        """d logp = 1[a] - p, d entropy = -p (log p + H)."""
        along = self.logp + self.entropy[:, None]
        along *= entropy[:, None]
        along += logp[:, None]
        np.multiply(self.chance, along, out=self.out)
        np.negative(self.out, out=self.out)
        self.out[self.places, self.action] += logp


class _Gaussian:
    """Real numbers. out: where the gradient in the mean goes, [B, dim]."""

    def __init__(self, policy: GaussianPolicy, out: Tensor) -> None:
        self.log_std, self.out = policy.log_std.detach().numpy(), out.numpy()
        found = torch.empty_like(policy.log_std)
        self.own = ((policy.log_std, found),)
        self.found = found.numpy()

    def says(self, mean: Array, action: Array) -> tuple[Array, Array]:
        self.precision = np.exp(-self.log_std)
        self.standard = (action - mean) * self.precision
        self.half = _HALF * np.square(self.standard)
        logp = -(self.half + self.log_std + _CONSTANT).sum(axis=1)
        return logp, np.full(len(mean), (self.log_std + (_HALF + _CONSTANT)).sum(), np.float32)

    def slope(self, logp: Array, entropy: Array) -> None:
        """d logp = z / std in the mean, z^2 - 1 in log_std, with z = (a - mean) / std."""
        np.multiply(self.standard * self.precision, logp[:, None], out=self.out)
        np.matmul(logp, _TWO * self.half - _ONE, out=self.found)
        self.found += entropy.sum()
