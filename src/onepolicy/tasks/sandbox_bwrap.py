"""Bubblewrap: each run in namespaces, a user, a control group and limits of its own, and gone before the next.

The layers, outermost first: a control group for each slot (where one can be made); a user id for each slot (as root);
user, mount, process, network, IPC, host name and cgroup namespaces with no capability left and no way to make
further user namespaces; a root of read-only system folders, an own /proc, a minimal /dev, a bounded /tmp and nothing
else that can be written; a filter of system calls; no_new_privs; the limits of single processes, set inside
(`tasks.sandbox_harness`); a wall clock; a bound on output; and a wait until the last process of it is gone.
"""

from __future__ import annotations

import json
import os
import queue
import select
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from onepolicy.errors import ConfigError, RewardError
from onepolicy.tasks.sandbox_cgroup import Group, make_group
from onepolicy.tasks.sandbox_process import Transcript, converse
from onepolicy.tasks.sandbox_seccomp import program

TEARDOWN = 20.0
"""Seconds within which a killed sandbox must be gone; a slot whose sandbox is not is never used again."""

SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SETTINGS = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d")
"""What of /etc is shown: how to find libraries and tools, nothing of users, keys or hosts."""

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}

FIX = (
    "Install it: apt install bubblewrap. Where user namespaces are switched off: sysctl "
    "kernel.unprivileged_userns_clone=1; on Ubuntu 24.04 and later an AppArmor profile for bwrap (apt install "
    "apparmor-profiles, or sysctl kernel.apparmor_restrict_unprivileged_userns=0); in Docker start the container with "
    "--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined."
)
"""What to do when bubblewrap is missing or cannot make its namespaces."""


@dataclass(frozen=True)
class Bounds:
    """Limits of one run, all tests together: wall seconds, bytes of memory, processes, bytes of /tmp and of output.

    each: wall seconds from one report to the next at most, which a program that stops the harness cannot stretch.
    """

    seconds: float
    each: float
    memory: int
    processes: int
    disk: int
    output: int


@dataclass
class Slot:
    """A place to run one program at a time: its number, its user id (None: this user's) and its control group."""

    number: int
    uid: int | None
    group: Group | None


