"""Tabular control as a recipe: the known numbers, the files it leaves, gymnasium's worlds, what it refuses."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from onepolicy.errors import CheckpointError, ConfigError
from onepolicy.recipes import tabular
from onepolicy.recipes.tabular import LEARNERS, PRESETS, Config, starting_point
from onepolicy.run.run import Run


@pytest.fixture
def learnt(tmp_path):
    """learnt(algorithm, **fields): the report of a run in a fresh directory, from the algorithm's starting point."""

    def train(algorithm, **fields):
        return tabular.main(replace(starting_point(algorithm, fields), **fields, out=str(tmp_path / "run")))

    return train


def test_q_learning_on_the_cliff(learnt):
    """The book's settings: Q of the start is the optimum -13, the return is not: it walks at the edge and falls."""
    report = learnt("q-learning", env="cliff", threads=1)
    found = report.policy
    assert found.values()[36] == pytest.approx(-13.0, abs=1e-3)
    assert found.returns[:, 400:].mean() == pytest.approx(-50.1, abs=1.5)
    assert found.policy()[36] == 0
    assert "best value at the start, exact │ -13" in report.text
    names = {path.name for path in report.run_dir.iterdir()}
    assert {"report.md", "values.png", "result.npz", "metrics.jsonl"} <= names
    page = (report.run_dir / "report.md").read_text()
    assert "![values of the first run](values.png)" in page
    assert "-13.0" in page  # the map
    lines = [json.loads(line) for line in (report.run_dir / "metrics.jsonl").read_text().splitlines()]
    curve = [line for line in lines if "rollout/return" in line]
    assert [line["step"] for line in curve] == list(range(5, 501, 5))
    parts = found.returns.reshape(100, 100, 5).mean(axis=2)
    np.testing.assert_allclose([line["rollout/return"] for line in curve], parts.mean(axis=0))
    assert curve[-1]["rollout/env_steps"] == found.steps
    assert all(line["rollout/return_low"] <= line["rollout/return"] <= line["rollout/return_high"] for line in curve)


def test_every_learner_learns_the_course_grid(learnt, tmp_path):
    """From s0 to Success in four moves: -1 - 0.9 - 0.81 + 0.729 * 10 = 4.58."""
    for name in LEARNERS:
        fields = {"env": "course-grid", "episodes": 1500, "runs": 2, "max_steps": 100, "out": str(tmp_path / name)}
        report = tabular.main(replace(starting_point(name, fields), **fields))
        assert report.policy.returns[:, -150:].mean() > 4.0  # undiscounted: 7 at best
        if name in ("q-learning", "double-q", "dyna-q", "r-max"):
            assert report.policy.values()[0] == pytest.approx(4.58, abs=0.05)


def test_a_run_is_loaded_and_repeated(learnt):
    first = learnt("sarsa", episodes=30, runs=3)
    again = tabular.load(Run.open(first.run_dir))
    np.testing.assert_array_equal(again.policy.q, first.policy.q)
    assert again.policy.steps == first.policy.steps
    repeated = tabular.main(replace(starting_point("sarsa", {}), episodes=30, runs=3), resume=first.run_dir)
    np.testing.assert_array_equal(repeated.policy.q, first.policy.q)
    lines = (first.run_dir / "metrics.jsonl").read_text().splitlines()
    assert len([line for line in lines if "rollout/return" in line]) == 30
    (first.run_dir / "result.npz").unlink()
    with pytest.raises(CheckpointError, match="did not end"):
        tabular.load(Run.open(first.run_dir))


def test_a_gymnasium_world_is_learnt_without_its_model(learnt):
    report = learnt("q-learning", env="CliffWalking-v1", episodes=60, runs=2, gamma=1.0, max_steps=1000)
    assert report.policy.q.shape == (2, 48 * 4)
    assert report.policy.lengths[:, -1].max() < 100
    assert "exact" not in report.text


def test_presets_are_starting_points():
    assert starting_point("sarsa", {"env": "windy"}) == PRESETS["sarsa/windy"]
    assert starting_point("dyna-q", {}).env == "dyna-maze"
    assert starting_point("sarsa", {"env": "taxi"}) == Config(algo="sarsa", env="taxi")
    assert {preset.partition("/")[0] for preset in PRESETS} <= set(LEARNERS)
    with pytest.raises(ConfigError, match="Did you mean 'q-learning'"):
        starting_point("qlearning", {})


def test_exploration_that_decays_reaches_the_learner():
    glie = Config(schedule="glie", episodes=3).settings(1.0, 5).epsilons()
    np.testing.assert_allclose(glie, [1, 1 / 2, 1 / 3])
    decaying = Config(schedule="decaying", epsilon=1.0, epsilon_end=0.25, episodes=3).settings(1.0, 5).epsilons()
    np.testing.assert_allclose(decaying, [1.0, 0.5, 0.25])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"env": "clif"}, "There is no world 'clif'. Did you mean 'cliff'?"),
        ({"env": "access-control"}, "about the average reward; these learners discount. Set gamma below 1."),
        ({"env": "cliff", "options": "icy=True"}, "'icy' is no option"),
        ({"algo": "double-q", "env": "CliffWalking-v1"}, "double-q needs a world whose model is known"),
        ({"algo": "qlearning"}, "Did you mean 'q-learning'?"),
        ({"epsilon": 1.5}, "epsilon is 1.5"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"gamma": 2.0}, "gamma is 2.0"),
        ({"runs": 0}, "runs is 0"),
        ({"lam": 1.5}, "lam is 1.5"),
        ({"planning": -1}, "planning is -1"),
    ],
)
def test_what_cannot_work_is_refused(fields, words, tmp_path):
    with pytest.raises(ConfigError, match=re.escape(words)):
        tabular.main(Config(**fields, episodes=2, out=str(tmp_path / "run")))
