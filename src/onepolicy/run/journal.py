"""JSON-lines files of a run: one record per line with its step, bit-reproducible, cut back exactly on resume."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, final

from onepolicy.errors import CheckpointError, TrainingError
from onepolicy.run.files import fsync, out_of_space


@final
class Journal:
    """An append-only JSON-lines file that outlives a full disk: lines that do not fit wait in memory for room.

    waiting: lines not yet in the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting: list[bytes] = []
        self._handle: int | None = None
        self._last = -1

    def append(self, record: Mapping[str, Any]) -> bool:
        """Adds a record; False when the disk is full and it waits. Raises TrainingError when its step goes back."""
        step = record["step"]
        if step < self._last:
            raise TrainingError(
                f"{self.path.name} got a record of step {step} after step {self._last}; steps never go back. "
                "Count the step up in the loop, and resume() before logging."
            )
        self._last = step
        self.waiting.append(json_line(record).encode() + b"\n")
        return self.flush()

    def flush(self, sync: bool = False) -> bool:
        """Writes what waits, `sync` to the disk itself; False when the disk is full."""
        if self._handle is None and (self.waiting or self.path.exists()):
            self._handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            while self.waiting and self._handle is not None:
                self._write(self._handle, self.waiting[0])
                self.waiting.pop(0)
            if sync and self._handle is not None:
                os.fsync(self._handle)
        except OSError as error:
            if not out_of_space(error):
                raise
            return False
        return True

    def cut(self, step: int) -> None:
        """Drops the records of steps after `step`; the next record must not be of an earlier one."""
        self.close()
        self.waiting.clear()
        keep_until(self.path, step)
        self._last = -1

    def close(self) -> None:
        """Writes what waits, if it fits, and closes the file; a later `append` opens it again."""
        self.flush()
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    @staticmethod
    def _write(handle: int, line: bytes) -> None:
        """Appends a whole line or nothing."""
        start = os.fstat(handle).st_size
        try:
            done = 0
            while done < len(line):
                done += os.write(handle, line[done:])
        except OSError:
            os.ftruncate(handle, start)
            raise


def json_line(record: Mapping[str, Any]) -> str:
    """One line of JSON: "step" first, then keys in order, floats by repr, non-finite numbers as null.

    >>> json_line({"b": float("nan"), "a": 0.1, "step": 3})
    '{"step": 3, "a": 0.1, "b": null}'
    """
    ordered = {"step": record["step"], **{key: _finite(record[key]) for key in sorted(record) if key != "step"}}
    return json.dumps(ordered, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    """`value` with every non-finite number inside as None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a JSON-lines file; none when it is missing. A torn last line is left out, as a crash leaves one.

    Raises: CheckpointError naming the line when any other line is broken.
    """
    return (record for _, record in _numbered(path))


def keep_until(path: Path, step: int) -> None:
    """Cuts a JSON-lines file before its first record of a step after `step`, or its torn last line; needs no room."""
    if not path.exists():
        return
    size = 0
    for line, record in _numbered(path):
        if record["step"] > step:
            break
        size += len(line) + 1
    if size != path.stat().st_size:
        os.truncate(path, size)
        fsync(path)


def _numbered(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The lines of a JSON-lines file, each with its record; see `read_lines`."""
    *lines, _torn = path.read_bytes().split(b"\n") if path.exists() else [b""]
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise CheckpointError(f"{path} line {number} is not JSON ({error}). Remove that line to go on.") from error
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            raise CheckpointError(f"{path} line {number} has no whole-number step. Remove that line to go on.")
        yield line, record
