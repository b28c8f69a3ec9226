"""`onepolicy data make WHAT [FILE] --out DIRECTORY`: files to learn from, made without end or out of another's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from onepolicy.data.demonstrations import fingerprint, read_jsonl
from onepolicy.data.preferences import ranking
from onepolicy.errors import ConfigError, DataError, nearest
from onepolicy.recipes.data import Outcome
from onepolicy.recipes.loop import require_positive
from onepolicy.run.files import replace_bytes, replace_object
from onepolicy.run.seeding import derive_rng
from onepolicy.tasks import letters
from onepolicy.tasks.gsm8k import without_calculations

Row = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Make files of rows: letters (a task whose true reward is known), or gsm8k-rankings FILE."""

    what: str = ""
    """letters, or gsm8k-rankings."""
    file: str = ""
    """gsm8k-rankings: the file of solutions, a problem a line, each solution with is_correct."""
    out: str = ""
    """Directory of the files; manifest.json in it says what they are."""
    rankings: int = 20_000
    """letters: rankings to learn from."""
    demonstrations: int = 4000
    """letters: demonstrations."""
    k: int = 4
    """letters: answers in a ranking."""
    held_out: int = 1000
    """letters: held-out rankings, over prompts that training files do not have."""
    test_share: float = 0.2
    """gsm8k-rankings: share of the problems that is held out."""
    annotations: Literal["keep", "drop"] = "keep"
    """gsm8k-rankings: the calculator's <<...>> in a solution."""
    seed: int = 0
    """Of what is drawn."""

    def __post_init__(self) -> None:
        require_positive(self, "rankings", "demonstrations", "held_out")
        if self.k < 2:
            raise ConfigError(f"k is {self.k}; a ranking has at least 2 answers.")
        if not 0.0 < self.test_share < 1.0:
            raise ConfigError(f"test_share is {self.test_share}; it is a share of the problems, in (0, 1).")


def arguments(words: Sequence[str]) -> list[str]:
    """The flags of the words before the first flag: what to make, and of which file."""
    if len(words) > 2:
        raise ConfigError(f"expected WHAT and at most one FILE, got {len(words)} words: onepolicy data make WHAT FILE.")
    return [part for name, word in zip(("what", "file"), words) for part in (f"--{name}", word)]


def main(config: Config) -> Outcome:
    """Writes the files and says what is in them.

    Raises: ConfigError for an unknown WHAT or no directory; DataError for a file that cannot be converted.
    """
    if config.what not in MAKERS:
        raise ConfigError(f"{config.what!r} is nothing that is made here. {nearest(config.what, MAKERS)}")
    if not config.out:
        raise ConfigError(f"name a directory to write to: onepolicy data make {config.what} --out DIRECTORY.")
    out = Path(config.out)
    files, facts = MAKERS[config.what](config)
    out.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, (about, rows) in files.items():
        replace_bytes(out / name, "".join(_line(name, row) for row in rows).encode())
        facts[name] = {"rows": len(rows), "sha256": fingerprint(out / name)}
        lines.append(f"  {out / name}  {len(rows):,} {about}")
    replace_object(out / "manifest.json", {"what": config.what, "seed": config.seed, **facts})
    said = "".join(f"\n{name.replace('_', ' ')}: {value}" for name, value in facts.items() if name not in files)
    return Outcome("\n".join([f"{config.what}, seed {config.seed}", *lines]) + said)


Files = dict[str, tuple[str, list[Any]]]
"""Name -> (what its rows are, the rows: objects, or texts of a .txt file)."""


def letters_files(config: Config) -> tuple[Files, dict[str, Any]]:
    """The letters' demonstrations, rankings, pairs (one of each ranking) and text, and held-out ones of other prompts.

    Text: what the indifferent writer wrote, prompt and answer in a line, ten lines a document.
    """
    seed, k = config.seed, config.k
    train = list(letters.ranking_rows(config.rankings, k=k, seed=seed))
    test = list(letters.ranking_rows(config.held_out, k=k, split="test", seed=seed))
    demos = list(letters.demonstration_rows(config.demonstrations, seed=seed))
    written = [f"{row['prompt']}{row['completion']}" for row in demos]
    pages = ["\n".join(written[at : at + 10]) for at in range(0, len(written), 10)]
    files: Files = {
        "demonstrations.jsonl": ("demonstrations", demos),
        "rankings.jsonl": (f"rankings of {k}", train),
        "rankings_test.jsonl": ("held-out rankings, of other prompts", test),
        "pairs.jsonl": ("pairs, one of each ranking", list(one_pair_each(train, seed))),
        "pairs_test.jsonl": ("held-out pairs", list(one_pair_each(test, seed))),
        "text.txt": ("documents of ten lines", pages),
    }
    facts = {
        "best_accuracy_expected": round(letters.best_accuracy(test), 4),
        "best_accuracy_on_these_labels": round(letters.true_accuracy(test), 4),
    }
    return files, facts


