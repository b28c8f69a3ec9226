"""`onepolicy data`: what is done to files of rows before training, one module for each subcommand.

A subcommand's module has `Config`, a frozen dataclass whose first fields are those given without a flag (`WORDS`), and
`main(config) -> Outcome`. To add one: write it and enter it in COMMANDS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from onepolicy.errors import ConfigError, nearest
from onepolicy.run.config import parse_args

COMMANDS: dict[str, tuple[str, str]] = {
    "check": ("onepolicy.recipes.data_check", "form, duplicates, lengths, gold answers and overlap of a file"),
    "mix": ("onepolicy.recipes.data_mix", "named sources by weight into one file"),
    "make": ("onepolicy.recipes.data_make", "rankings, demonstrations and text: letters, gsm8k-rankings FILE"),
    "sample": ("onepolicy.recipes.rejection", "a model's good answers as a training file, and best-of-n"),
    "filter": ("onepolicy.recipes.data_filter", "the problems that a model solves sometimes"),
}
"""Subcommands: module, and what it does in a line."""


@dataclass(frozen=True)
class Outcome:
    """What a subcommand found, in words, and the exit code: 0, or 1 where the data should not be used as it is."""

    text: str
    code: int = 0


def run(argv: Sequence[str]) -> Outcome:
    """The subcommand that a command line names, run.

    Raises: ConfigError for an unknown one (the nearest offered), too many words, or fields that do not parse.
    """
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        lines = [f"  {name:<{width}}  {about}" for name, (_, about) in COMMANDS.items()]
        return Outcome("usage: onepolicy data COMMAND ...\n\n" + "\n".join(lines))
    name, rest = argv[0], list(argv[1:])
    if name not in COMMANDS:
        raise ConfigError(f"{name!r} is not a subcommand of data. {nearest(name, COMMANDS)}")
    module = import_module(COMMANDS[name][0])
    words = rest[: next((i for i, word in enumerate(rest) if word.startswith("-")), len(rest))]
    config = parse_args(
        module.Config, {}, [*module.arguments(words), *_long(rest[len(words) :])], prog=f"onepolicy data {name}"
    )
    outcome: Outcome = module.main(config)
    return outcome


def only(field: str, words: Sequence[str], usage: str) -> list[str]:
    """The flag of a single word that is given without one. Raises: ConfigError for more words."""
    if len(words) > 1:
        raise ConfigError(f"expected one {field.upper()}, got {len(words)}: onepolicy data {usage}.")
    return [f"--{field}", words[0]] if words else []


def _long(argv: Sequence[str]) -> list[str]:
    return ["--k" if word == "-k" else word for word in argv]
