"""Canaries: small programs that try to break out before any program of a model is run.

Each says that it started, tries, and says whether it succeeded. One that succeeds, and one that cannot be shown to
have started, make the sandbox refuse. They run at once, and once a process for each way of sandboxing; those that ran
out of time, which on a busy machine says nothing, are tried a second time one by one.
"""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from onepolicy.errors import ConfigError
from onepolicy.tasks.sandbox_types import Limits, Result

SMALL = Limits(seconds=8.0, memory=64, processes=16, disk=4, output=4096)
"""Limits that a canary tries to pass."""

PATIENCE = 4.0
"""How many times longer a canary gets that ran out of time, alone this time: the machine may be busy."""

MARK = "ONEPOLICY_CANARY"

STARTED, TRIED, OUT = "canary: started", "canary: tried", "canary: out"

_BEFORE = f"""
import os, sys
def say(text): sys.stdout.write(text + "\\n"); sys.stdout.flush()
def check(broken): say({OUT!r} if broken else {TRIED!r})
say({STARTED!r})
"""

HOST_FILE = """
def read(path):
    try: return open(path).read()
    except OSError: return ""
check(any(SECRET in read(root + PATH) for root in ("", "/proc/1/root", "/proc/self/root", "/proc/self/cwd/..")))
"""

LOOPBACK = """
import socket
def connects(family, address):
    try:
        with socket.socket(family, socket.SOCK_STREAM) as made:
            made.settimeout(2); made.connect(address); return True
    except OSError: return False
check(connects(socket.AF_INET, ("127.0.0.1", PORT)) or connects(socket.AF_UNIX, chr(0) + NAME))
"""

ENVIRONMENT = """
import glob
def read(path):
    try: return open(path, "rb").read()
    except OSError: return b""
check(SECRET in os.environ.values() or any(SECRET.encode() in read(path) for path in glob.glob("/proc/[0-9]*/environ")))
"""

FORK = """
import time
made = 0
for _ in range(3 * LIMIT):
    try: child = os.fork()
    except OSError: break
    if child == 0:
        time.sleep(6); os._exit(0)
    made += 1
check(made >= 2 * LIMIT)
"""

MEMORY = """
try: block = bytearray(3 * LIMIT); check(len(block) > 2 * LIMIT)
except MemoryError: check(False)
"""

MEMORY_OF_ALL = """
import time
read, write = os.pipe()
for _ in range(10):
    if os.fork() == 0:
        try:
            block = bytearray(LIMIT // 2)
            os.write(write, b"x"); time.sleep(6)
        except MemoryError: pass
        os._exit(0)
time.sleep(1.5)
os.set_blocking(read, False)
try: held = len(os.read(read, 100))
except BlockingIOError: held = 0
alive = 0
for child in range(held):
    if os.waitpid(-1, os.WNOHANG) == (0, 0): alive += 1
check(held >= 10 and alive >= 10)
"""

DISK = """
def fill(folder):
    written = 0
    for number in range(4):
        try:
            with open(os.path.join(folder, "canary%d" % number), "wb") as file:
                for _ in range(LIMIT // 2 // 65536):
                    file.write(bytes(65536)); file.flush(); written += 65536
        except OSError: break
    return written
folders = ["/", "/tmp", "/dev", "/dev/shm", "/usr", "/etc", "/var/tmp", "/run", "/home", "/proc"]
check(any(fill(folder) > LIMIT + 65536 for folder in folders))
"""

NAMESPACE = """
import ctypes, subprocess
libc = ctypes.CDLL(None, use_errno=True)
made = libc.unshare(0x10000000) == 0
try: made |= subprocess.run(["/usr/bin/unshare", "-Ur", "/bin/true"], capture_output=True).returncode == 0
except OSError: pass
child = libc.syscall(NUMBER, 0x10000000 | 17, 0, 0, 0, 0)
if child == 0: os._exit(0)
check(made or child > 0 or os.geteuid() == 0)
"""

SLEEP = """
import time
time.sleep(SECONDS)
check(True)
"""


class Runner(Protocol):
    """What is tested: the part of a Sandbox that runs one program."""

    backend: Any

    def run(self, source: str, language: str = ..., stdin: str = ..., limits: Limits = ...) -> Result: ...


@dataclass(frozen=True)
class Canary:
    """One attempt to break out.

    program: what it runs. needs: what its output must show besides that it started. values: names for it. limits: what
    it runs under. here: whether it speaks of this machine's sandbox, not of another machine's.
    """

    name: str
    program: str
    values: dict[str, Any]
    limits: Limits = SMALL
    ends: bool = True
    here: bool = False

    def source(self) -> str:
        """The program with its values."""
        return _BEFORE + "\n".join(f"{name} = {value!r}" for name, value in self.values.items()) + self.program


