"""What is wrong with a file of rows before anybody trains on it: form by row number, duplicates, lengths.

In: the forms a row may have, duplicates (equal but for case and spacing) and near duplicates (MinHash), conflicting
answers, length statistics. Not here: whether gold answers verify, and overlap with another file, which need task sets
and n-grams (recipes/data_check.py).
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from onepolicy.data.demonstrations import conversation
from onepolicy.data.preferences import judged, ranking
from onepolicy.errors import DataError

Row = dict[str, Any]

PROMPTS = ("prompt", "question", "problem", "instruction")
ANSWERS = ("answer", "solution", "ground_truth", "answerKey", "final_answer")
FORMS = (
    "messages; prompt, completion; prompt, chosen, rejected; prompt, answers, ranks or scores; prompt, completion, "
    f"label; or a problem ({', '.join(PROMPTS)}) with its answer ({', '.join(ANSWERS)})"
)
SHINGLE = 5
"""Words of a shingle, by which near duplicates are found."""
PERMUTATIONS, BANDS = 96, 24
"""MinHash: two texts whose shingles have Jaccard similarity s share a band with 1 - (1 - s^4)^24: 0.99999 at 0.8."""


@dataclass(frozen=True)
class Lengths:
    """Characters or tokens of a field: the least, median, 95th percentile, most and mean over n rows."""

    n: int
    least: int
    median: float
    p95: float
    most: int
    mean: float

    @staticmethod
    def of(lengths: Sequence[int]) -> Lengths:
        """The statistics of at least one length."""
        values = np.asarray(lengths)
        middle, high = np.quantile(values, [0.5, 0.95])
        return Lengths(values.size, int(values.min()), middle, high, int(values.max()), float(values.mean()))


@dataclass(frozen=True)
class Checked:
    """What a file holds and what is wrong with it; rows are numbered from 1 as lines.

    faults: (row, reason), rows that cannot be used. forms: usable rows by form. duplicates: rows with equal text, in
    groups; near: (row, row, Jaccard similarity) of texts that are almost equal. conflicts: rows with one prompt and
    different answers. lengths: by field.
    """

    path: str
    rows: int
    faults: tuple[tuple[int, str], ...]
    forms: Mapping[str, int]
    duplicates: tuple[tuple[int, ...], ...]
    near: tuple[tuple[int, int, float], ...]
    conflicts: tuple[tuple[int, ...], ...]
    lengths: Mapping[str, Lengths] = field(default_factory=dict)


def check_file(
    path: str | Path, *, similarity: float = 0.8, count_tokens: Callable[[str], int] | None = None
) -> Checked:
    """The check of a JSONL file.

    similarity: Jaccard similarity of 5-word shingles from which rows are near duplicates. count_tokens: lengths in a
    tokenizer's tokens instead of characters. Raises: DataError when the file is missing or empty.
    """
    rows, faults = [], []
    for number, row in read_rows(path):
        fault = row if isinstance(row, str) else None
        form = "" if isinstance(row, str) else form_of(row)
        if not isinstance(row, str):
            fault = fault_of(row, form)
        if fault is None:
            rows.append((number, form, texts_of(row, form)))  # type: ignore[arg-type]
        else:
            faults.append((number, fault))
    if not rows and not faults:
        raise DataError(f"{path} is empty; expected one JSON object per line.")
    forms = Counter(form for _, form, _ in rows)
    if len(forms) > 1:
        usual = forms.most_common(1)[0][0]
        faults += [(number, f"form is {form!r}, most rows are {usual!r}") for number, form, _ in rows if form != usual]
    whole = {number: "\n".join(texts.values()) for number, _, texts in rows}
    groups = _equal(whole)
    firsts = {number: text for number, text in whole.items() if not any(number in group[1:] for group in groups)}
    return Checked(
        path=str(path),
        rows=len(rows) + len({number for number, _ in faults} - set(whole)),
        faults=tuple(sorted(faults)),
        forms=dict(forms.most_common()),
        duplicates=groups,
        near=near_duplicates(firsts, similarity),
        conflicts=_conflicts(rows),
        lengths=_lengths([texts for _, _, texts in rows], count_tokens or len),
    )


def read_rows(path: str | Path) -> Iterator[tuple[int, Row | str]]:
    """(line number, row, or what is wrong with the line) of every line that is not blank.

    Raises: DataError for a file that is missing.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{file} is not a file; expected JSON lines.")
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, _decoded(line)


def form_of(row: Mapping[str, Any]) -> str:
    """Which form a row has by its fields, "" for none."""
    if "messages" in row:
        return "messages"
    if {"chosen", "rejected"} <= row.keys() or ("prompt" in row and {"answers", "completions"} & row.keys()):
        return "preference"
    if {"prompt", "completion"} <= row.keys():
        return "judgement" if "label" in row else "demonstration"
    return "problem" if _first(row, PROMPTS) and _first(row, ANSWERS) else ""


