"""config.json: what a run directory was made for, with everything needed to make it again."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from onepolicy.errors import CheckpointError
from onepolicy.run.config import config_hash
from onepolicy.run.files import read_object
from onepolicy.run.process import git_revision, versions

HEADER = "config.json"
FORMAT = 1
NEEDED = ("recipe", "config", "config_hash", "data")


def new_header(
    recipe: str, config: Mapping[str, Any], data: Mapping[str, str], tracker: str, keep_checkpoints: int
) -> dict[str, Any]:
    """The content of config.json for a run that begins now; see `Run.create`."""
    return {
        "format": FORMAT,
        "recipe": recipe,
        "config": dict(config),
        "config_hash": config_hash(config),
        "data": dict(data),
        "tracker": tracker,
        "keep_checkpoints": keep_checkpoints,
        "git": git_revision(),
        "versions": dict(versions()),
    }


def read_header(directory: Path) -> dict[str, Any]:
    """The config.json of a run directory.

    Raises: CheckpointError when there is no such directory (naming the runs beside it), it is no run, or config.json
    is damaged.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is not a directory; expected that of a run.{_runs_beside(directory)}")
    path = directory / HEADER
    if not path.exists():
        raise CheckpointError(
            f"{directory} has no {HEADER}: it is no run directory, or its creation was cut short and nothing is in it "
            f"to resume.{_runs_beside(directory)}"
        )
    header = read_object(path)
    for key in NEEDED:
        if key not in header:
            raise CheckpointError(f"{path} has no {key!r}: it was not written by onepolicy, or it is damaged.")
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {header.get('format')}; this version reads {FORMAT}. Update onepolicy."
        )
    return header


def free_directory(recipe: str) -> Path:
    """A new directory runs/<recipe>-<n>, made, with the lowest free n."""
    for n in count(1):
        path = Path("runs") / f"{recipe}-{n}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise AssertionError("count() ends never")


def _runs_beside(path: Path) -> str:
    """A hint that lists the run directories beside `path`."""
    beside = sorted(found.parent.name for found in path.parent.glob(f"*/{HEADER}")) if path.parent.is_dir() else []
    return f" Runs in {path.parent}: {', '.join(beside[:20])}." if beside else ""