class Bubblewrap:
    """Runs commands under bubblewrap, as many at once as there are slots. Safe from many threads."""

    local = True
    alone = True

    def __init__(self, slots: int, mounts: Sequence[str] = (), executable: str = "") -> None:
        """slots: programs at once. mounts: further folders, shown read-only. executable: bwrap's path.

        Raises: ConfigError where bwrap or, as root, setpriv is missing.
        """
        found = shutil.which(executable or "bwrap")
        if found is None:
            raise ConfigError(f"bubblewrap ({executable or 'bwrap'}) is not installed. {FIX}")
        if slot_uid(0) is not None and shutil.which("setpriv") is None:
            raise ConfigError("setpriv, by which root leaves its rights behind, is missing. apt install util-linux.")
        self.executable, self.mounts = found, tuple(mounts)
        self.name = " ".join(("bubblewrap", found, *mounts))
        self.filter = program()
        self._lock = threading.Lock()
        self._made = 0
        self._free: queue.LifoQueue[Slot] = queue.LifoQueue()
        for _ in range(slots):
            self._free.put(self._new_slot())
        self.has_groups = all(slot.group is not None for slot in self._free.queue)

    def _new_slot(self) -> Slot:
        with self._lock:
            number, self._made = self._made, self._made + 1
        return Slot(number, slot_uid(number), make_group(number))

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that hold on this machine, in words."""
        found = ["namespaces", "no capabilities", "read-only system", "process limits"]
        found += ["a user of its own"] if slot_uid(0) is not None else []
        found += ["control group"] if self.has_groups else ["watched memory"]
        return (*found, *(["system call filter"] if self.filter else []))

    def talk(
        self, argv: Sequence[str], head: bytes, tests: Sequence[bytes], nonce: bytes, bounds: Bounds
    ) -> Transcript:
        """The conversation with `argv` in a sandbox of its own, which is gone when this returns.

        Raises: RewardError when the sandbox itself could not be set up or would not go.
        """
        with self._slot() as slot:
            kills = _prepared(slot, bounds)
            status_read, status_write = os.pipe()
            given = self._filter_fd()
            passed = [status_write] + ([given] if given is not None else [])
            command = self._command(slot, argv, bounds, status_write, given)
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=passed,
                    start_new_session=True,
                    cwd="/",
                    env=dict(ENVIRONMENT),
                )
            except OSError as error:
                os.close(status_read)
                raise RewardError(f"the sandbox could not be started: {error}") from error
            finally:
                for fd in passed:
                    os.close(fd)
            status = _Status(status_read, process.pid)
            status.read(bounds.seconds)
            watch = None if slot.group else _MemoryWatch(status, bounds.memory)
            try:
                done = converse(
                    process,
                    head,
                    tests,
                    nonce,
                    seconds=bounds.seconds,
                    each=bounds.each,
                    output=bounds.output,
                    watch=watch.look if watch else None,
                )
            finally:
                self._end(process, status)
            if status.init is None:
                words = done.errors.strip()[-300:] or f"{Path(self.executable).name} said nothing"
                raise RewardError(f"the sandbox was not set up: {words}")
            starved = slot.group.kills() > kills if slot.group else bool(watch and watch.kills)
            return replace(done, starved=starved)

    @contextmanager
    def _slot(self) -> Iterator[Slot]:
        slot = self._free.get()
        usable = True
        try:
            yield slot
        except _StillThere:
            usable = False
            raise
        finally:
            self._free.put(slot if usable else self._new_slot())

    def _filter_fd(self) -> int | None:
        if self.filter is None:
            return None
        fd = os.memfd_create("filter")
        os.write(fd, self.filter)
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def _command(self, slot: Slot, argv: Sequence[str], bounds: Bounds, status: int, given: int | None) -> list[str]:
        """Everything from entering the control group to the program."""
        enter: list[str] = []
        if slot.group:
            script = 'for entry in $1; do echo $$ > "$entry" || exit 125; done; shift; exec "$@"'
            enter += ["/bin/sh", "-c", script, "sh", " ".join(slot.group.entries)]
        if slot.uid is not None:
            uid = str(slot.uid)
            enter += [_setpriv(), f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all", "--"]
        wrap = [self.executable, "--unshare-user", "--unshare-all", "--disable-userns", "--cap-drop", "ALL"]
        wrap += [
            "--new-session",
            "--die-with-parent",
            "--clearenv",
            "--hostname",
            "sandbox",
            "--uid",
            "1000",
            "--gid",
            "1000",
        ]
        for name, value in ENVIRONMENT.items():
            wrap += ["--setenv", name, value]
        wrap += [*_system_mounts(), "--proc", "/proc", "--dev", "/dev"]
        for folder in self.mounts:
            wrap += ["--ro-bind", folder, folder]
        wrap += ["--size", str(bounds.disk), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
        wrap += ["--size", str(bounds.disk), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp"]
        wrap += ["--json-status-fd", str(status)]
        wrap += ["--seccomp", str(given)] if given is not None else []
        return [*enter, *wrap, "--", *argv]

    def _end(self, process: subprocess.Popen[bytes], status: _Status) -> None:
        """Kill all of it and wait until it is gone. Raises: _StillThere when it will not go."""
        gone = status.kill_and_wait()
        with suppress(subprocess.TimeoutExpired):  # bwrap collects its init and goes; killed first, it would not
            process.wait(2.0 if status.init is not None and gone else 0.0)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        try:
            process.wait(TEARDOWN)
        except subprocess.TimeoutExpired:
            gone = False
        status.close()
        if not gone:
            raise _StillThere(f"a sandbox was not gone {TEARDOWN:.0f} s after it was killed; its slot is given up.")


def _prepared(slot: Slot, bounds: Bounds) -> int:
    """Sets the limits of a slot's control group, made anew if somebody took it away; processes it has ended so far."""
    if slot.group is None:
        return 0
    try:
        slot.group.set_limits(bounds.memory, bounds.processes + 8)
        return slot.group.kills()
    except OSError:
        slot.group = make_group(slot.number)
        if slot.group is None:
            return 0
        slot.group.set_limits(bounds.memory, bounds.processes + 8)
        return slot.group.kills()


