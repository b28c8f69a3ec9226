"""The files of an evaluation: what was asked for, every attempt as it is made, and how a killed one goes on.

samples.jsonl is written in the order of the work, batch by batch. A second call reads it, keeps the batches that are
whole, cuts the file behind them and makes the rest: the same lines, since every sample's seed depends on its problem
only. Not here: what is made of the attempts (evaluate_report.py).
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch

from onepolicy.errors import CheckpointError, ConfigError
from onepolicy.run.config import differences
from onepolicy.run.files import read_object, replace_object
from onepolicy.run.process import versions
from onepolicy.types import Task

HEADER, SAMPLES = "eval.json", "samples.jsonl"
PROBED = 1024
"""Elements of each tensor that go into a model's fingerprint."""


@final
class Book:
    """The attempts of one evaluation, in a directory or, without one, nowhere.

    settings: what decides the attempts. batch: problems of a batch; one that goes on keeps that of its beginning, so
    that the same problems run together. Raises: ConfigError when the directory holds another evaluation.
    """

    def __init__(self, directory: Path | None, settings: Mapping[str, Any], batch: int) -> None:
        self.batch = batch
        self._path = directory / SAMPLES if directory else None
        self._waiting: Iterator[tuple[int, dict[str, Any]]] = iter(())
        self._size = 0
        self.resumed = 0
        if directory is None:
            return
        directory.mkdir(parents=True, exist_ok=True)
        header = directory / HEADER
        if header.exists():
            before = read_object(header)
            if changed := differences(before["settings"], dict(settings)):
                raise ConfigError(
                    f"{directory} holds an evaluation with other settings ({'; '.join(changed)[:400]}). Give the same "
                    "settings to go on with it, or another --out."
                )
            self.batch = int(before["batch"])
        else:
            replace_object(header, {"settings": dict(settings), "batch": batch, "versions": dict(versions())})
        if self._path and self._path.exists():
            self._waiting = _lines(self._path)

    def take(self, name: str, ids: Sequence[str], each: int) -> list[dict[str, Any]] | None:
        """The lines of a batch (the problems `ids` of the set `name`, `each` lines for each), if all of them are there.

        None if one is missing: from here on the batches have to be made, and given to `add`.
        """
        count = len(ids) * each
        lines = list(itertools.islice(self._waiting, count))
        if len(lines) == count and all(one["tasks"] == name for _, one in lines):
            counts = dict.fromkeys(ids, 0)
            for _, one in lines:
                counts[one["task"]] = counts.get(one["task"], 0) + 1
            if counts == dict.fromkeys(ids, each):
                self._size = lines[-1][0]
                self.resumed += count
                return [one for _, one in lines]
        self._waiting = iter(())
        return None

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Writes a batch's lines; what stood behind the batches that were taken is cut off."""
        if self._path is None:
            return
        content = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records).encode()
        with self._path.open("ab") as file:
            file.truncate(self._size)
            file.write(content)
            file.flush()
        self._size += len(content)

    def close(self) -> None:
        """Cuts off what is behind the last batch."""
        if self._path is not None and self._path.exists() and self._path.stat().st_size > self._size:
            with self._path.open("ab") as file:
                file.truncate(self._size)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(where it ends, record) of every whole line up to the first that is torn or broken."""
    end = 0
    with path.open("rb") as file:
        for line in file:
            end += len(line)
            try:
                record = json.loads(line) if line.endswith(b"\n") else None
            except (json.JSONDecodeError, UnicodeDecodeError):
                return
            if not isinstance(record, dict) or not {"tasks", "task"} <= set(record):
                return
            yield end, record


def read_problems(directory: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """The results of a finished evaluation, by set and problem. Raises: CheckpointError when there is none."""
    path = directory / "problems.jsonl"
    if not path.is_file():
        raise CheckpointError(f"{directory} holds no finished evaluation (no problems.jsonl); finish it first.")
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        found.setdefault(record["tasks"], {})[record["task"]] = record
    return found


def weights_fingerprint(model: Any) -> str:
    """A hash of a model's parameters: names, shapes, types and up to 1024 elements of each, evenly spread."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().reshape(-1)
        probe = flat[:: max(1, flat.numel() // PROBED)].to("cpu", torch.float64)
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}".encode() + probe.numpy().tobytes())
    return digest.hexdigest()[:16]


def problems_fingerprint(tasks: Iterable[Task], prompts: Iterable[Sequence[int]]) -> str:
    """A hash of the problems: ids, gold answers and the prompts' tokens."""
    digest = hashlib.sha256()
    for task, prompt in zip(tasks, prompts, strict=True):
        digest.update(json.dumps([task.id, task.answer, list(prompt)]).encode())
    return digest.hexdigest()[:16]
