"""A policy that learnt which combination of choices is best, for a world that takes the choices one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onepolicy.batch import Evaluation
from onepolicy.envs.joint import joint_masks
from onepolicy.nn.mlp import Array
from onepolicy.nn.policies import Greedy


@final
class JointPolicy:
    """`policy`, which numbers combinations, with actions [..., choices] for observations with a mask of each choice.

    sizes: values of each choice. masked: observations end in their masks. Source of the numbers: envs/joint.py.
    """

    def __init__(self, policy: Any, sizes: Sequence[int], *, masked: bool) -> None:
        self.policy, self.sizes, self.masked = policy, tuple(sizes), masked

    @property
    def obs_dim(self) -> int:
        """D of its observations."""
        joint: int = self.policy.obs_dim
        return joint - int(np.prod(self.sizes)) + sum(self.sizes) if self.masked else joint

    def act(self, inputs: Tensor, *, rng: torch.Generator | None = None) -> tuple[Tensor, Evaluation]:
        """Actions for observations [..., D], and what the policy says of them."""
        number, said = self.policy.act(self._seen(inputs), rng=rng)
        return torch.stack(torch.unravel_index(number, self.sizes), dim=-1), said

    def greedy(self) -> Greedy:
        """The policy's best action, as it is now."""
        inner = self.policy.greedy()

        def act(obs: Array) -> NDArray[np.int64]:
            number = inner(self._seen(torch.from_numpy(obs)).numpy())
            return np.stack(np.unravel_index(number, self.sizes), axis=-1)

        return act

    def _seen(self, obs: Tensor) -> Tensor:
        return joint_masks(obs, self.sizes) if self.masked else obs
