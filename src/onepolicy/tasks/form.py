"""The form of a completion: tags, JSON that fits a schema, a regular expression.

Nothing is executed and nothing fetched. Python's regular expressions know no time limit, and a schema may hold some:
`RegexVerifier`, and `JsonVerifier` with a schema, belong into the worker pool (`isolated` says so); set
`TaskSet.isolated` for tasks that use them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from onepolicy.errors import ConfigError, nearest
from onepolicy.tasks.rewards import TAGS, extract_tag, keeps_tags, split_thinking
from onepolicy.types import Score, Task

Side = Literal["text", "thinking", "answer", "tag"]
SIDES: tuple[Side, ...] = ("text", "thinking", "answer", "tag")

MAX_JSON = 100_000
"""Characters of a JSON text at most; a longer one does not fit."""

MAX_REGEX_TEXT = 20_000
"""Characters that a regular expression is matched against at most; a longer text does not match."""


def side_of(text: str, side: Side) -> str:
    """A part of a completion: the whole text, the thinking, what follows it, or the content of `<answer>` in that.

    >>> [side_of("<think>a</think> <answer>b</answer>", side) for side in SIDES]
    ['<think>a</think> <answer>b</answer>', 'a', ' <answer>b</answer>', 'b']
    """
    if side == "text":
        return text
    thinking, rest = split_thinking(text)
    if side == "thinking":
        return thinking or ""
    return rest if side == "answer" else extract_tag(rest, "answer") or ""


def check_side(side: str) -> None:
    """Raises: ConfigError for a side that is none of SIDES."""
    if side not in SIDES:
        raise ConfigError(f"Unknown side {side!r}. {nearest(str(side), SIDES)}")


@dataclass(frozen=True)
class TagVerifier:
    """Whether a completion is `<think>…</think><answer>…</answer>` and nothing else, DeepSeek-R1's format reward.

    reward: "exact" pays 1 for the whole format, "tags" the share of the four tags that occur exactly once, a gentler
    slope for models that know none. Parts `format` (0 or 1) and `tags`. filled: an empty answer breaks the format.
    Source: DeepSeek-R1, arXiv 2501.12948, section 2.2.2; `isolated` is False: it needs no worker process.
    """

    reward: Literal["exact", "tags"] = "exact"
    filled: bool = True

    def __post_init__(self) -> None:
        if self.reward not in ("exact", "tags"):
            raise ConfigError(f"Unknown reward {self.reward!r}. {nearest(str(self.reward), ('exact', 'tags'))}")

    @property
    def isolated(self) -> bool:
        """Whether it belongs into the worker pool."""
        return False

    def __call__(self, task: Task, text: str) -> Score:
        kept = keeps_tags(text) and bool(not self.filled or side_of(text, "tag").strip())
        share = sum(text.count(tag) == 1 for tag in TAGS) / len(TAGS)
        return Score(float(kept) if self.reward == "exact" else share, {"format": float(kept), "tags": share})


@dataclass(frozen=True)
class JsonVerifier:
    """Whether a reply is one JSON value that fits a schema: value 1 or 0, parts `json` and `schema`.

    schema: JSON Schema (draft 2020-12 unless its $schema says otherwise), None for any JSON. side: where the value
    stands; a code fence around it is put aside. containers: the value must be an object or an array.
    Strict JSON: no repeated key, no NaN or Infinity, no more than MAX_JSON characters. A reference out of the schema
    (`$ref` to a file or an address) is refused.

    Raises: ConfigError for a schema that is none or refers elsewhere, or an unknown side.
    """

    schema: Mapping[str, Any] | bool | None = None
    side: Side = "answer"
    containers: bool = False

    def __post_init__(self) -> None:
        check_side(self.side)
        if self.schema is not None:
            check_schema(self.schema)

    @property
    def isolated(self) -> bool:
        """Whether it belongs into the worker pool: a schema can hold patterns and loops."""
        return self.schema is not None

    def __call__(self, task: Task, text: str) -> Score:
        read, reason = self._read(text)
        if reason:
            return Score(0.0, {"json": 0.0, "schema": 0.0})
        try:
            fits = not self._misfit(read)
        except (ArithmeticError, RecursionError, ValueError) as error:
            return Score(None, {"json": 1.0}, f"crash: the schema cannot judge this value ({type(error).__name__})")
        return Score(float(fits), {"json": 1.0, "schema": float(fits)})

    def explain(self, text: str) -> str:
        """Why a completion does not fit, "" where it does."""
        read, reason = self._read(text)
        return reason or self._misfit(read)

    def _read(self, text: str) -> tuple[Any, str]:
        try:
            value = read_json(unfenced(side_of(text, self.side)))
        except ValueError as error:
            return None, f"no JSON: {error}"
        if self.containers and not isinstance(value, dict | list):
            return None, f"a {type(value).__name__}, not an object or an array"
        return value, ""

    def _misfit(self, value: Any) -> str:
        if self.schema is None:
            return ""
        error = next(_validator(json.dumps(self.schema, sort_keys=True)).iter_errors(value), None)
        return "" if error is None else f"{error.json_path}: {error.message[:300]}"


_FENCE = re.compile(r"```[A-Za-z]{0,20}[ \t]*\n?")


def unfenced(text: str) -> str:
    """A text without the code fence around it, if it is all in one.

    >>> unfenced('```json\\n{"a": 1}\\n```')
    '{"a": 1}'
    """
    text = text.strip()
    opened = _FENCE.match(text)
    return (
        text[opened.end() : -3].strip() if opened and text.endswith("```") and len(text) >= opened.end() + 3 else text
    )


def read_json(text: str) -> Any:
    """A JSON value, strictly.

    Raises: ValueError for anything else: a repeated key, NaN, a text over MAX_JSON or nested too deep.
    """
    if len(text) > MAX_JSON:
        raise ValueError(f"{len(text)} characters; at most {MAX_JSON}")
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} is repeated")
    return found


def _constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def check_schema(schema: Mapping[str, Any] | bool) -> None:
    """Raises: ConfigError unless it is a JSON Schema that refers to nothing outside itself."""
    from jsonschema import exceptions, validators

    if not isinstance(schema, Mapping | bool):
        raise ConfigError(f"the schema is {type(schema).__name__}; it must be an object, or true or false.")
    for name, value in _references(schema):
        if not isinstance(value, str) or not value.startswith("#"):
            raise ConfigError(
                f"the schema has {name} {str(value)[:80]!r}; only references within it are followed (#/$defs/...)."
            )
    try:
        validators.validator_for(schema, default=_default()).check_schema(schema)
    except exceptions.SchemaError as error:
        raise ConfigError(f"not a JSON Schema, at {error.json_path}: {error.message[:200]}") from error


def _references(schema: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(schema, Mapping):
        for name, value in schema.items():
            if name in ("$ref", "$dynamicRef", "$recursiveRef"):
                yield name, value
            yield from _references(value)
    elif isinstance(schema, list):
        for one in schema:
            yield from _references(one)


def _default() -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator


@lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    """The schema's validator, with an empty registry: nothing is ever fetched."""
    from jsonschema import validators
    from referencing import Registry

    read = json.loads(schema)
    return validators.validator_for(read, default=_default())(read, registry=Registry())


