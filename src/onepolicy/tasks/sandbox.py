"""A sandbox for programs that a model wrote: the sandbox computes, the trainer judges.

`Sandbox.open()` gives the first that works of: bubblewrap on this machine; a container image or a SandboxFusion
server, where one was named. Where none works it refuses and says what is missing and how to get it; there is no way to
run a program without. Before the first program of a process, canaries try to break out (`tasks.sandbox_selftest`);
one that succeeds, or cannot be shown to have started, is a refusal.

What goes in are programs and inputs, what comes out is text and values. No expected answer, checker or score is ever
inside, and nothing here says whether a program is right: that is `tasks.code`. docs/sandbox.md has the threat model.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast, get_args

from onepolicy.errors import ConfigError, OnePolicyError
from onepolicy.tasks import sandbox_languages as languages
from onepolicy.tasks.sandbox_bwrap import FIX, Bounds, Bubblewrap
from onepolicy.tasks.sandbox_harness import decode
from onepolicy.tasks.sandbox_process import Transcript, frame
from onepolicy.tasks.sandbox_remote import Container, SandboxFusion
from onepolicy.tasks.sandbox_selftest import self_test
from onepolicy.tasks.sandbox_types import DEFAULT_LIMITS, Call, Cause, Expression, Limits, Result, Stdin, Test, Unknown

__all__ = ["Call", "Cause", "Expression", "Limits", "Result", "Sandbox", "Stdin", "Test", "Unknown", "default_sandbox"]

MB = languages.MB
PYTHON = ("/usr/bin/python3", "-I", "-S", "-B", "-c")
"""The interpreter that runs the harness inside, the system's: one in a home directory is not there."""
SPARE = 64 * MB
"""Memory for the harness and the kernel's bookkeeping beside a program's own."""
STARTING = 10.0
"""Seconds for a sandbox to come up and go, besides what its tests may take."""


class Backend(Protocol):
    """What runs the harness somewhere safe and talks to it.

    name: what it is, different for different settings. local: whether it sees this machine's tools. alone: whether
    each run has a process namespace of its own.
    """

    name: str
    local: bool
    alone: bool

    @property
    def layers(self) -> tuple[str, ...]: ...

    def talk(
        self, argv: Sequence[str], head: bytes, tests: Sequence[bytes], nonce: bytes, bounds: Bounds
    ) -> Transcript: ...


class Sandbox:
    """Runs programs in a backend whose self-test has passed. Safe from many threads; made by `open`."""

    def __init__(self, backend: Backend, *, mounts: Sequence[str] = ()) -> None:
        self.backend = backend
        self.folders = ("/usr", *mounts) if backend.local else ()
        self.runs = 0
        self._lock = threading.Lock()

    @staticmethod
    def open(
        *, slots: int | None = None, mounts: Sequence[str] = (), container: str = "", url: str = "", bwrap: str = ""
    ) -> Sandbox:
        """The first backend that is there and passes its self-test.

        slots: programs at once; None for two for each core. mounts: folders with further tools, shown read-only.
        container: an image with Python, run by podman or docker; $ONEPOLICY_SANDBOX_IMAGE if empty. url: a
        SandboxFusion server; $ONEPOLICY_SANDBOX_URL if empty. bwrap: its path, if not on PATH.

        Raises: ConfigError naming all that was tried, what is missing, and the fix.
        """
        many = slots if slots is not None else 2 * (os.cpu_count() or 1)
        if not 1 <= many <= 256:
            raise ConfigError(f"{many} slots; a sandbox has 1 to 256.")
        image = container or os.environ.get("ONEPOLICY_SANDBOX_IMAGE", "")
        server = url or os.environ.get("ONEPOLICY_SANDBOX_URL", "")
        ways: list[tuple[str, Any]] = [("bubblewrap", lambda: Bubblewrap(many, mounts, bwrap))]
        ways += [(f"container {image}", lambda: Container(image, many))] if image else []
        ways += [(f"SandboxFusion at {server}", lambda: SandboxFusion(server))] if server else []
        tried = []
        for what, make in ways:
            try:
                sandbox = Sandbox(make(), mounts=mounts)
                self_test(sandbox)
            except OnePolicyError as error:
                tried.append(f"{what}: {error}")
                continue
            return sandbox
        raise ConfigError(
            "No sandbox for programs that a model wrote, so none is run. "
            + " ".join(tried)
            + (f" {FIX}" if FIX not in " ".join(tried) else "")
            + " Or name a container image (ONEPOLICY_SANDBOX_IMAGE) or a SandboxFusion server (ONEPOLICY_SANDBOX_URL)."
        )

    def run(self, source: str, language: str = "python", stdin: str = "", limits: Limits = DEFAULT_LIMITS) -> Result:
        """What a program does with a text on its standard input. Raises: as `run_tests`."""
        return self.run_tests(source, [Stdin(stdin)], language, limits)[0]

    def _folder(self) -> str:
        """Where a program is written inside; elsewhere /tmp may be shared with others."""
        return languages.FOLDER if self.backend.alone else f"{languages.FOLDER}-{secrets.token_hex(8)}"

    def run_tests(
        self,
        source: str,
        tests: Sequence[Test],
        language: str = "python",
        limits: Limits = DEFAULT_LIMITS,
    ) -> list[Result]:
        """What a program does on each test, in order, each in processes of its own, all in one sandbox.

        A test's input is sent when the test before is over. Tests not reached when all time is used are out of time;
        those after one that ended the sandbox have that one's cause.

        Raises: ConfigError for a language that is unknown or not installed, or a call of what is not Python;
        RewardError when the sandbox itself failed.
        """
        name = languages.language_of(language)
        if not tests:
            return []
        if name != "python" and not all(isinstance(test, Stdin) for test in tests):
            raise ConfigError(f"functions of {language} programs cannot be called; only Python's can. Use stdin tests.")
        spec = languages.LANGUAGES[name]
        compiler, command = languages.commands(name, limits.memory, self.folders)
        memory = (limits.memory + spec.own_memory) * MB
        nonce = secrets.token_hex(16)
        on_disk = any(isinstance(test, Stdin) for test in tests)
        head = {
            "nonce": nonce,
            "alone": self.backend.alone,
            "source": source.encode("utf-8", "replace").decode(),
            "file": spec.file if on_disk else "",
            "folder": self._folder() if on_disk else "/tmp",
            "compile": compiler,
            "argv": command,
            "seconds": limits.seconds,
            "compile_seconds": limits.compile_seconds,
            "memory": memory,
            "compile_memory": limits.compile_memory * MB,
            "address_space": spec.address_space,
            "stack": spec.stack,
            "processes": limits.processes,
            "disk": limits.disk * MB,
            "output": limits.output,
        }
        total = limits.total or 4 * limits.seconds
        total = min(total, len(tests) * limits.seconds)
        largest = max(memory, limits.compile_memory * MB) if compiler else memory
        bounds = Bounds(
            seconds=STARTING + total + (limits.compile_seconds if compiler else 0.0),
            each=STARTING + limits.seconds + (limits.compile_seconds if compiler else 0.0),
            memory=largest + limits.disk * MB + SPARE,
            processes=limits.processes,
            disk=limits.disk * MB,
            output=len(tests) * (16 * limits.output + 16_384),
        )
        head["total"] = total
        sent = [frame(test.sent()) for test in tests]
        said = self.backend.talk(
            (*PYTHON, compiled() if self.backend.local else harness()), frame(head), sent, nonce.encode(), bounds
        )
        with self._lock:
            self.runs += 1
        return _results(said, len(tests), limits.output)


