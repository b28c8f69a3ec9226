"""A control group for each slot of a sandbox: one bound on the memory and the processes of all that runs in it.

Version 1 (memory, pids) and version 2. A group is made below the one this process is in, or in version 2 below the
nearest ancestor that hands both controllers on; where none can be made, the limits of single processes and a watch
over the sum of their memory remain (`tasks.sandbox_bwrap`).
"""

from __future__ import annotations

import atexit
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

NAME = "onepolicy-sandbox"


@dataclass(frozen=True)
class Group:
    """One slot's control group.

    memory, pids: its directories, equal in version 2. unified: whether it is version 2.
    """

    memory: Path
    pids: Path
    unified: bool

    @property
    def entries(self) -> tuple[str, ...]:
        """The files to which a process writes its number to enter."""
        return tuple(str(folder / "cgroup.procs") for folder in dict.fromkeys((self.memory, self.pids)))

    def set_limits(self, memory: int, processes: int) -> None:
        """Bounds for the next run, bytes and processes."""
        if self.unified:
            _write(self.memory / "memory.max", memory)
            with suppress(OSError):
                _write(self.memory / "memory.swap.max", 0)
            with suppress(OSError):
                _write(self.memory / "memory.oom.group", 0)
        else:
            limits = [self.memory / "memory.limit_in_bytes", self.memory / "memory.memsw.limit_in_bytes"]
            for file in (*limits, *limits):  # neither may pass the other, whichever way they move
                with suppress(OSError):
                    _write(file, memory)
            if int(limits[0].read_text()) > memory:
                raise OSError(f"{limits[0]} keeps {limits[0].read_text().strip()} bytes")
        _write(self.pids / "pids.max", processes)

    def kills(self) -> int:
        """Processes that the kernel has ended here for want of memory, ever."""
        file = self.memory / ("memory.events" if self.unified else "memory.oom_control")
        found = re.search(r"^oom_kill (\d+)", file.read_text(), re.MULTILINE)
        return int(found[1]) if found else 0

    def members(self) -> list[int]:
        """The processes in it now."""
        return [int(line) for line in (self.pids / "cgroup.procs").read_text().split()]

    def remove(self) -> None:
        """Take the empty directories away."""
        for folder in dict.fromkeys((self.memory, self.pids)):
            with suppress(OSError):
                folder.rmdir()


def make_group(slot: int, root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Group | None:
    """A control group for a slot of this process, removed at exit; None where none can be made.

    root: where the hierarchies are mounted. own: which groups this process is in.
    """
    found = _parents(root, own)
    if found is None:
        return None
    memory, pids, unified = found
    for parent in dict.fromkeys((memory, pids)):
        _remove_stale(parent)
    name = f"{NAME}-{os.getpid()}-{slot}"
    group = Group(memory / name, pids / name, unified)
    try:
        for folder in dict.fromkeys((group.memory, group.pids)):
            folder.mkdir(exist_ok=True)
        group.set_limits(1 << 30, 64)
        for entry in group.entries:
            if not os.access(entry, os.W_OK):
                raise PermissionError(entry)
    except OSError:
        group.remove()
        return None
    atexit.register(_remove_own, group, os.getpid())
    return group


def _parents(root: Path, own: Path) -> tuple[Path, Path, bool] | None:
    """The directories below which a memory and a pids group can be made, and whether they are version 2's."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return None
    where = {name: path for _, names, path in lines for name in names.split(",")}
    if "memory" in where and "pids" in where:
        memory, pids = (root / name / where[name].lstrip("/") for name in ("memory", "pids"))
        return (memory, pids, False) if memory.is_dir() and pids.is_dir() else None
    folder = root / where.get("", "/").lstrip("/")
    while folder == root or root in folder.parents:
        control = folder / "cgroup.subtree_control"
        handed = control.read_text().split() if control.is_file() else []
        if {"memory", "pids"} <= set(handed) and os.access(folder, os.W_OK):
            return folder, folder, True
        folder = folder.parent
    return None


def _remove_stale(parent: Path) -> None:
    """Take away what processes that are gone have left."""
    for folder in parent.glob(f"{NAME}-*"):
        owner = folder.name.removeprefix(NAME + "-").split("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            with suppress(OSError):
                folder.rmdir()


def _remove_own(group: Group, owner: int) -> None:
    if os.getpid() == owner:
        group.remove()


def _write(file: Path, value: int) -> None:
    file.write_text(str(value))
