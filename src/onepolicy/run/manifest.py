"""Which checkpoints of a run can be trusted: directories sealed by a manifest, published by a rename.

`checkpoints/step-N/` holds the files and, written last, MANIFEST.json with every file's sha256 and size. A directory
is built under the name `step-N.tmp-<id>` and renamed when complete, so that a kill at any moment leaves the old
checkpoint or the new one. In: sealing, publishing, verifying, finding the newest, moving damaged ones aside, pruning.
Not in: what the files contain (checkpoint.py). No torch here, so that the doctor starts fast.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from onepolicy.errors import CheckpointError
from onepolicy.run.files import fsync

MANIFEST = "MANIFEST.json"
FORMAT = 1
PICKLE_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".npy", ".npz")
PICKLE_STARTS = tuple(bytes([0x80, protocol]) for protocol in (2, 3, 4, 5)) + (b"PK\x03\x04",)
_STEP = re.compile(r"step-(\d+)")

Say = Callable[[str], None]


class DamagedError(CheckpointError):
    """A checkpoint whose files are not what its manifest says: the one before it is used."""


def step_path(root: Path, step: int) -> Path:
    """The directory of a step's checkpoint."""
    return root / f"step-{step}"


def temporary_path(root: Path, step: int) -> Path:
    """A new name to build a step's checkpoint under."""
    return root / f"step-{step}.tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def saved_steps(root: Path) -> list[int]:
    """The steps with a checkpoint directory, newest first, verified or not."""
    found = [_STEP.fullmatch(path.name) for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    return sorted((int(match[1]) for match in found if match), reverse=True)


def seal(directory: Path, facts: Mapping[str, Any]) -> None:
    """Puts every file of a finished checkpoint on the disk, then MANIFEST.json with their sha256 and sizes.

    facts: JSON values to keep in the manifest besides (step, versions, hashes).
    Raises: CheckpointError when a file is a pickle or no regular file.
    """
    files = {}
    for path in _regular_files(directory):
        _refuse_pickle(path)
        fsync(path)
        files[path.relative_to(directory).as_posix()] = {"sha256": _sha256(path), "bytes": path.stat().st_size}
    with (directory / MANIFEST).open("w", encoding="utf-8") as file:
        file.write(_text({**facts, "format": FORMAT, "files": files}))
        file.flush()
        os.fsync(file.fileno())
    for folder in [*(p for p in directory.rglob("*") if p.is_dir()), directory]:
        fsync(folder)


def publish(temporary: Path, final: Path) -> None:
    """Renames a sealed checkpoint into place; one that was there before is replaced and survives a crash between."""
    root = final.parent
    replaced = root / f"{final.name}.replaced-{uuid.uuid4().hex[:8]}"
    if final.exists():
        final.rename(replaced)
    temporary.rename(final)
    fsync(root)
    if replaced.exists():
        shutil.rmtree(replaced)


def verify(directory: Path) -> dict[str, Any]:
    """The manifest of a checkpoint all of whose files are as the manifest says.

    Raises: DamagedError naming the first file that is missing, truncated or changed. CheckpointError for files the
    manifest does not list and for pickles, which are refused: loading one would run its author's code.
    """
    manifest = _read_manifest(directory)
    for name, facts in manifest["files"].items():
        path = directory / name
        if not path.is_file():
            raise DamagedError(f"{path} is missing")
        if path.stat().st_size != facts["bytes"]:
            raise DamagedError(f"{path} has {path.stat().st_size} bytes; the manifest says {facts['bytes']}")
        if _sha256(path) != facts["sha256"]:
            raise DamagedError(f"{path} is not what was saved: its sha256 differs from the manifest's")
    for path in _regular_files(directory):
        name = path.relative_to(directory).as_posix()
        _refuse_pickle(path)
        if name != MANIFEST and name not in manifest["files"]:
            raise CheckpointError(f"{path} is not listed in {MANIFEST}; someone added it. Remove it to go on.")
    return manifest


def newest(root: Path, say: Say) -> tuple[int, Path, dict[str, Any]] | None:
    """The highest step whose checkpoint verifies, its directory and its manifest; None when there is none.

    A damaged checkpoint is moved aside to `step-N.corrupt-<id>` and `say` is told what is wrong with it.
    Raises: CheckpointError as `verify`.
    """
    for step in saved_steps(root):
        path = step_path(root, step)
        try:
            return step, path, verify(path)
        except DamagedError as error:
            aside = root / f"{path.name}.corrupt-{uuid.uuid4().hex[:8]}"
            path.rename(aside)
            say(f"Checkpoint step-{step} is damaged ({error}). Moved to {aside.name}; looking at the one before.")
    return None


def newest_readable(root: Path) -> tuple[int, Path, dict[str, Any]]:
    """As `newest`, for a reader: nothing is moved. Raises CheckpointError when there is no valid checkpoint."""
    problems = []
    for step in saved_steps(root):
        try:
            return step, step_path(root, step), verify(step_path(root, step))
        except DamagedError as error:
            problems.append(str(error))
    why = "; ".join(problems) or "it has none"
    raise CheckpointError(f"{root.parent} has no valid checkpoint ({why}). Train it, or load another run.")


def sweep(root: Path, say: Say) -> None:
    """Clears what a kill in the middle of a save left: half-built checkpoints go, a half-replaced one comes back."""
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        name, _, rest = path.name.partition(".")
        if not _STEP.fullmatch(name):
            continue
        if rest.startswith("replaced-") and not (root / name).exists():
            path.rename(root / name)
            say(f"Checkpoint {name} was being replaced when the run was killed; the old one is back.")
        elif rest.startswith(("tmp-", "replaced-")):
            shutil.rmtree(path)
            say(f"Removed {path.name}, left by a save that was killed.")


def prune(root: Path, keep: int) -> None:
    """Deletes all but the `keep` newest checkpoints (at least one stays)."""
    for step in saved_steps(root)[max(keep, 1) :]:
        condemned = temporary_path(root, step)
        step_path(root, step).rename(condemned)
        shutil.rmtree(condemned)


def _read_manifest(directory: Path) -> dict[str, Any]:
    """MANIFEST.json, checked by the sha256 it carries. Raises DamagedError; CheckpointError for another format."""
    path = directory / MANIFEST
    if not path.is_file():
        raise DamagedError(f"{path} is missing: the save did not end")
    try:
        text = path.read_text(encoding="utf-8")
        manifest = json.loads(text)
    except ValueError as error:
        raise DamagedError(f"{path} is not JSON ({error})") from error
    if not isinstance(manifest, dict) or _text({k: v for k, v in manifest.items() if k != "self"}) != text:
        raise DamagedError(f"{path} is not what was saved: its own sha256 differs")
    if manifest["format"] != FORMAT:
        raise CheckpointError(f"{path} has format {manifest['format']}; this version reads {FORMAT}. Update onepolicy.")
    return manifest


def _text(manifest: Mapping[str, Any]) -> str:
    """A manifest as text with its own sha256 in the field "self"."""
    body = json.dumps(manifest, sort_keys=True, allow_nan=False)
    return json.dumps({**manifest, "self": hashlib.sha256(body.encode()).hexdigest()}, sort_keys=True, indent=1) + "\n"


def _regular_files(directory: Path) -> list[Path]:
    """All files below a directory, in order. Raises CheckpointError for links and special files."""
    found = []
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise CheckpointError(f"{path} is a link or special file; a checkpoint holds plain files only. Remove it.")
        if path.is_file():
            found.append(path)
    return found


def _refuse_pickle(path: Path) -> None:
    """Raises CheckpointError for a file that is, or by its name may be, a pickle.

    A file of safetensors begins with its header's length, 8 bytes, which may be those a pickle begins with; then "{".
    """
    with path.open("rb") as file:
        start = file.read(9)
    tensors = path.suffix == ".safetensors" and start[4:] == b"\0\0\0\0{"
    if path.suffix.lower() in PICKLE_SUFFIXES or (start.startswith(PICKLE_STARTS) and not tensors):
        raise CheckpointError(
            f"{path} is a pickle or an archive that may hold one; reading it could run any program. Checkpoints are "
            "safetensors and JSON only: remove the file, or convert it to safetensors."
        )


def _sha256(path: Path) -> str:
    """The sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
