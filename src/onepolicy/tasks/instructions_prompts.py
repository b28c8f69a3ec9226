"""Prompts with several constraints at once, made without end, each with a reply that follows them all.

A prompt is a request and 1 to k constraints with drawn arguments that do not conflict; its gold answer is a plain text
changed until it follows every one, and a prompt whose gold answer does not is drawn again, so that no prompt asks for
the impossible. Which split a prompt belongs to is a hash of its text.
Source: IF-RLVR, Pyatkin et al. 2025 (arXiv 2507.02833), section 4: up to five or six constraints per prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from onepolicy.errors import ConfigError, nearest
from onepolicy.run.seeding import derive_rng
from onepolicy.tasks.base import TaskSet, conversation
from onepolicy.tasks.instructions import (
    CONSTRAINTS,
    IFEVAL_IDS,
    PLAIN,
    Bound,
    InstructionVerifier,
    Reward,
    conflicting,
    constraint,
)
from onepolicy.tasks.instructions_constraint import Errata, check_errata, pick
from onepolicy.tasks.instructions_samples import FILLERS, REQUESTS
from onepolicy.tasks.procedural import draw, named_levels, shares
from onepolicy.types import Task

Pool = Literal["all", "ifeval", "own"]
POOLS: tuple[Pool, ...] = ("all", "ifeval", "own")

TRIES = 200
"""Choices of constraints and arguments after which a draw counts as failed."""


@dataclass(frozen=True)
class InstructionLevel:
    """constraints: asked at once in each prompt."""

    constraints: int

    def __post_init__(self) -> None:
        if not 1 <= self.constraints <= 8:
            raise ConfigError(f"{self.constraints} constraints at once; a level has 1 to 8.")


LEVELS: dict[int, InstructionLevel] = {count: InstructionLevel(count) for count in range(1, 7)}
"""The level is the number of constraints."""


def load(
    split: str = "train",
    *,
    level: int | Sequence[int] | InstructionLevel = (1, 2, 3),
    n: int = 2_000,
    at_most: bool = False,
    seed: int = 0,
    pool: Pool = "all",
    leave_out: Sequence[str] = (),
    reward: Reward = "instruction_strict",
    errata: Errata = "corrected",
    system: str = "",
) -> TaskSet:
    """n different prompts of a level, or of several levels in turn.

    pool: constraints drawn from: all, IFEval's 25, or our own. leave_out: ids never asked, to hold constraints out.
    reward, errata: of the verifier; "corrected" by default, since a policy learns whatever is graded. Demonstrations
    (train only) are the gold answers.
    system: a system message for every task. meta: `level`, `instruction_id_list`, `kwargs`.
    Raises: ConfigError for an unknown level, pool, id or errata, or more prompts asked than there are, unless at_most.
    """
    check_errata(errata)
    ids = allowed(pool, leave_out)
    chosen = named_levels(level, LEVELS, "instruction")
    seen: set[str] = set()
    tasks: list[Task] = []
    for (name, one), count in zip(chosen, shares(n, len(chosen)), strict=True):
        rng = derive_rng(seed, "instructions", split, str(one), pool)
        make = partial(_make, ids, one.constraints, errata, rng)
        for prompt, bounds, gold in draw(make, count, split, seen, str(one), at_most):
            verifier = InstructionVerifier(bounds, reward, errata)
            meta = {
                "level": name,
                "instruction_id_list": [bound.id for bound in bounds],
                "kwargs": [dict(bound.args) for bound in bounds],
            }
            tasks.append(Task(f"instructions/{split}/{len(tasks)}", conversation(prompt, system), gold, verifier, meta))
    order = derive_rng(seed, "instructions", "order", split).permutation(len(tasks))
    counts = {"asked": n, "tasks": len(tasks), "constraints": len(ids)}
    return TaskSet(
        f"instructions/{split}",
        tuple(tasks[i] for i in order),
        demonstrate=demonstrate if split == "train" else None,
        form=PLAIN,
        counts=counts,
    )


def demonstrate(task: Task) -> str:
    """The gold answer: an example of following, not of writing well."""
    return task.answer


def allowed(pool: Pool, leave_out: Sequence[str] = ()) -> list[str]:
    """The ids of a pool without those left out. Raises: ConfigError for an unknown pool or id, or none left."""
    if pool not in POOLS:
        raise ConfigError(f"Unknown pool {pool!r}. {nearest(pool, POOLS)}")
    for name in leave_out:
        if name not in CONSTRAINTS:
            raise ConfigError(f"Unknown constraint {name!r} to leave out. {nearest(name, CONSTRAINTS)}")
    of_pool = [name for name in CONSTRAINTS if pool == "all" or (name in IFEVAL_IDS) == (pool == "ifeval")]
    ids = [name for name in of_pool if name not in leave_out]
    if not ids:
        raise ConfigError(f"all {len(of_pool)} constraints of pool {pool!r} are left out; leave some in.")
    return ids


Made = tuple[str, tuple[Bound, ...], str]


def _make(ids: Sequence[str], count: int, errata: Errata, rng: np.random.Generator) -> tuple[str, Made] | None:
    """(prompt, (prompt, constraints, gold)) with `count` constraints, or None after TRIES failures."""
    for _ in range(TRIES):
        names = _choose(ids, count, rng)
        if names is None:
            continue
        request = pick(rng, REQUESTS)[0]
        bounds = tuple(_bind(name, request, rng) for name in names)
        gold = compose(bounds, rng)
        verifier = InstructionVerifier(bounds, errata=errata)
        if all(one for one, _ in verifier.decisions(gold)):
            prompt = request + " " + " ".join(bound.describe() for bound in bounds)
            return prompt, (prompt, bounds, gold)
    return None


def _choose(ids: Sequence[str], count: int, rng: np.random.Generator) -> list[str] | None:
    """`count` different ids at random, none conflicting with another; None where the draw leads nowhere."""
    names: list[str] = []
    for i in rng.permutation(len(ids)):
        if not conflicting([*names, ids[i]]):
            names.append(ids[i])
        if len(names) == count:
            return names
    return None


def _bind(name: str, request: str, rng: np.random.Generator) -> Bound:
    args = constraint(name).draw(rng)
    return Bound(name, args | {"prompt_to_repeat": request} if "prompt_to_repeat" in args else args)


def compose(bounds: Sequence[Bound], rng: np.random.Generator) -> str:
    """A text made to follow constraints, in the order of their stages; whether it does is for the caller to see."""
    text = " ".join(pick(rng, FILLERS[:14], 4))
    for bound in sorted(bounds, key=lambda one: constraint(one.id).stage):
        write = constraint(bound.id).write
        text = write(text, bound.args) if write is not None else text
    return text
