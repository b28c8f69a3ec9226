"""Configurations: frozen dataclasses to and from JSON, from the command line, from keyword arguments.

In: conversion with exact types, overrides, presets, the command line by tyro, the hash that ties a checkpoint to its
configuration. Not in: validation of values, which is each dataclass's `__post_init__`, and any file.
Nested dataclasses are written with a dot, `optim.lr`, everywhere: in JSON they are objects.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from onepolicy.errors import ConfigError, nearest

C = TypeVar("C")

EXIT_INTERRUPTED = 75
"""Exit code of a run that was stopped by a signal and saved: run `onepolicy resume` to go on (EX_TEMPFAIL)."""
EXIT_USAGE = 2
"""Exit code of the command when a field, a preset or a value is wrong."""

PLACE_FIELDS = ("out",)
"""Fields that say where, not what: a moved run directory stays the same experiment, so the hash leaves them out."""


def to_json(config: Any) -> dict[str, Any]:
    """The fields of a configuration as JSON values: tuples as lists, paths as text, non-finite floats as text."""
    return {f.name: _plain(getattr(config, f.name), f.name) for f in fields(config)}


def from_json(cls: type[C], values: Mapping[str, Any], *, prefix: str = "") -> C:
    """The configuration that `to_json` wrote, types checked field by field.

    cls: a frozen dataclass. values: field -> JSON value; absent fields take their defaults.
    Raises: ConfigError for an unknown field (naming the nearest), a missing one, or a value of the wrong type.
    """
    hints = get_type_hints(cls)
    names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    for name in values:
        if name not in names:
            raise ConfigError(f"{prefix}{name} is not a field of {_title(cls)}. {nearest(name, names)}")
    for f in fields(cls):  # type: ignore[arg-type]
        if f.name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise ConfigError(f"{prefix}{f.name} is missing: {_title(cls)} has no default for it. Give it a value.")
    return cls(**{name: _typed(hints[name], value, prefix + name) for name, value in values.items()})


def apply_overrides(cls: type[C], preset: C | None, overrides: Mapping[str, Any]) -> C:
    """A preset with some fields replaced, types checked.

    preset: the starting point; None means `cls()`. overrides: field or `nested.field` -> value.
    Raises: ConfigError as `from_json`.
    """
    config = cls() if preset is None else preset
    hints = get_type_hints(cls)
    names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    changed: dict[str, Any] = {}
    for key, value in overrides.items():
        name, dot, rest = key.partition(".")
        if name not in names:
            known = [flag.removeprefix("--").replace("-", "_") for flag, _ in _flags(cls, config)]
            raise ConfigError(f"{key} is not a field of {_title(cls)}. {_nearest(key, [*names, *known])}")
        if dot:
            inner = changed.get(name, getattr(config, name))
            if not is_dataclass(inner):
                raise ConfigError(f"{key} names a part of {name}, which is {inner!r} and has none. Set {name} itself.")
            changed[name] = apply_overrides(type(inner), inner, {rest: value})  # type: ignore[arg-type]
        else:
            changed[name] = _typed(hints[name], value, name)
    return replace(config, **changed)  # type: ignore[type-var]


def choose_preset(cls: type[C], presets: Mapping[str, C], name: str | None) -> C:
    """The preset called `name`; for None the one called "default", or else `cls()`.

    Raises: ConfigError for an unknown name, offering the nearest.
    """
    if name is None:
        return presets["default"] if "default" in presets else cls()
    if name not in presets:
        hint = nearest(name, presets) if presets else "There are no presets; leave it out."
        raise ConfigError(f"{name!r} is not a preset of {_title(cls)}. {hint}")
    return presets[name]


def parse_args(cls: type[C], presets: Mapping[str, C], argv: Sequence[str], *, prog: str = "onepolicy") -> C:
    """The configuration a command line asks for: `--preset NAME --field value --flag --no-flag --nested.field value`.

    Underscores and dashes in field names are the same. A boolean is a flag with its negation, without a value.
    prog: what the usage line calls the command.
    Raises: ConfigError for unknown presets and fields (the nearest offered) and values that do not parse; the command
    prints it and exits with EXIT_USAGE. SystemExit(0) after printing the help.
    """
    import tyro

    rest, name = _take_preset(argv)
    preset = choose_preset(cls, presets, name)
    _check_flags(cls, preset, rest)
    listed = f"\n\nPresets (--preset NAME): {', '.join(presets)}." if presets else ""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(cls, args=rest, default=preset, prog=prog, description=(cls.__doc__ or "") + listed)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ConfigError(f"{_first_words(said.getvalue(), cls)} See {prog} --help.") from None


def config_hash(config: Mapping[str, Any]) -> str:
    """The sha256 of a configuration's JSON, keys sorted, PLACE_FIELDS left out."""
    kept = {key: value for key, value in config.items() if key not in PLACE_FIELDS}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, allow_nan=False).encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The fields in which two configurations differ, as `field: old -> new`, PLACE_FIELDS left out."""
    names = [name for name in dict.fromkeys([*old, *new]) if name not in PLACE_FIELDS]
    absent = object()
    pairs = [(name, old.get(name, absent), new.get(name, absent)) for name in names]
    words = [(n, "absent" if a is absent else repr(a), "absent" if b is absent else repr(b)) for n, a, b in pairs]
    return [f"{name}: {a} -> {b}" for name, a, b in words if a != b]


def _title(cls: type) -> str:
    """What errors call a configuration class: its module's last name and its own."""
    return f"{cls.__module__.rpartition('.')[2].removesuffix('_config')}.{cls.__qualname__}"


