"""Composites by hand: what each rule makes of values, and what a component that is skipped or fails does to them."""

from __future__ import annotations

import pickle
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepolicy.errors import ConfigError
from onepolicy.tasks.base import conversation
from onepolicy.tasks.compose import Component, Composite, all_of, first_of, product, weighted_sum
from onepolicy.types import Score, Task


@dataclass(frozen=True)
class Fixed:
    """A verifier with one answer."""

    score: Score

    def __call__(self, task, text):
        return self.score


@dataclass(frozen=True)
class Raises:
    error: type[Exception]

    def __call__(self, task, text):
        raise self.error("no")


TASK = Task("t", conversation("Ask"), "7", Fixed(Score(0.0)))
SKIPPED = Score(None)
INVALID = Score(None, {}, "time-out: no verdict within 5 s")


def part(name, score, **fields):
    if not isinstance(score, Score):
        score = Score(score)
    return Component(name, Fixed(score), **fields)


@pytest.mark.parametrize(
    ("composite", "value"),
    [
        (weighted_sum(part("a", 0.5, weight=2), part("b", 1.0, weight=3)), 4.0),
        (weighted_sum(part("a", 0.5, weight=2), part("b", 1.0, weight=-0.25)), 0.75),
        (product(part("a", 0.5), part("b", 0.25)), 0.125),
        (product(part("a", 0.0), part("b", 0.25)), 0.0),
        (all_of(part("a", 1.0), part("b", 0.5, threshold=0.5)), 1.0),
        (all_of(part("a", 1.0), part("b", 0.9)), 0.0),
        (first_of(part("a", 0.25), part("b", 0.5)), 0.25),
    ],
)
def test_the_rules_by_hand(composite, value):
    score = composite(TASK, "x")
    assert score.value == value
    assert score.error is None
    assert score.parts["a"] == composite.components[0].verifier.score.value


@pytest.mark.parametrize(
    ("composite", "value"),
    [
        # 2 * 0.5, the weight of b taken over: times (2 + 3) / 2
        (weighted_sum(part("a", 0.5, weight=2), part("b", SKIPPED, weight=3)), 2.5),
        # a penalty that does not apply: times (2 + 0.5) / 2
        (weighted_sum(part("a", 1.0, weight=2), part("b", SKIPPED, weight=-0.5)), 2.5),
        (product(part("a", 0.5), part("b", SKIPPED)), 0.5),
        (all_of(part("a", 1.0), part("b", SKIPPED)), 1.0),
        (first_of(part("b", SKIPPED), part("a", 0.5)), 0.5),
    ],
)
def test_a_skipped_component_is_left_out(composite, value):
    score = composite(TASK, "x")
    assert (score.value, score.parts["b"], score.state) == (value, None, "judged")


@pytest.mark.parametrize("rule", [weighted_sum, product, all_of, first_of])
def test_where_nothing_applies_the_composite_is_skipped(rule):
    assert rule(part("a", SKIPPED), part("b", SKIPPED))(TASK, "x") == Score(None, {"a": None, "b": None})


@pytest.mark.parametrize("rule", [weighted_sum, product, all_of])
def test_a_failed_component_makes_it_invalid_and_is_named(rule):
    score = rule(part("a", 1.0), part("slow", INVALID))(TASK, "x")
    assert score == Score(None, {"a": 1.0, "slow": None}, "time-out: slow: no verdict within 5 s")
    assert score.cause == "time-out"


@pytest.mark.parametrize("rule", [weighted_sum, product, all_of])
def test_an_optional_one_that_fails_is_left_out_and_seen(rule):
    score = rule(part("a", 1.0), part("slow", INVALID, optional=True))(TASK, "x")
    assert score.state == "judged"
    assert score.parts == {"a": 1.0, "slow": None, "slow_invalid": 1.0}
    fine = rule(part("a", 1.0), part("slow", 1.0, optional=True))(TASK, "x")
    assert fine.parts == {"a": 1.0, "slow": 1.0, "slow_invalid": 0.0}


