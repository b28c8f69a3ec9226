"""Several named sources mixed into one file by weight: how many rows of each, which, and in what order.

Everything derives from the seed and the names, so the same call gives the same bytes. Not here: reading a source's rows
as tasks or conversations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from onepolicy.errors import ConfigError
from onepolicy.run.seeding import derive_rng

X = TypeVar("X")


@dataclass(frozen=True)
class Source(Generic[X]):
    """Rows that go by one name; weight: its share of the mixture is weight over the sum of weights."""

    name: str
    rows: Sequence[X]
    weight: float

    def __post_init__(self) -> None:
        if not self.rows:
            raise ConfigError(f"the source {self.name!r} has no rows.")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ConfigError(f"the weight of {self.name!r} is {self.weight}; weights are finite and above 0.")


@dataclass(frozen=True)
class Share:
    """What a source gives: rows of the mixture, and how often that goes through its own."""

    rows: int
    epochs: float


def shares(
    sources: Sequence[Source[X]], size: int | None = None, *, max_epochs: float | None = None
) -> dict[str, Share]:
    """Each source's share of `size` rows, by largest remainder, so that the parts add up exactly.

    size: None is the most at which no source is repeated. max_epochs: how often a source may be gone through.
    Raises: ConfigError for no sources, a name given twice, or a source that would be repeated more often.
    """
    names = [source.name for source in sources]
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"the sources are {names}; give at least one, and each name once.")
    total = sum(source.weight for source in sources)
    if size is None:
        size = math.floor(min(len(source.rows) * total / source.weight for source in sources) + 1e-9)
    if size < 1:
        raise ConfigError(f"the mixture would have {size} rows; give a size of at least 1, or larger sources.")
    exact = [size * source.weight / total for source in sources]
    counts = [math.floor(value + 1e-9) for value in exact]
    for place in sorted(range(len(sources)), key=lambda i: (counts[i] - exact[i], i))[: size - sum(counts)]:
        counts[place] += 1
    found = {s.name: Share(count, count / len(s.rows)) for s, count in zip(sources, counts, strict=True)}
    worst = max(found, key=lambda name: found[name].epochs)
    if max_epochs is not None and found[worst].epochs > max_epochs:
        raise ConfigError(
            f"{worst} would be gone through {found[worst].epochs:.2f} times, max_epochs is {max_epochs:g}. Ask for "
            "fewer rows, give it a smaller weight, or allow more epochs."
        )
    return found


def mix(sources: Sequence[Source[X]], counts: Mapping[str, Share], seed: int) -> Iterator[tuple[str, int, X]]:
    """(source, place in it, row) of every row of the mixture, shuffled.

    A source is gone through in an order of its own for each epoch, whole before it is repeated, so that no row is taken
    n + 1 times before all are taken n times. Its rows do not depend on the other sources.
    """
    chosen: list[tuple[str, int, X]] = []
    for source in sources:
        left = counts[source.name].rows
        epoch = 0
        while left > 0:
            order = derive_rng(seed, "mix", source.name, epoch).permutation(len(source.rows))[:left]
            chosen += [(source.name, int(place), source.rows[place]) for place in order]
            left -= len(order)
            epoch += 1
    for place in derive_rng(seed, "mix").permutation(len(chosen)):
        yield chosen[place]
