"""Problems that a training file already has: overlap in n-grams of words, as GPT-3's authors looked for it.

A problem is flagged when one of its n-grams of words stands in a row of the training file. Words are runs of letters
and digits, lower case, so that punctuation, spacing and LaTeX braces do not hide a copy; a translation or a paraphrase
is not found. Only the problems' n-grams are held in memory, the file is read once. Not here: what a flagged problem
does to a result (recipes).
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onepolicy.errors import ConfigError, DataError

DEFAULT_N = 13
"""Words of an n-gram, as in GPT-3 (Brown et al. 2020, appendix C); 8 finds more, and more that is no copy."""
SHORTEST = 5
"""Words below which a problem is not looked for: it would be found by chance."""

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Overlap:
    """A flagged problem: the share of its n-grams that the file has, the first row with one, and that n-gram."""

    problem: str
    share: float
    row: int
    words: str


@dataclass(frozen=True)
class Contamination:
    """What a training file has of a set of problems; too_short: problems of too few words to be looked for."""

    n: int
    problems: int
    rows: int
    flagged: tuple[Overlap, ...]
    too_short: int = 0

    @property
    def ids(self) -> frozenset[str]:
        """The flagged problems."""
        return frozenset(overlap.problem for overlap in self.flagged)

    def text(self) -> str:
        """One line."""
        short = f"; {self.too_short} too short to look for" if self.too_short else ""
        return f"{len(self.flagged)} of {self.problems} problems share {self.n} words in a row with the file{short}"


def words(text: str) -> list[str]:
    r"""The words by which texts are compared.

    >>> words("Find $\\frac{1}{2}$ of  the SUM.")
    ['find', 'frac', '1', '2', 'of', 'the', 'sum']
    """
    return _WORD.findall(text.casefold())


def contamination(
    problems: Mapping[str, str], rows: Iterable[tuple[int, str]], *, n: int = DEFAULT_N, share: float = 0.0
) -> Contamination:
    """Which problems (id -> text) share an n-gram of words with one of the rows (number, text).

    A problem of fewer than n words, but at least 5, is one n-gram as a whole. An n-gram does not cross rows. share: the
    least share of a problem's n-grams that flags it; GPT-3's authors flagged any.
    Raises: ConfigError for n below 5. Source: Brown et al. 2020 (arXiv 2005.14165), appendix C.
    """
    if n < SHORTEST:
        raise ConfigError(f"n is {n}; n-grams of fewer than {SHORTEST} words are shared by chance. Take 8 or 13.")
    owners: dict[tuple[str, ...], set[str]] = defaultdict(set)
    sizes: dict[str, int] = {}
    for name, text in problems.items():
        own = words(text)
        if len(own) < SHORTEST:
            continue
        grams = set(_grams(own, min(n, len(own))))
        sizes[name] = len(grams)
        for gram in grams:
            owners[gram].add(name)
    starts: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for gram in owners:
        starts[gram[:3]].add(len(gram))
    hits: dict[str, dict[tuple[str, ...], int]] = defaultdict(dict)
    count, last = 0, -1
    for number, text in rows:
        count, last = count + (number != last), number
        own = words(text)
        for place in range(len(own) - SHORTEST + 1):
            for size in starts.get(tuple(own[place : place + 3]), ()):
                gram = tuple(own[place : place + size])
                for name in owners.get(gram, ()):
                    hits[name].setdefault(gram, number)
    flagged = [
        Overlap(name, len(found) / sizes[name], row := min(found.values()), _first(found, row))
        for name, found in ((name, hits[name]) for name in problems if name in hits)
        if len(found) >= share * sizes[name]
    ]
    return Contamination(n, len(problems), count, tuple(flagged), len(problems) - len(sizes))


def training_rows(path: str | Path) -> Iterator[tuple[int, str]]:
    """(row number from 1, text) of a training file: every text in a JSONL row by itself, or a line of any other file.

    Raises: DataError when the file is missing or not UTF-8.
    """
    place = Path(path)
    if not place.is_file():
        raise DataError(f"{place} is not a file; give a JSONL or text file that the model was trained on.")
    with place.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                text = line.decode("utf-8-sig").strip()
            except UnicodeDecodeError as error:
                raise DataError(f"{place}, line {number}: not UTF-8; convert the file first.") from error
            if text:
                yield from ((number, part) for part in _texts(text))


def _grams(own: list[str], n: int) -> Iterator[tuple[str, ...]]:
    return (tuple(own[i : i + n]) for i in range(len(own) - n + 1))


def _first(found: Mapping[tuple[str, ...], int], row: int) -> str:
    return " ".join(min(gram for gram, number in found.items() if number == row))


def _texts(line: str) -> Iterator[str]:
    """The texts of a JSON line, or the line itself."""
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        yield line
        return
    yield from _strings(value)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
