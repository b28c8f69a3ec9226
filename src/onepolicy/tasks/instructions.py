"""Verifiable constraints on replies: IFEval's 25 and ours, bound to arguments, judged strictly and loosely.

A constraint that is unknown, asked twice, or given bad arguments is an error when the verifier is built; it is never
passed over. Strict and loose are the paper's: loose takes the best of eight variants of the reply (as it is, without
its first line, its last, or both; each with and without asterisks).
Source: Zhou et al. 2023 (arXiv 2311.07911), section 2.3; training with several constraints at once: Pyatkin et al. 2025
(arXiv 2507.02833).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from onepolicy.errors import ConfigError, DataError, nearest
from onepolicy.tasks.instructions_constraint import Args, Constraint, Errata, check_errata
from onepolicy.tasks.instructions_ifeval import IFEVAL
from onepolicy.tasks.instructions_more import MORE
from onepolicy.tasks.instructions_shapes import SHAPES
from onepolicy.tasks.language import require_langid
from onepolicy.tasks.rewards import AnswerFormat, split_thinking
from onepolicy.types import Score, Task

CONSTRAINTS: dict[str, Constraint] = {one.id: one for one in (*IFEVAL, *MORE, *SHAPES)}
"""Every constraint by its id."""

IFEVAL_IDS: tuple[str, ...] = tuple(one.id for one in IFEVAL)

MAX_REPLY = 100_000
"""Characters of a reply at most; a longer one follows nothing and is not looked at."""

_NEEDS_LANGID = ("language:response_language", "change_case:english_capital", "change_case:english_lowercase")

Reward = Literal["instruction_strict", "instruction_loose", "prompt_strict", "prompt_loose"]
REWARDS: tuple[Reward, ...] = ("instruction_strict", "instruction_loose", "prompt_strict", "prompt_loose")


def _response(text: str) -> str:
    """The text as it is, or what follows the thinking without its first line breaks; `<answer>` tags around all of it
    are put aside."""
    thinking, rest = split_thinking(text)
    if rest.strip().startswith("<answer>") and rest.strip().endswith("</answer>") and rest.count("<answer>") == 1:
        return rest.strip().removeprefix("<answer>").removesuffix("</answer>").strip("\r\n")
    return text if thinking is None else rest.lstrip("\r\n")


def _write_plain(thinking: str, answer: str) -> str:
    return f"<think>{thinking}</think>{answer}" if thinking else answer


def _replies(text: str) -> bool:
    return bool(_response(text).strip())


PLAIN = AnswerFormat("plain", _response, _replies, _write_plain, "Reply with the requested text and nothing else.")
"""The reply is the answer: everything outside `<think>…</think>`, without `<answer>` tags around it."""


@dataclass(frozen=True)
class Bound:
    """A constraint with its arguments, checked. Raises: DataError for an unknown id or bad arguments."""

    id: str
    args: Args = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "args", constraint(self.id).read(self.args))

    def follows(self, reply: str, errata: Errata = "original") -> bool:
        """Whether a reply follows it; a blank or over-long one does not."""
        return len(reply) <= MAX_REPLY and constraint(self.id).follows(reply, self.args, errata)

    def follows_loosely(self, reply: str, errata: Errata = "original") -> bool:
        """Whether one of the reply's eight variants follows it."""
        return len(reply) <= MAX_REPLY and any(self.follows(one, errata) for one in loose_variants(reply))

    def describe(self) -> str:
        """It in words, for a prompt."""
        return constraint(self.id).describe(self.args)


def constraint(name: str) -> Constraint:
    """The constraint with an id. Raises: DataError for an unknown one, offering the nearest."""
    if not isinstance(name, str) or name not in CONSTRAINTS:
        raise DataError(f"Unknown constraint {name!r}. {nearest(str(name), CONSTRAINTS)}")
    return CONSTRAINTS[name]


def loose_variants(reply: str) -> list[str]:
    r"""The eight texts of which one has to follow: whole, without first line, last line, both; and without asterisks.

    >>> loose_variants("a\n*b*\nc")[:4]
    ['a\n*b*\nc', 'a\nb\nc', '*b*\nc', 'a\n*b*']
    """
    lines = reply.split("\n")
    cut = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    return [reply, reply.replace("*", ""), *cut, *(part.replace("*", "") for part in cut)]