def _results(said: Transcript, tests: int, limit: int) -> list[Result]:
    """A result for each test; where the conversation ended early, by what ended it."""
    found = [_result(report, said.starved, limit) for report in said.reports[:tests]]
    ended: Cause = said.ended if said.ended != "ok" else "memory" if said.starved else "killed"
    missing = Result(ended, "", said.errors[-2000:])
    return found + [missing] * (tests - len(found))


def _result(report: Mapping[str, Any], starved: bool, limit: int) -> Result:
    """A report as a Result; one not in the harness's form is a crash, for only the program can have written it.

    limit: characters of an answer at most, so that none can be long to read.
    """
    cause, text, errors, seconds = (report.get(key) for key in ("cause", "out", "err", "seconds"))
    if cause == "missing":
        raise ConfigError(
            f"{errors} is not installed where programs are run. Install it there, or use another language."
        )
    if cause not in get_args(Cause) or not isinstance(text, str) or not isinstance(errors, str):
        return Result("crash", "", "a report that is not in the harness's form")
    value: Any = None
    if "answer" in report and cause == "ok":
        try:
            cause, value = _answer(report["answer"], limit)
        except (ValueError, TypeError, RecursionError, OverflowError, MemoryError):
            return Result("crash", text, errors or "it ended before it answered")
        if cause != "ok":
            errors, value = str(value)[:2000], None
    if cause == "killed" and starved:
        cause = "memory"
    return Result(cast(Cause, cause), text, errors, value, float(seconds) if isinstance(seconds, int | float) else 0.0)


def _answer(said: Any, limit: int) -> tuple[Cause, Any]:
    """Cause and value of a call. Raises: ValueError and its like for anything that the harness never writes."""
    if not isinstance(said, str) or len(said) > limit:
        raise ValueError("no answer, or too long a one")
    cause, value = json.loads(said)
    if cause not in ("ok", "crash", "compile", "memory"):
        raise ValueError("no such cause")
    return cause, decode_value(value) if cause == "ok" else value


def decode_value(sent: Any) -> Any:
    """The value that was sent; `Unknown` for one of a type that has no encoding, at whatever depth."""
    if isinstance(sent, list) and len(sent) == 2 and sent[0] == "?":
        return Unknown(str(sent[1])[:60])
    if isinstance(sent, list) and len(sent) == 2 and sent[0] in ("l", "t") and isinstance(sent[1], list):
        items = [decode_value(item) for item in sent[1]]
        return items if sent[0] == "l" else tuple(items)
    return decode(sent)


@cache
def harness() -> str:
    """The text of the program that runs inside."""
    return Path(__file__).with_name("sandbox_harness.py").read_text(encoding="utf-8")


@cache
def compiled() -> str:
    """`harness`, compiled once by the Python that runs it inside. Raises: ConfigError where that is not installed."""
    make = "import marshal, sys; print(marshal.dumps(compile(sys.stdin.read(), 'harness', 'exec')).hex())"
    try:
        made = subprocess.run([*PYTHON, make], input=harness(), capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(
            f"{PYTHON[0]}, which programs are run by, does not work ({error}). apt install python3."
        ) from error
    return f"import marshal; exec(marshal.loads(bytes.fromhex('{made.stdout.strip()}')))"


_DEFAULT: dict[int, Sandbox] = {}
_DEFAULT_LOCK = threading.Lock()


def default_sandbox() -> Sandbox:
    """This process's sandbox, opened and tested on first use. Raises: ConfigError as `Sandbox.open`."""
    with _DEFAULT_LOCK:
        if os.getpid() not in _DEFAULT:
            _DEFAULT.clear()
            _DEFAULT[os.getpid()] = Sandbox.open()
        return _DEFAULT[os.getpid()]
