"""Problems made without end: levels by number, splits decided by a hash, distinct problems drawn until enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import TypeVar

from onepolicy.errors import ConfigError

L = TypeVar("L")
T = TypeVar("T")

PATIENCE = 5000
"""Tries in a row without a new problem after which a level counts as exhausted."""

HELD_OUT_SHARE = 8
"""One problem in this many is held out."""


def is_held_out(problem: str) -> bool:
    """Whether a problem belongs to the test split: decided by a hash of its text, on every machine alike."""
    return blake2b(problem.encode(), digest_size=4).digest()[0] % HELD_OUT_SHARE == 0


def named_levels(level: int | Sequence[int] | L, known: Mapping[int, L], kind: str) -> list[tuple[int, L]]:
    """(name, level) pairs of one level, several, or one of the user's own, whose name is 0 unless it equals a known.

    Raises: ConfigError for a number that names no level.
    """
    if not isinstance(level, int | Sequence):
        return [(next((name for name, one in known.items() if one == level), 0), level)]
    names = [level] if isinstance(level, int) else list(level)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ConfigError(f"Unknown {kind} level {unknown or names}; levels are {min(known)} to {max(known)}.")
    return [(name, known[name]) for name in names]


def draw(
    make: Callable[[], tuple[str, T] | None], count: int, split: str, seen: set[str], what: str, at_most: bool
) -> list[T]:
    """`count` problems of a split whose keys are not in `seen`, to which they are added.

    make: a fresh (key, problem), or None for a failed try. what: the level, for the error. at_most: fewer will do.
    Raises: ConfigError when the level seems to have no more, unless fewer will do.
    """
    found: list[T] = []
    misses = 0
    while len(found) < count and misses < PATIENCE:
        made = make()
        if made is not None and made[0] not in seen and is_held_out(made[0]) == (split == "test"):
            seen.add(made[0])
            found.append(made[1])
            misses = 0
        else:
            misses += 1
    if len(found) == count or at_most:
        return found
    raise ConfigError(
        f"{what} gave only {len(found)} different problems for the {split} split; {count} were asked. "
        "Ask for fewer, or take a harder level."
    )


def shares(total: int, parts: int) -> list[int]:
    """`total` in `parts` as equal as can be, the larger first.

    >>> shares(10, 4)
    [3, 3, 2, 2]
    """
    return [total // parts + (i < total % parts) for i in range(parts)]
