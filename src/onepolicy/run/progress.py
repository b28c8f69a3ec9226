"""Progress of anything longer than two seconds, and the one console on which the package speaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Protocol, final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining

SHOW_AFTER = 2.0
"""Seconds of work before a bar is shown."""
LINE_EVERY = 10.0
"""Seconds between the lines printed instead of a bar when the output is no terminal."""


class Bar(Protocol):
    """A piece of work under way."""

    def advance(self, n: int = 1, **shown: float) -> None:
        """Counts `n` units done; `shown` are the numbers to show beside the bar from now on."""
        ...


@cache
def console() -> Console:
    """The console all messages go to: standard error, so that results can be piped."""
    return Console(stderr=True, highlight=False)


@contextmanager
def progress(total: int, description: str, *, done: int = 0) -> Iterator[Bar]:
    """A bar over `total` units of work, shown only when the work lasts over 2 s; bars may nest.

    done: units that need no doing, of a resumed run.

    On a terminal it is a live bar with the time left and the numbers given to `advance`; elsewhere a line about every
    10 s and one at the end.
    """
    bar: _Live | _Lines = (_Live if console().is_terminal else _Lines)(total, description, done)
    try:
        yield bar
    finally:
        bar.close()


@final
class _Lines:
    """Progress as lines of text, for logs and pipes."""

    def __init__(self, total: int, description: str, done: int) -> None:
        self._total, self._description = total, description
        self._begun, self._done, self._shown = done, done, ""
        self._started = time.monotonic()
        self._spoke: float | None = None
        self._said = -1

    def advance(self, n: int = 1, **shown: float) -> None:
        self._done += n
        self._shown = _numbers(shown) or self._shown
        now = time.monotonic()
        if now - (self._spoke or self._started) >= LINE_EVERY:
            self._speak(now)

    def close(self) -> None:
        now = time.monotonic()
        if now - self._started >= SHOW_AFTER and self._said != self._done:
            self._speak(now)

    def _speak(self, now: float) -> None:
        self._spoke, self._said = now, self._done
        seconds = now - self._started
        words = f"{self._description}: {self._done}/{self._total}, {seconds:.0f} s"
        if self._begun < self._done < self._total:
            left = seconds / (self._done - self._begun) * (self._total - self._done)
            words += f", about {left:.0f} s left"
        console().print(words + (f"  {self._shown}" if self._shown else ""), markup=False)


@final
class _Live:
    """Progress as a bar on the terminal; all bars share one display."""

    _lock = threading.Lock()
    _display: Progress | None = None
    _open = 0

    def __init__(self, total: int, description: str, done: int) -> None:
        self._total, self._description = total, description
        self._done, self._shown = done, ""
        self._task: TaskID | None = None
        self._timer = threading.Timer(SHOW_AFTER, self._show)
        self._timer.daemon = True
        self._timer.start()

    def advance(self, n: int = 1, **shown: float) -> None:
        with _Live._lock:
            self._done += n
            self._shown = _numbers(shown) or self._shown
            if self._task is not None and _Live._display is not None:
                _Live._display.update(self._task, completed=self._done, shown=self._shown)

    def close(self) -> None:
        self._timer.cancel()
        with _Live._lock:
            if self._task is None or _Live._display is None:
                return
            _Live._open -= 1
            if _Live._open == 0:
                _Live._display.stop()
                _Live._display = None
            else:
                _Live._display.remove_task(self._task)
            self._task = None

    def _show(self) -> None:
        with _Live._lock:
            if self._timer.finished.is_set():
                return
            if _Live._display is None:
                columns = (
                    TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                    Remaining(), TextColumn("{task.fields[shown]}"),
                )  # fmt: skip
                _Live._display = Progress(*columns, console=console())
                _Live._display.start()
            self._task = _Live._display.add_task(
                self._description, total=self._total, completed=self._done, shown=self._shown
            )
            _Live._open += 1


def _numbers(shown: dict[str, float]) -> str:
    """Numbers as short text.

    >>> _numbers({"score": 0.51234, "tokens": 120})
    'score 0.512  tokens 120'
    """
    return "  ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in shown.items()
    )
