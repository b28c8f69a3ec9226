"""Plain text to learn from: documents of text and JSON-lines files, as token rows that fit a model's context.

In: `documents` and what a list of files says, `token_rows`, `chunks`, which lose no token and count their bytes. Not
here: the order in which they are learnt (corpus.py), fill-in-the-middle (fim.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from onepolicy.data.demonstrations import Example, read_jsonl, read_text
from onepolicy.data.tokenizer import encode
from onepolicy.errors import ConfigError, DataError

Parts = Literal["paragraphs", "whole"]
"""What a document of a text file is: the parts between blank lines, or all of it."""


@dataclass(frozen=True)
class Chunk:
    """A piece of a document, every token of which but the first is predicted.

    tokens: first what stood before the piece (the start token, or the document's token before it), then the piece, at
    its document's end the end token. text: the characters of the piece alone.
    """

    tokens: list[int]
    text: str

    @property
    def example(self) -> Example:
        """The piece as (tokens, is_action)."""
        return self.tokens, [False] + [True] * (len(self.tokens) - 1)


def documents(
    path: str | Path, policy: Literal["stop", "drop"] = "stop", *, field: str = "text", parts: Parts = "paragraphs"
) -> list[str]:
    """The documents of a file: of a .jsonl the field of each row, of any other the parts between blank lines.

    field: a name, or several joined by a line break: "question+answer". parts: "whole" makes a text file one document.
    Raises: DataError when the file is missing, empty, not UTF-8, or has a broken row (policy "stop") or no document.
    """
    if Path(path).suffix == ".jsonl":
        return list(read_jsonl(path, lambda row: joined(row, field), policy).rows)
    text = read_text(path)
    found = [part.strip("\n") for part in ([text] if parts == "whole" else text.split("\n\n")) if part.strip()]
    if not found:
        raise DataError(f"{path} has no document; expected text, documents apart by blank lines.")
    return found


def joined(row: dict[str, Any], field: str) -> str:
    """The text of a row's field, or of several with a line break between.

    Raises: DataError for a field that is missing, no text, or blank.

    >>> joined({"question": "1+1?", "answer": "2"}, "question+answer")
    '1+1?\\n2'
    """
    found = []
    for name in field.split("+"):
        if name not in row:
            raise DataError(f"field {name!r} is missing; the row has {', '.join(sorted(row)) or 'none'}")
        if not isinstance(row[name], str) or not row[name].strip():
            raise DataError(f"{name} is {row[name]!r:.40}; expected words")
        found.append(row[name])
    return "\n".join(found)


def weighted_files(text: str) -> list[tuple[str, float]]:
    """(file, weight) of "a.txt:0.7,b.jsonl:0.3"; no weights at all are none (0): the files are one heap.

    Raises: ConfigError for no file, one named twice, a weight that is no number above 0, or weights for some only.

    >>> weighted_files("a.txt:0.7,b.jsonl:0.3"), weighted_files("a.txt,b.txt")
    ([('a.txt', 0.7), ('b.jsonl', 0.3)], [('a.txt', 0.0), ('b.txt', 0.0)])
    """
    found: list[tuple[str, float]] = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        path, colon, weight = word.rpartition(":")
        try:
            found.append((path, float(weight)) if colon else (word, 0.0))
        except ValueError:
            raise ConfigError(
                f"{word!r}: the weight {weight!r} is not a number; write FILE:WEIGHT,FILE:WEIGHT."
            ) from None
        if colon and not 0.0 < found[-1][1] < float("inf"):
            raise ConfigError(f"the weight of {path} is {weight}; weights are above 0. Leave the file out instead.")
    names = [path for path, _ in found]
    if not found or len(set(names)) != len(names):
        raise ConfigError(f"the files are {names}; give at least one, and each once: --data a.txt:0.7,b.jsonl:0.3.")
    if len({weight > 0 for _, weight in found}) > 1:
        raise ConfigError(f"{text!r} gives weights to some files only; give one to each, or to none.")
    return found


def token_rows(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], context: int) -> list[Example]:
    """Documents as (tokens, is_action) rows of at most `context` tokens, the end token behind each document.

    A longer document becomes several rows. Every token but a row's first is predicted.
    Raises: DataError for a character the tokenizer does not know, naming the document.
    """
    rows: list[Example] = []
    for number, text in enumerate(texts):
        ids = [*_encoded(tokenizer, text, number), int(tokenizer.eos_token_id)]
        for at in range(0, len(ids), context):
            part = ids[at : at + context]
            if len(part) > 1:
                rows.append((part, [False] + [True] * (len(part) - 1)))
    if not rows:
        raise DataError("no document has two tokens; there is nothing to predict.")
    return rows


def chunks(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], size: int) -> list[Chunk]:
    """Documents as chunks of at most `size` tokens in which every token of a document is predicted exactly once.

    Before a document stands the tokenizer's start token (its end token where it has none), before a further chunk the
    token before it; behind a document the end token. No character is cut in two.
    Raises: ConfigError for a size below 8; DataError for a character the tokenizer does not know.
    """
    if size < 8:
        raise ConfigError(f"chunks of {size} tokens are too short to learn from; use a context of at least 16.")
    start, end = start_token(tokenizer), int(tokenizer.eos_token_id)
    found: list[Chunk] = []
    for number, text in enumerate(texts):
        ids = _encoded(tokenizer, text, number)
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        for first, last in _cuts(offsets, size - 2):
            tokens = [ids[first - 1] if first else start, *ids[first:last]]
            piece = text[offsets[first][0] : offsets[last - 1][1]]
            found.append(Chunk([*tokens, end] if last == len(ids) else tokens, piece))
    return found


def start_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """What stands before a document: the tokenizer's start token, or its end token where it has none."""
    return int(tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id)


def utf8_bytes(texts: Sequence[str]) -> int:
    """Bytes of the texts in UTF-8: what bits per byte are counted over."""
    return sum(len(text.encode()) for text in texts)


def _encoded(tokenizer: PreTrainedTokenizerBase, text: str, number: int) -> list[int]:
    try:
        return encode(tokenizer, text)
    except DataError as error:
        raise DataError(f"document {number} ({text[:40]!r}) cannot be read: {error}") from error


def _cuts(offsets: Sequence[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """[first, last) of pieces of at most `size` tokens, cut between characters wherever a cut between some is there."""
    first = 0
    while first < len(offsets):
        last = min(first + size, len(offsets))
        while last < len(offsets) and last > first + 1 and offsets[last][0] < offsets[last - 1][1]:
            last -= 1
        yield first, last
        first = last
