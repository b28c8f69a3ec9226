"""Multiple choice by likelihood: which of the given answers a language model finds most probable after the question.

What base models are judged by, who do not know how to name a letter. Not here: judging by letter, which is a verifier
(tasks/arc.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from onepolicy.data.packing import split_by_tokens, token_batch
from onepolicy.errors import DataError
from onepolicy.nn.token_policy import TokenPolicy
from onepolicy.types import Episode, Score


@dataclass(frozen=True)
class ChoiceScores:
    """What a model says of one question's answers, in their order.

    logp: sum of log-probabilities of each answer's tokens, nats. characters, tokens: each answer's length.
    """

    logp: tuple[float, ...]
    characters: tuple[int, ...]
    tokens: tuple[int, ...]

    def best(self, norm: str) -> int:
        """The place of the most probable answer, the first of equals, by one of NORMS."""
        values = NORMS[norm](self)
        return values.index(max(values))


NORMS: dict[str, Callable[[ChoiceScores], list[float]]] = {
    "acc": lambda found: list(found.logp),
    "acc_norm": lambda found: [logp / n for logp, n in zip(found.logp, found.characters)],
    "acc_token": lambda found: [logp / n for logp, n in zip(found.logp, found.tokens)],
}
"""How answers of different length are compared: the sum of log-probabilities as it is, per character, per token.

`acc` and `acc_norm` are lm-evaluation-harness's; its acc_norm divides by the answer's length in characters (bytes in
some versions), without the blank before it."""


@torch.no_grad()
def choice_scores(
    policy: TokenPolicy,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[Sequence[int]]],
    characters: Sequence[Sequence[int]],
    *,
    budget: int = 1 << 15,
    device: str | torch.device = "cpu",
) -> list[ChoiceScores]:
    """log p(answer | prompt), the sum over the answer's tokens, for each answer of each question.

    prompts [Q]: token ids. answers [Q][C]: token ids of each answer, none empty. characters [Q][C]: their lengths as
    text. budget: padded tokens run at once.
    Raises: DataError for an answer without tokens, or a row beyond the model's context.
    """
    rows: list[Episode] = []
    for question, (prompt, choices) in enumerate(zip(prompts, answers, strict=True)):
        for choice in choices:
            if not choice or not prompt:
                raise DataError(f"question {question} has an empty prompt or answer; each needs at least one token.")
            is_action = (False,) * len(prompt) + (True,) * len(choice)
            tokens = (*prompt, *choice)
            rows.append(Episode("", question, tokens, is_action, (0.0,) * len(tokens), Score(None)))
    sums = [0.0] * len(rows)
    for group in split_by_tokens([len(row.tokens) for row in rows], max(budget, max(len(r.tokens) for r in rows))):
        batch = token_batch([rows[i] for i in group], [0.0] * len(group), pad_id=0).map(lambda x: x.to(device))
        logp = policy.evaluate(batch.inputs, batch.action).logp.double().sum(-1)
        for i, value in zip(group, logp.tolist()):
            sums[i] = value
    found, start = [], 0
    for choices, lengths in zip(answers, characters, strict=True):
        logps = tuple(sums[start : start + len(choices)])
        found.append(ChoiceScores(logps, tuple(lengths), tuple(map(len, choices))))
        start += len(choices)
    return found
