"""Arithmetic whose chain of thought is written in one of two languages, or in a mixture: R1's language consistency.

Problems, splits and answers are those of `tasks.arithmetic`. A step of the thinking names its operation by a word,
Greek or Latin: `3πλην8=-5;-5συν5=0` in the first language, `3minus8=-5;-5plus5=0` in the second. The first is the
target: the reward pays for its share among the words, as DeepSeek-R1's does (arXiv 2501.12948, section 2.3.2), by the
verifier that judges real texts (`tasks.language`). Greek is the only language of its script, so nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from onepolicy.errors import ConfigError, nearest
from onepolicy.run.seeding import derive_rng
from onepolicy.tasks import arithmetic
from onepolicy.tasks.arithmetic import ArithmeticLevel
from onepolicy.tasks.base import TaskSet
from onepolicy.tasks.expressions import evaluate, number_text, parse, reductions
from onepolicy.tasks.language import LanguageReward, LanguageVerifier
from onepolicy.tasks.rewards import DEFAULT_WEIGHTS, TAGGED, AnswerVerifier, RewardWeights
from onepolicy.types import Task

LANGUAGE = "el"
"""The target language."""
JUDGE = LanguageVerifier(LANGUAGE, side="thinking", minimum=1)
"""What measures its share of a thinking's words, few and short as they are."""
WORDS: dict[str, dict[str, str]] = {
    "el": {"+": "συν", "-": "πλην", "*": "επι"},
    "en": {"+": "plus", "-": "minus", "*": "times"},
}
"""The operations' words by language."""
CHARACTERS = "".join(sorted({*arithmetic.CHARACTERS, *(c for own in WORDS.values() for w in own.values() for c in w)}))
"""Every character of a prompt or demonstration outside the four tags."""
CARELESS = {"rough": 0.65, "half": 0.5}
"""Share of problems that a style answers at once."""


def load(
    split: str = "train",
    *,
    level: int | Sequence[int] | ArithmeticLevel = 3,
    n: int = 10_000,
    at_most: bool = False,
    seed: int = 0,
    style: str = "mixed",
    system: str = "",
    language: float = 0.0,
    weights: RewardWeights = DEFAULT_WEIGHTS,
) -> TaskSet:
    """n different problems of arithmetic, asked as there; options as `arithmetic.load`'s.

    style: of the demonstrations (STYLES). language: what a share of 1 in the target language pays, reward units.
    """
    if style not in STYLES:
        raise ConfigError(f"Unknown style {style!r} of bilingual. {nearest(style, STYLES)}")
    plain = arithmetic.load(split, level=level, n=n, at_most=at_most, seed=seed, system=system)
    verifier = LanguageReward(AnswerVerifier(arithmetic.judge, TAGGED, weights), language, JUDGE)
    return replace(
        plain,
        name=f"bilingual/{split}",
        tasks=tuple(replace(t, id=f"bilingual/{t.meta['expression']}", verifier=verifier) for t in plain),
        characters=CHARACTERS,
        demonstrate=partial(demonstrate, style=style) if split == "train" else None,
    )


def demonstrate(task: Task, style: str = "mixed") -> str:
    """A worked completion: the steps in words as thinking, then the answer."""
    return TAGGED.write(STYLES[style](task.meta["expression"]), task.answer)


def worded(expression: str, languages: Sequence[str]) -> str:
    """Each operation in words with its result; step i is in languages[i mod their number].

    >>> worded("4-2*(3-8)", ["el"]), worded("4-2*(3-8)", ["el", "en"])
    ('3πλην8=-5;2επι-5=-10;4πλην-10=14', '3πλην8=-5;2times-5=-10;4πλην-10=14')
    """
    found = []
    for i, (step, _) in enumerate(reductions(parse(expression))):
        left, right = number_text(evaluate(step.left)), number_text(evaluate(step.right))
        word = WORDS[languages[i % len(languages)]][step.operator]
        found.append(f"{left}{word}{right}={number_text(evaluate(step))}")
    return ";".join(found)


def mixed(expression: str) -> str:
    """Writers of three habits, each for a third of the problems: one language, the other, or whichever comes to mind.

    Which problem is whose is a hash of it.
    """
    rng = _rng(expression)
    habit = int(rng.integers(3))
    names = tuple(WORDS)
    return worded(expression, [names[habit]] if habit < 2 else [names[i] for i in rng.integers(2, size=20)])


def careless(expression: str, share: float) -> str:
    """As `mixed`, but that share of the problems, by a hash of each, is answered at once."""
    return "" if _rng(expression, "careless").random() < share else mixed(expression)


def _rng(expression: str, *more: str) -> np.random.Generator:
    return derive_rng("bilingual", expression, *more)


STYLES: dict[str, Callable[[str], str]] = {
    "mixed": mixed,
    **{name: partial(careless, share=share) for name, share in CARELESS.items()},
    **{code: partial(worded, languages=[code]) for code in WORDS},
}
"""Ways of working an expression out, by name; a language's code is that language alone."""
