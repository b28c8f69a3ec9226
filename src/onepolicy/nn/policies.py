"""Policies for control: an actor and a critic, separate tanh networks evaluated side by side.

All implement `batch.Policy`. For acting step by step they give a numpy copy of themselves (`sampler`, `greedy`):
with few rows a torch call costs three times as much as its arithmetic. Its log-probabilities agree with `evaluate`
to float32 rounding. Policies of several choices at once are in multi.py, networks that remember in recurrent.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onepolicy.batch import Evaluation, Layout, SequenceInputs
from onepolicy.core.distributions import (
    categorical_evaluate,
    categorical_sample,
    gaussian_entropy,
    gaussian_logp,
    gaussian_sample,
)
from onepolicy.errors import ConfigError, nearest
from onepolicy.nn.conv import ImageActorCritic
from onepolicy.nn.frozen import Frozen, Memory, best_of
from onepolicy.nn.heads import Draw, Head, draw_categorical, draw_gaussian
from onepolicy.nn.legal import features, masked, numpy_features, numpy_masked
from onepolicy.nn.mlp import Array, NetworkOptions, StackedMLP, numpy_copy
from onepolicy.nn.recurrent import Recurrent, RecurrentActorCritic, whole

HIDDEN = (64, 64)
PLAIN = NetworkOptions()
Greedy = Callable[[Array], NDArray[np.int64] | Array]
"""The best action for each row of observations: [N, D] -> [N] or [N, A]."""


@dataclass(frozen=True)
class Sampler:
    """A policy frozen for acting: draws actions and values states, for rows of observations [N, D] float32.

    draw: actions, their log-probs (nats) and the values V(s) [N]; None in their place where `value` may as well be
    asked later, of many rows at once. value: V(s) [N]. memory: of a recurrent policy, whose draws it remembers and
    whose values are of what follows them; None for one that remembers nothing.
    """

    draw: Callable[[Array], tuple[Draw, Array | None]]
    value: Callable[[Array], Array]
    memory: Memory | None = None


class ControlPolicy(Protocol):
    """What acting, learning and evaluation on control need of a policy. obs_dim: D of its observations.

    inputs: observations, or SequenceInputs for one that is recurrent.
    """

    @property
    def obs_dim(self) -> int: ...

    def evaluate(self, inputs: Any, action: Tensor) -> Evaluation: ...

    def sampler(self, rng: np.random.Generator) -> Sampler: ...

    def greedy(self) -> Greedy: ...


class ActorCritic(nn.Module):
    """The two networks: forward maps obs [..., D] to the actor's output [..., out] and the value [...].

    seed: of the initial weights. hidden: widths, the same for actor and critic. bits: numbers at the end of an
    observation that say which outputs are legal (legal.py); the networks do not see them.
    """

    def __init__(
        self,
        obs_dim: int,
        out: int,
        hidden: Sequence[int],
        seed: int,
        *,
        bits: int = 0,
        options: NetworkOptions = PLAIN,
    ) -> None:
        super().__init__()
        if obs_dim - bits < 1 or out < 1:
            raise ConfigError(f"a policy from {obs_dim - bits} numbers to {out}; both must be at least 1.")
        rng = torch.Generator().manual_seed(seed)
        self.bits = bits
        self.body = StackedMLP(2, (obs_dim - bits, *hidden), rng=rng, options=options)
        self.actor = Head(hidden[-1], out, gain=0.01 if options.orthogonal else None, rng=rng)
        self.critic = Head(hidden[-1], 1, gain=1.0 if options.orthogonal else None, rng=rng)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        lead = obs.shape[:-1]
        acting, judging = self.latent(obs)
        return masked(self.actor(acting).view(*lead, -1), obs, self.bits), self.critic(judging).view(lead)

    def latent(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """The last hidden layers of actor and critic for obs [..., D], [M, H] each, M the rows of all axes before."""
        seen = features(obs, self.bits)
        acting, judging = self.body(seen.reshape(-1, seen.shape[-1])).unbind(0)
        return acting, judging

    def frozen(self) -> Frozen:
        """The networks as they are now, in numpy."""
        acting, judging = self.body.numpy_copy(0), self.body.numpy_copy(1)
        head, critic = self.actor.numpy_copy(), self.critic.numpy_copy()

        def actor(obs: Array) -> Array:
            return numpy_masked(head(acting(numpy_features(obs, self.bits))), obs, self.bits)

        def value(obs: Array) -> Array:
            return critic(judging(numpy_features(obs, self.bits)))[:, 0]

        return Frozen(lambda obs: (actor(obs), value(obs)), value, actor=actor)


Networks = ActorCritic | RecurrentActorCritic | ImageActorCritic


def networks_of(
    obs_dim: int,
    out: int,
    hidden: Sequence[int],
    seed: int,
    *,
    recurrent: Recurrent = "none",
    bits: int = 0,
    options: NetworkOptions = PLAIN,
    layout: Layout | None = None,
) -> Networks:
    """Actor and critic; recurrent: what their last hidden layer is. options: of the other layers. layout: of rows of
    bytes. Raises: ConfigError for another word, and for what does not go with images or with memory."""
    if recurrent == "none" and layout is None:
        return ActorCritic(obs_dim, out, hidden, seed, bits=bits, options=options)
    if options != PLAIN:
        raise ConfigError(f"{options}; networks for images or with a memory are as they are. Leave network out.")
    if layout is not None:
        if recurrent != "none":
            raise ConfigError(
                f"recurrent is {recurrent!r} with images, which are seen in stacks here. Set world.frame_stack, or "
                "show them as vectors with world.flat."
            )
        return ImageActorCritic(layout, out, hidden, seed, bits=bits)
    if recurrent not in ("lstm", "gru"):
        raise ConfigError(f"recurrent is {recurrent!r}. {nearest(recurrent, ('none', 'lstm', 'gru'))}")
    return RecurrentActorCritic(obs_dim, out, hidden, seed, cell=recurrent, bits=bits)


def says(networks: Networks, inputs: Any) -> tuple[Tensor, Tensor]:
    """The actor's output and the value. Recurrent networks take SequenceInputs, or whole sequences [B, T, D]."""
    if isinstance(networks, RecurrentActorCritic) and not isinstance(inputs, SequenceInputs):
        inputs = whole(inputs, networks.memory.width)
    found: tuple[Tensor, Tensor] = networks(inputs)
    return found