def one_pair_each(rows: Iterable[Row], seed: int) -> Iterator[Row]:
    """Of each ranking one pair, drawn by the seed: prompt, chosen, rejected."""
    for number, row in enumerate(rows):
        found = [p for p in combinations(range(len(row["ranks"])), 2) if row["ranks"][p[0]] != row["ranks"][p[1]]]
        pair = found[int(derive_rng(seed, "pair-of-ranking", number).integers(len(found)))]
        better, worse = sorted(pair, key=lambda place: row["ranks"][place])
        yield {"prompt": row["prompt"], "chosen": row["answers"][better], "rejected": row["answers"][worse]}


def gsm8k_rankings(config: Config) -> tuple[Files, dict[str, Any]]:
    """Rankings of model solutions: a right one over a wrong one, equals tie; a problem is in one split only.

    Problems whose solutions are all right or all wrong teach no order: they are left out and counted.
    """
    if not config.file:
        raise ConfigError("name the file of solutions: onepolicy data make gsm8k-rankings FILE --out DIRECTORY.")
    rows = list(read_jsonl(config.file, lambda row: solutions_ranked(row, config.annotations == "drop")).rows)
    prompts = sorted({row["prompt"] for row in rows})
    if len(prompts) < len(rows):
        raise DataError(f"{config.file} has {len(rows) - len(prompts)} problems twice; give each once.")
    kept = [row for row in rows if len(set(row["scores"])) > 1]
    size = round(config.test_share * len(prompts))
    held = {prompts[i] for i in derive_rng(config.seed, "gsm8k-rankings").permutation(len(prompts))[:size]}
    test = [row for row in kept if row["prompt"] in held]
    train = [row for row in kept if row["prompt"] not in held]
    if not train or not test:
        raise DataError(f"{config.file} leaves {len(train)} rankings to learn from and {len(test)} held out.")
    for row in kept:
        ranking(row)
    pairs = [sum(1 for _ in ranking(row).pairs()) for row in test]
    files: Files = {
        "rankings.jsonl": ("rankings", train),
        "rankings_test.jsonl": ("held-out rankings, of other problems", test),
    }
    facts = {
        "problems": len(rows),
        "all_wrong": sum(not any(row["scores"]) for row in rows),
        "all_right": sum(all(row["scores"]) for row in rows),
        "held_out_pairs": sum(pairs),
    }
    return files, facts


def solutions_ranked(row: Mapping[str, Any], plain: bool) -> Row:
    """A row of solutions as prompt, answers, scores (1 right, 0 wrong) and who wrote each.

    plain: without the calculator's annotations. Solutions that are the same text and of one score stand once.
    Raises: DataError when it has no question, or fewer than two solutions with is_correct.
    """
    found = [(name, one) for name, one in row.items() if isinstance(one, dict)]
    if not isinstance(row.get("question"), str) or not row["question"].strip():
        raise DataError("there is no question")
    answers: dict[tuple[str, float], str] = {}
    for name, one in found:
        if not isinstance(one.get("solution"), str) or not isinstance(one.get("is_correct"), bool):
            raise DataError(f"{name} lacks a solution, or is_correct is not true or false")
        text = without_calculations(one["solution"]) if plain else one["solution"]
        answers.setdefault((text, float(one["is_correct"])), name)
    if len(found) < 2:
        raise DataError(f"{len(found)} solutions; a ranking needs at least 2")
    return {
        "prompt": row["question"],
        "answers": [text for text, _ in answers],
        "scores": [score for _, score in answers],
        "writers": list(answers.values()),
    }


def _line(name: str, row: Any) -> str:
    return f"{row}\n\n" if name.endswith(".txt") else json.dumps(row, ensure_ascii=False) + "\n"


MAKERS: dict[str, Callable[[Config], tuple[Files, dict[str, Any]]]] = {
    "letters": letters_files,
    "gsm8k-rankings": gsm8k_rankings,
}
"""What can be made."""