def test_first_stops_at_the_first_that_applies():
    score = first_of(part("a", 1.0), Component("never", Raises(ValueError)))(TASK, "x")
    assert score == Score(1.0, {"a": 1.0, "never": None})
    assert first_of(part("a", INVALID), part("b", 1.0))(TASK, "x").cause == "time-out"
    assert first_of(part("a", INVALID, optional=True), part("b", 1.0))(TASK, "x").value == 1.0


@pytest.mark.parametrize(("error", "cause"), [(ValueError, "crash"), (MemoryError, "memory")])
def test_a_component_that_raises_has_failed(error, cause):
    score = product(part("a", 1.0), Component("b", Raises(error)))(TASK, "x")
    assert (score.value, score.cause) == (None, cause)
    assert score.error.startswith(f"{cause}: b:")


def test_a_component_whose_error_has_no_cause_keeps_its_words():
    score = product(part("a", Score(None, {}, "nobody knows")))(TASK, "x")
    assert (score.error, score.cause) == ("other: a: nobody knows", "other")


def test_components_parts_are_kept_and_accuracy_finds_correct():
    """Both judge; `correct` and `format` are the first's that has them."""
    inner = weighted_sum(part("length", 0.5, weight=2), part("maths", Score(1.1, {"correct": 1.0, "format": 0.0})))
    score = product(Component("style", inner), part("other", Score(1.0, {"correct": 0.0})))(TASK, "x")
    assert score.parts == {
        "style": 2.1,
        "style/length": 0.5,
        "style/maths": 1.1,
        "style/maths/correct": 1.0,
        "style/maths/format": 0.0,
        "style/correct": 1.0,
        "style/format": 0.0,
        "correct": 1.0,
        "format": 0.0,
        "other": 1.0,
        "other/correct": 0.0,
    }


def test_it_goes_through_pickle_and_is_equal():
    composite = weighted_sum(part("a", 0.5, weight=2), part("b", SKIPPED))
    again = pickle.loads(pickle.dumps(composite))  # noqa: S301
    assert again == composite
    assert again(TASK, "x") == composite(TASK, "x")


@given(
    st.lists(
        st.tuples(st.floats(-5, 5).filter(lambda w: abs(w) > 1e-3), st.one_of(st.none(), st.floats(-3, 3))),
        min_size=1,
        max_size=6,
    )
)
def test_the_weighted_sum_against_a_loop(drawn):
    """Order changes nothing; a skipped component is as if its weight were spread over the others in proportion."""
    components = [part(f"c{i}", value, weight=weight) for i, (weight, value) in enumerate(drawn)]
    value = weighted_sum(*components)(TASK, "x").value
    applied = [(w, v) for w, v in drawn if v is not None]
    if not applied:
        assert value is None
        return
    scale = sum(abs(w) for w, _ in drawn) / sum(abs(w) for w, _ in applied)
    assert value == pytest.approx(sum(scale * w * v for w, v in applied), rel=1e-9, abs=1e-9)
    assert weighted_sum(*reversed(components))(TASK, "x").value == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: weighted_sum(), "weighted_sum of no verifiers; give at least one"),
        (lambda: product(part("a", 1.0), part("a", 0.0)), "two components are called 'a'"),
        (lambda: product(part("a", 1.0, weight=2)), "component 'a' has a weight; product has none. Use weighted_sum"),
        (lambda: part("a", 1.0, weight=0), "has weight 0; a weight is finite and not 0"),
        (lambda: part("a", 1.0, weight=float("nan")), "has weight nan"),
        (lambda: part("a/b", 1.0), "is called 'a/b'; its name is not empty and has no slash"),
        (lambda: Composite((part("a", 1.0),), "al"), "unknown rule 'al'. Did you mean 'all'"),
    ],
)
def test_what_cannot_be_composed(make, words):
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        make()