def _plain(value: Any, path: str) -> Any:
    """A value as JSON has it."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name), f"{path}.{f.name}") for f in fields(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(item, path) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{path}.{key}") for key, item in value.items()}
    raise ConfigError(
        f"{path} is {value!r}, a {type(value).__name__}; a configuration holds numbers, text, booleans, None, tuples, "
        "mappings and dataclasses of these. Store its name instead."
    )


def _typed(hint: Any, value: Any, path: str) -> Any:
    """`value` as the annotation `hint` wants it. Raises ConfigError where it does not fit."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Literal:
        if value in args:
            return value
        names = [str(arg) for arg in args]
        raise ConfigError(f"{path} is {value!r}, expected one of {', '.join(names)}. {nearest(str(value), names)}")
    if origin in (Union, types.UnionType):
        return _one_of(args, value, path)
    if origin in (tuple, list) or hint in (tuple, list):
        return _sequence(hint, origin, args, value, path)
    if isinstance(hint, type) and is_dataclass(hint):
        if isinstance(value, hint):
            return value
        if isinstance(value, Mapping):
            return from_json(hint, value, prefix=f"{path}.")
        raise _misfit(path, value, f"a {hint.__name__} or a mapping of its fields")
    if origin is dict or hint is dict or (origin is not None and issubclass(origin, Mapping)):
        if isinstance(value, Mapping):
            return {k: _typed(args[1], v, f"{path}.{k}") for k, v in value.items()} if args else dict(value)
        raise _misfit(path, value, "a mapping")
    return _scalar(hint, value, path)


def _one_of(choices: Sequence[Any], value: Any, path: str) -> Any:
    """`value` as the first annotation of a union that takes it."""
    problems = []
    for choice in choices:
        if choice is types.NoneType:
            if value is None:
                return None
            continue
        try:
            return _typed(choice, value, path)
        except ConfigError as error:
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    raise _misfit(path, value, " or ".join(getattr(choice, "__name__", str(choice)) for choice in choices))


def _sequence(hint: Any, origin: Any, args: Sequence[Any], value: Any, path: str) -> Any:
    """A tuple or list with every item as its annotation wants it."""
    if not isinstance(value, tuple | list):
        raise _misfit(path, value, "a list")
    kind = origin or hint
    if not args:
        return kind(value)
    if kind is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        if len(value) != len(args):
            raise _misfit(path, value, f"{len(args)} items")
        return tuple(_typed(arg, item, f"{path}[{i}]") for i, (arg, item) in enumerate(zip(args, value)))
    return kind(_typed(args[0], item, f"{path}[{i}]") for i, item in enumerate(value))


