"""Metrics: every key has a unit and a meaning, the page of them is current, and files read back as written."""

import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.run.journal import json_line
from onepolicy.run.metrics import METRICS, Series, describe, metrics_page, read_series

ROOT = Path(__file__).resolve().parents[2]
AREAS = {key.split("/")[0] for key in METRICS}


def test_the_page_of_metrics_is_the_registrys():
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert page == metrics_page(), "docs/metrics.md is stale: python -m onepolicy.run.metrics > docs/metrics.md"


def test_every_metric_the_source_names_is_registered():
    """A key of a known area in the source that has no entry is undocumented; a unit such as reward/step is no key."""
    keys = set()
    for path in (ROOT / "src").rglob("*.py"):
        keys |= set(
            re.findall(
                rf'(?<!Metric\()"((?:{"|".join(sorted(AREAS))})/[a-z0-9_@]*[a-z0-9])"', path.read_text(encoding="utf-8")
            )
        )
    assert len(keys) > 20
    assert sorted(key for key in keys if describe(key) is None) == []


@pytest.mark.parametrize(
    ("key", "like"),
    [
        ("eval/maj@16", "eval/maj@<k>"),
        ("eval/pass@4_high", "eval/pass@<k>"),
        ("rollout/format", "rollout/<part>"),
        ("rollout/length", "rollout/length"),
        ("seed11/eval/return_low", "eval/return"),
        ("eval/sampled_truncated", "eval/sampled_<rate>"),
        ("time/rollout_seconds", "time/<stage>_seconds"),
    ],
)
def test_a_key_is_described_by_its_entry_its_pattern_or_its_base(key, like):
    assert describe(key) is METRICS[like]


@pytest.mark.parametrize("key", ["own/thing", "eval/pass@", "seed/eval/return", "policy/loss_mean", "xpolicy/loss"])
def test_an_unknown_key_has_no_description(key):
    assert describe(key) is None


def test_units_and_meanings_are_sentences():
    for key, metric in METRICS.items():
        assert metric.unit, key
        assert metric.meaning.endswith("."), key


@settings(deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from(["a/x", "a/y"]), st.floats() | st.integers(-(2**70), 2**70)), max_size=5)
)
def test_series_read_back_as_logged(tmp_path_factory, rows):
    """Values to the bit, non-finite ones as NaN, each key with just the steps it was logged at."""
    path = tmp_path_factory.mktemp("series") / "metrics.jsonl"
    path.write_text("".join(json_line({"step": step, **row}) + "\n" for step, row in enumerate(rows)))
    expected = {}
    for step, row in enumerate(rows):
        for key, value in row.items():
            series = expected.setdefault(key, Series([], []))
            series.steps.append(step)
            series.values.append(float(value) if math.isfinite(value) else math.nan)
    found = read_series(path)
    assert {k: s.steps for k, s in found.items()} == {k: s.steps for k, s in expected.items()}
    assert {k: [repr(v) for v in s.values] for k, s in found.items()} == {
        k: [repr(v) for v in s.values] for k, s in expected.items()
    }


def test_a_missing_file_has_no_series_and_a_torn_last_line_is_left_out(tmp_path):
    assert read_series(tmp_path / "none.jsonl") == {}
    (tmp_path / "torn.jsonl").write_text('{"step": 1, "a/x": 2}\n{"step": 2, "a/')
    assert read_series(tmp_path / "torn.jsonl") == {"a/x": Series([1], [2.0])}