@dataclass(frozen=True)
class RegexVerifier:
    """Whether a regular expression matches a reply: value 1 or 0, part `match`.

    how: "search" finds it anywhere, "full" matches the whole, stripped. forbidden: it must not match. side: where.
    ignore_case, multiline, dotall: the flags of `re`. A text over MAX_REGEX_TEXT characters does not match, nor passes
    a forbidden pattern. A pattern can take for ever on some texts: call it in the worker pool.

    Raises: ConfigError for a pattern that cannot be read, with the place.
    """

    pattern: str
    how: Literal["search", "full"] = "full"
    side: Side = "answer"
    forbidden: bool = False
    ignore_case: bool = False
    multiline: bool = False
    dotall: bool = False

    def __post_init__(self) -> None:
        check_side(self.side)
        if self.how not in ("search", "full"):
            raise ConfigError(f"Unknown way to match {self.how!r}. {nearest(str(self.how), ('search', 'full'))}")
        try:
            self._compiled()
        except (re.error, RecursionError, OverflowError) as error:
            raise ConfigError(f"{self.pattern[:80]!r} is no regular expression of Python's re: {error}.") from error

    @property
    def isolated(self) -> bool:
        """Whether it belongs into the worker pool: always."""
        return True

    def __call__(self, task: Task, text: str) -> Score:
        judged = side_of(text, self.side).strip()
        if len(judged) > MAX_REGEX_TEXT or not judged:
            return Score(0.0, {"match": 0.0})
        compiled = self._compiled()
        found = compiled.fullmatch(judged) if self.how == "full" else compiled.search(judged)
        return Score(float((found is None) == self.forbidden), {"match": float(found is not None)})

    def _compiled(self) -> re.Pattern[str]:
        flags = re.IGNORECASE * self.ignore_case | re.MULTILINE * self.multiline | re.DOTALL * self.dotall
        return re.compile(self.pattern, flags)
