"""`onepolicy data mix NAME=FILE:WEIGHT ... --out FILE`: sources mixed by weight, each row with where it is from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onepolicy.data.checks import read_rows
from onepolicy.data.demonstrations import fingerprint
from onepolicy.data.mixture import Share, Source, mix, shares
from onepolicy.errors import ConfigError, DataError
from onepolicy.recipes.data import Outcome
from onepolicy.recipes.loop import require_positive
from onepolicy.run.files import replace_bytes, replace_object


@dataclass(frozen=True)
class Config:
    """Mix JSONL files by weight: instructions=if.jsonl:0.3 maths=maths.jsonl:0.4 code=code.jsonl:0.2 chat=c.jsonl"""

    sources: tuple[str, ...] = ()
    """Each NAME=FILE:WEIGHT; weights need not add up to 1."""
    out: str = ""
    """The mixture's file; a description with counts, epochs and fingerprints is written beside it."""
    size: int | None = None
    """Rows of the mixture; None for the most at which no source is repeated."""
    max_epochs: float = 1.0
    """How often a source may be gone through."""
    seed: int = 0
    """Decides which rows and their order."""
    column: str = "source"
    """Field that names a row's source; its row number is put into the field `<column>_row`."""

    def __post_init__(self) -> None:
        require_positive(self, "size")
        if self.max_epochs <= 0:
            raise ConfigError(f"max_epochs is {self.max_epochs}; above 0.")


def arguments(words: Sequence[str]) -> list[str]:
    """The flags of the words before the first flag."""
    return ["--sources", *words] if words else []


def main(config: Config) -> Outcome:
    """Writes the mixture; the text says how many rows of each source and how many epochs that is.

    Raises: ConfigError for a source that is not NAME=FILE:WEIGHT, or repeated more than allowed; DataError for a broken
    row, with its number.
    """
    if not config.sources or not config.out:
        raise ConfigError("name at least one source and --out: onepolicy data mix NAME=FILE:WEIGHT ... --out FILE.")
    files = [parse_source(word) for word in config.sources]
    sources = [Source(name, _rows(path, config.column), weight) for name, path, weight in files]
    found = shares(sources, config.size, max_epochs=config.max_epochs)
    lines = []
    for name, _, (number, row) in mix(sources, found, config.seed):
        lines.append(json.dumps({**row, config.column: name, f"{config.column}_row": number}, ensure_ascii=False))
    out = Path(config.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_bytes(out, ("\n".join(lines) + "\n").encode())
    about = {
        name: {"file": path, "sha256": fingerprint(path), "weight": weight, **vars(found[name])}
        for name, path, weight in files
    }
    replace_object(out.with_name(out.name + ".json"), {"rows": len(lines), "seed": config.seed, "sources": about})
    return Outcome(f"{out}: {len(lines):,} rows, seed {config.seed}\n" + _table(sources, found))


def parse_source(word: str) -> tuple[str, str, float]:
    """(name, file, weight) of NAME=FILE:WEIGHT; the weight is 1 where none is given.

    >>> parse_source("maths=data/m.jsonl:0.4"), parse_source("chat=c.jsonl")
    (('maths', 'data/m.jsonl', 0.4), ('chat', 'c.jsonl', 1.0))
    """
    name, equals, place = word.partition("=")
    path, colon, weight = place.rpartition(":")
    if not colon:
        path, weight = place, "1"
    try:
        number = float(weight)
    except ValueError:
        raise ConfigError(f"{word!r}: the weight {weight!r} is not a number; write NAME=FILE:WEIGHT.") from None
    if not (name and equals and path):
        raise ConfigError(f"{word!r} is not NAME=FILE:WEIGHT, such as maths=maths.jsonl:0.4.")
    return name, path, number


def _rows(path: str, column: str) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    for number, row in read_rows(path):
        if isinstance(row, str):
            raise DataError(f"{path}, row {number}: {row}. Mend the row; see: onepolicy data check {path}.")
        if taken := {column, f"{column}_row"} & row.keys():
            raise DataError(f"{path}, row {number} has a field {taken.pop()!r} already; name another by --column.")
        rows.append((number, row))
    return rows


def _table(sources: Sequence[Source[Any]], found: dict[str, Share]) -> str:
    total = sum(share.rows for share in found.values())
    width = max(len(source.name) for source in sources)
    return "\n".join(
        f"  {s.name:<{width}}  {found[s.name].rows:>8,} rows  {100 * found[s.name].rows / total:5.1f} %  "
        f"{found[s.name].epochs:.2f} epochs of {len(s.rows):,}"
        for s in sources
    )
