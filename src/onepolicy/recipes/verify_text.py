"""Kinds of `onepolicy verify` for text: instructions, tags, JSON, patterns, language, length, repetition, overlap."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from onepolicy.errors import ConfigError
from onepolicy.recipes.verify import Judgement, Kind, known, required, task_of

Options = Mapping[str, str]
N = TypeVar("N", int, float)


def instructions(options: Options) -> Judgement:
    """`--constraint ID [--args JSON] [--errata original|corrected] --answer TEXT`."""
    from onepolicy.tasks.instructions import Bound, InstructionVerifier

    known(options, "constraint", "args", "errata", "answer", "gold")
    bound = Bound(required(options, "constraint"), _object(options, "args"))
    verifier = InstructionVerifier((bound,), errata=options.get("errata", "original"))  # type: ignore[arg-type]
    reply = verifier.form.extract(required(options, "answer")) or ""
    strict, loose = verifier.decisions(reply)[0]
    lines = (
        ("asks", bound.describe()),
        ("strict", "followed" if strict else "not followed"),
        ("loose", "followed" if loose else "not followed"),
    )
    return Judgement(verifier(task_of(verifier, ""), options["answer"]), lines)


def tags(options: Options) -> Judgement:
    """`--answer TEXT`: whether it is `<think>…</think><answer>…</answer>`."""
    from onepolicy.tasks.form import TagVerifier

    known(options, "answer", "gold")
    verifier = TagVerifier()
    return Judgement(verifier(task_of(verifier, ""), required(options, "answer")))


def json_schema(options: Options) -> Judgement:
    """`--answer TEXT [--schema JSON] [--side text|thinking|answer|tag]`."""
    from onepolicy.tasks.form import JsonVerifier

    known(options, "answer", "schema", "side", "gold")
    schema = _object(options, "schema") if "schema" in options else None
    verifier = JsonVerifier(schema, _side(options))
    score = verifier(task_of(verifier, ""), required(options, "answer"))
    return Judgement(
        score, (("because", verifier.explain(options["answer"]) or "it fits"),) if score.value is not None else ()
    )


def pattern(options: Options) -> Judgement:
    """`--pattern REGEX --answer TEXT [--how full|search] [--side text|thinking|answer|tag]`."""
    from onepolicy.tasks.form import RegexVerifier

    known(options, "answer", "pattern", "how", "side", "gold")
    verifier = RegexVerifier(required(options, "pattern"), options.get("how", "full"), _side(options))  # type: ignore[arg-type]
    return Judgement(verifier(task_of(verifier, ""), required(options, "answer")))


def language(options: Options) -> Judgement:
    """`--gold CODE --answer TEXT [--side text|thinking|answer|tag] [--minimum LETTERS]`; right is all of it."""
    from onepolicy.tasks.form import side_of
    from onepolicy.tasks.language import LanguageVerifier, consistency

    known(options, "gold", "answer", "side", "minimum")
    minimum = _number(options, "minimum", 20, int)
    verifier = LanguageVerifier(required(options, "gold"), _side(options, "text"), minimum)
    score = verifier(task_of(verifier, ""), required(options, "answer"))
    found = consistency(side_of(options["answer"], verifier.side), verifier.language, minimum=minimum)
    other = ", ".join(f"{count} {name}" for name, count in found.foreign) or "none"
    return Judgement(score, (("words", f"{found.words} of {found.letters} letters"), ("foreign", other)))


def length(options: Options) -> Judgement:
    """`--limit N --answer TEXT [--buffer N] [--unit characters|words]`: DAPO's soft overlong punishment; 0 is right."""
    from onepolicy.tasks.length import OverlongPenalty, Ruler

    known(options, "limit", "buffer", "unit", "answer", "gold")
    limit = _number(options, "limit", 0, int)
    buffer = _number(options, "buffer", max(1, limit // 5), int)
    verifier = OverlongPenalty(limit, buffer, Ruler(options.get("unit", "words")))  # type: ignore[arg-type]
    score = verifier(task_of(verifier, ""), required(options, "answer"))
    lines = (("penalty", f"{score.value:g}"),) if score.value is not None else ()
    return Judgement(score, lines, right=score.value == 0)


def repetition(options: Options) -> Judgement:
    """`--answer TEXT [--n N]`: the penalty for repeated n-grams; 0 is right."""
    from onepolicy.tasks.repetition import RepetitionPenalty

    known(options, "n", "answer", "gold")
    verifier = RepetitionPenalty(_number(options, "n", 20, int))
    score = verifier(task_of(verifier, ""), required(options, "answer"))
    lines = (("penalty", f"{score.value:g}"),) if score.value is not None else ()
    return Judgement(score, lines, right=score.value == 0)


def overlap(options: Options) -> Judgement:
    """`--gold TEXT --answer TEXT [--metric chrf|bleu|chrf++|ter|rouge1|rouge2|rougeL] [--threshold SHARE]`."""
    from onepolicy.tasks.text import OverlapVerifier

    known(options, "gold", "answer", "metric", "threshold")
    threshold = _number(options, "threshold", 1.0, float)
    verifier = OverlapVerifier(options.get("metric", "chrf"), threshold=threshold)  # type: ignore[arg-type]
    score = verifier(task_of(verifier, required(options, "gold")), required(options, "answer"))
    return Judgement(score, (("signature", verifier.signature), ("right from", f"{threshold:g}")))


TEXT_KINDS: dict[str, Kind] = {
    "instructions": instructions,
    "tags": tags,
    "json": json_schema,
    "regex": pattern,
    "language": language,
    "length": length,
    "repetition": repetition,
    "overlap": overlap,
}
"""By name."""


def _side(options: Options, default: str = "answer") -> Any:
    return options.get("side", default)


def _object(options: Options, name: str) -> dict[str, Any]:
    """A JSON object given as an option, {} where it is not given."""
    try:
        value = json.loads(options.get(name, "{}"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--{name} is no JSON ({error}); write an object such as '{{\"num_words\": 3}}'.") from None
    if not isinstance(value, dict):
        raise ConfigError(f"--{name} is {str(value)[:40]!r}; write a JSON object.")
    return value


def _number(options: Options, name: str, default: N, kind: Callable[[str], N]) -> N:
    if name not in options:
        return default
    try:
        return kind(options[name])
    except ValueError:
        raise ConfigError(f"--{name} is {options[name]!r}; it must be a number.") from None
