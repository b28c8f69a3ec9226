"""IFEval: 541 prompts with verifiable instructions, from the authors' JSONL file or the hub.

A row has `key`, `prompt`, `instruction_id_list` and `kwargs`, one object of arguments for each id; the hub lists every
argument's name and gives None to those not meant. A row may ask one id twice with different arguments (a lower and an
upper bound); the authors' row 30 asks the same thing twice, and counts it twice.
Source: Zhou et al. 2023, Instruction-Following Evaluation for Large Language Models (arXiv 2311.07911).
"""

from __future__ import annotations

from collections.abc import Iterable

from onepolicy.errors import ConfigError, DataError
from onepolicy.run.seeding import derive_rng
from onepolicy.tasks.base import TaskSet, conversation
from onepolicy.tasks.hub import open_rows
from onepolicy.tasks.instructions import PLAIN, Bound, InstructionVerifier, Reward, bind
from onepolicy.tasks.instructions_constraint import Errata, check_errata
from onepolicy.tasks.instructions_prompts import compose
from onepolicy.tasks.rows import Policy, Row, text_field
from onepolicy.types import Score, Task

TRIES = 8
"""Attempts to make a reply that follows all of a row's instructions."""


def load(
    split: str = "test",
    *,
    path: str = "",
    n: int | None = None,
    system: str = "",
    reward: Reward = "prompt_strict",
    errata: Errata = "original",
    on_error: Policy = "stop",
) -> TaskSet:
    """The prompts of a file, or of the hub when path is "".

    n: only the first n. reward: what the value is; the parts have prompt- and instruction-level, strict and loose.
    errata: "original" decides as the authors' code. on_error: "stop" at a broken row, or "drop" and list it.
    A task's answer is a text made to follow its instructions where one could be made, otherwise "" with
    meta["no_gold"]; counts has how many (`gold`). meta: `level` (instructions), `instruction_id_list`, `kwargs`, `key`.

    Raises: ConfigError for the split "train", which IFEval has not, or an unknown option; DataError for a missing or
    empty file, a row without its fields, an unknown constraint or bad arguments.
    """
    if split != "test":
        raise ConfigError(
            f"IFEval has no split {split!r}; it is a benchmark: train on the task set `instructions`, test here."
        )
    check_errata(errata)

    def task(number: int, row: Row) -> Task:
        prompt, bounds = text_field(row, "prompt"), read_instructions(row)
        verifier = InstructionVerifier(bounds, reward, errata, repeats=True)
        gold = _gold(verifier, str(row.get("key", number)))
        meta = {
            "level": len(bounds),
            "instruction_id_list": [bound.id for bound in bounds],
            "kwargs": [dict(bound.args) for bound in bounds],
            "key": row.get("key", number),
            "no_gold": not gold,
        }
        return Task(f"ifeval/{row.get('key', number)}", conversation(prompt, system), gold, verifier, meta)

    rows = open_rows("ifeval", split, path, task, on_error)
    tasks = rows.kept[:n]
    counts = {
        "rows": len(rows.kept) + len(rows.dropped),
        "dropped": len(rows.dropped),
        "tasks": len(tasks),
        "gold": sum(not task.meta["no_gold"] for task in tasks),
    }
    dropped = tuple(f"row {number}: {reason}" for number, reason in rows.dropped)
    return TaskSet("ifeval/test", tasks, form=PLAIN, counts=counts, dropped=dropped)


def read_instructions(row: Row) -> tuple[Bound, ...]:
    """The constraints of a row. Raises: DataError for fields that are missing or no lists, or what `bind` refuses."""
    ids, arguments = row.get("instruction_id_list"), row.get("kwargs")
    if not isinstance(ids, list) or not isinstance(arguments, list):
        raise DataError(
            "fields 'instruction_id_list' and 'kwargs' must be lists, one id and one object of arguments for each "
            f"instruction; they are {type(ids).__name__} and {type(arguments).__name__}."
        )
    return bind(ids, arguments, repeats=True)


def accuracies(scores: Iterable[Score]) -> dict[str, float]:
    """The paper's four numbers over a data set's scores: prompt and instruction level, strict and loose, in [0, 1].

    Prompt level is the mean over prompts, instruction level that over all their instructions. A score that was not
    judged is left out. {} where none is left.

    >>> parts = {"prompt_strict": 1, "prompt_loose": 1, "followed_strict": 3, "followed_loose": 3, "constraints": 3}
    >>> other = {"prompt_strict": 0, "prompt_loose": 0, "followed_strict": 0, "followed_loose": 0, "constraints": 1}
    >>> accuracies([Score(1.0, parts), Score(0.0, other)])["instruction_strict"]
    0.75
    """
    judged = [score.parts for score in scores if score.value is not None]
    asked = sum(parts["constraints"] or 0 for parts in judged)
    found: dict[str, float] = {}
    for how in ("strict", "loose") if judged else ():
        found[f"prompt_{how}"] = sum(parts[f"prompt_{how}"] or 0 for parts in judged) / len(judged)
        found[f"instruction_{how}"] = sum(parts[f"followed_{how}"] or 0 for parts in judged) / asked
    return found


def _gold(verifier: InstructionVerifier, key: str) -> str:
    """A text that follows every instruction, or "" where none was found."""
    for attempt in range(TRIES):
        text = compose(verifier.constraints, derive_rng(0, "ifeval", key, str(attempt)))
        if all(strict for strict, _ in verifier.decisions(text)):
            return text
    return ""
