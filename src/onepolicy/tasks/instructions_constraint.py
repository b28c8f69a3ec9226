"""What a verifiable constraint on a reply is, and how its arguments are checked, drawn and worded.

A constraint is a row of functions over text and arguments; the rows stand in `instructions_ifeval` and
`instructions_more`. Bad arguments are refused when a constraint is bound to them, never met by a default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from onepolicy.errors import ConfigError, DataError, nearest

Args = Mapping[str, Any]
Check = Callable[[str, Args], bool]
Errata = Literal["original", "corrected"]
ERRATA: tuple[Errata, ...] = ("original", "corrected")

MAX_ARGUMENT = 20_000
"""Characters of a text argument at most."""


@dataclass(frozen=True)
class Argument:
    """One argument of a constraint.

    kind: "integer" from low to high; "text", not blank; "texts", a list of one or more different such; "choice", one of
    choices; "character", one character that is no blank.
    """

    name: str
    kind: Literal["integer", "text", "texts", "choice", "character"]
    low: int = 1
    high: int = 100_000
    choices: tuple[str, ...] = ()

    def read(self, value: Any) -> Any:
        """The value as the checkers take it. Raises: DataError for a wrong type or range, with what is expected."""
        if self.kind == "integer":
            whole = isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0
            if not whole or not self.low <= value <= self.high:
                raise self._wrong(value, f"a whole number from {self.low} to {self.high}")
            return int(value)
        if self.kind == "choice":
            if not isinstance(value, str) or value not in self.choices:
                raise self._wrong(value, f"one of {', '.join(map(repr, self.choices))}")
            return value
        if self.kind == "character":
            if not isinstance(value, str) or len(value.strip()) != 1:
                raise self._wrong(value, "a single character")
            return value.strip()
        if self.kind == "text":
            return self._text(value)
        if not isinstance(value, list | tuple) or not value:
            raise self._wrong(value, "a list of one or more texts")
        texts = tuple(self._text(one) for one in value)
        if len(set(texts)) < len(texts):
            raise self._wrong(value, "a list without repetitions")
        return texts

    def _text(self, value: Any) -> str:
        if not isinstance(value, str) or not value.strip() or len(value) > MAX_ARGUMENT:
            raise self._wrong(value, f"text that is not blank, of at most {MAX_ARGUMENT:,} characters")
        return value

    def _wrong(self, value: Any, expected: str) -> DataError:
        return DataError(f"{self.name} is {str(value)[:60]!r}; it must be {expected}.")


RELATIONS = ("less than", "at least")


def integer(name: str, low: int = 1, high: int = 100_000) -> Argument:
    """A whole number."""
    return Argument(name, "integer", low, high)


def relation(name: str = "relation") -> Argument:
    """IFEval's two relations."""
    return Argument(name, "choice", choices=RELATIONS)


def compare(count: int, how: str, bound: int) -> bool:
    """Whether a count is less than, or at least, a bound."""
    return count < bound if how == "less than" else count >= bound


def always(args: Args) -> str:
    """No complaint about any combination of arguments."""
    return ""


@dataclass(frozen=True)
class Constraint:
    """A verifiable constraint.

    id: `category:name`. arguments: all needed. check(text, args): the decision; for the 25 of IFEval that of the
    original. text: the sentence for a prompt, a format string over the arguments. draw(rng): arguments at random.
    write(text, args): the text changed so that the constraint holds, as far as it can be built; None where that needs
    more than a text. stage: the order of writing, 0 before 9. corrected: the decision the constraint's wording asks
    for, where the original's is another. complaint(args): what is wrong with the arguments together, "" if nothing.
    conflicts: ids that cannot or should not be asked together with this one, "*" for all.
    """

    id: str
    arguments: tuple[Argument, ...]
    check: Check
    text: str
    draw: Callable[[np.random.Generator], dict[str, Any]]
    write: Callable[[str, Args], str] | None = None
    stage: int = 5
    corrected: Check | None = None
    complaint: Callable[[Args], str] = always
    conflicts: frozenset[str] = field(default_factory=frozenset)

    def follows(self, text: str, args: Args, errata: Errata = "original") -> bool:
        """Whether a text follows the constraint; a blank text follows none."""
        if not text.strip():
            return False
        check = self.corrected if errata == "corrected" and self.corrected is not None else self.check
        return check(text, args)

    def describe(self, args: Args) -> str:
        """The constraint in words, for a prompt."""
        shown = {
            name: ", ".join(map(repr, value)) if isinstance(value, tuple) else value for name, value in args.items()
        }
        return self.text.format(**shown)

    def read(self, given: Mapping[str, Any] | None) -> dict[str, Any]:
        """The arguments, checked; those that are None count as not given (the hub's layout lists all names).

        Raises: DataError for an argument that is missing, unknown, of a wrong type or out of range.
        """
        if given is not None and not isinstance(given, Mapping):
            raise DataError(f"{self.id}: the arguments are {str(given)[:60]!r}; they must be an object.")
        values = {name: value for name, value in (given or {}).items() if value is not None}
        known = [argument.name for argument in self.arguments]
        for name in values:
            if name not in known:
                hint = nearest(str(name), known) if known else "It takes none."
                raise DataError(f"{self.id} has no argument {name!r}. {hint}")
        missing = [name for name in known if name not in values]
        if missing:
            raise DataError(f"{self.id} needs the argument {', '.join(map(repr, missing))}; none was given.")
        try:
            read = {argument.name: argument.read(values[argument.name]) for argument in self.arguments}
        except DataError as error:
            raise DataError(f"{self.id}: {error}") from error
        if complaint := self.complaint(read):
            raise DataError(f"{self.id}: {complaint}")
        return read


def check_errata(errata: str) -> None:
    """Raises: ConfigError unless "original" or "corrected"."""
    if errata not in ERRATA:
        raise ConfigError(f"Unknown errata {errata!r}. {nearest(errata, ERRATA)}")


TOPIC_WORDS = tuple(
    """garden river mountain village bridge window letter kitchen winter summer harvest market teacher student engine
    library island forest meadow castle harbor lantern journey captain painter doctor farmer museum station valley
    desert ocean planet rocket signal mirror basket blanket candle carpet copper cotton silver marble paper pepper
    pencil pocket puzzle rabbit sailor shadow spider tunnel turtle violin wagon whale wheat wisdom courage honor
    promise patience rhythm melody canyon glacier orchard pebble ribbon saddle timber velvet willow anchor barrel
    compass feather hammer kettle ladder needle oyster parade quarry saffron thunder""".split()  # noqa: SIM905
)
"""Nouns that arguments are drawn from."""


def pick(rng: np.random.Generator, among: list[str] | tuple[str, ...], count: int = 1) -> list[str]:
    """`count` different ones, at random."""
    return [among[i] for i in rng.choice(len(among), size=count, replace=False)]


def add_sentence(text: str, sentence: str) -> str:
    """The text with a sentence put after its first paragraph's first line."""
    head, newline, tail = text.partition("\n")
    return f"{head.rstrip()} {sentence}".strip() + newline + tail