def next_says(networks: Networks, obs: Tensor) -> tuple[Tensor, Tensor]:
    """The same where obs [..., D] are the next of their episodes, which recurrent networks then remember."""
    if not isinstance(networks, RecurrentActorCritic):
        return says(networks, obs)
    out, value = says(networks, networks.remembered(obs.reshape(-1, obs.shape[-1])))
    return out.view(*obs.shape[:-1], -1), value.view(obs.shape[:-1])


def forget(networks: Networks, over: Tensor | None) -> None:
    """Recurrent networks forget the episodes that are over, bool [N]; None for all."""
    if isinstance(networks, RecurrentActorCritic):
        memory = networks.memory
        memory.forget(np.ones(len(memory.state), dtype=bool) if over is None else over.numpy())


def sampler_of(networks: Networks, draw: Callable[[Array], Draw]) -> Sampler:
    """The networks as they are now, with what draws actions from the actor's output."""
    frozen = networks.frozen()
    actor = frozen.actor

    def both(obs: Array) -> tuple[Draw, Array | None]:
        if actor is not None:
            return draw(actor(obs)), None
        out, value = frozen.both(obs)
        return draw(out), value

    return Sampler(both, frozen.value, frozen.memory)


@final
class CategoricalPolicy(nn.Module):
    """pi(a|s) = softmax(logits(s)) over `actions` actions, with a critic. Action tensors are [...] int64.

    masked: the last `actions` numbers of an observation say which are legal; the others have probability 0. recurrent:
    what the last hidden layer is; then `act` remembers what it saw until told to `forget`. options: of the networks.
    layout: of observations that are rows of bytes.
    """

    def __init__(
        self,
        obs_dim: int,
        actions: int,
        *,
        hidden: Sequence[int] = HIDDEN,
        seed: int = 0,
        masked: bool = False,
        recurrent: Recurrent = "none",
        options: NetworkOptions = PLAIN,
        layout: Layout | None = None,
    ) -> None:
        super().__init__()
        self.obs_dim = obs_dim
        chosen: dict[str, Any] = {"recurrent": recurrent, "options": options, "layout": layout}
        self.networks = networks_of(obs_dim, actions, hidden, seed, bits=actions if masked else 0, **chosen)

    @torch.no_grad()
    def act(self, inputs: Tensor, *, rng: torch.Generator | None = None) -> tuple[Tensor, Evaluation]:
        """Actions [...] drawn for observations [..., D], and what the policy says of them."""
        logits, value = next_says(self.networks, inputs)
        action = categorical_sample(logits, rng or torch.default_generator)
        return action, Evaluation(*categorical_evaluate(logits, action), value)

    def evaluate(self, inputs: Any, action: Tensor) -> Evaluation:
        """Log-prob, entropy (nats) and value of observations [..., D] and actions [...]."""
        logits, value = says(self.networks, inputs)
        return Evaluation(*categorical_evaluate(logits, action), value)

    def forget(self, over: Tensor | None = None) -> None:
        """Nothing more is remembered of the episodes that are over, bool [N]; None for all."""
        forget(self.networks, over)

    def sampler(self, rng: np.random.Generator) -> Sampler:
        """The policy as it is now, for acting; draws from rng."""
        return sampler_of(self.networks, lambda logits: draw_categorical(logits, rng))

    def greedy(self) -> Greedy:
        """The policy's most probable action, as it is now."""
        return best_of(self.networks.frozen(), lambda logits: logits.argmax(axis=1))