def _scalar(hint: Any, value: Any, path: str) -> Any:
    """A boolean, number, text or path; an integer is taken where a float is wanted, and 1e3 where 1000 is."""
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:
        return int(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is float and value in ("nan", "inf", "-inf"):
        return float(value)
    if hint is str and isinstance(value, str | Path):
        return str(value)
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is types.NoneType and value is None:
        return None
    if hint in (bool, int, float, str, Path, types.NoneType):
        raise _misfit(path, value, {bool: "True or False", int: "a whole number", float: "a number"}.get(hint, "text"))
    raise ConfigError(f"{path} has the annotation {hint!r}, which configurations do not know. Use a simpler one.")


def _misfit(path: str, value: Any, expected: str) -> ConfigError:
    """The error for a value of the wrong type."""
    return ConfigError(f"{path} is {value!r}, a {type(value).__name__}; expected {expected}.")


def _take_preset(argv: Sequence[str]) -> tuple[list[str], str | None]:
    """The arguments without `--preset NAME`, and NAME."""
    rest: list[str] = []
    name: str | None = None
    waiting = iter(argv)
    for word in waiting:
        if word == "--preset":
            name = next(waiting, None)
            if name is None:
                raise ConfigError("--preset has no value; expected the name of a preset after it.")
        elif word.startswith("--preset="):
            name = word.partition("=")[2]
        else:
            rest.append(word)
    return rest, name


def _flags(cls: type, config: Any, prefix: str = "") -> Iterator[tuple[str, str | None]]:
    """The command line's names for the fields of a configuration, with dashes, and their negations for booleans."""
    hints = get_type_hints(cls)
    for f in fields(cls):
        name = f.name.replace("_", "-")
        value = getattr(config, f.name)
        if is_dataclass(value):
            yield from _flags(type(value), value, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            yield f"--{prefix}{name}", f"--{prefix}no-{name}" if hints[f.name] is bool else None


def _check_flags(cls: type, config: Any, argv: Sequence[str]) -> None:
    """Raises ConfigError for a flag that is no field, offering the nearest, and for a boolean flag with a value."""
    negations = dict(_flags(cls, config))
    known = ["--help", "--preset", *negations, *filter(None, negations.values())]
    for word, following in zip(argv, [*argv[1:], ""]):
        name, given, _ = word.partition("=")
        flag = name.replace("_", "-")
        if flag.startswith("--") and flag not in known:
            raise ConfigError(f"{name} is not an option of {_title(cls)}. {_nearest(flag, known)}")
        negation = negations.get(flag)
        if negation is not None and (given or following.lower() in ("true", "false")):
            raise ConfigError(f"{flag} is a switch and takes no value. Write {flag} or {negation}.")


def _nearest(name: str, known: Sequence[str]) -> str:
    """`errors.nearest`, but a nested name whose last part is `name` comes first; one whose last part is near, last."""
    tails = {option.rpartition(".")[2]: option for option in known if "." in option}
    tail = name.lstrip("-")
    if tail in tails:
        return f"Did you mean {tails[tail]!r}?"
    close = get_close_matches(name, known, n=1) or [tails[near] for near in get_close_matches(tail, tails, n=1)]
    return f"Did you mean {close[0]!r}?" if close else nearest(name, known)


def _first_words(said: str, cls: type) -> str:
    """The sentence in tyro's error message: what stands between its title and its first rule."""
    lines = [re.sub(r"[╭╮╰╯│─]", " ", line).strip() for line in said.splitlines()]
    body = lines[1:]
    while body and not body[0].strip("- "):
        body.pop(0)
    rule = next((i for i, line in enumerate(body) if not line.strip("- ")), len(body))
    title, _, rest = " ".join(body[:rule]).removeprefix("Error parsing ").partition(": ")
    text = rest if title == cls.__name__ else f"{title}: {rest}" if rest else title
    return text if text.endswith((".", "?")) else f"{text}."