_PASSED: set[tuple[int, str]] = set()
_LOCK = threading.Lock()


def self_test(sandbox: Runner) -> None:
    """Let the canaries try; quick where this process has done so before.

    Raises: ConfigError naming each canary that got out or did not start.
    """
    key = (os.getpid(), sandbox.backend.name)
    with _LOCK:
        if key in _PASSED:
            return
        failures = try_canaries(sandbox)
        if failures:
            raise ConfigError(f"the sandbox failed its self-test and is not used: {'; '.join(failures)}.")
        _PASSED.add(key)


def try_canaries(sandbox: Runner) -> list[str]:
    """What each canary did that it should not have, in words."""
    with _bait() as (canaries, touched):
        chosen = [canary for canary in canaries if sandbox.backend.alone or not canary.here]
        with ThreadPoolExecutor(len(chosen)) as pool:
            results = list(pool.map(lambda canary: _release(sandbox, canary), chosen))
        if not any(isinstance(result, Result) and OUT in result.stdout for result in results):
            for i, (canary, result) in enumerate(zip(chosen, results)):
                if isinstance(result, Result) and result.cause == "time" and _verdict(canary, result):
                    results[i] = _release(sandbox, canary, PATIENCE)
        failures = [why for why in map(_verdict, chosen, results) if why]
        return failures + (["loopback: a connection arrived"] if touched() else [])


def _release(sandbox: Runner, canary: Canary, patience: float = 1.0) -> Result | Exception:
    try:
        return sandbox.run(canary.source(), limits=replace(canary.limits, seconds=patience * canary.limits.seconds))
    except Exception as error:  # noqa: BLE001 - whatever it is, this sandbox is not to be used
        return error


def _verdict(canary: Canary, result: Result | Exception) -> str:
    """Why a canary's run is not good enough; "" when it is."""
    if isinstance(result, Exception):
        return f"{canary.name}: {result}"
    if OUT in result.stdout:
        return f"{canary.name}: got out"
    if STARTED not in result.stdout:
        return f"{canary.name}: did not start ({result.cause}: {result.stderr.strip()[-200:]})"
    ended = result.cause in ("memory", "killed") if canary.ends else result.cause == "time"
    if not ended and TRIED not in result.stdout:
        return f"{canary.name}: started, but came to no end ({result.cause}: {result.stderr.strip()[-200:]})"
    return ""


@contextmanager
def _bait() -> Iterator[tuple[Sequence[Canary], Callable[[], bool]]]:
    """What the canaries try to reach: a file, a port, a named socket and a variable of this process."""
    secret = secrets.token_hex(16)
    previous = os.environ.get(MARK)
    with tempfile.TemporaryDirectory() as folder, socket.socket() as port, socket.socket(socket.AF_UNIX) as named:
        os.chmod(folder, 0o755)
        bait = Path(folder, "bait")
        bait.write_text(secret)
        bait.chmod(0o644)
        port.bind(("127.0.0.1", 0))
        named.bind(f"\0onepolicy-{secret[:8]}")
        for listening in (port, named):
            listening.listen()
            listening.setblocking(False)
        os.environ[MARK] = secret
        try:
            number = port.getsockname()[1]
            yield (
                _canaries(secret, str(bait), number, f"onepolicy-{secret[:8]}"),
                lambda: any(map(_touched, (port, named))),
            )
        finally:
            os.environ.pop(MARK)
            if previous is not None:
                os.environ[MARK] = previous


def _canaries(secret: str, path: str, port: int, name: str) -> list[Canary]:
    short = Limits(seconds=0.5, memory=64, processes=16, disk=4, output=4096)
    clone = 220 if os.uname().machine == "aarch64" else 56
    memory, disk = SMALL.memory * 2**20, SMALL.disk * 2**20
    return [
        Canary("host file", HOST_FILE, {"SECRET": secret, "PATH": path}),
        Canary("loopback", LOOPBACK, {"PORT": port, "NAME": name}),
        Canary("environment", ENVIRONMENT, {"SECRET": secret}),
        Canary("fork", FORK, {"LIMIT": SMALL.processes}, here=True),
        Canary("memory", MEMORY, {"LIMIT": memory}),
        Canary("memory of all", MEMORY_OF_ALL, {"LIMIT": memory}, here=True),
        Canary("disk", DISK, {"LIMIT": disk}, here=True),
        Canary("user namespace", NAMESPACE, {"NUMBER": clone}, here=True),
        Canary("sleep", SLEEP, {"SECONDS": 5}, limits=short, ends=False),
    ]


def _touched(listening: socket.socket) -> bool:
    try:
        listening.accept()[0].close()
    except BlockingIOError:
        return False
    return True
