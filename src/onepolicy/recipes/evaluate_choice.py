"""Multiple choice by likelihood, as an evaluation runs it: tokens of question and answers, kept and continued."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onepolicy.data.tokenizer import encode
from onepolicy.evaluation.choice import NORMS, ChoiceScores, choice_scores
from onepolicy.recipes.evaluate_book import Book
from onepolicy.recipes.evaluate_sets import Asked
from onepolicy.recipes.language import Language
from onepolicy.run.progress import Bar
from onepolicy.types import Message, Task


def likelihoods(
    asked: Asked, language: Language, book: Book, bar: Bar, *, device: str, budget: int
) -> dict[str, dict[str, float]]:
    """By norm and problem, 1 where the answer that the model finds most probable is the right one, else 0.

    A chat model is asked the question alone and its reply is the answer's text; a plain prompt has the question alone
    and the answer follows after a blank. The answers are in `meta["choices"]` as (label, text), the stem in
    `meta["stem"]`.
    """
    found: dict[str, dict[str, float]] = {norm: {} for norm in NORMS}
    tasks = asked.tasks.tasks
    for start in range(0, len(tasks), book.batch):
        batch = tasks[start : start + book.batch]
        lines = book.take(asked.name, [task.id for task in batch], 1)
        if lines is None:
            lines = [
                {"tasks": asked.name, "task": task.id, "mode": "choice", "gold": task.answer, **_record(scores)}
                for task, scores in zip(batch, _scores(batch, asked, language, device, budget))
            ]
            book.add(lines)
        for task, line in zip(batch, lines, strict=True):
            scores = ChoiceScores(tuple(line["logp"]), tuple(line["characters"]), tuple(line["token_counts"]))
            labels = [label for label, _ in task.meta["choices"]]
            for norm in NORMS:
                found[norm][task.id] = float(labels[scores.best(norm)] == task.answer)
        bar.advance(len(batch))
    return found


def _record(scores: ChoiceScores) -> dict[str, Any]:
    return {"logp": scores.logp, "characters": scores.characters, "token_counts": scores.tokens}


def _scores(batch: Sequence[Task], asked: Asked, language: Language, device: str, budget: int) -> list[ChoiceScores]:
    chat = asked.prompt == "chat"
    prompts = [asked.render(_stem(task)) for task in batch]
    texts = [[text for _, text in task.meta["choices"]] for task in batch]
    answers = [[encode(language.tokenizer, text if chat else f" {text}") for text in row] for row in texts]
    lengths = [[len(text) for text in row] for row in texts]
    return choice_scores(language.policy, prompts, answers, lengths, budget=budget, device=device)


def _stem(task: Task) -> Task:
    """The task with its question alone, without the answers and what to do with them."""
    return Task(task.id, (Message("user", task.meta["stem"]),), task.answer, task.verifier, task.meta)
