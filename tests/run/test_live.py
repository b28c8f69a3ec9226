"""A run watched while it trains: what is shown is what was logged."""

import numpy as np
import pytest
from rich.console import Console

from onepolicy.errors import CheckpointError
from onepolicy.run import live


def words(thing):
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(thing)
    return console.export_text()


def test_a_curve_becomes_blocks_from_its_lowest_to_its_highest():
    assert live.sparkline(np.arange(8.0)) == "▁▂▃▄▅▆▇█"
    assert live.sparkline(np.repeat([0.0, 7.0], 50), 4) == "▁▁██"
    assert live.sparkline(np.array([1.0, np.nan, 3.0])) == "▁ █"
    assert live.sparkline(np.array([np.nan])) == ""


def test_the_picture_has_state_newest_value_interval_and_curve(make_run):
    metrics = {"eval/return": [0.0, 4.0], "eval/return_low": [0.0, 3.0], "eval/return_high": [0.0, 5.0]}
    run = make_run(metrics)
    run.close()
    said = words(live.picture([run.directory]))
    assert "4 [3, 5]" in said
    assert "▁█" in said
    assert str(run.directory) in said.replace("\n", "")


def test_watching_ends_with_the_run(make_run, monkeypatch):
    run = make_run({"rollout/return": [1.0]})
    shown = []
    monkeypatch.setattr(live, "console", lambda: Console(force_terminal=True, file=open("/dev/null", "w")))  # noqa: SIM115
    monkeypatch.setattr(live, "picture", lambda *_, **__: shown.append(1) or "")
    states = iter(["running", "running", "finished"])
    monkeypatch.setattr(live, "state_of", lambda _: next(states))
    live.follow([run.directory], every=0.0)
    assert len(shown) == 3


def test_no_run_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        live.follow([tmp_path / "nowhere"])