@final
class GaussianPolicy(nn.Module):
    """pi(a|s) = N(mean(s), exp(log_std)^2), one log_std for each of `dim` numbers, the same in all states; a critic.

    Actions [..., dim] are not clipped: the world clips what it is given, the log-prob is that of what was drawn.
    recurrent, options, layout: as CategoricalPolicy's.
    Source: Huang et al. 2022, The 37 implementation details of PPO, continuous details 1 to 4.
    """

    def __init__(
        self,
        obs_dim: int,
        dim: int,
        *,
        hidden: Sequence[int] = HIDDEN,
        log_std: float = 0.0,
        seed: int = 0,
        recurrent: Recurrent = "none",
        options: NetworkOptions = PLAIN,
        layout: Layout | None = None,
    ) -> None:
        super().__init__()
        self.obs_dim = obs_dim
        chosen: dict[str, Any] = {"recurrent": recurrent, "options": options, "layout": layout}
        self.networks = networks_of(obs_dim, dim, hidden, seed, **chosen)
        self.log_std = nn.Parameter(torch.full((dim,), log_std))

    @torch.no_grad()
    def act(self, inputs: Tensor, *, rng: torch.Generator | None = None) -> tuple[Tensor, Evaluation]:
        """Actions [..., dim] drawn for observations [..., D], and what the policy says of them."""
        mean, value = next_says(self.networks, inputs)
        action = gaussian_sample(mean, self.log_std, rng or torch.default_generator)
        return action, self._says(mean, value, action)

    def evaluate(self, inputs: Any, action: Tensor) -> Evaluation:
        """Log-density, entropy (nats) and value of observations [..., D] and actions [..., dim]."""
        mean, value = says(self.networks, inputs)
        return self._says(mean, value, action)

    def forget(self, over: Tensor | None = None) -> None:
        """Nothing more is remembered of the episodes that are over, bool [N]; None for all."""
        forget(self.networks, over)

    def sampler(self, rng: np.random.Generator) -> Sampler:
        """The policy as it is now, for acting; draws from rng."""
        log_std = numpy_copy(self.log_std)
        return sampler_of(self.networks, lambda mean: draw_gaussian(mean, log_std, rng))

    def greedy(self) -> Greedy:
        """The policy's mean action, as it is now."""
        return best_of(self.networks.frozen(), lambda mean: mean)

    def _says(self, mean: Tensor, value: Tensor, action: Tensor) -> Evaluation:
        entropy = gaussian_entropy(self.log_std).expand(value.shape)
        return Evaluation(gaussian_logp(mean, self.log_std, action), entropy, value)
