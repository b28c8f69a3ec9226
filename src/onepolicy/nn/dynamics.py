"""What follows an action, learnt: an ensemble of probabilistic networks p(s', r | s, a) for each of S learners.

In: the networks, their loss, draws from them. Not in: when to train and what to do with it (algos/mbpo.py).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast, final

import torch
from torch import Tensor, nn

from onepolicy.errors import ConfigError
from onepolicy.nn.stacked import Stacked
from onepolicy.nn.stacked_layers import affine

LEAST_LOG_VAR, MOST_LOG_VAR = -5.0, 0.5
"""Where the learnt bounds of the log-variance begin, of targets in units of their standard deviation."""
BOUNDS_WEIGHT = 0.01
"""Of the term that draws the bounds together; Chua et al. 2018, appendix A.1."""


@dataclass(frozen=True)
class Ahead:
    """One imagined step by each of K elites: next_obs [S, K, N, D], reward [S, K, N], terminated [S, K, N] bool."""

    next_obs: Tensor
    reward: Tensor
    terminated: Tensor


Follow = Callable[[Tensor, Tensor], Ahead]
"""What follows observations [S, K, N, D] and actions [S, K, N, A] by the means of K elites."""


@final
class Dynamics(nn.Module):
    """`members` networks a learner, each a Gaussian over (s' - s, r) in units of their spread, and a chance of the end.

    seeds: of the first weights. hidden: widths; SiLU between. Inputs and targets are standardised by `set_scale`.
    elites [S, K]: the members that are drawn from, set by `choose`.
    Source: Chua et al. 2018 (PETS), Janner et al. 2019 (MBPO); the chance of the end is learnt here, not given.
    """

    elites: Tensor

    def __init__(
        self, seeds: Sequence[int], obs_dim: int, action_dim: int, hidden: Sequence[int], *, members: int, elites: int
    ) -> None:
        super().__init__()
        if not 1 <= elites <= members:
            raise ConfigError(f"elites is {elites} of {members} members; it is at least 1 and at most all of them.")
        self.learners, self.members, self.obs_dim = len(seeds), members, obs_dim
        targets = obs_dim + 1
        self.body = Stacked(
            seeds, (obs_dim + action_dim, *hidden, 2 * targets + 1), each=members, activation="silu", name="dynamics"
        )
        self.least = nn.Parameter(torch.full((self.learners, 1, 1, targets), LEAST_LOG_VAR))
        self.most = nn.Parameter(torch.full((self.learners, 1, 1, targets), MOST_LOG_VAR))
        for name, width in (("inputs", obs_dim + action_dim), ("targets", targets)):
            self.register_buffer(f"{name}_mean", torch.zeros(self.learners, 1, width))
            self.register_buffer(f"{name}_std", torch.ones(self.learners, 1, width))
        self.register_buffer("elites", torch.arange(elites).repeat(self.learners, 1))

    def forward(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and log-variance [S, M, B, D + 1] of the standardised targets, and the logit of the end [S, M, B].

        obs [S, M, B, D] and action [S, M, B, A]: each member's own rows.
        """
        x = torch.cat([obs, action], dim=-1)
        learners, members, rows, width = x.shape
        mean, std = self._scale("inputs")
        x = (x - mean.unsqueeze(1)) / std.unsqueeze(1)
        out = self.body(x.reshape(learners * members, rows, width)).view(learners, members, rows, -1)
        return self._meaning(out)

    def loss(self, obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor, terminated: Tensor) -> Tensor:
        """Negative log-likelihood of each member's own rows, [S, M], without constants. All [S, M, B, ...]."""
        mean, log_var, end = self(obs, action)
        goal = self._standard(obs, reward, next_obs)
        gaussian = 0.5 * ((goal - mean).square() * torch.exp(-log_var) + log_var).sum(-1)
        ended = nn.functional.binary_cross_entropy_with_logits(end, terminated.to(end.dtype), reduction="none")
        return (gaussian + ended).mean(-1)

    def bounds(self) -> Tensor:
        """The term that keeps the bounds of the variance together, [S]."""
        return BOUNDS_WEIGHT * (self.most - self.least).sum((1, 2, 3))

    @torch.no_grad()
    def error(self, obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor) -> Tensor:
        """Mean squared error of each member's mean, standardised, [S, M]; every member sees all rows [S, B, ...]."""
        obs, action, reward, next_obs = (self._to_all(x) for x in (obs, action, reward, next_obs))
        mean, _, _ = self(obs, action)
        return (self._standard(obs, reward, next_obs) - mean).square().mean((2, 3))

    @torch.no_grad()
    def choose(self, error: Tensor) -> None:
        """The members with the least errors [S, M] become the elites."""
        self.elites.copy_(error.argsort(dim=1)[:, : self.elites.shape[1]])

    @torch.no_grad()
    def set_scale(self, obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor) -> None:
        """Mean and standard deviation of inputs and targets, from rows [S, B, ...]."""
        for name, values in (
            ("inputs", torch.cat([obs, action], dim=-1)),
            ("targets", torch.cat([next_obs - obs, reward.unsqueeze(-1)], dim=-1)),
        ):
            mean, std = self._scale(name)
            mean.copy_(values.mean(dim=1, keepdim=True))
            std.copy_(values.std(dim=1, keepdim=True, correction=0).clamp(min=1e-6))

    @torch.no_grad()
    def imagine(self, obs: Tensor, action: Tensor, noise: Tensor) -> Ahead:
        """A draw of what follows, for each elite's own rows: [S, K, N, ...] throughout.

        noise [S, K, N, D + 1]: standard normal; 0 for the mean. It ends where the member thinks that likelier than not.
        """
        learners, elites, rows = obs.shape[:3]
        mean, std = self._scale("inputs")
        x = (torch.cat([obs, action], dim=-1) - mean.unsqueeze(1)) / std.unsqueeze(1)
        out = self.body.of(self._networks(), x.view(learners * elites, rows, -1)).view(learners, elites, rows, -1)
        standard, log_var, end = self._meaning(out)
        standard = standard + torch.exp(0.5 * log_var) * noise
        middle, spread = self._scale("targets")
        found = standard * spread.unsqueeze(1) + middle.unsqueeze(1)
        return Ahead(obs + found[..., :-1], found[..., -1], end > 0)

    @torch.no_grad()
    def means(self) -> Follow:
        """`imagine` without noise, by the elites as they are now: the scales are within their layers, for searches
        that ask often. Equal to it up to rounding."""
        learners, elites = self.elites.shape
        networks, targets = self._networks(), self.obs_dim + 1
        parameters = [parameter[networks] for parameter in self.body.parameters()]
        mean, std = (x.repeat_interleave(elites, dim=0) for x in self._scale("inputs"))
        weight, bias = parameters[:2]
        weight = weight / std.transpose(1, 2)
        parameters[:2] = weight, bias - mean @ weight
        middle, spread = (x.repeat_interleave(elites, dim=0) for x in self._scale("targets"))
        weight, bias = (torch.cat([x[..., :targets], x[..., -1:]], dim=-1) for x in parameters[-2:])
        spread = torch.cat([spread, torch.ones_like(spread[..., :1])], dim=-1)
        middle = torch.cat([middle, torch.zeros_like(middle[..., :1])], dim=-1)
        parameters[-2:] = weight * spread, bias * spread + middle
        pairs = list(zip(parameters[::2], parameters[1::2], strict=True))

        def follow(obs: Tensor, action: Tensor) -> Ahead:
            x = torch.cat([obs, action], dim=-1).flatten(0, 1)
            for weight, bias in pairs[:-1]:
                x = nn.functional.silu(affine(x, weight, bias), inplace=True)
            out = affine(x, *pairs[-1]).view(learners, elites, -1, targets + 1)
            return Ahead(obs + out[..., : self.obs_dim], out[..., -2], out[..., -1] > 0)

        return follow

    def alone(self, learner: int) -> Dynamics:
        """A copy of one learner's ensemble."""
        found = copy.deepcopy(self)
        found.learners, found.body = 1, self.body.alone(learner)
        mine = slice(learner, learner + 1)
        for name in ("least", "most"):
            setattr(found, name, nn.Parameter(getattr(self, name).detach()[mine].clone()))
        for name, buffer in self.named_buffers(recurse=False):
            setattr(found, name, buffer[mine].clone())
        return found

    def _networks(self) -> Tensor:
        """The elites' places among all networks, [S * K]."""
        return (self.elites + self.members * torch.arange(len(self.elites)).unsqueeze(1)).flatten()

    def _meaning(self, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, log-variance between its bounds and logit of the end, from what the networks put out."""
        targets = self.obs_dim + 1
        log_var = self.most - nn.functional.softplus(self.most - out[..., targets : 2 * targets])
        log_var = self.least + nn.functional.softplus(log_var - self.least)
        return out[..., :targets], log_var, out[..., -1]

    def _standard(self, obs: Tensor, reward: Tensor, next_obs: Tensor) -> Tensor:
        mean, std = self._scale("targets")
        return (torch.cat([next_obs - obs, reward.unsqueeze(-1)], dim=-1) - mean.unsqueeze(1)) / std.unsqueeze(1)

    def _scale(self, name: str) -> tuple[Tensor, Tensor]:
        return cast(Tensor, getattr(self, f"{name}_mean")), cast(Tensor, getattr(self, f"{name}_std"))

    def _to_all(self, x: Tensor) -> Tensor:
        """The same rows for every member."""
        return x.unsqueeze(1).expand(x.shape[0], self.members, *x.shape[1:])
