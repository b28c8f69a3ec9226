"""Rows of a JSONL file turned into tasks, with every row that cannot be used named by its number and reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from onepolicy.errors import ConfigError, DataError, nearest

T = TypeVar("T")
Row = Mapping[str, Any]
Policy = Literal["stop", "drop"]


@dataclass(frozen=True)
class Rows(Generic[T]):
    """What a file gave: converted rows, and (row number from 1, reason) for each that was dropped."""

    kept: tuple[T, ...]
    dropped: tuple[tuple[int, str], ...]


def read_rows(path: str | Path, convert: Callable[[int, Row], T], *, policy: Policy = "stop") -> Rows[T]:
    """Each line of a JSONL file, given to `convert` with its number; blank lines are skipped.

    policy: for a row that is no JSON object, not UTF-8, or for which `convert` raises DataError: "stop" raises,
    "drop" leaves it out and lists it.
    Raises: DataError for a file that is missing, is empty or has no usable row, and by "stop" for a broken row.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{file} is not a file; give a JSONL file with one problem a line.")
    with file.open("rb") as lines:
        return convert_rows(str(file), map(_decoded, lines), convert, policy=policy)


def convert_rows(
    name: str, rows: Iterator[Row | DataError | None], convert: Callable[[int, Row], T], *, policy: Policy = "stop"
) -> Rows[T]:
    """As `read_rows`, from rows already read: a DataError stands for a broken row, None for a blank one."""
    if policy not in ("stop", "drop"):
        raise ConfigError(f"Unknown policy {policy!r} for broken rows. {nearest(policy, ('stop', 'drop'))}")
    kept: list[T] = []
    dropped: list[tuple[int, str]] = []
    for number, row in enumerate(rows, start=1):
        if row is None:
            continue
        try:
            if isinstance(row, DataError):
                raise row
            kept.append(convert(number, row))
        except DataError as error:
            if policy == "stop":
                raise DataError(f"{name}, row {number}: {error} Correct the row, or set on_error='drop'.") from error
            dropped.append((number, str(error)))
    if not kept:
        first = f" ({len(dropped)} dropped; row {dropped[0][0]}: {dropped[0][1]})" if dropped else ""
        raise DataError(f"{name} has no usable row{first}; give at least one problem.")
    return Rows(tuple(kept), tuple(dropped))


def text_field(row: Row, field: str) -> str:
    """A row's field as non-empty text. Raises: DataError naming the field and what was there instead."""
    if field not in row:
        raise DataError(f"no field {field!r}. {nearest(field, map(str, row))}")
    value = row[field]
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"field {field!r} is {str(value)[:40]!r}; it must be non-empty text.")
    return value


def _decoded(line: bytes) -> Row | DataError | None:
    try:
        text = line.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        return DataError(f"not UTF-8 (byte {line[error.start]:#04x} at position {error.start}).")
    if not text:
        return None
    try:
        row = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        return DataError(f"not JSON ({error}).")
    return row if isinstance(row, dict) else DataError(f"{text[:40]!r} is not a JSON object.")
