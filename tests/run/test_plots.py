"""Curves and the report: what is drawn and written is what was logged."""

import math

import numpy as np
import pytest

from onepolicy.errors import CheckpointError, ConfigError
from onepolicy.run.plots import curves, draw, panels_of
from onepolicy.run.report import write_report


def config(seed, lr=0.1):
    return {"seed": seed, "lr": lr, "out": f"runs/{seed}", "steps": 3}


def test_one_run_is_drawn_as_logged_with_its_interval(make_run):
    metrics = {
        "eval/accuracy": [0.25, None, 0.75],
        "eval/accuracy_low": [0.2, None, 0.7],
        "eval/accuracy_high": [0.3, None, 0.8],
        "rollout/score": [0.1, 0.2, 0.4],
    }
    run = make_run(metrics)
    panels = panels_of([run.directory])
    assert list(panels) == ["eval/accuracy", "rollout/score"]
    figure = draw(panels, "title")
    first, second = figure.axes[:2]
    assert first.get_title() == "eval/accuracy"
    assert first.get_ylabel() == "share"
    assert first.lines[0].get_xydata().tolist() == [[1, 0.25], [3, 0.75]]
    corners = first.collections[0].get_paths()[0].vertices
    assert {(1, 0.2), (1, 0.3), (3, 0.7), (3, 0.8)} <= {tuple(corner) for corner in corners.tolist()}
    assert second.lines[0].get_xydata().tolist() == [[1, 0.1], [2, 0.2], [3, 0.4]]
    assert "95 % interval" in figure.get_suptitle()


def test_three_seeds_become_their_interquartile_mean_and_its_bootstrap_band_with_each_seed_behind(make_run):
    """Values 1, 2, 6: three are too few to cut, so the mean, 3. Of the 27 resamples one is 1, 1, 1: 3.7 % of the mass
    is on the lowest value and as much on the highest, so both tails of 2.5 % end there."""
    runs = [make_run({"rollout/score": [v, 0.0]}, name=f"r{v}", config=config(v)) for v in (1, 2, 6)]
    (curve,) = panels_of([run.directory for run in runs])["rollout/score"]
    assert curve.label == "grpo (3 seeds)"
    assert curve.values.tolist() == [3.0, 0.0]
    assert (curve.low.tolist(), curve.high.tolist()) == ([1, 0], [6, 0])
    assert curve.members.tolist() == [[1, 0], [2, 0], [6, 0]]
    figure = draw({"rollout/score": [curve]}, "title")
    thin = [line for line in figure.axes[0].lines if line.get_linewidth() < 1]
    assert [line.get_ydata().tolist() for line in thin] == [[1, 0], [2, 0], [6, 0]]


def test_two_seeds_show_their_range_over_the_steps_both_have(make_run):
    a = make_run({"rollout/score": [1.0, 2.0, 3.0]}, name="a", config=config(0))
    b = make_run({"rollout/score": [3.0, 2.0]}, name="b", config=config(1))
    (curve,) = panels_of([a.directory, b.directory])["rollout/score"]
    assert curve.steps.tolist() == [1, 2]
    assert (curve.values.tolist(), curve.low.tolist(), curve.high.tolist()) == ([2, 2], [1, 2], [3, 2])


def test_runs_of_other_settings_are_lines_named_by_what_differs(make_run):
    runs = [
        make_run({"rollout/score": [lr * 10]}, name=f"{lr}-{seed}", config=config(seed, lr))
        for lr in (0.1, 0.2)
        for seed in (0, 1)
    ]
    found = panels_of([run.directory for run in runs])["rollout/score"]
    assert [(curve.label, curve.values.tolist()) for curve in found] == [
        ("lr=0.1 (2 seeds)", [1]),
        ("lr=0.2 (2 seeds)", [2]),
    ]


def test_seeds_trained_at_once_in_one_run_are_averaged(make_run):
    metrics = {f"seed{s}/rollout/return": [10.0 * s, 20.0 * s] for s in (0, 1, 2)}
    (curve,) = panels_of([make_run(metrics).directory])["rollout/return"]
    assert curve.values.tolist() == [10, 20]
    assert curve.label == "run (3 seeds)"


