"""Progress: silent for quick work, a line now and then without a terminal, a bar with numbers on one."""

import io
import time

import pytest
from rich.console import Console

from onepolicy.run import progress as module


@pytest.fixture
def said(monkeypatch):
    """The console's text; `terminal` chooses what it takes itself for."""

    def make(terminal):
        out = io.StringIO()
        console = Console(file=out, force_terminal=terminal, width=120, highlight=False)
        monkeypatch.setattr(module, "console", lambda: console)
        return out

    return make


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_quick_work_is_silent_without_a_terminal(said, clock):
    out = said(False)
    with module.progress(10, "work") as bar:
        for _ in range(10):
            clock[0] += 0.19
            bar.advance()
    assert out.getvalue() == ""


def test_long_work_says_a_line_every_ten_seconds_and_one_at_the_end(said, clock):
    """3 s a unit, 9 units, 2 of them done before: lines at 12 s (the first beyond 10) and at the end, 21 s."""
    out = said(False)
    with module.progress(9, "grpo", done=2) as bar:
        for i in range(7):
            clock[0] += 3
            bar.advance(score=0.1 * i, tokens=i)
    assert out.getvalue().splitlines() == [
        "grpo: 6/9, 12 s, about 9 s left  score 0.3  tokens 3",
        "grpo: 9/9, 21 s  score 0.6  tokens 6",
    ]


def test_quick_work_is_silent_on_a_terminal(said):
    out = said(True)
    with module.progress(3, "work") as bar:
        bar.advance(3)
    assert out.getvalue() == ""


def test_a_terminal_shows_a_bar_with_its_numbers_and_nested_bars_share_it(said, monkeypatch):
    monkeypatch.setattr(module, "SHOW_AFTER", 0.01)
    out = said(True)
    with module.progress(4, "outer") as outer:
        outer.advance(score=0.25)
        time.sleep(0.2)
        with module.progress(2, "inner") as inner:
            time.sleep(0.2)
            inner.advance()
            time.sleep(0.2)
        outer.advance()
        time.sleep(0.2)
    text = out.getvalue()
    for words in ("outer", "inner", "1/4", "2/4", "1/2", "score 0.25"):
        assert words in text
    assert module._Live._display is None


def test_an_error_inside_takes_the_bar_down(said, monkeypatch):
    monkeypatch.setattr(module, "SHOW_AFTER", 0.01)
    said(True)

    def fail():
        with module.progress(4, "outer"):
            time.sleep(0.1)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert module._Live._display is None
