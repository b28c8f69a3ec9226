"""`onepolicy data check FILE`: everything that can be said of a file before training on it, and an exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from onepolicy.data.checks import Checked, check_file, fault_of, form_of, read_rows, texts_of
from onepolicy.data.tokenizer import encode, load_tokenizer
from onepolicy.errors import ConfigError, DataError
from onepolicy.evaluation.contamination import DEFAULT_N, contamination, training_rows
from onepolicy.recipes.data import Outcome, only
from onepolicy.tasks.base import load_task_set, task_options

SHOWN = 10
"""Rows named of each kind of finding."""


@dataclass(frozen=True)
class Config:
    """Check a JSONL file: form, duplicates, lengths; gold answers with --tasks, overlap with --against."""

    file: str = ""
    """Conversations, demonstrations, preferences or problems, one JSON object a line."""
    tasks: str = ""
    """Task set that reads the file: its gold answers are verified against themselves."""
    against: str = ""
    """Files, separated by commas, whose problems must not stand in this one (the benchmarks it will be examined on)."""
    ngram: int = DEFAULT_N
    """Words in a row that count as a copy."""
    share: float = 0.0
    """Least share of a problem's n-grams that counts as overlap; 0 for any single one."""
    tokenizer: str = ""
    """Directory or hub id: lengths in tokens instead of characters."""
    similarity: float = 0.8
    """Jaccard similarity of 5-word shingles from which rows are near duplicates."""
    fail_on: Literal["faults", "overlap", "duplicates"] = "overlap"
    """What gives exit code 1: faults and wrong golds only, overlap too, or duplicates and conflicts as well."""

    def __post_init__(self) -> None:
        if not 0 < self.similarity <= 1:
            raise ConfigError(f"similarity is {self.similarity}; between 0 and 1.")


def arguments(words: Sequence[str]) -> list[str]:
    """The flags of the words before the first flag."""
    return only("file", words, "check FILE [--field value]")


def main(config: Config) -> Outcome:
    """The findings as text; code 1 where `fail_on` says so.

    Raises: ConfigError for no file; DataError for one that is missing or empty.
    """
    if not config.file:
        raise ConfigError("no file was named: onepolicy data check FILE.")
    count = None
    if config.tokenizer:
        tokenizer = load_tokenizer(config.tokenizer)
        count = lambda text: len(encode(tokenizer, text))  # noqa: E731 - a closure over the tokenizer
    found = check_file(config.file, similarity=config.similarity, count_tokens=count)
    lines = describe(found, "tokens" if config.tokenizer else "characters")
    bad = len(found.faults)
    if config.tasks:
        words, wrong = _gold(config)
        lines += words
        bad += wrong
    overlap = 0
    for path in filter(None, (part.strip() for part in config.against.split(","))):
        words, hits = _overlap(config, path)
        lines += words
        overlap += hits
    doubles = len(found.duplicates) + len(found.near) + len(found.conflicts)
    counted = {"faults": bad, "overlap": bad + overlap, "duplicates": bad + overlap + doubles}[config.fail_on]
    lines.append("not fit to train on as it is" if counted else "nothing that forbids training on it")
    return Outcome("\n".join(lines), int(counted > 0))


def describe(found: Checked, unit: str) -> list[str]:
    """The findings of a check, a line each, with the first row numbers."""
    forms = ", ".join(f"{count:,} {name}" for name, count in found.forms.items()) or "none usable"
    lines = [f"{found.path}: {found.rows:,} rows; {forms}"]
    if found.faults:
        kinds = Counter(reason.split("(")[0].split(";")[0][:60].strip() for _, reason in found.faults)
        lines.append(f"{len(found.faults):,} faults: " + ", ".join(f"{n} x {kind}" for kind, n in kinds.most_common(5)))
        lines += [f"  row {number}: {reason}" for number, reason in found.faults[:SHOWN]]
    extra = sum(len(group) - 1 for group in found.duplicates)
    lines.append(f"{extra:,} exact duplicates, {len(found.near):,} pairs of near duplicates")
    lines += [f"  rows {', '.join(map(str, group[:SHOWN]))} are equal" for group in found.duplicates[:SHOWN]]
    lines += [f"  rows {a} and {b} are {100 * s:.0f} % alike" for a, b, s in found.near[:SHOWN]]
    if found.conflicts:
        lines.append(f"{len(found.conflicts):,} prompts with different answers")
        lines += [f"  rows {', '.join(map(str, group[:SHOWN]))}" for group in found.conflicts[:SHOWN]]
    for name, one in found.lengths.items():
        spread = f"{one.least:,} to {one.most:,}, median {one.median:,.0f}, 95 % below {one.p95:,.0f}"
        lines.append(f"{name}: {spread}, mean {one.mean:,.1f} {unit}")
    return lines


def _gold(config: Config) -> tuple[list[str], int]:
    """Whether the task set's verifiers accept the file's gold answers, in words, and how many rows they refuse."""
    known = task_options(config.tasks)
    if "path" not in known:
        raise ConfigError(f"{config.tasks} makes its own problems and reads no file; name a set that does.")
    options = {"path": config.file} | ({"on_error": "drop"} if "on_error" in known else {})
    try:
        tasks = load_task_set(config.tasks, "train", **options)
    except DataError as error:
        return [f"gold answers by {config.tasks}: {error}"], 1
    lines = [f"gold answers by {config.tasks}: {len(tasks):,} verify, {len(tasks.dropped):,} rows refused"]
    return lines + [f"  {line}" for line in tasks.dropped[:SHOWN]], len(tasks.dropped)


def _overlap(config: Config, path: str) -> tuple[list[str], int]:
    """Which problems of another file stand in this one, in words, and how many."""
    problems = {}
    for number, row in read_rows(path):
        if isinstance(row, str):
            raise DataError(f"{path}, row {number}: {row}. Mend the row: what cannot be read cannot be looked for.")
        form = form_of(row)
        asked = texts_of(row, form).get("prompt") if fault_of(row, form) is None else None
        problems[f"row {number}"] = asked or "\n".join(v for v in row.values() if isinstance(v, str))
    found = contamination(problems, training_rows(config.file), n=config.ngram, share=config.share)
    lines = [f"{path}: {found.text()}"]
    return lines + [
        f"  its {one.problem} in row {one.row} ({100 * one.share:.0f} % of its {found.n}-grams): {one.words}"
        for one in found.flagged[:SHOWN]
    ], len(found.flagged)
