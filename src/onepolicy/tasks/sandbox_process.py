"""One sandboxed process and the talk with it: frames in, one at a time, report lines out, all of it bounded."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Literal

Ended = Literal["ok", "time", "output"]

POLL = 0.05
"""Seconds between two looks at the memory of a sandbox that no cgroup bounds."""


@dataclass(frozen=True)
class Transcript:
    """What a conversation gave.

    reports: the JSON of each report line, in order; fewer than tests where it ended early. ended: "ok", or the
    limit that ended it. errors: the end of its standard error. seconds: from start to its end. starved: whether
    processes in it were ended for the memory they held together.
    """

    reports: tuple[dict[str, Any], ...]
    ended: Ended
    errors: str
    seconds: float
    starved: bool = False


def frame(value: Any) -> bytes:
    """A JSON value as the harness reads it: its length in eight hexadecimal digits, then the value."""
    body = json.dumps(value).encode()
    return b"%08x" % len(body) + body


def parse_report(line: bytes, nonce: bytes) -> dict[str, Any] | None:
    """The report of a line that starts with the run's nonce; None for anything else."""
    if not line.startswith(nonce):
        return None
    try:
        said = json.loads(line[len(nonce) :])
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def converse(
    process: subprocess.Popen[bytes],
    head: bytes,
    tests: Sequence[bytes],
    nonce: bytes,
    *,
    seconds: float,
    each: float,
    output: int,
    watch: Callable[[], None] | None = None,
) -> Transcript:
    """Send the head and the first test, each further test after the report of the last; read until the end or a limit.

    seconds: for all of it. each: from one report to the next. output: bytes of all reports and of standard error, each,
    at most. watch: called every POLL seconds. The process is left for the caller to end.
    """
    talk = _Talk(process, head, tests, nonce, output)
    started = time.monotonic()
    ended: Ended = "ok"
    while not talk.done:
        left = min(started + seconds, talk.last + each) - time.monotonic()
        if left <= 0:
            ended = "time"
            break
        talk.turn(min(left, POLL) if watch else left)
        if talk.flooded:
            ended = "output"
            break
        if watch:
            watch()
    talk.close()
    errors = bytes(talk.errors[-4000:]).decode("utf-8", "replace")
    return Transcript(tuple(talk.reports), ended, errors, time.monotonic() - started)


class _Talk:
    """The three pipes of a process, none of which can block the other two."""

    def __init__(
        self, process: subprocess.Popen[bytes], head: bytes, tests: Sequence[bytes], nonce: bytes, bound: int
    ) -> None:
        self.stdin, self.stdout, self.stderr = map(_opened, (process.stdin, process.stdout, process.stderr))
        self.selector = selectors.DefaultSelector()
        self.waiting = list(tests)
        self.sending = head
        self.nonce, self.bound = nonce, bound
        self.line, self.errors, self.read = bytearray(), bytearray(), 0
        self.reports: list[dict[str, Any]] = []
        self.expected = len(tests)
        self.flooded = False
        self.last = time.monotonic()
        for pipe in (self.stdin, self.stdout, self.stderr):
            os.set_blocking(pipe.fileno(), False)
        self.selector.register(self.stdout, selectors.EVENT_READ)
        self.selector.register(self.stderr, selectors.EVENT_READ)
        self.next_test()

    @property
    def done(self) -> bool:
        """Whether every test is answered, or nothing more can come."""
        return len(self.reports) >= self.expected or self.stdout not in self.selector.get_map()

    def next_test(self) -> None:
        """The next test is sent after what is being sent; without one, the input ends."""
        if self.waiting:
            self.sending += self.waiting.pop(0)
            if self.stdin not in self.selector.get_map():
                self.selector.register(self.stdin, selectors.EVENT_WRITE)

    def turn(self, seconds: float) -> None:
        """Whatever can be read or written now, waiting at most so long for it."""
        for key, _ in self.selector.select(max(0.0, seconds)):
            if key.fileobj is self.stdin:
                self.write()
            else:
                self.take(key.fd)

    def write(self) -> None:
        try:
            self.sending = self.sending[os.write(self.stdin.fileno(), self.sending[:65536]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.sending, self.waiting = b"", []
        if not self.sending:
            self.selector.unregister(self.stdin)

    def take(self, fd: int) -> None:
        part = os.read(fd, 65536)
        source = self.stdout if fd == self.stdout.fileno() else self.stderr
        if not part:
            self.selector.unregister(source)
        elif source is self.stderr:
            self.errors += part
            self.flooded |= len(self.errors) > self.bound
        else:
            self.read += len(part)
            self.line += part
            self.flooded |= self.read > self.bound
            *lines, rest = self.line.split(b"\n")
            self.line = bytearray(rest)
            for line in lines:
                report = parse_report(bytes(line), self.nonce)
                if report is not None:
                    self.reports.append(report)
                    self.last = time.monotonic()
                    self.next_test()

    def close(self) -> None:
        """Close the input; of what stands on standard error now, take what is there."""
        if self.stderr in self.selector.get_map() and not self.flooded:
            with suppress(BlockingIOError):
                self.errors += os.read(self.stderr.fileno(), 65536)
        self.selector.close()
        for pipe in (self.stdin, self.stdout, self.stderr):
            with suppress(BrokenPipeError):
                pipe.close()


def _opened(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe
