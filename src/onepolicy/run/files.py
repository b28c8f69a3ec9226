"""Files that survive a crash or a full disk: atomic replacement, fsync, and how to tell a full disk from a bug."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from onepolicy.errors import CheckpointError


def fsync(path: Path) -> None:
    """Asks the system to put a file's or directory's content on the disk before returning."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_bytes(path: Path, content: bytes) -> None:
    """Writes a file so that a reader sees the old content or the new, never a part, even after a crash."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync(path.parent)


def replace_text(path: Path, text: str) -> None:
    """`replace_bytes` for text, as UTF-8."""
    replace_bytes(path, text.encode())


def replace_object(path: Path, value: Mapping[str, Any]) -> None:
    """`replace_bytes` for a JSON object, keys in the order given."""
    replace_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises CheckpointError when it is unreadable, half-written or no object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path} does not read as JSON ({error}); it is missing, damaged or half-written."
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}; expected a JSON object.")
    return value


def tree_bytes(directory: Path) -> int:
    """The bytes of all files below a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def out_of_space(error: BaseException | None) -> bool:
    """Whether an error, or one it came from, is a full disk or an exhausted quota."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(error, SafetensorError) and f"os error {errno.ENOSPC}" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
