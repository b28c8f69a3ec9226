"""Plain text to learn from: documents of a text or JSON-lines file, as token rows that fit a model's context."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from onepolicy.data.demonstrations import Example, read_jsonl, read_text
from onepolicy.data.tokenizer import encode
from onepolicy.errors import DataError


def documents(path: str | Path, policy: Literal["stop", "drop"] = "stop") -> list[str]:
    """The documents of a file: of a .jsonl the field `text` of each row, of any other the parts between blank lines.

    Raises: DataError when the file is missing, empty, not UTF-8, or has a broken row (policy "stop") or no document.
    """
    if Path(path).suffix == ".jsonl":
        return list(read_jsonl(path, _text_of, policy).rows)
    found = [part.strip("\n") for part in read_text(path).split("\n\n") if part.strip()]
    if not found:
        raise DataError(f"{path} has no document; expected text, documents apart by blank lines.")
    return found


def token_rows(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], context: int) -> list[Example]:
    """Documents as (tokens, is_action) rows of at most `context` tokens, the end token behind each document.

    A longer document becomes several rows. Every token but a row's first is predicted.
    Raises: DataError for a character the tokenizer does not know, naming the document.
    """
    rows: list[Example] = []
    for number, text in enumerate(texts):
        try:
            ids = [*encode(tokenizer, text), int(tokenizer.eos_token_id)]
        except DataError as error:
            raise DataError(f"document {number} ({text[:40]!r}) cannot be read: {error}") from error
        for at in range(0, len(ids), context):
            part = ids[at : at + context]
            if len(part) > 1:
                rows.append((part, [False] + [True] * (len(part) - 1)))
    if not rows:
        raise DataError("no document has two tokens; there is nothing to predict.")
    return rows


def _text_of(row: dict[str, Any]) -> str:
    text = row["text"]
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"text is {text!r:.40}; expected words")
    return text
