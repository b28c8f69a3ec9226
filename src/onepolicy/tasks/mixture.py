"""Several task sets as one, by shares: what reinforcement learning on all tasks trains on.

Every task keeps its own verifier, so each is judged by its own rule; the id's part before the first slash says which
set it is from. Not here: weights of a reward's components within one task (`tasks.compose`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import replace

from onepolicy.errors import ConfigError
from onepolicy.tasks.base import TaskSet, load_task_set, makes_problems, task_options
from onepolicy.tasks.language import LanguageReward, LanguageVerifier
from onepolicy.tasks.procedural import shares as equal_shares
from onepolicy.tasks.rewards import TAGGED
from onepolicy.types import Score, Task


def load(
    split: str = "train",
    *,
    sets: Sequence[str] | str = ("arithmetic",),
    shares: Sequence[float] = (),
    options: Sequence[str] = (),
    language: str = "",
    language_weight: float = 0.0,
    n: int = 10_000,
    at_most: bool = True,
    seed: int = 0,
    level: int | None = None,
    style: str = "",
    system: str = "",
) -> TaskSet:
    """n tasks of several sets, or in held-out splits as many as there are.

    sets: names of task sets. shares: of n, in proportion; equal if empty. A set that has fewer tasks for training gives
    them again under ids that end in `#2`, `#3`, ...; n is of problems that are made, so sets that read files have all
    of theirs where they are alone. options: `set.key=value` for a set's own option, `set.train.key=value` and
    `set.test.key=value` for one split's. language: the code of one in which thinking is to be, where answers are marked
    by tags; its share of the words pays language_weight. level, style, system, seed: go to the sets that know them.
    Raises: ConfigError for no sets, a set named twice, shares of another number, or an option of no such set.

    >>> found = load(sets=["arithmetic", "letters"], shares=[3, 1], options=["arithmetic.level=1"], n=8)
    >>> sorted({task.id.partition("/")[0] for task in found}), len(found)
    (['arithmetic', 'letters'], 8)
    """
    names = [sets] if isinstance(sets, str) else list(sets)
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"a mixture of the sets {names}; name at least one, and each once.")
    weights = list(shares) or [1.0] * len(names)
    if len(weights) != len(names) or min(weights) <= 0:
        raise ConfigError(f"shares are {weights} for the sets {names}; give each a number above 0.")
    own = _own_options(names, options, split)
    counts = _counts(n, weights)
    wishes = {"level": level, "style": style or None, "system": system, "seed": seed, "at_most": at_most}
    found = []
    for name, count in zip(names, counts, strict=True):
        known = task_options(name)
        given = {key: value for key, value in wishes.items() if key in known and value is not None}
        given |= {"n": count} if makes_problems(name) else {}
        one = load_task_set(name, split, **{**given, **own[name]})
        found.append(_spoken(one, language, language_weight) if language and one.form is TAGGED else one)
    wanted = counts if split == "train" and len(found) > 1 else [len(each) for each in found]
    parts = [_exactly(each.tasks, count) for each, count in zip(found, wanted, strict=True)]
    owner = {task.id: each for each, tasks in zip(found, parts, strict=True) for task in tasks}

    def demonstrate(task: Task) -> str:
        of = owner[task.id]
        if of.demonstrate is None:
            raise ConfigError(f"{of.name} gives no demonstrations; leave it out of those that are to be learnt.")
        return of.demonstrate(task)

    known_text = all(each.characters for each in found)
    return replace(
        found[0],
        name=f"mixture/{split}",
        tasks=tuple(task for tasks in parts for task in tasks),
        characters="".join(sorted(set().union(*(each.characters for each in found)))) if known_text else "",
        demonstrate=demonstrate if split == "train" else None,
        counts={"asked": sum(wanted), "tasks": sum(map(len, parts))},
        dropped=tuple(line for each in found for line in each.dropped),
        isolated=any(each.isolated for each in found),
        modules=tuple(dict.fromkeys(module for each in found for module in each.modules)),
        prove=_proved,
    )


def _spoken(tasks: TaskSet, language: str, weight: float) -> TaskSet:
    """The tasks, their thinking's language paid for as well."""
    judge = LanguageVerifier(language, side="thinking")
    spoken = (replace(t, verifier=LanguageReward(t.verifier, weight, judge)) for t in tasks)
    return replace(tasks, tasks=tuple(spoken), prove=tasks.prove or _proved)


def _proved(task: Task, text: str) -> Score:
    """Every member set has verified its own gold answers when it was loaded."""
    return Score(1.0, {"correct": 1.0})


def _counts(n: int, weights: Sequence[float]) -> list[int]:
    """n in proportion to weights, rounded down, at least 1 each; equal weights as `procedural.shares`."""
    if len(set(weights)) == 1:
        return [max(1, count) for count in equal_shares(n, len(weights))]
    return [max(1, int(n * weight / sum(weights))) for weight in weights]


def _exactly(tasks: Sequence[Task], count: int) -> tuple[Task, ...]:
    """`count` tasks, from the front again where there are fewer, under ids of their own."""
    rounds = (divmod(i, len(tasks)) for i in range(count))
    return tuple(replace(tasks[at], id=f"{tasks[at].id}#{turn + 1}") if turn else tasks[at] for turn, at in rounds)


def _own_options(names: Sequence[str], options: Iterable[str], split: str) -> dict[str, dict[str, object]]:
    """Each set's own options for a split."""
    found: dict[str, dict[str, object]] = {name: {} for name in names}
    for piece in options:
        key, equals, value = piece.partition("=")
        name, dot, option = key.strip().rpartition(".")
        base, _, when = name.rpartition(".")
        if when in ("train", "test") and base:
            name = base
        else:
            when = ""
        if not equals or not dot or name not in found:
            raise ConfigError(
                f"the option {piece!r} is for none of {', '.join(names)}; write set.key=value, set.train.key=value or "
                "set.test.key=value."
            )
        if when in ("", split):
            found[name][option] = _value(value.strip())
    return found


def _value(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