class _StillThere(RewardError):
    """A killed sandbox that is still there."""


class _Status:
    """What bwrap says of itself: its init's number, held by a descriptor so that it cannot become another's."""

    def __init__(self, fd: int, outer: int) -> None:
        self.fd, self.outer = fd, outer
        self.init: int | None = None
        self.handle: int | None = None

    def read(self, seconds: float) -> None:
        """Take in the number of the init, waiting at most so long for it."""
        said = b""
        while b"\n" not in said:
            ready, _, _ = select.select([self.fd], [], [], seconds)
            part = os.read(self.fd, 4096) if ready else b""
            if not part:
                return
            said += part
        try:
            init = int(json.loads(said.partition(b"\n")[0])["child-pid"])
            self.handle = os.pidfd_open(init)
            parent = int(Path(f"/proc/{init}/stat").read_text().rpartition(")")[2].split()[1])
        except (ValueError, KeyError, TypeError, OSError):
            return
        if parent == self.outer:
            self.init = init

    def kill_and_wait(self) -> bool:
        """Kill the init and wait for its end, which comes only after that of every process of its namespace."""
        if self.handle is None or self.init is None:
            return True
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)
        return bool(select.select([self.handle], [], [], TEARDOWN)[0])

    def close(self) -> None:
        os.close(self.fd)
        if self.handle is not None:
            os.close(self.handle)


class _MemoryWatch:
    """A bound on the memory of all processes of a sandbox, for machines that let no control group be made.

    As the kernel does in a control group, it ends the largest until the others fit. Memory that processes share since a
    fork counts for each, so the bound is rather too strict than too loose.
    """

    def __init__(self, status: _Status, limit: int) -> None:
        self.status, self.limit = status, limit
        self.kills = 0

    def look(self) -> None:
        """Add up what they hold now and end the largest where it is too much."""
        held = sorted(self._held(), reverse=True)
        total = sum(size for size, _ in held)
        for size, pid in held:
            if total <= self.limit:
                return
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self.kills += 1
            total -= size

    def _held(self) -> Iterator[tuple[int, int]]:
        """(bytes, process) of each process below the init."""
        waiting = [self.status.init] if self.status.init is not None else []
        while waiting:
            pid = waiting.pop()
            try:
                for children in Path(f"/proc/{pid}/task").glob("*/children"):
                    waiting += [int(child) for child in children.read_text().split()]
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            except OSError:
                continue
            sizes = [int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:"))]
            if pid != self.status.init:
                yield sum(sizes) * 1024, pid


@cache
def _setpriv() -> str:
    return shutil.which("setpriv") or "setpriv"


@cache
def _system_mounts() -> tuple[str, ...]:
    """The system's folders, read-only; on merged systems /bin and its like are the links they are there."""
    found = ["--ro-bind", "/usr", "/usr"]
    for folder in SYSTEM:
        if os.path.islink(folder):
            found += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            found += ["--ro-bind", folder, folder]
    for name in (*SETTINGS, *map(str, sorted(Path("/etc").glob("java-*-openjdk")))):
        found += ["--ro-bind-try", name, name]
    return tuple(found)


def slot_uid(number: int, uid_map: Path = Path("/proc/self/uid_map")) -> int | None:
    """A user id that no user and no other slot of any process has: above all that are given out, by process and slot.

    In a user namespace that maps fewer ids, one near the end of what it maps; None for an ordinary user, and for a root
    that is one outside (`unshare -r`), who cannot become anybody else.
    """
    inside, _, count = map(int, uid_map.read_text().split()[:3])
    if os.geteuid() != 0 or count < 1024:
        return None
    wanted = 1_000_000_000 + os.getpid() * 256 + number % 256
    last = inside + count - 1
    return wanted if wanted <= last else last - (os.getpid() * 16 + number) % (count // 2)