def bind(
    ids: Sequence[str], arguments: Sequence[Mapping[str, Any] | None], *, repeats: bool = False
) -> tuple[Bound, ...]:
    """Constraints with their arguments, in order.

    repeats: the same id may come twice, as in some of IFEval's prompts (a lower and an upper bound).
    Raises: DataError for an unknown id, one asked twice, bad arguments, or as many ids as arguments not given.
    """
    if len(ids) != len(arguments):
        raise DataError(f"{len(ids)} constraints and {len(arguments)} sets of arguments; give one set for each.")
    if not ids:
        raise DataError("no constraints; give at least one.")
    name, times = Counter(map(str, ids)).most_common(1)[0]
    if times > 1 and not repeats:
        raise DataError(f"constraint {name!r} is asked {times} times; ask it once, or set repeats=True.")
    return tuple(Bound(one, {} if args is None else args) for one, args in zip(ids, arguments, strict=True))


def conflicting(ids: Iterable[str]) -> list[tuple[str, str]]:
    """The pairs of different constraints that should not be asked together, in order.

    >>> conflicting(["punctuation:no_comma", "change_case:english_capital", "change_case:english_lowercase"])
    [('change_case:english_capital', 'change_case:english_lowercase')]
    """
    names = list(dict.fromkeys(ids))
    pairs = ((one, two) for i, one in enumerate(names) for two in names[i + 1 :])
    return [(one, two) for one, two in pairs if _conflict(one, two) or _conflict(two, one)]


def _conflict(one: str, two: str) -> bool:
    named = constraint(one).conflicts
    return "*" in named or two in named or two.partition(":")[0] + ":*" in named


@dataclass(frozen=True)
class InstructionVerifier:
    """Judges a reply by its constraints.

    constraints: see `bind`. reward: which part is the value: the share of constraints followed (instruction) or
    1 for all of them (prompt), strictly or loosely. errata: "original" decides as IFEval's code, "corrected" as its
    wording asks. form: where the reply stands in a completion; the default leaves the thinking out.
    repeats: see `bind`.

    Parts: the four, `correct` (= prompt_strict), and the counts `constraints`, `followed_strict`, `followed_loose`,
    with which instruction-level accuracy is summed over a data set.

    Raises: DataError for no constraints or one twice; ConfigError for an unknown reward or errata, or a constraint on
    the language where py3langid is missing.
    """

    constraints: tuple[Bound, ...]
    reward: Reward = "instruction_strict"
    errata: Errata = "original"
    form: AnswerFormat = PLAIN
    repeats: bool = False

    def __post_init__(self) -> None:
        check_errata(self.errata)
        if self.reward not in REWARDS:
            raise ConfigError(f"Unknown reward {self.reward!r}. {nearest(self.reward, REWARDS)}")
        bind([one.id for one in self.constraints], [one.args for one in self.constraints], repeats=self.repeats)
        for one in self.constraints:
            if one.id in _NEEDS_LANGID:
                require_langid(f"constraint {one.id!r}")

    def __call__(self, task: Task, text: str) -> Score:
        reply = self.form.extract(text) or ""
        followed = self.decisions(reply)
        strict, loose = sum(one for one, _ in followed), sum(one for _, one in followed)
        count = len(followed)
        parts: dict[str, float | None] = {
            "correct": float(strict == count),
            "prompt_strict": float(strict == count),
            "prompt_loose": float(loose == count),
            "instruction_strict": strict / count,
            "instruction_loose": loose / count,
            "constraints": float(count),
            "followed_strict": float(strict),
            "followed_loose": float(loose),
        }
        return Score(parts[self.reward], parts)

    def decisions(self, reply: str) -> list[tuple[bool, bool]]:
        """(strictly, loosely) followed, for each constraint in order."""
        return [
            (strict := one.follows(reply, self.errata), strict or one.follows_loosely(reply, self.errata))
            for one in self.constraints
        ]
