"""JSONL files and demonstrations: conversations somebody else wrote, as tokens with a who-wrote-it mask.

In: `read_jsonl`, `fingerprint`, `example`, `load_examples`, `DemonstrationStream`. Not here: the loss (algos/sft.py).
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from transformers import PreTrainedTokenizerBase

from onepolicy.data.chat_template import render_with_mask
from onepolicy.data.prompts import Shuffled
from onepolicy.errors import DataError

X = TypeVar("X")
Example = tuple[list[int], list[bool]]
"""(tokens, is_action): a conversation and True where the assistant wrote."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rows(Generic[X]):
    """What a JSONL file held.

    rows: the parsed rows. lines: each row's line number, from 1. dropped: reason -> how many rows it cost.
    sha256: of the file, to be kept with the run.
    """

    rows: tuple[X, ...]
    lines: tuple[int, ...]
    sha256: str
    dropped: Mapping[str, int] = field(default_factory=dict)


def read_jsonl(
    path: str | Path, parse: Callable[[dict[str, Any]], X], policy: Literal["stop", "drop"] = "stop"
) -> Rows[X]:
    """The rows of a JSON-lines file, each an object handed to `parse`; blank lines are skipped.

    parse: turns an object into what is wanted; raises DataError (or KeyError, for a missing field) to reject it.
    policy: a broken row stops with its line number and the reason, or is dropped and counted by reason.

    Raises: DataError when the file is missing, empty, not UTF-8, or has a broken row (policy "stop"), or no good one.
    """
    path = Path(path)
    rows: list[X] = []
    lines: list[int] = []
    dropped: Counter[str] = Counter()
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        row, fault = _parse(line, parse)
        if fault and policy == "stop":
            raise DataError(f"{path}, line {number}: {fault}. Mend the row, or skip such rows with bad_rows='drop'.")
        if fault:
            dropped[_kind(fault)] += 1
            continue
        rows += row
        lines.append(number)
    if not rows:
        reasons = ", ".join(f"{count} x {fault}" for fault, count in dropped.items())
        raise DataError(f"{path} has no usable row ({reasons or 'it is empty'}); expected one JSON object per line.")
    if dropped:
        logger.warning(
            "%s: dropped %d of %d rows: %s", path, dropped.total(), dropped.total() + len(rows), dict(dropped)
        )
    return Rows(tuple(rows), tuple(lines), fingerprint(path), dict(dropped))


def fingerprint(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def conversation(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages of a row: `messages`, or `prompt` and `completion`, each a text or a list of messages.

    A prompt that is a text becomes a user turn, a completion that is a text an assistant turn.
    Raises: DataError when neither form is there, a message lacks role or content, or the assistant wrote nothing.

    >>> conversation({"prompt": "1+1=", "completion": "2"})
    [{'role': 'user', 'content': '1+1='}, {'role': 'assistant', 'content': '2'}]
    """
    if "messages" in row:
        messages = row["messages"]
    elif "prompt" in row and "completion" in row:
        messages = [*_turns(row["prompt"], "user"), *_turns(row["completion"], "assistant")]
    else:
        raise DataError(f"fields {sorted(row)} are neither 'messages' nor 'prompt' and 'completion'")
    if not isinstance(messages, list) or not messages:
        raise DataError("messages is not a list with at least one message")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise DataError(f"a message is {message!r:.60}, without a role")
        if not isinstance(message.get("content"), str):
            raise DataError(f"the content of a {message['role']} message is not a text")
    if not any(m["role"] == "assistant" and m["content"] for m in messages):
        raise DataError("the assistant wrote nothing in it")
    return messages


def example(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Any], context: int) -> Example:
    """A conversation as (tokens, is_action), at most `context` tokens.

    Raises: DataError when it is longer: cutting it off would teach the model never to end.
    """
    tokens, is_action = render_with_mask(tokenizer, messages)
    if len(tokens) > context:
        raise DataError(f"longer ({len(tokens)} tokens) than the context of {context} tokens")
    return tokens, is_action


def load_examples(
    path: str | Path, tokenizer: PreTrainedTokenizerBase, *, context: int, policy: Literal["stop", "drop"] = "stop"
) -> list[Example]:
    """The demonstrations of a JSONL file; see `conversation` for its rows and `read_jsonl` for what is refused."""
    rows = read_jsonl(path, lambda row: example(tokenizer, conversation(row), context), policy)
    return list(rows.rows)


DemonstrationStream = Shuffled[Example]
"""Batches of demonstrations in a seeded order, resumable: DemonstrationStream(examples, batch_size=..., seed=...)."""


def read_text(path: str | Path) -> str:
    """The text of a file. Raises: DataError when it is missing, a directory, empty or not UTF-8."""
    path = Path(path)
    if not path.is_file():
        kind = "is a directory" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {kind}; expected a JSON-lines file. Check the path given as data.")
    content = path.read_bytes()
    if not content.strip():
        raise DataError(f"{path} is empty; expected one JSON object per line.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: byte {content[error.start]:#04x} is not UTF-8 text; convert the file, for instance "
            "with iconv -f latin1 -t utf-8."
        ) from error


def _turns(part: Any, role: str) -> list[Any]:
    """A text as one turn of `role`; a list of messages as it is."""
    if isinstance(part, str):
        return [{"role": role, "content": part}]
    if isinstance(part, list):
        return part
    raise DataError(f"the {'prompt' if role == 'user' else 'completion'} is neither a text nor a list of messages")


def _parse(line: str, parse: Callable[[dict[str, Any]], X]) -> tuple[list[X], str]:
    """The parsed row in a list, or an empty list and why it is broken."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return [], f"not valid JSON ({error.msg} at column {error.colno})"
    if not isinstance(row, dict):
        return [], f"a JSON {type(row).__name__}, not an object"
    try:
        return [parse(row)], ""
    except DataError as error:
        return [], str(error).rstrip(".")
    except KeyError as error:
        return [], f"field {error} is missing"


def _kind(fault: str) -> str:
    """A fault without what is peculiar to its row, to count by."""
    return re.sub(r"'[^']*'|\([^)]*\)", "…", fault.split(";")[0])
