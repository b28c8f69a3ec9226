"""What goes into a sandbox and what comes out: limits, tests, results. Plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from onepolicy.errors import ConfigError
from onepolicy.tasks.sandbox_harness import encode

Cause = Literal["ok", "time", "memory", "output", "crash", "compile", "killed"]


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    seconds: of wall clock for each test. total: seconds for all tests of one program; None is 4 tests' worth. memory:
    MB. processes: at once. disk: MB of /tmp. output: bytes of each of a test's streams. compile_seconds,
    compile_memory (MB): of a compiler.
    """

    seconds: float = 5.0
    total: float | None = None
    memory: int = 512
    processes: int = 64
    disk: int = 64
    output: int = 64 * 1024
    compile_seconds: float = 30.0
    compile_memory: int = 1536

    def __post_init__(self) -> None:
        numbers = (self.seconds, self.total or 1.0, self.compile_seconds)
        if not all(math.isfinite(number) and number > 0 for number in numbers):
            raise ConfigError(f"{self}: seconds, total and compile_seconds are finite and above 0.")
        if self.memory < 32 or self.disk < 1 or self.processes < 4 or self.output < 1 or self.compile_memory < 64:
            raise ConfigError(
                f"{self}: memory is at least 32 MB, compile_memory 64, disk 1, processes 4 and output 1 byte."
            )


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Stdin:
    """A test that gives a program text on its standard input."""

    text: str = ""

    def sent(self) -> dict[str, Any]:
        """As the harness reads it."""
        return {"kind": "stdin", "data": self.text}


@dataclass(frozen=True)
class Call:
    """A test that calls a function of a Python program with values."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def sent(self) -> dict[str, Any]:
        """As the harness reads it."""
        return {"kind": "call", "name": self.name, "args": encode(self.args), "kwargs": encode(dict(self.kwargs))}


@dataclass(frozen=True)
class Expression:
    """A test that evaluates an expression where a Python program was loaded, after the statements of `setup`."""

    code: str
    setup: str = ""

    def sent(self) -> dict[str, Any]:
        """As the harness reads it."""
        return {"kind": "expr", "code": self.code, "setup": self.setup}


Test = Stdin | Call | Expression


@dataclass(frozen=True)
class Result:
    """What a program did on one test.

    cause: "ok", or why it did not end well: out of `time`, out of `memory`, too much `output`, a `crash` (an exception,
    a signal, a status that is not 0), a failure to `compile`, `killed` from inside. It is a description, never a
    verdict. stdout, stderr: text, the latter's end. value: of a call that is ok. seconds: wall clock.
    """

    cause: Cause
    stdout: str = ""
    stderr: str = ""
    value: Any = None
    seconds: float = 0.0


class Unknown:
    """Stands for a value of a type that has no encoding; equal to nothing."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"<a value of type {self.kind}>"
