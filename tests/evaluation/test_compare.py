"""Runs side by side: whose seeds end higher, and how surely."""

import json

import numpy as np
import pytest

from onepolicy.errors import CheckpointError, ConfigError, DataError
from onepolicy.evaluation.compare import compare
from onepolicy.evaluation.stats import probability_of_improvement
from onepolicy.run.run import Run


@pytest.fixture
def made(tmp_path):
    def make(name, ends, env="A-v0", key="eval/return", **config):
        """One run of a seed for each of `ends`, below the directory `name`."""
        for seed, end in enumerate(ends):
            place = tmp_path / name / f"{env}-seed-{seed}"
            run = Run.create(place, recipe="control", config={"env": env, "seed": seed, **config})
            lines = [{"step": 1, key: 0.0}, {"step": 2, key: end}]
            (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            run.close()
        return tmp_path / name

    return make


def naive(a, b):
    wins = [1.0 if x > y else 0.5 if x == y else 0.0 for x in a for y in b]
    return sum(wins) / len(wins)


def test_p_of_improvement_counts_pairs_and_halves_ties():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, 7).astype(float), rng.integers(0, 4, 5).astype(float)
    assert probability_of_improvement([a], [b]).value == pytest.approx(naive(a, b))
    both = probability_of_improvement([a, b], [b, b])
    assert both.value == pytest.approx((naive(a, b) + 0.5) / 2)


def test_p_of_improvement_knows_only_order_and_sides_mirror_each_other():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=6), rng.normal(size=6)
    found = probability_of_improvement([a], [b])
    assert probability_of_improvement([np.exp(a)], [np.exp(b)]) == found
    assert probability_of_improvement([b], [a]).value == pytest.approx(1 - found.value)


def test_p_of_improvement_s_interval_is_the_bootstrap_s():
    """One seed against 0 and 2: a resample of B has 0, 1 or 2 lower ones, P = 0, 1/2, 1 with 1/4, 1/2, 1/4."""
    found = probability_of_improvement([[1.0]], [[0.0, 2.0]])
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)
    sure = probability_of_improvement([[3.0, 4.0]], [[1.0, 2.0]])
    assert (sure.value, sure.low, sure.high) == (1.0, 1.0, 1.0)
    draws = np.random.default_rng(2)
    wide = probability_of_improvement([draws.normal(0.5, 1, 5)], [draws.normal(0, 1, 5)])
    many = probability_of_improvement([draws.normal(0.5, 1, 80)], [draws.normal(0, 1, 80)])
    assert many.high - many.low < wide.high - wide.low


def test_two_directories_of_seeds_are_compared_in_their_order(made):
    found = compare([made("new", [5.0, 6.0, 7.0]), made("old", [1.0, 2.0, 6.0])])
    assert found.sides == {"new": {"A-v0": (5.0, 6.0, 7.0)}, "old": {"A-v0": (1.0, 2.0, 6.0)}}
    assert found.interval("new", "A-v0").value == 6.0
    assert found.improvement("new", "old").value == pytest.approx(7.5 / 9)
    text = found.text()
    assert "P(new > old) = 0.83 [" in text
    assert "new  6 [5, 7]  (3 seeds)" in text


def test_several_worlds_count_alike_and_only_shared_ones(made):
    a, b = made("a", [1.0, 2.0]), made("b", [3.0, 4.0])
    made("a", [900.0], env="B-v0")
    made("b", [100.0], env="B-v0")
    made("a", [5.0], env="C-v0")
    found = compare([a, b])
    assert found.shared("a", "b") == ["A-v0", "B-v0"]
    assert found.improvement("a", "b").value == 0.5
    assert "over 2 worlds" in found.text()
    assert "A single seed has no interval" in found.text()


def test_of_more_directories_the_settings_make_the_sides(made):
    runs = [made(f"{lr}", [lr, lr + 1.0], lr=lr) for lr in (0.1, 0.2, 0.3)]
    assert list(compare(runs).sides) == ["lr=0.1", "lr=0.2", "lr=0.3"]


def test_the_last_values_of_a_metric_are_averaged(made):
    found = compare([made("a", [4.0], key="own/score"), made("b", [2.0], key="own/score")], metric="own/score", last=2)
    assert found.sides["a"]["A-v0"] == (2.0,)


def test_seeds_in_one_run_and_runs_apart_are_the_same(made, tmp_path):
    apart = made("apart", [1.0, 2.0])
    run = Run.create(tmp_path / "together", recipe="control", config={"env": "A-v0"})
    run.log(2, {"seed0/eval/return": 1.0, "seed1/eval/return": 2.0, "eval/return": 1.5})
    run.close()
    found = compare([apart, tmp_path / "together"])
    assert found.sides["apart"] == found.sides["together"]


def test_bad_input_is_named(made, tmp_path):
    a, b = made("a", [1.0]), made("b", [1.0], key="rollout/return")
    with pytest.raises(ConfigError, match="Did you mean 'eval/return'"):
        compare([a, a], metric="eval/returns")
    assert compare([a, b]) is None
    with pytest.raises(CheckpointError, match="nowhere"):
        compare([a, tmp_path / "nowhere"])
    with pytest.raises(DataError, match="same tasks"):
        probability_of_improvement([[1.0]], [])
    with pytest.raises(DataError, match="finite"):
        probability_of_improvement([[float("nan")]], [[1.0]])
