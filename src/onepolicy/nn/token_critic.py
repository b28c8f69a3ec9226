"""Actor and critic for language: a policy of tokens beside a model that says at each what is still to come.

Two networks, as in InstructGPT: the critic starts from the reward model, whose head already predicts the score.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onepolicy.batch import Evaluation, TokenInputs
from onepolicy.nn.scorer import Scorer
from onepolicy.nn.token_policy import TokenPolicy


class TokenActorCritic(nn.Module):
    """A TokenPolicy whose evaluations carry values.

    policy: the actor. critic: V(s_t) is its number after the token before the action.
    Source: Ouyang et al. 2022 (InstructGPT, arXiv 2203.02155), section 3.5 and appendix C.4.
    """

    def __init__(self, policy: TokenPolicy, critic: Scorer) -> None:
        super().__init__()
        self.policy = policy
        self.critic = critic
        self.train(False)

    @property
    def context(self) -> int:
        """The longest sequence both take, in tokens."""
        return min(self.policy.context, self.critic.context)

    def train(self, mode: bool = True) -> TokenActorCritic:
        """Actor and critic in eval mode: no dropout, ever."""
        super().train(mode)
        self.policy.train(mode)
        self.critic.train(mode)
        return self

    def evaluate(self, inputs: TokenInputs, action: Tensor) -> Evaluation:
        """log pi, entropy and V at every action, each [B, T] float32, zero elsewhere.

        Raises: DataError as TokenPolicy.evaluate does.
        """
        found = self.policy.evaluate(inputs, action)
        return Evaluation(logp=found.logp, entropy=found.entropy, value=self.critic.before(inputs))

    @torch.no_grad()
    def act(self, inputs: TokenInputs, *, rng: torch.Generator) -> tuple[Tensor, Evaluation]:
        """The next token of every row, as TokenPolicy.act."""
        return self.policy.act(inputs, rng=rng)
