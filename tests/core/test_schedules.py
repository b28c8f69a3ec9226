"""Schedules: their ends, their middles, and that they stay where they end."""

import math
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.core.schedules import constant, cosine, exponential, linear, warm_up
from onepolicy.errors import ConfigError

SHAPES = [linear, cosine, exponential]


@pytest.mark.parametrize("shape", SHAPES)
def test_starts_at_start_ends_at_end_and_stays_there(shape):
    schedule = partial(shape, start=2.0, end=0.5, steps=10)
    assert schedule(0) == 2.0
    assert [schedule(step) for step in (10, 11, 10_000)] == [0.5] * 3


def test_the_middle_by_hand():
    """From 4 to 1 in 4 steps, at step 2: the arithmetic mean 2.5 twice and the geometric mean 2. At step 1: 3.25,
    1 + 3 (1 + cos(pi/4)) / 2 = 3.5607, and 4^(3/4) = 2.8284."""
    assert [shape(2, start=4.0, end=1.0, steps=4) for shape in SHAPES] == pytest.approx([2.5, 2.5, 2.0])
    assert [shape(1, start=4.0, end=1.0, steps=4) for shape in SHAPES] == pytest.approx(
        [3.25, 1 + 1.5 * (1 + math.cos(math.pi / 4)), 4**0.75]
    )


@settings(max_examples=30, deadline=None)
@given(start=st.floats(1e-6, 1e3), end=st.floats(1e-6, 1e3), steps=st.integers(1, 50))
def test_every_schedule_moves_one_way_only(start, end, steps):
    for shape in SHAPES:
        values = [shape(step, start=start, end=end, steps=steps) for step in range(steps + 2)]
        low, high = min(start, end), max(start, end)
        assert all(low * (1 - 1e-9) <= value <= high * (1 + 1e-9) for value in values)
        steps_down = [b - a for a, b in pairwise(values)]
        slack = 1e-9 * high
        assert all(d <= slack for d in steps_down) or all(d >= -slack for d in steps_down)


def test_exponential_has_equal_ratios():
    values = [exponential(step, start=8.0, end=1.0, steps=3) for step in range(4)]
    assert values == pytest.approx([8.0, 4.0, 2.0, 1.0])


def test_constant_and_warm_up():
    """A warm-up never gives 0: the first step already learns, at 1/steps of the rate."""
    assert [constant(step, value=0.3) for step in (0, 7)] == [0.3, 0.3]
    assert [warm_up(step, steps=2) for step in range(4)] == [0.5, 1.0, 1.0, 1.0]
    assert warm_up(0, steps=0) == 1.0


def test_impossible_schedules():
    with pytest.raises(ConfigError, match="step -1 of 5"):
        linear(-1, start=1.0, end=0.0, steps=5)
    with pytest.raises(ConfigError, match="at least 1 step"):
        cosine(0, start=1.0, end=0.0, steps=0)
    with pytest.raises(ConfigError, match="both must be positive"):
        exponential(0, start=1.0, end=0.0, steps=5)
