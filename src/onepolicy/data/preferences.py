"""Preferences: answers to one prompt that somebody, or something, has put in order.

A pair is a ranking of two. Reward models, direct preference optimisation and KTO all read these rows. Not here: losses
(core/preference.py), how rankings are made (recipes/data.py and the labelling page).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from onepolicy.batch import TokenInputs
from onepolicy.data.demonstrations import Example, conversation, example
from onepolicy.errors import DataError

Turns = tuple[Mapping[str, Any], ...]
FORMS = (
    "prompt, chosen, rejected [, margin]; chosen, rejected (whole conversations); prompt, answers, ranks or scores; "
    "prompt, completion, label"
)


@dataclass(frozen=True)
class Ranking:
    """K >= 2 answers to one prompt in an order of preference.

    prompt: messages. answers: each a continuation, messages that end with the assistant's. rank: one number per answer,
    1 is best by custom, smaller is better, equal is a tie. margin: by how much a pair's winner should lead, in reward
    units; 0 where nothing was said.
    """

    prompt: Turns
    answers: tuple[Turns, ...]
    rank: tuple[float, ...]
    margin: float = 0.0

    def pairs(self) -> Iterator[tuple[int, int]]:
        """(winner, loser) of every pair that is not a tie."""
        for i, j in combinations(range(len(self.rank)), 2):
            if self.rank[i] != self.rank[j]:
                yield (i, j) if self.rank[i] < self.rank[j] else (j, i)


@dataclass(frozen=True)
class Judged:
    """One answer called good or bad on its own, as KTO learns from."""

    prompt: Turns
    answer: Turns
    good: bool


@dataclass(frozen=True)
class RankedExample:
    """A ranking as tokens: each answer with its prompt in front, (tokens, is_action); see `Ranking`."""

    examples: tuple[Example, ...]
    rank: tuple[float, ...]
    margin: float = 0.0


def ranking(row: Mapping[str, Any]) -> Ranking:
    """The ranking in a row: `chosen` and `rejected`, with `prompt` or as whole conversations with a common beginning,
    or `prompt`, `answers` (or `completions`) and `ranks` (1 is best) or `scores` (higher is better).

    Raises: DataError when no form fits, an answer is empty, two answers in different places are the same text, all are
    ties, or there are not as many ranks as answers.

    >>> found = ranking({"prompt": "1+1=", "answers": ["3", "2", "two"], "scores": [0, 1, 1]})
    >>> found.rank, list(found.pairs())
    ((-0.0, -1.0, -1.0), [(1, 0), (2, 0)])
    """
    if "chosen" in row and "rejected" in row:
        prompt, answers = _pair(row)
        rank: Sequence[float] = (1.0, 2.0)
    else:
        prompt, answers, rank = _ranked(row)
    for place, answer in enumerate(answers):
        if not any(turn["role"] == "assistant" and str(turn["content"]).strip() for turn in answer):
            raise DataError(f"answer {place} is empty; an empty answer has nothing to prefer. Drop it")
    found = Ranking(tuple(prompt), tuple(tuple(a) for a in answers), tuple(rank), _margin(row))
    for i, j in combinations(range(len(answers)), 2):
        if answers[i] == answers[j] and rank[i] != rank[j]:
            raise DataError(f"answers {i} and {j} are equal but ranked apart ({rank[i]:g} and {rank[j]:g})")
    if not any(found.pairs()):
        raise DataError("all answers are ties; there is nothing to learn from it")
    return found


def judged(row: Mapping[str, Any]) -> Judged:
    """The judgement in a row with `prompt`, `completion` and `label` (true for good).

    Raises: DataError when a field is missing, the label is not a boolean, or the answer is empty.
    """
    if not {"prompt", "completion", "label"} <= row.keys():
        raise DataError(f"fields {sorted(row)} are not 'prompt', 'completion' and 'label'")
    if not isinstance(row["label"], bool):
        raise DataError(f"label is {row['label']!r}; expected true or false")
    talk = conversation({"prompt": row["prompt"], "completion": row["completion"]})
    size = len(_messages(row["prompt"], "user"))
    return Judged(tuple(talk[:size]), tuple(talk[size:]), row["label"])


def ranked_example(tokenizer: PreTrainedTokenizerBase, found: Ranking, context: int) -> RankedExample:
    """A ranking's tokens. Raises: DataError when an answer is longer than the context, or two render alike."""
    examples = tuple(_continued(tokenizer, found.prompt, answer, context) for answer in found.answers)
    for i, j in combinations(range(len(examples)), 2):
        if examples[i][0] == examples[j][0] and found.rank[i] != found.rank[j]:
            raise DataError(f"answers {i} and {j} are the same tokens but ranked apart")
    return RankedExample(examples, found.rank, found.margin)


def judged_example(tokenizer: PreTrainedTokenizerBase, found: Judged, context: int) -> tuple[Example, bool]:
    """A judgement's tokens and label. Raises: DataError when it is longer than the context."""
    return _continued(tokenizer, found.prompt, found.answer, context), found.good


