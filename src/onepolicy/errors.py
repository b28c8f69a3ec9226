"""Every error onepolicy raises on purpose. A message has the value, the expectation and the fix."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class OnePolicyError(Exception):
    """Base of all errors raised on purpose; the command prints them without a traceback."""


class ConfigError(OnePolicyError, ValueError):
    """A field, preset or combination of settings that cannot work."""


class DataError(OnePolicyError, ValueError):
    """A data set, row, prompt or template that cannot be used."""


class ModelError(OnePolicyError, ValueError):
    """A model, tokenizer or policy that cannot be used as asked."""


class CheckpointError(OnePolicyError, RuntimeError):
    """A run directory or checkpoint that is missing, incomplete or damaged."""


class TrainingError(OnePolicyError, RuntimeError):
    """Training that cannot go on: non-finite steps, out of memory at the smallest micro-batch."""


class RewardError(OnePolicyError, ValueError):
    """A reward function or verifier that broke its contract."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the nearest known one, or all of them.

    >>> nearest("learning_rat", ["learning_rate", "steps"])
    "Did you mean 'learning_rate'?"
    >>> nearest("zzz", ["a", "b"])
    'Known: a, b.'
    """
    known = list(known)
    close = get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."
