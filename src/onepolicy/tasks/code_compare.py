"""Whether what a program gave is what was expected: by exact type and value, by Python's equality, or as text.

Everything compared has come through the sandbox's protocol, so it is plain data: numbers, text, and containers of
them. No method of a program's own is ever called here, so none can say that it equals everything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from onepolicy.errors import ConfigError, nearest
from onepolicy.tasks.sandbox_types import Unknown

Kind = Literal["exact", "equal", "any", "differs", "lines", "tokens", "text"]
KINDS = ("exact", "equal", "any", "differs", "lines", "tokens", "text")


@dataclass(frozen=True)
class Comparison:
    """How an answer is compared with what is expected.

    kind, for values: "exact" (the same type and value, at every depth: True is not 1, 1 is not 1.0, a tuple is no
    list), "equal" (as Python's == on such values), "any" (equal to one of the expected), "differs" (equal to none);
    for text: "lines" (line by line, blanks at line ends and empty lines at the end aside), "tokens" (between blanks),
    "text" (to the character). relative, absolute: tolerances where both sides are floats, or, but for "exact", a float
    and an integer; of tokens, where both read as finite numbers.

    Raises: ConfigError for an unknown kind or a tolerance below 0.
    """

    kind: Kind = "exact"
    relative: float = 0.0
    absolute: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"Unknown comparison {self.kind!r}. {nearest(self.kind, KINDS)}")
        if not (0 <= self.relative < 1 and 0 <= self.absolute < math.inf):
            raise ConfigError(f"{self}: relative is at least 0 and below 1, absolute at least 0 and finite.")

    def agrees(self, got: Any, expected: Any) -> bool:
        """Whether `got` is as `expected`; for "any" and "differs" `expected` is a sequence.

        >>> Comparison().agrees((1, True), (1, 1)), Comparison("equal").agrees((1, 2.0), (1, 2))
        (False, True)
        >>> Comparison("lines").agrees("1 2 \\n3\\n\\n", "1 2\\n3")
        True
        """
        if self.kind == "any":
            return any(self._equal(got, one) for one in expected)
        if self.kind == "differs":
            return not _has_unknown(got) and not any(self._equal(got, one) for one in expected)
        if self.kind in ("lines", "tokens", "text"):
            return isinstance(got, str) and isinstance(expected, str) and self._same_text(got, expected)
        return self._exact(got, expected) if self.kind == "exact" else self._equal(got, expected)

    def _exact(self, got: Any, expected: Any) -> bool:
        kind = type(expected)
        if type(got) is not kind:
            return False
        if kind in (list, tuple):
            return len(got) == len(expected) and all(map(self._exact, got, expected))
        if kind is dict:
            return _matched(list(got.items()), list(expected.items()), self._exact)
        if kind in (set, frozenset):
            return _matched(list(got), list(expected), self._exact)
        if kind is float:
            return self._close(got, expected)
        return bool(got == expected)

    def _equal(self, got: Any, expected: Any) -> bool:
        if isinstance(got, Unknown):
            return False
        number = (int, float)
        if (isinstance(expected, float) and isinstance(got, number)) or (
            isinstance(got, float) and isinstance(expected, number)
        ):
            return self._close(got, expected)
        if isinstance(expected, (list, tuple)):
            same = type(got) is type(expected) and len(got) == len(expected)
            return same and all(map(self._equal, got, expected))
        if isinstance(expected, dict) and isinstance(got, dict):
            return got.keys() == expected.keys() and all(self._equal(got[key], expected[key]) for key in expected)
        return bool(got == expected)

    def _close(self, got: float, expected: float) -> bool:
        """Equality of two numbers, not both integers, within the tolerances; NaN is equal to NaN."""
        if got == expected or (got != got and expected != expected):
            return True
        if not (self.relative or self.absolute):
            return False
        try:
            return math.isclose(got, expected, rel_tol=self.relative, abs_tol=self.absolute)
        except OverflowError:
            return False

    def _same_text(self, got: str, expected: str) -> bool:
        if self.kind == "text":
            return got == expected
        if self.kind == "lines":
            return _lines(got) == _lines(expected)
        one, two = got.split(), expected.split()
        return len(one) == len(two) and all(map(self._same_token, one, two))

    def _same_token(self, got: str, expected: str) -> bool:
        if got == expected or not (self.relative or self.absolute):
            return got == expected
        try:
            one, two = float(got), float(expected)
        except ValueError:
            return False
        return math.isfinite(one) and math.isfinite(two) and self._close(one, two)


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _matched(got: list[Any], expected: list[Any], same: Any) -> bool:
    """Whether two unordered collections pair up under `same`; keys that are equal but of other types do not."""
    if len(got) != len(expected):
        return False
    waiting: dict[Any, list[Any]] = {}
    for item in got:
        waiting.setdefault(_hash(item), []).append(item)
    for item in expected:
        found = next((i for i, one in enumerate(waiting.get(_hash(item), [])) if same(one, item)), None)
        if found is None:
            return False
        waiting[_hash(item)].pop(found)
    return True


def _hash(item: Any) -> int:
    """A hash of an element, or of the key of a (key, value) pair."""
    try:
        return hash(item)
    except TypeError:
        return hash(item[0])


def _has_unknown(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_has_unknown, value))
    return isinstance(value, Unknown)