def token_inputs(examples: Sequence[Example], pad_id: int) -> TokenInputs:
    """Examples as one right-padded [B, T] batch.

    >>> token_inputs([([5, 6], [False, True]), ([7], [False])], pad_id=0).tokens.tolist()
    [[5, 6], [7, 0]]
    """
    shape = (len(examples), max(len(tokens) for tokens, _ in examples))
    tokens, attention, acts = (np.full(shape, fill) for fill in (pad_id, False, False))
    for row, (ids, is_action) in enumerate(examples):
        tokens[row, : len(ids)] = ids
        attention[row, : len(ids)] = True
        acts[row, : len(ids)] = is_action
    return TokenInputs(*(torch.from_numpy(x) for x in (tokens, attention, acts)))


def grid(rankings: Sequence[RankedExample]) -> tuple[list[Example], Tensor, Tensor, Tensor]:
    """Rankings of unequal size side by side: all their examples, and where each is, its rank, and whether it is there.

    Returns: (examples, place [B, K] int64, rank [B, K] float32, present [B, K] bool); K is the largest ranking's size,
    place is 0 and rank 0 where nothing is present.
    """
    shape = (len(rankings), max(len(r.examples) for r in rankings))
    place = torch.zeros(shape, dtype=torch.int64)
    rank = torch.zeros(shape)
    present = torch.zeros(shape, dtype=torch.bool)
    examples: list[Example] = []
    for row, one in enumerate(rankings):
        size = len(one.examples)
        place[row, :size] = torch.arange(len(examples), len(examples) + size)
        rank[row, :size] = torch.tensor(one.rank)
        present[row, :size] = True
        examples += one.examples
    return examples, place, rank, present


def _pair(row: Mapping[str, Any]) -> tuple[list[Any], list[list[Any]]]:
    chosen, rejected = (_messages(row[name], "assistant") for name in ("chosen", "rejected"))
    if "prompt" in row:
        return _messages(row["prompt"], "user"), [chosen, rejected]
    if isinstance(row["chosen"], str) or isinstance(row["rejected"], str):
        raise DataError("there is no prompt, and chosen and rejected are texts; give a prompt, or whole conversations")
    same = 0
    while same < min(len(chosen), len(rejected)) and chosen[same] == rejected[same]:
        same += 1
    if same == len(chosen) == len(rejected):
        raise DataError("chosen and rejected are equal")
    if same == 0:
        raise DataError("chosen and rejected have no common beginning to be the prompt")
    return chosen[:same], [chosen[same:], rejected[same:]]


def _ranked(row: Mapping[str, Any]) -> tuple[list[Any], list[list[Any]], list[float]]:
    given = row.get("answers", row.get("completions"))
    if "prompt" not in row or given is None or not ("ranks" in row) ^ ("scores" in row):
        raise DataError(f"fields {sorted(row)} are none of these forms: {FORMS}")
    if not isinstance(given, list) or len(given) < 2:
        raise DataError("answers is not a list of at least 2")
    name = "ranks" if "ranks" in row else "scores"
    numbers = row[name]
    if not isinstance(numbers, list) or len(numbers) != len(given):
        size = len(numbers) if isinstance(numbers, list) else "no list of"
        raise DataError(f"{size} {name} for {len(given)} answers; give one for each")
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise DataError(f"{name} has {number!r}; expected numbers")
    rank = [float(x) if name == "ranks" else -float(x) for x in numbers]
    return _messages(row["prompt"], "user"), [_messages(answer, "assistant") for answer in given], rank


def _margin(row: Mapping[str, Any]) -> float:
    margin = row.get("margin", 0.0)
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0.0 <= margin < math.inf:
        raise DataError(f"margin is {margin!r}; expected a number of at least 0")
    return float(margin)


def _messages(part: Any, role: str) -> list[Any]:
    """A text as one turn of `role`; messages as they are."""
    if isinstance(part, str):
        return [{"role": role, "content": part}]
    if not isinstance(part, list) or not part:
        raise DataError(f"a {'prompt' if role == 'user' else 'answer'} is neither a text nor a list of messages")
    for message in part:
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise DataError(f"a message is {message!r:.60}; expected role and content")
        if not isinstance(message["content"], str):
            raise DataError(f"the content of a {message['role']} message is not a text")
    return part


def _continued(tokenizer: PreTrainedTokenizerBase, prompt: Turns, answer: Turns, context: int) -> Example:
    """Prompt and answer as tokens; only what the answer's assistant turns wrote is an action."""
    tokens, is_action = example(tokenizer, [*prompt, *answer], context)
    if any(turn["role"] == "assistant" for turn in prompt):
        head, _ = example(tokenizer, list(prompt), context)
        is_action = [acts and place >= len(head) for place, acts in enumerate(is_action)]
    return tokens, is_action
