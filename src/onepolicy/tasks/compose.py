"""Several verifiers as one: weighted sum, product, all, first, with every component's value kept in the parts.

A composite is a Verifier like any other: frozen, picklable, and itself a possible component. Its Score's parts hold
each component's value by name, each component's own parts as `name/part`, and `correct` and `format` of the first
component that has them, since accuracy counts those.

What a component's state does, under every rule:

- skipped: it is left out, its part is None. All skipped: the composite is skipped.
- invalid: the composite is invalid, its error names the component behind the cause. A component declared `optional` is
  then left out as if it were skipped, and `name_invalid` in the parts is 1 (0 where it was judged).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from onepolicy.errors import ConfigError, nearest
from onepolicy.tasks.verdicts import verdict
from onepolicy.types import Score, Task, Verifier

Rule = Literal["weighted_sum", "product", "all", "first"]


@dataclass(frozen=True)
class Component:
    """One verifier of a composite.

    weight: its factor in a weighted sum, finite and not 0; below 0 it is a penalty. optional: a failure to judge leaves
    it out instead of making the composite invalid. threshold: the least value with which it passes in `all_of`.
    """

    name: str
    verifier: Verifier
    weight: float = 1.0
    optional: bool = False
    threshold: float = 1.0

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ConfigError(f"a component is called {self.name!r}; its name is not empty and has no slash.")
        if not math.isfinite(self.weight) or self.weight == 0:
            raise ConfigError(
                f"component {self.name!r} has weight {self.weight}; a weight is finite and not 0. Leave the component "
                "out, or watch it without paying for it by a very small weight."
            )


@dataclass(frozen=True)
class Composite:
    """A Verifier made of components by a rule; `weighted_sum`, `product`, `all_of` and `first_of` build it.

    Raises: ConfigError for no components, a name given twice, an unknown rule, or weights where the rule has none.
    """

    components: tuple[Component, ...]
    rule: Rule

    def __post_init__(self) -> None:
        names = [component.name for component in self.components]
        if self.rule not in RULES:
            raise ConfigError(f"unknown rule {self.rule!r}. {nearest(self.rule, RULES)}")
        if not names:
            raise ConfigError(f"{self.rule} of no verifiers; give at least one component.")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"two components are called {twice[0]!r}; each needs a name of its own.")
        weighted = [component.name for component in self.components if component.weight != 1.0]
        if weighted and self.rule != "weighted_sum":
            raise ConfigError(f"component {weighted[0]!r} has a weight; {self.rule} has none. Use weighted_sum.")

    def __call__(self, task: Task, text: str) -> Score:
        parts: dict[str, float | None] = {component.name: None for component in self.components}
        judged: list[tuple[Component, float]] = []
        errors: list[str] = []
        for component in self.components:
            score = verdict(_with(task, component.verifier), text)
            parts[component.name] = score.value
            for part, value in score.parts.items():
                parts[f"{component.name}/{part}"] = value
                if part in ("correct", "format"):
                    parts.setdefault(part, value)
            if component.optional and score.state != "skipped":
                parts[f"{component.name}_invalid"] = float(score.state == "invalid")
            if score.value is not None:
                judged.append((component, score.value))
                if self.rule == "first":
                    break
            elif score.error is not None and not component.optional:
                errors.append(_named(score, component))
                if self.rule == "first":
                    break
        if errors:
            return Score(None, parts, "; ".join(errors))
        return Score(RULES[self.rule](self.components, judged) if judged else None, parts)


def weighted_sum(*components: Component) -> Composite:
    """sum_i w_i v_i over the components that apply, scaled by W / W_applied.

    W is the sum of all |w_i| and W_applied that of the applying ones, so that a component that does not apply neither
    costs nor pays: the others take over its weight in proportion. With no component skipped the scale is 1.

    >>> from onepolicy.types import Message
    >>> task = Task("t", (Message("user", "Be brief."),), "", lambda task, text: Score(0.0))
    >>> right = Component("right", lambda task, text: Score(1.0), weight=3)
    >>> style = Component("style", lambda task, text: Score(None))
    >>> weighted_sum(right, style)(task, "Yes.").value
    4.0
    """
    return Composite(components, "weighted_sum")


def product(*components: Component) -> Composite:
    """The product of the values of the components that apply: one that is 0 vetoes."""
    return Composite(components, "product")


def all_of(*components: Component) -> Composite:
    """1 if every component that applies reaches its threshold, else 0."""
    return Composite(components, "all")


def first_of(*components: Component) -> Composite:
    """The value of the first component that applies; those behind it are not called, their parts are None.

    One that fails to judge ends the search, unless it is optional: then the next is asked.
    """
    return Composite(components, "first")


Judged = Sequence[tuple[Component, float]]


def _weighted_sum(components: Sequence[Component], judged: Judged) -> float:
    total = math.fsum(component.weight * value for component, value in judged)
    if len(judged) == len(components):
        return total
    applied = math.fsum(abs(component.weight) for component, _ in judged)
    return total * math.fsum(abs(component.weight) for component in components) / applied


def _product(_: Sequence[Component], judged: Judged) -> float:
    return math.prod(value for _, value in judged)


def _all(_: Sequence[Component], judged: Judged) -> float:
    return float(all(value >= component.threshold for component, value in judged))


def _first(_: Sequence[Component], judged: Judged) -> float:
    return judged[0][1]


RULES: dict[str, Callable[[Sequence[Component], Judged], float]] = {
    "weighted_sum": _weighted_sum,
    "product": _product,
    "all": _all,
    "first": _first,
}
"""How the values of the components that apply, in order and at least one, become the composite's."""


def _named(score: Score, component: Component) -> str:
    """The error of a component with its name behind the cause."""
    assert score.error is not None
    cause, colon, words = score.error.partition(":")
    known = colon and score.cause == cause
    return f"{cause}: {component.name}:{words}" if known else f"other: {component.name}: {score.error}"


def _with(task: Task, verifier: Verifier) -> Task:
    """The task with another verifier."""
    return Task(task.id, task.messages, task.answer, verifier, task.meta)
