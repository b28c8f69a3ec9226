"""One answer judged from the command line: the verdict, what was extracted, how both sides were read, and why.

`onepolicy verify KIND --gold ... --answer ...`. Each kind of verifier is one function in KINDS.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onepolicy.errors import ConfigError, nearest
from onepolicy.types import Message, Score, Task

EXIT_RIGHT, EXIT_WRONG, EXIT_INVALID = 0, 1, 3
"""Exit codes of the command; 2 is a mistake in its arguments."""


@dataclass(frozen=True)
class Judgement:
    """What the command prints. lines: (name, text) pairs under the verdict. right: where the score does not say so."""

    score: Score
    lines: tuple[tuple[str, str], ...] = ()
    right: bool | None = None

    @property
    def verdict(self) -> str:
        """right, wrong, invalid or skipped; right is `correct` in the parts, else a value of at least 1."""
        if self.score.value is None:
            return self.score.state
        if self.right is not None:
            return "right" if self.right else "wrong"
        correct = self.score.parts.get("correct")
        return "right" if (self.score.value >= 1.0 if correct is None else correct == 1.0) else "wrong"

    @property
    def exit_code(self) -> int:
        """0 for right, 1 for wrong, 3 for what could not be judged."""
        return {"right": EXIT_RIGHT, "wrong": EXIT_WRONG}.get(self.verdict, EXIT_INVALID)

    @property
    def text(self) -> str:
        """The verdict and the lines under it."""
        parts = " ".join(f"{name}={value:g}" for name, value in self.score.parts.items() if value is not None)
        shown = [*self.lines, *((("parts", parts),) if parts else ())]
        if self.score.error:
            shown.append(("error", self.score.error))
        width = max((len(name) for name, _ in shown), default=0)
        return "\n".join([self.verdict, *(f"  {name:<{width}}  {text}" for name, text in shown)])


Kind = Callable[[Mapping[str, str]], Judgement]
"""Judges the command's options, `{"gold": ..., "answer": ..., ...}`."""


def mathematics(options: Mapping[str, str]) -> Judgement:
    """`--gold G --answer TEXT [--read boxed|open|tag|hash|last] [--tolerance R]`."""
    from onepolicy.tasks.math import MATH_FORMATS, MathVerifier
    from onepolicy.tasks.math_compare import Tolerance

    known(options, "gold", "answer", "read", "tolerance")
    gold, answer, how = required(options, "gold"), required(options, "answer"), options.get("read", "boxed")
    if how not in MATH_FORMATS:
        raise ConfigError(f"Unknown way to read answers {how!r}. {nearest(how, MATH_FORMATS)}")
    try:
        relative = float(options.get("tolerance", "0"))
    except ValueError:
        raise ConfigError(f"--tolerance is {options['tolerance']!r}; give a part of the gold value, as 0.01.") from None
    verifier = MathVerifier(MATH_FORMATS[how], tolerance=Tolerance(relative))
    verdict = verifier.explain(gold, answer)
    lines = (
        ("gold", verdict.gold or repr(gold)),
        ("answer", verdict.answer or "none"),
        ("decided by", verdict.by),
        ("because", verdict.reason),
    )
    return Judgement(verifier(task_of(verifier, gold), answer), lines)


def programs(options: Mapping[str, str]) -> Judgement:
    """`--answer TEXT --tests TESTS [--language L] [--function F] [--mode all|share]`."""
    from onepolicy.recipes.verify_code import code

    return code(options)


def later(name: str) -> Kind:
    """A kind of verify_text.py, imported when it is asked for."""

    def judge(options: Mapping[str, str]) -> Judgement:
        from onepolicy.recipes.verify_text import TEXT_KINDS

        return TEXT_KINDS[name](options)

    return judge


KINDS: dict[str, Kind] = {
    "math": mathematics,
    "instructions": later("instructions"),
    "tags": later("tags"),
    "json": later("json"),
    "regex": later("regex"),
    "language": later("language"),
    "length": later("length"),
    "repetition": later("repetition"),
    "overlap": later("overlap"),
    "code": programs,
}
"""Kinds of verifiers by name; a line each."""


def main(argv: Sequence[str]) -> int:
    """Judge and print; the command's exit code. Raises: ConfigError for an unknown kind or option, or a missing one."""
    if not argv or argv[0].startswith("-"):
        raise ConfigError(f"verify needs a kind of verifier. {nearest('', KINDS)}")
    if argv[0] not in KINDS:
        raise ConfigError(f"Unknown kind of verifier {argv[0]!r}. {nearest(argv[0], KINDS)}")
    judgement = KINDS[argv[0]](options_of(argv[1:]))
    print(judgement.text)
    return judgement.exit_code


def options_of(argv: Sequence[str]) -> dict[str, str]:
    """`--name value` and `--name=value` pairs; `@file` reads a value from a file, `-` from the standard input.

    Raises: ConfigError for a word that is no option, or one without a value.
    """
    found: dict[str, str] = {}
    words = iter(argv)
    for word in words:
        if not word.startswith("--"):
            raise ConfigError(f"{word[:60]!r} is no option; options are --name value, with quotes around a value.")
        name, equals, value = word[2:].partition("=")
        given = value if equals else next(words, None)
        if given is None:
            raise ConfigError(f"--{name} has no value; write it behind.")
        found[name.replace("_", "-")] = _content(given)
    return found


def _content(value: str) -> str:
    if value == "-":
        return sys.stdin.read()
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{value[1:]} cannot be read ({error}); `@file` takes a value from a UTF-8 file.") from error


def required(options: Mapping[str, str], name: str) -> str:
    """An option's value. Raises: ConfigError where it was not given."""
    if name not in options:
        raise ConfigError(f"--{name} is missing; this kind of verifier needs it.")
    return options[name]


def known(options: Mapping[str, str], *names: str) -> None:
    """Raises: ConfigError for an option that is not among the names."""
    for name in options:
        if name not in names:
            raise ConfigError(f"--{name} is not an option here. {nearest(name, names)}")


def task_of(verifier: object, gold: str, **meta: object) -> Task:
    """A task with nothing but a gold answer, for a verifier called alone."""
    return Task("verify", (Message("user", ""),), gold, verifier, meta)  # type: ignore[arg-type]
