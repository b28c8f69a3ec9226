"""A student held against a frozen teacher, token by token over the whole vocabulary."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from onepolicy.batch import Evaluation, TokenInputs
from onepolicy.core.kl import exact
from onepolicy.nn.token_policy import TokenPolicy


@final
class Divergence(nn.Module):
    """What a learner maximises to make a student the teacher: -KL(student || teacher) at every token.

    student: trains. teacher: gives no gradient; of the same vocabulary, whose logits [N, V] are held at once.
    """

    def __init__(self, student: TokenPolicy, teacher: TokenPolicy) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher.requires_grad_(False)

    def evaluate(self, inputs: TokenInputs, action: Tensor) -> Evaluation:
        """As `logp` -sum_v pi(v) (log pi(v) - log pi_teacher(v)) and as `entropy` the student's, [B, T] nats.

        At the actions' places, 0 elsewhere; which token was taken does not matter.
        """
        logits = self.student.action_logits(inputs)
        with torch.no_grad():
            wanted = self.teacher.action_logits(inputs)
            logp = logits.log_softmax(-1)
            entropy = -(logp.exp() * logp.clamp_min(torch.finfo(logp.dtype).min)).sum(-1)
        place = inputs.is_action.flatten().nonzero().squeeze(-1)
        blank = logits.new_zeros(inputs.is_action.numel())
        shape = inputs.is_action.shape
        found = blank.index_copy(0, place, -exact(logits, wanted)).view(shape)
        return Evaluation(logp=found, entropy=blank.index_copy(0, place, entropy).view(shape))
