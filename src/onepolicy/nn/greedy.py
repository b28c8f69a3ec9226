"""What a learner of values leaves behind: a policy that does what it thinks best."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from onepolicy.batch import Evaluation
from onepolicy.nn.policies import Greedy
from onepolicy.nn.stacked import StackedQ


@final
class GreedyPolicy(nn.Module):
    """argmax_a Q(s, a). q: of one learner. Actions are [...] int64 for observations [..., D]."""

    def __init__(self, q: StackedQ, obs_dim: int) -> None:
        super().__init__()
        self.q, self.obs_dim = q, obs_dim

    @torch.no_grad()
    def act(self, inputs: Tensor, *, rng: torch.Generator | None = None) -> tuple[Tensor, Evaluation]:
        """The best actions [...] and their values; certain, so that log-prob and entropy are 0. rng: not used."""
        del rng
        values = self.q(inputs.reshape(1, -1, self.obs_dim)).view(*inputs.shape[:-1], -1)
        best, action = values.max(dim=-1)
        return action, Evaluation(torch.zeros_like(best), torch.zeros_like(best), best)

    def greedy(self) -> Greedy:
        """The same in numpy, [N, D] -> [N]."""
        view = self.q.numpy_view()
        return lambda obs: np.argmax(view(obs[None])[0], axis=-1)
