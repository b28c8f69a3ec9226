"""Mixtures: exact shares, whole epochs, the same rows for the same seed."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepolicy.data.mixture import Source, mix, shares
from onepolicy.errors import ConfigError


def source(name, n, weight):
    return Source(name, [f"{name}{i}" for i in range(n)], weight)


SOURCES = [source("a", 100, 0.5), source("b", 30, 0.3), source("c", 60, 0.2)]


def test_shares_by_hand():
    """Of 101: 50.5, 30.3 and 20.2; the remainder goes to the largest fraction, a. Without repeats 100 at most (b)."""
    assert {name: one.rows for name, one in shares(SOURCES, 101).items()} == {"a": 51, "b": 30, "c": 20}
    assert {name: one.rows for name, one in shares(SOURCES).items()} == {"a": 50, "b": 30, "c": 20}
    assert shares(SOURCES, 200)["b"].epochs == 2.0


@given(st.lists(st.tuples(st.integers(1, 40), st.floats(0.01, 10)), min_size=1, max_size=6), st.integers(1, 500))
def test_shares_add_up_and_are_within_one_row_of_exact(parts, size):
    made = [source(str(i), n, w) for i, (n, w) in enumerate(parts)]
    found = shares(made, size)
    assert sum(one.rows for one in found.values()) == size
    total = sum(w for _, w in parts)
    for i, (n, w) in enumerate(parts):
        assert abs(found[str(i)].rows - size * w / total) < 1 + 1e-6
        assert found[str(i)].epochs == found[str(i)].rows / n


def test_no_row_is_taken_again_before_all_were_taken():
    """200 rows: b goes twice through its 30, a once through its 100, c 2/3 through its 60."""
    rows = list(mix(SOURCES, shares(SOURCES, 200), seed=0))
    times = Counter(row for _, _, row in rows)
    assert [times[f"b{i}"] for i in range(30)] == [2] * 30
    assert [times[f"a{i}"] for i in range(100)] == [1] * 100
    assert sorted(times[f"c{i}"] for i in range(60)) == [0] * 20 + [1] * 40
    assert all(row == f"{name}{place}" for name, place, row in rows)


def test_the_seed_decides_and_a_sources_rows_do_not_depend_on_the_others():
    counts = shares(SOURCES, 100)
    assert list(mix(SOURCES, counts, 3)) == list(mix(SOURCES, counts, 3))
    assert list(mix(SOURCES, counts, 3)) != list(mix(SOURCES, counts, 4))
    alone = {row for _, _, row in mix(SOURCES[:1], {"a": counts["a"]}, 3)}
    assert alone == {row for name, _, row in mix(SOURCES, counts, 3) if name == "a"}


def test_the_sources_are_mixed_not_one_after_the_other():
    names = "".join(name for name, _, _ in mix(SOURCES, shares(SOURCES, 100), 0))
    assert {"a", "b", "c"} <= set(names[:30])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: shares([]), "at least one"),
        (lambda: shares([SOURCES[0], SOURCES[0]]), "each name once"),
        (lambda: shares(SOURCES, 205, max_epochs=2.0), "b would be gone through 2.0[37]"),
        (lambda: shares(SOURCES, 0), "at least 1"),
        (lambda: source("a", 0, 1.0), "has no rows"),
        (lambda: source("a", 1, 0.0), "above 0"),
        (lambda: source("a", 1, float("nan")), "finite"),
    ],
)
def test_what_cannot_be_mixed(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
