"""Verifiers that do what they must not, in a module that worker processes can import."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from onepolicy.tasks.base import conversation
from onepolicy.types import Score, Task


@dataclass(frozen=True)
class Obey:
    """Does what the completion says: `WORD ARGUMENT`."""

    name: str = "obey"

    def __call__(self, task, text):
        word, _, argument = text.partition(" ")
        if word == "sleep":
            time.sleep(float(argument))
        elif word == "work":  # seconds of processor time
            end = time.process_time() + float(argument)
            while time.process_time() < end:
                pass
        elif word == "spin":
            while True:
                pass
        elif word == "power":
            _ = 9 ** (9 ** int(argument))  # holds the interpreter's lock
        elif word == "eat":
            _ = bytearray(int(argument) * 2**20)
        elif word == "segfault":
            ctypes.string_at(0)
        elif word == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif word == "exit":
            os._exit(int(argument))
        elif word == "sys.exit":
            sys.exit(int(argument))
        elif word == "raise":
            raise ValueError(argument)
        elif word == "print":
            print(argument)
        elif word == "once":  # dies the first time, as a worker spoilt by an earlier answer might
            marker = Path(argument)
            if not marker.exists():
                marker.touch()
                os._exit(9)
        elif word == "child":
            if os.fork() == 0:
                os.execv("/bin/sleep", ["sleep", argument])
            time.sleep(3600)
        elif word == "pid":
            return Score(float(os.getpid()))
        elif word == "torch":
            return Score(float("torch" in sys.modules))
        elif word == "nan":
            return Score(float("nan"), {"correct": 0.0})
        elif word == "none":
            return None
        elif word == "unsendable":
            return Score(1.0, {"correct": lambda: 0})
        elif word == "skip":
            return Score(None)
        return Score(float(text == task.answer), {"correct": float(text == task.answer)})


class Moody:
    """Cannot judge what begins with a digit 0 to 3, does not apply to 4 and 5, and likes every other digit."""

    def __call__(self, task, text):
        first = text[:1]
        if first in ("0", "1"):
            raise ValueError(first)
        if first in ("2", "3"):
            os._exit(1)
        if first in ("4", "5"):
            return Score(None)
        likes = sum(c.isdigit() for c in text) / 12
        return Score(likes, {"correct": float("<answer>" in text), "format": 1.0})


def sum_of_characters(task, text):
    """A verifier that is a plain function."""
    return Score(float(sum(map(ord, text))))


def task(name="t", answer="7", verifier=None):
    return Task(name, conversation("Ask"), answer, verifier or Obey())
