"""The process behind a run: what it runs on, whether it lives, and the signals that ask it to stop.

`status.json` in the run directory says who runs it and how it ended, so that a run that died without a word can be
told from one that is alive or finished.
"""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, ClassVar, Literal, final

from onepolicy.run.files import read_object, replace_object

STATUS = "status.json"
PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "safetensors")

State = Literal["running", "finished", "interrupted", "failed"]


@dataclass(frozen=True)
class Status:
    """Who runs a run and how it ended.

    state: as last written. pid, birth, host: of the process that wrote it; birth tells a reused pid. error: the
    exception's words when it failed. since: seconds since the epoch when it was written.
    """

    state: State
    pid: int
    birth: str
    host: str
    since: float
    error: str = ""


def write_status(directory: Path, state: State, error: str = "") -> None:
    """Writes status.json for this process."""
    status = Status(state, os.getpid(), _birth(os.getpid()), socket.gethostname(), time.time(), error)
    replace_object(directory / STATUS, asdict(status))


def read_status(directory: Path) -> Status | None:
    """The run's status; None before the first was written. Raises CheckpointError when it is damaged."""
    path = directory / STATUS
    return Status(**read_object(path)) if path.exists() else None


def alive(status: Status) -> bool | None:
    """Whether the process that wrote a status lives; None when it is on another machine and cannot be known."""
    if status.host != socket.gethostname():
        return None
    try:
        os.kill(status.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _birth(status.pid) == status.birth


@cache
def versions() -> Mapping[str, str | None]:
    """The versions of Python, onepolicy and the packages that numbers depend on; None for an absent package."""
    found: dict[str, str | None] = {
        "python": platform.python_version(),
        "onepolicy": sys.modules["onepolicy"].__version__,
    }
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return MappingProxyType(found)


@cache
def git_revision() -> str | None:
    """The git commit of the running source, `-dirty` when it is changed; None when it is no checkout."""
    source = Path(__file__).resolve().parents[1]
    root = _git(source, "rev-parse", "--show-toplevel")
    if root is None or not (Path(root) / "src" / "onepolicy").is_dir():
        return None
    if not (Path(root) / "src" / "onepolicy").samefile(source):
        return None
    return _git(source, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


@final
class Signals:
    """SIGTERM and SIGINT turned into a request to stop after the step at hand, while entered.

    asked: called once with the signal's name, from the main thread, at the first signal. A second SIGINT raises
    KeyboardInterrupt. Outside the main thread nothing is installed. Entered inside another, both are told.
    """

    _entered: ClassVar[list[Signals]] = []

    def __init__(self, asked: Callable[[str], None]) -> None:
        self._asked = asked
        self._previous: dict[int, Any] = {}
        self._count = 0

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
            Signals._entered.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._previous:
            Signals._entered.remove(self)
            self._previous.clear()

    @staticmethod
    def _handle(number: int, frame: FrameType | None) -> None:
        again = any(entered._count for entered in Signals._entered)
        for entered in Signals._entered:
            entered._count += 1
            if entered._count == 1:
                entered._asked(signal.Signals(number).name)
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt


def _birth(pid: int) -> str:
    """When a process started, in the kernel's ticks; "" where the system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _git(directory: Path, *command: str) -> str | None:
    """A git command's one line of output; None when git is absent or refuses."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        out = subprocess.run(
            ["git", "-C", str(directory), *command], env=clean, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return out.stdout.strip() or None