def fault_of(row: Row, form: str) -> str | None:
    """What is wrong with a row of a form, None for nothing: what training would refuse, and empty or odd text."""
    if not form:
        return f"fields {sorted(row)} fit no form; expected {FORMS}"
    readers: dict[str, Callable[[Row], object]] = {
        "messages": conversation, "demonstration": conversation, "preference": ranking, "judgement": judged,
        "problem": _problem,
    }  # fmt: skip
    try:
        readers[form](row)
    except DataError as error:
        return str(error).rstrip(".")
    for name, text in texts_of(row, form).items():
        if not text.strip():
            return f"{name} is empty"
        if odd := next((c for c in text if c == "�" or (c < " " and c not in "\n\t\r\f")), None):
            return f"{name} holds {odd!r}, a sign of a wrong decoding"
    return None


def texts_of(row: Mapping[str, Any], form: str) -> dict[str, str]:
    """A row's text by field: what is asked under `prompt`, what is answered under the field's own name."""
    if form == "messages":
        said = row["messages"]
        others = "\n".join(m["content"] for m in said if m["role"] != "assistant")
        own = "\n".join(m["content"] for m in said if m["role"] == "assistant")
        return {"prompt": others, "assistant": own}
    if form == "problem":
        asked, answer = _first(row, PROMPTS), _first(row, ANSWERS)
        return {"prompt": _plain(row[asked]), "answer": _plain(row[answer])}
    names = ("prompt", "chosen", "rejected", "completion", "answers", "completions")
    return {name: _plain(row[name]) for name in names if name in row}


def near_duplicates(texts: Mapping[int, str], similarity: float) -> tuple[tuple[int, int, float], ...]:
    """(row, row, Jaccard similarity of 5-word shingles) of pairs that reach `similarity`, found by MinHash bands.

    Texts of fewer than 5 words are left out. Source: Broder 1997; banding of Leskovec et al., Mining of Massive
    Datasets, section 3.4.
    """
    shingles = {number: found for number, text in texts.items() if len(found := _shingles(text))}
    rng = np.random.default_rng(0)
    factors = rng.integers(1, 1 << 63, size=(PERMUTATIONS, 1), dtype=np.uint64) | np.uint64(1)
    shifts = rng.integers(1 << 63, size=(PERMUTATIONS, 1), dtype=np.uint64)
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for number, found in shingles.items():
        lowest = (factors * found + shifts).min(axis=1)
        for band, part in enumerate(lowest.reshape(BANDS, -1)):
            buckets[band, part.tobytes()].append(number)
    pairs = {(a, b) for members in buckets.values() for i, a in enumerate(members) for b in members[i + 1 : i + 50]}
    close = ((a, b, _jaccard(shingles[a], shingles[b])) for a, b in sorted(pairs))
    return tuple((a, b, s) for a, b, s in close if s >= similarity)


def _decoded(line: bytes) -> Row | str:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return f"not UTF-8 (byte {line[error.start]:#04x} at position {error.start})"
    except (json.JSONDecodeError, RecursionError) as error:
        return f"not JSON ({error})"
    return row if isinstance(row, dict) else f"a JSON {type(row).__name__}, not an object"


def _problem(row: Row) -> None:
    for names in (PROMPTS, ANSWERS):
        name = _first(row, names)
        value = row[name]
        if isinstance(value, bool) or not isinstance(value, str | int | float | list | dict):
            raise DataError(f"{name} is {value!r:.40}, neither text nor a number")


def _first(row: Mapping[str, Any], names: Sequence[str]) -> str:
    return next((name for name in names if name in row), "")


def _plain(value: Any) -> str:
    """A field as text: messages by their contents, lists a line each."""
    if isinstance(value, Mapping):
        return _plain(value["content"]) if "content" in value else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "\n".join(map(_plain, value))
    return value if isinstance(value, str) else str(value)


def _key(text: str) -> str:
    return " ".join(text.casefold().split())


def _equal(texts: Mapping[int, str]) -> tuple[tuple[int, ...], ...]:
    """Rows whose texts are equal but for case and spacing, in groups of at least two."""
    found: dict[str, list[int]] = defaultdict(list)
    for number, text in texts.items():
        found[_key(text)].append(number)
    return tuple(tuple(group) for group in found.values() if len(group) > 1)


def _conflicts(rows: Sequence[tuple[int, str, Mapping[str, str]]]) -> tuple[tuple[int, ...], ...]:
    """Problems with equal prompts and different answers."""
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for number, form, texts in rows:
        if form == "problem":
            found[_key(texts["prompt"])].append((number, _key(texts["answer"])))
    return tuple(tuple(n for n, _ in group) for group in found.values() if len({answer for _, answer in group}) > 1)


def _lengths(texts: Sequence[Mapping[str, str]], count: Callable[[str], int]) -> dict[str, Lengths]:
    names = dict.fromkeys(name for one in texts for name in one)
    return {name: Lengths.of([count(one[name]) for one in texts if name in one]) for name in names}


def _shingles(text: str) -> np.ndarray[Any, np.dtype[np.uint64]]:
    words = text.casefold().split()
    parts = {" ".join(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)}
    hashes = sorted(
        int.from_bytes(blake2b(part.encode("utf-8", "replace"), digest_size=8).digest(), "little") for part in parts
    )
    return np.array(hashes, dtype=np.uint64)


def _jaccard(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    both = np.intersect1d(a, b, assume_unique=True).size
    return both / (a.size + b.size - both)
