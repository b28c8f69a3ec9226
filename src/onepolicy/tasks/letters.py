"""Letters: a world of short strings whose true reward is a formula, to hold learnt rewards and preferences against.

A prompt such as `c-f8?` asks for c, not f, in about 8 letters. The reward of an answer a_1..a_n is

    r = #[a_i = wanted] - #[a_i = unwanted] - 1.5 #[a_i = a_(i-1)] - 0.5 |n - length|

and its maximum is (length + 1) / 2: the wanted letter at every odd place. Preferences are drawn from it by Plackett and
Luce's model, whose pairs are Bradley and Terry's, so the best accuracy any reward model can have is known exactly.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from onepolicy.run.seeding import derive_rng
from onepolicy.tasks.base import TaskSet, conversation
from onepolicy.tasks.procedural import is_held_out
from onepolicy.tasks.rewards import AnswerFormat
from onepolicy.types import Score, Task

LETTERS = "abcdefgh"
LENGTHS = (4, 5, 6, 7, 8, 9)
CHARACTERS = LETTERS + "-?0123456789"
REPEAT, OFF_LENGTH = 1.5, 0.5
_PROMPT = re.compile(r"([a-h])-([a-h])([4-9])\?")

PLAIN = AnswerFormat("plain", lambda text: text, lambda text: True, lambda thinking, answer: answer, "")
"""The whole completion is the answer."""


@dataclass(frozen=True)
class LettersVerifier:
    """The true reward as value; parts: `reward`, and `correct`, whether it is the highest there is."""

    def __call__(self, task: Task, text: str) -> Score:
        value = reward(task.messages[-1].content, text)
        parts = {"correct": float(value >= best(task.messages[-1].content)), "format": float(is_answer(text))}
        return Score(value, {**parts, "reward": value})


def is_answer(text: str) -> bool:
    """Whether a text is one or more of the letters, and nothing else."""
    return bool(text) and set(text) <= set(LETTERS)


def reward(prompt: str, answer: str) -> float:
    """The true reward of an answer; whatever is no letter counts for the length alone.

    >>> reward("c-f8?", "cacacaca"), reward("c-f8?", "ccff"), reward("c-f8?", "cacacacac")
    (4.0, -5.0, 4.5)
    """
    wanted, unwanted, length = _read(prompt)
    repeats = sum(a == b for a, b in pairwise(answer))
    return (
        float(answer.count(wanted) - answer.count(unwanted)) - REPEAT * repeats - OFF_LENGTH * abs(len(answer) - length)
    )


def best(prompt: str) -> float:
    """The highest reward there is: (length + 1) / 2."""
    return (_read(prompt)[2] + 1) / 2


def gold(prompt: str) -> str:
    """An answer of the highest reward.

    >>> gold("c-f8?"), gold("a-b5?")
    ('cacacacac', 'acaca')
    """
    wanted, unwanted, length = _read(prompt)
    other = next(letter for letter in LETTERS if letter not in (wanted, unwanted))
    size = length if length % 2 else length + 1
    return "".join(wanted if i % 2 == 0 else other for i in range(size))


def prompts(split: str) -> list[str]:
    """All prompts of a split, "train" or "test"; which one a prompt is in is a hash of its text."""
    every = [f"{a}-{b}{n}?" for a in LETTERS for b in LETTERS if a != b for n in LENGTHS]
    return [prompt for prompt in every if is_held_out(prompt) == (split == "test")]


def random_answer(prompt: str, rng: np.random.Generator) -> str:
    """What an indifferent writer writes: 3 to 12 letters, a quarter of them the wanted one, the others any."""
    wanted = _read(prompt)[0]
    size = int(rng.integers(3, 13))
    return "".join(wanted if rng.random() < 0.25 else LETTERS[int(rng.integers(8))] for _ in range(size))


def load(split: str = "train", *, system: str = "") -> TaskSet:
    """All prompts of a split as tasks; the gold answer is one of the highest reward."""
    found = prompts(split)
    tasks = tuple(Task(f"letters/{p}", conversation(p, system), gold(p), LettersVerifier()) for p in found)
    return TaskSet(f"letters/{split}", tasks, CHARACTERS, None, PLAIN, {"tasks": len(tasks)})


def demonstration_rows(count: int, *, split: str = "train", seed: int = 0) -> Iterator[dict[str, Any]]:
    """JSONL rows of prompt and completion by the indifferent writer: what a first policy learns from."""
    known = prompts(split)
    for i in range(count):
        rng = derive_rng(seed, "letters-demonstration", split, i)
        prompt = known[int(rng.integers(len(known)))]
        yield {"prompt": prompt, "completion": random_answer(prompt, rng)}


def ranking_rows(count: int, *, k: int = 4, split: str = "train", seed: int = 0) -> Iterator[dict[str, Any]]:
    """JSONL rows of a prompt, k different answers by the indifferent writer, and ranks drawn from their true reward.

    The order is Plackett and Luce's: sorted by r + Gumbel noise, so P(i before j) = sigmoid(r_i - r_j).
    """
    known = prompts(split)
    for i in range(count):
        rng = derive_rng(seed, "letters-ranking", split, i)
        prompt = known[int(rng.integers(len(known)))]
        answers: list[str] = []
        while len(answers) < k:
            answer = random_answer(prompt, rng)
            if answer not in answers:
                answers.append(answer)
        noisy = np.array([reward(prompt, answer) for answer in answers]) + rng.gumbel(size=k)
        ranks = (-noisy).argsort().argsort() + 1
        yield {"prompt": prompt, "answers": answers, "ranks": ranks.tolist()}


def best_accuracy(rows: Sequence[dict[str, Any]]) -> float:
    """The accuracy on the rows' pairs, in expectation over their labels, of who knows the true reward.

    Labels are drawn, so it is below 1: a pair's better answer wins with probability sigmoid(|r_i - r_j|).
    """
    found = [
        1.0 / (1.0 + math.exp(-abs(reward(row["prompt"], a) - reward(row["prompt"], b))))
        for row in rows
        for a, b in combinations(row["answers"], 2)
    ]
    return sum(found) / len(found)


def true_accuracy(rows: Sequence[dict[str, Any]]) -> float:
    """The accuracy of the true reward on the rows' pairs with the labels they have; an equal reward counts half.

    >>> true_accuracy([{"prompt": "c-f4?", "answers": ["caca", "ffff"], "ranks": [2, 1]}])
    0.0
    """
    right = []
    for row in rows:
        value = [reward(row["prompt"], answer) for answer in row["answers"]]
        for (i, a), (j, b) in combinations(enumerate(row["ranks"]), 2):
            if a != b:
                lead = (value[i] - value[j]) * (b - a)
                right.append(1.0 if lead > 0 else 0.0 if lead < 0 else 0.5)
    return sum(right) / len(right)


def _read(prompt: str) -> tuple[str, str, int]:
    """(wanted letter, unwanted letter, length) of a prompt."""
    found = _PROMPT.fullmatch(prompt)
    assert found is not None, prompt
    return found[1], found[2], int(found[3])
