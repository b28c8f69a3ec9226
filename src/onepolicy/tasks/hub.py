"""Where the hub has each benchmark, and its rows: data set, configuration, split and columns, in one table.

Reading them needs the extra `hub` and a network; nothing else does. Rows are converted by the same functions as a local
file's. Columns are checked first, so that a data set that changed is named before any of its rows is misread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from onepolicy.errors import ConfigError, DataError
from onepolicy.tasks.rows import Policy, Row, Rows, convert_rows, read_rows

T = TypeVar("T")

_TEST = {"test": "test"}
_ONLY = {"test": "train"}
"""The data set has one split, called train, which is for evaluation all the same."""
_SAME = {"train": "train", "test": "test"}


@dataclass(frozen=True)
class Place:
    """A benchmark on the hub.

    splits: ours -> the data set's. columns: those that are read, which it must have.
    """

    repository: str
    splits: Mapping[str, str]
    columns: tuple[str, ...]
    configuration: str | None = None


PLACES = {
    "aime24": Place("HuggingFaceH4/aime_2024", _ONLY, ("problem", "answer", "solution")),
    "aime25": Place("math-ai/aime25", _TEST, ("problem", "answer")),
    "amc23": Place("math-ai/amc23", _TEST, ("question", "answer")),
    "arc-challenge": Place("allenai/ai2_arc", _SAME, ("question", "choices", "answerKey"), "ARC-Challenge"),
    "arc-easy": Place("allenai/ai2_arc", _SAME, ("question", "choices", "answerKey"), "ARC-Easy"),
    "gsm8k": Place("openai/gsm8k", _SAME, ("question", "answer"), "main"),
    "humaneval": Place(
        "openai/openai_humaneval", _TEST, ("task_id", "prompt", "canonical_solution", "test", "entry_point")
    ),
    "ifeval": Place("google/IFEval", _ONLY, ("key", "prompt", "instruction_id_list", "kwargs")),
    "math500": Place("HuggingFaceH4/MATH-500", _TEST, ("problem", "answer", "solution", "level", "subject")),
    "mbpp": Place(
        "google-research-datasets/mbpp",
        _SAME | {"validation": "validation"},
        ("task_id", "text", "code", "test_list", "test_setup_code", "challenge_test_list"),
        "full",
    ),
    "minerva": Place("math-ai/minervamath", _TEST, ("question", "answer")),
    "olympiadbench": Place(
        "Hothan/OlympiadBench",
        _ONLY,
        ("id", "context", "question", "solution", "final_answer", "unit", "answer_type", "error", "subfield"),
        "OE_TO_maths_en_COMP",
    ),
}
"""The benchmarks that can be read from the hub, by the name of their task set."""


def open_rows(name: str, split: str, path: str | Path, convert: Callable[[int, Row], T], policy: Policy) -> Rows[T]:
    """The rows of a local file, or of the benchmark's split on the hub when path is "", converted.

    Raises: as `read_rows` and `hub_rows`.
    """
    if path:
        return read_rows(path, convert, policy=policy)
    return convert_rows(f"{name} {split}", hub_rows(name, split), convert, policy=policy)


def hub_rows(name: str, split: str) -> Iterator[Row]:
    """The rows of a benchmark's split on the hub.

    Raises: ConfigError where it is not there, has no such split, or the extra is not installed; DataError where it
    cannot be read, or lacks a column.
    """
    place = PLACES.get(name)
    if place is None:
        raise ConfigError(f"{name} is read from a file; give path= a JSONL file with a problem a line.")
    if split not in place.splits:
        raise ConfigError(f"{name} has held-out problems only; take split test, or give path= a file.")
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ConfigError(
            f"{name} from the hub needs the extra `hub`: pip install 'onepolicy[hub]'. Or give path= a local file."
        ) from error
    where = f"{place.repository}{f', {place.configuration}' if place.configuration else ''}"
    try:
        rows = load_dataset(place.repository, place.configuration, split=place.splits[split])
    except Exception as error:
        raise DataError(
            f"{name} cannot be read from the hub ({where}): {type(error).__name__}: {str(error)[:200]} Is there a "
            "network? Or give path= a local JSONL file."
        ) from error
    for number, row in enumerate(rows):
        missing = [column for column in place.columns if column not in row] if number == 0 else []
        if missing:
            raise DataError(
                f"{name} on the hub ({where}) has no column {', '.join(missing)}; it has {', '.join(row)}. Its layout "
                "has changed: give path= a local JSONL file, and report it."
            )
        yield row
