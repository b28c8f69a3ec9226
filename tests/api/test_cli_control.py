"""The commands around a controller: compare, watch, export, film."""

import json

import pytest

from onepolicy.cli import main
from onepolicy.run.run import Run


@pytest.fixture
def said(capsys):
    """said(words): exit code, output and errors of the command."""

    def run(*words):
        code = 0
        try:
            main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code
        found = capsys.readouterr()
        return code, found.out, found.err

    return run


def of_seeds(place, ends):
    run = Run.create(place, recipe="control", config={"env": "A-v0", "out": str(place)})
    run.log(1, {f"seed{k}/eval/return": end for k, end in enumerate(ends)})
    run.close()
    return place


def test_plot_of_two_says_who_is_better(said, tmp_path):
    a, b = of_seeds(tmp_path / "a", [3.0, 4.0]), of_seeds(tmp_path / "b", [1.0, 2.0])
    code, out, _ = said("plot", a, b, "--out", tmp_path / "c.png")
    assert code == 0
    assert "P(a > b) = 1.00 [1.00, 1.00]" in out
    assert (tmp_path / "c.png").is_file()
    code, _, err = said("plot", a, b, "--metric", "eval/retun", "--out", tmp_path / "c.png")
    assert (code, "Did you mean 'eval/return'" in err) == (2, True)
    assert said("plot", a, "--smooth", "1.5")[0] == 2


def test_plot_live_shows_a_finished_run_once(said, made):
    code, _, err = said("plot", made("ppo"), "--live")
    assert code == 0
    assert "finished" in err
    assert "eval/return" in err


def test_export_writes_what_onnxruntime_runs(said, made, tmp_path):
    pytest.importorskip("onnxruntime")
    code, out, _ = said("export", made("ppo"), "--onnx", tmp_path / "policy.onnx")
    assert code == 0
    assert "obs -> action, logits, value" in out
    code, _, err = said("export", made("ppo"))
    assert (code, "export needs a file to write" in err) == (2, True)
    code, _, err = said("export", made("sft"), "--onnx", tmp_path / "policy.onnx")
    assert (code, "is no run of deep control" in err) == (2, True)


def test_video_films_an_episode(said, made, tmp_path, monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    code, out, _ = said("video", made("ppo"), "--out", tmp_path / "a.mp4", "--episodes", "2")
    assert code == 0
    assert "2 episodes, return" in out
    assert (tmp_path / "a.mp4").stat().st_size > 1000


def test_the_early_stop_is_a_field_of_the_command(said, tmp_path):
    fields = "--steps 96 --num-envs 2 --n-steps 16 --batch-size 16 --epochs 1 --eval-episodes 2 --eval-every 32"
    code, *_ = said("train", "ppo", *fields.split(), "--stop-at-return", "-1", "--out", tmp_path / "run")
    assert code == 0
    last = (tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["step"] == 32
