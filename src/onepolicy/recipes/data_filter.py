"""`onepolicy data filter FILE --model M --tasks SET -k 8`: the problems that a model solves sometimes.

A group whose completions are all right or all wrong has no advantage to learn from; what is kept are the rows whose
pass rate lies in a range. Resumable as an evaluation is, for it is one.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from onepolicy.errors import ConfigError
from onepolicy.recipes import evaluate
from onepolicy.recipes.data import Outcome, only
from onepolicy.recipes.evaluate_book import read_problems
from onepolicy.recipes.options import Machine, ProblemOptions
from onepolicy.run.files import replace_bytes


@dataclass(frozen=True)
class Config:
    """Keep the problems of a file whose pass rate for a model lies in a range."""

    file: str = ""
    """Problems as the task set reads them."""
    model: str = ""
    """Run directory, Hugging Face directory or hub id."""
    tasks: str = "gsm8k"
    """Task set that reads and judges them."""
    k: int = 8
    """Samples a problem."""
    keep: str = "0.1..0.9"
    """Least and greatest pass rate, both kept."""
    out: str = ""
    """The kept rows, as they were, with the field pass_rate; empty for FILE with .kept before its ending."""
    max_tokens: int = 4096
    """Longest completion, tokens."""
    temperature: float = 1.0
    """Of the samples: that of the training to come."""
    top_p: float = 1.0
    """Of the samples."""
    seed: int = 0
    """Seed of the samples."""
    problems: ProblemOptions = field(default_factory=ProblemOptions)
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"k is {self.k}; a pass rate needs at least one sample.")
        low, high = self.bounds
        if not 0 <= low <= high <= 1:
            raise ConfigError(f"keep is {self.keep!r}; 0 <= least <= greatest <= 1, such as 0.1..0.9.")

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest pass rate."""
        try:
            low, high = map(float, self.keep.split(".."))
        except ValueError:
            raise ConfigError(f"keep is {self.keep!r}; write least..greatest, such as 0.1..0.9.") from None
        return low, high


def arguments(words: Sequence[str]) -> list[str]:
    """The flags of the words before the first flag."""
    return only("file", words, "filter FILE --model MODEL --tasks SET")


def main(config: Config) -> Outcome:
    """Writes the kept rows; the text has the pass rates' histogram.

    Raises: ConfigError for no file or model; DataError for rows the task set cannot read (--problems.bad-rows drop).
    """
    if not config.file or not config.model:
        raise ConfigError("name a file and a model: onepolicy data filter FILE --model MODEL --tasks SET -k 8.")
    file = Path(config.file)
    out = Path(config.out) if config.out else file.with_name(f"{file.stem}.kept{file.suffix}")
    book = out.with_name(f"{out.name}.eval")
    shared = ("model", "tasks", "k", "max_tokens", "temperature", "top_p", "seed", "problems", "machine")
    exam = evaluate.Config(
        eval_data=config.file, choice="letter", out=str(book), **{name: getattr(config, name) for name in shared}
    )
    evaluate.main(exam)
    records = read_problems(book)[config.tasks]
    rates = {_row(name): one["right"] / one["judged"] for name, one in records.items() if one["judged"]}
    low, high = config.bounds
    kept = []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if number in rates and low - 1e-9 <= rates[number] <= high + 1e-9:
            kept.append(json.dumps({**json.loads(line), "pass_rate": rates[number]}, ensure_ascii=False))
    replace_bytes(out, "".join(line + "\n" for line in kept).encode())
    unjudged = len(records) - len(rates)
    lines = [f"{out}: {len(kept):,} of {len(records):,} problems kept, pass rate {low:g} to {high:g} of {config.k}"]
    lines += [f"  {name:<9} {count:>7,}" for name, count in histogram(list(rates.values())).items()]
    lines += [f"  {unjudged:,} problems without a judged sample were left out"] if unjudged else []
    return Outcome("\n".join(lines), 0 if kept else 1)


def histogram(rates: Sequence[float]) -> dict[str, int]:
    """How many pass rates are 0, in each tenth above, and 1.

    >>> histogram([0, 0.05, 0.5, 1.0])
    {'0': 1, '0 to 0.1': 1, '0.4 to 0.5': 1, '1': 1}
    """
    names = ["0", *(f"{i / 10:g} to {(i + 1) / 10:g}" for i in range(10)), "1"]
    places = Counter(11 if rate == 1 else math.ceil(round(10 * rate, 9)) for rate in rates)
    return {name: places[place] for place, name in enumerate(names) if places[place]}


def _row(task: str) -> int:
    """A problem's row number, the last part of its id. Raises: ConfigError where it is none."""
    number = task.rpartition("/")[2]
    if not number.isdigit():
        raise ConfigError(f"the problem {task!r} does not say its row; its task set cannot be filtered by file.")
    return int(number)
