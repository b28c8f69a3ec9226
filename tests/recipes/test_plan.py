"""The command `plan`: the criterion it takes, the numbers of the reference, the files it leaves, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from onepolicy.errors import ConfigError
from onepolicy.recipes import plan
from onepolicy.tabular import layouts, worlds


@pytest.fixture
def solved(tmp_path):
    """solved(fields): the report of a plan in a fresh directory."""
    return lambda **fields: plan.main(plan.Config(out=str(tmp_path / "plan"), **fields))


@pytest.mark.parametrize(
    ("fields", "best"),
    [
        ({"world": "frozenlake", "discount": 0.99}, 0.5420259320),
        ({"world": "frozenlake", "discount": 1.0, "method": "value-iteration"}, 14 / 17),
        ({"world": "frozenlake", "discount": 0.9, "method": "policy-iteration"}, 0.0688909049),
        ({"world": "cliff", "method": "gauss-seidel"}, -13.0),
        ({"world": "cliff", "options": "slippery=True"}, -64.70917590996),
        ({"world": "jacks-car-rental", "method": "linear-program"}, None),
    ],
)
def test_the_values_of_the_reference(fields, best, solved):
    report = solved(**fields)
    assert report.metrics["plan/converged"] == 1.0
    assert report.metrics["plan/gap"] <= 2.001e-6
    if best is not None:
        assert report.metrics["plan/start_value"] == pytest.approx(best, abs=1e-6)
    else:
        assert report.policy.value[[0, 220, 440]] == pytest.approx(
            [421.414063397, 574.948323985, 636.989606804], abs=1e-6
        )


def test_a_world_brings_its_criterion(solved, tmp_path):
    """Average reward where no discount is customary; steps where there is a horizon."""
    average = plan.main(plan.Config(world="access-control", out=str(tmp_path / "average")))
    assert average.policy.gain == pytest.approx(2.7476419505725, abs=1e-5)
    finite = plan.main(plan.Config(world="puterman-inventory", out=str(tmp_path / "finite")))
    assert finite.policy.value[0] == pytest.approx([67 / 16, 129 / 16, 194 / 16, 227 / 16], abs=1e-12)
    assert finite.policy.policy[0].tolist() == [3, 0, 0, 0]


def test_the_files_say_what_the_terminal_says(solved):
    report = solved(world="frozenlake")
    page = (report.run_dir / "report.md").read_text()
    assert "best value from the start" in report.text
    assert report.text.splitlines()[3] in page
    assert {path.name for path in report.run_dir.iterdir()} == {"report.md", "solution.npz", "values.png"}
    with np.load(report.run_dir / "solution.npz") as saved:
        assert np.array_equal(saved["value"], report.policy.value)
        assert np.all(saved["lower"] <= saved["upper"])
        assert saved["q"].max() == pytest.approx(saved["value"].max(), abs=1e-6)


def test_a_saved_model_is_solved_like_the_world_it_was(tmp_path):
    layouts.save(worlds.make("forest"), tmp_path / "forest.npz")
    report = plan.main(plan.Config(world=str(tmp_path / "forest.npz"), discount=0.9, out=str(tmp_path / "plan")))
    assert report.policy.value == pytest.approx([26.244, 29.484, 33.484], abs=1e-6)


def test_a_limit_is_said(solved):
    """The bounds still hold when the time is over after one sweep."""
    report = solved(world="frozenlake", method="value-iteration", time_limit=1e-9)
    assert "no: ended by time" in report.text
    assert report.policy.lower[0] <= 0.5420259320 <= report.policy.upper[0]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"world": "frozenlak"}, "There is no world 'frozenlak'. Did you mean 'frozenlake'?"),
        ({"world": "cliff", "options": "slipery=True"}, "'slipery' is no option of the world 'cliff'"),
        ({"world": "cliff", "options": "slippery"}, "'slippery' is no option; write name=value"),
        ({"world": "nowhere.npz"}, "nowhere.npz is not a file"),
        ({"method": "value-iteratoin"}, "Did you mean 'value-iteration'?"),
        ({"world": "access-control", "method": "value-iteration"}, "which value-iteration does not find"),
        ({"method": "backward-induction"}, "Set horizon"),
        ({"discount": 1.5}, "discount is 1.5"),
        ({"tolerance": 0.0}, "tolerance is 0"),
    ],
)
def test_what_cannot_be_planned(fields, words, solved):
    with pytest.raises(ConfigError, match=words.replace("?", r"\?")):
        solved(**fields)


def test_a_directory_in_use_is_left_alone(tmp_path, solved):
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="exists and is not empty"):
        solved()