def test_a_long_noisy_metric_is_smoothed_over_a_twentieth_with_the_raw_values_behind(make_run):
    values = [float(i % 2) for i in range(80)]
    values[50] = math.nan
    (curve,) = panels_of([make_run({"rollout/score": values}).directory])["rollout/score"]
    np.testing.assert_array_equal(curve.raw, values)
    assert curve.values[3] == 0.5
    assert curve.values[51] == pytest.approx((1 + 0 + 1) / 3 if values[48] else (0 + 1 + 1) / 3)


def test_smoothing_is_a_running_mean_of_each_seed(make_run):
    runs = [make_run({"eval/return": [v, v + 2.0, v + 4.0]}, name=f"r{v}", config=config(v)) for v in (0, 10)]
    (curve,) = panels_of([run.directory for run in runs], smooth=2)["eval/return"]
    assert curve.members.tolist() == [[0, 1, 3], [10, 11, 13]]
    assert curve.values.tolist() == [5, 6, 8]


def test_a_directory_of_runs_stands_for_them_and_each_world_has_a_panel(make_run):
    for world in ("A-v0", "B-v0"):
        for seed in (0, 1):
            values = {"eval/return": [float(seed), seed + (10.0 if world == "B-v0" else 1.0)]}
            make_run(values, name=f"all/{world}-{seed}", config={**config(seed), "env": world})
    panels = panels_of([make_run({}, name="other").directory.parent / "all"])
    assert {key: [c.values.tolist() for c in lines] for key, lines in panels.items()} == {
        "eval/return, A-v0": [[0.5, 1.5]],
        "eval/return, B-v0": [[0.5, 10.5]],
    }
    assert draw(panels, "title").axes[0].get_ylabel() == "reward"


def test_asked_for_metrics_are_drawn_and_unknown_ones_named(make_run):
    run = make_run({"learner/lr": [0.1], "own/thing": [1.0]})
    assert list(panels_of([run.directory], ["own/thing"])) == ["own/thing"]
    with pytest.raises(ConfigError, match="Did you mean 'learner/lr'"):
        panels_of([run.directory], ["learner/ls"])


def test_a_run_without_metrics_and_no_run_are_named(make_run, tmp_path):
    with pytest.raises(CheckpointError, match="no metrics yet"):
        panels_of([make_run().directory])
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        panels_of([tmp_path / "empty"])
    with pytest.raises(ConfigError, match="at least one run"):
        panels_of([])


def test_the_image_is_written_and_has_ink(make_run, tmp_path):
    from matplotlib.image import imread

    run = make_run({"rollout/score": [0.0, 1.0]})
    assert curves([run.directory], tmp_path / "out.png") == ["rollout/score"]
    image = imread(tmp_path / "out.png")
    assert image.shape[0] > 200
    assert (image[..., :3] < 0.9).any()


def test_the_report_holds_numbers_intervals_transcripts_verdict_and_configuration(make_run):
    metrics = {"eval/accuracy": [0.25, 0.75], "eval/accuracy_low": [0.2, 0.7], "eval/accuracy_high": [0.3, 0.8]}
    run = make_run(metrics, config={"lr": 0.001, "out": ""})
    before = [{"prompt": "1+1=", "completion": "```\n3 | 4\n```", "score": 0.0, "error": None}]
    after = [{"prompt": f"{n}+1=", "text": f"answer {n}", "score": 1.0} for n in range(9)]
    path = write_report(run.directory, "It works.", tables={"Held out": "a  b\n1  2"}, before=before, after=after)
    text = path.read_text()
    for words in (
        "# grpo: run", "It works.", "![curves](curves.png)", "| 1 | 0.25 [0.2, 0.3] |", "| 2 | 0.75 [0.7, 0.8] |",
        "| `eval/accuracy` | share | 0.25 | 0.75 | Held-out problems answered right, greedy. |", "## Held out",
        "````text\n1+1=\n---\n```\n3 | 4\n```\n````\n\nscore: 0", "answer 3", "## Verdict", "Intervals apart",
        "| `lr` | `0.001` |", "torch 2.",
    ):  # fmt: skip
        assert words in text
    assert "answer 4" not in text
    assert (run.directory / "curves.png").exists()


def test_finish_writes_the_report_and_marks_the_end(make_run):
    run = make_run({"rollout/score": [0.5]})
    assert run.finish("Done.") == run.directory / "report.md"
    assert "Done." in (run.directory / "report.md").read_text()
    assert '"finished"' in (run.directory / "status.json").read_text()
