"""The control recipe: exact resume wherever it is killed, seeds that do not depend on one another, clear errors."""

import hashlib
import itertools
import json
import os
import re
import signal
from dataclasses import replace

import pytest

from onepolicy.algos import ppo
from onepolicy.errors import ConfigError, TrainingError
from onepolicy.evaluation.returns import evaluate_policy
from onepolicy.nn.state_noise import SdeOptions
from onepolicy.recipes import control
from onepolicy.recipes.control import DEFAULTS, PRESETS, Config, load, main, method_of, starting_point
from onepolicy.run.config import EXIT_INTERRUPTED, from_json, to_json
from onepolicy.run.run import Run

SMALL = {"env": "Pendulum-v1", "num_envs": 2, "n_steps": 16, "batch_size": 10, "epochs": 2, "steps": 96}
TINY = {
    "ppo": Config(num_envs=2, n_steps=16, batch_size=10, epochs=2, schedule="linear", steps=128),
    "a2c": Config(algo="a2c", num_envs=2, n_steps=5, lam=1.0, schedule="linear", steps=40),
    "reinforce": Config(algo="reinforce", num_envs=2, n_steps=9, steps=250),
    "penalty": Config(num_envs=2, n_steps=16, batch_size=10, epochs=2, steps=128, penalty=1.0, target_kl=1e-4),
    "trpo": Config(algo="trpo", num_envs=2, n_steps=16, batch_size=10, epochs=2, steps=128, target_kl=0.01),
    "gaussian": Config(**SMALL),
    "by state": Config(**SMALL, algo="trpo", sde=SdeOptions(use=True, sample_freq=3), target_kl=0.01),
    "lstm": Config(num_envs=2, n_steps=16, batch_size=16, epochs=2, hidden=(8,), recurrent="lstm", steps=96),
}


@pytest.fixture(autouse=True)
def log_every_step(monkeypatch):
    monkeypatch.setattr(control, "LOG_EVERY", 1)


def tiny(kind, directory, **changes):
    return replace(TINY[kind], eval_episodes=3, eval_every=40, save_every=1, out=str(directory), **changes)


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def prints(directory):
    """Hashes of the metrics and of everything in the newest checkpoint: weights, optimizer, worlds, generators."""
    newest = max((directory / "checkpoints").iterdir(), key=lambda path: int(path.name.split("-")[1]))
    files = [path for path in sorted(newest.iterdir()) if path.name != "MANIFEST.json"]
    assert {path.stem for path in files} - {"penalty", "failures"} == {"policy", "learner", "collector"}
    return {"metrics": sha(directory / "metrics.jsonl"), "step": newest.name, **{f.name: sha(f) for f in files}}


class Killed(BaseException):
    """What SIGKILL would be, if a test could survive it."""


def kill_at(monkeypatch, count, *, saved):
    """Dies in the `count`-th save of a run: after it, or before it, when the step was logged but not kept."""
    left, save = [count], Run.save

    def dying(self, step, **parts):
        left[0] -= 1
        if left[0] == 0 and not saved:
            raise Killed
        path = save(self, step, **parts)
        if left[0] == 0:
            raise Killed
        return path

    monkeypatch.setattr(Run, "save", dying)


@pytest.fixture
def no_report(monkeypatch):
    """Runs end without curves, which take longer than these runs."""
    monkeypatch.setattr(control, "finish", lambda *_: "")


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("kind", TINY)
def test_killed_at_any_step_and_resumed_it_ends_the_same(kind, tmp_path, monkeypatch):
    main(tiny(kind, tmp_path / "whole"))
    expected = prints(tmp_path / "whole")
    saves = sum(1 for line in (tmp_path / "whole" / "metrics.jsonl").open() if json.loads(line)["step"] > 0)
    assert saves >= 3
    for count in range(1, saves + 1):
        for saved in (True, False):
            place = tmp_path / f"{count}-{saved}"
            with monkeypatch.context() as patch:
                kill_at(patch, count, saved=saved)
                with pytest.raises(Killed):
                    main(tiny(kind, place))
            resumed = from_json(Config, Run.open(place).config)
            main(resumed, resume=place)
            assert prints(place) == expected, (count, saved)


@pytest.mark.usefixtures("no_report")
def test_a_signal_saves_and_leaves_with_its_own_code(tmp_path, monkeypatch, capsys):
    main(tiny("ppo", tmp_path / "whole"))
    log = Run.log

    def interrupting(self, step, *rest):
        log(self, step, *rest)
        if step == 64:
            os.kill(os.getpid(), signal.SIGTERM)

    config = tiny("ppo", tmp_path / "cut")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", interrupting)
        with pytest.raises(SystemExit) as left:
            main(replace(config, save_every=0))
    assert left.value.code == EXIT_INTERRUPTED
    assert f"onepolicy resume {tmp_path / 'cut'}" in capsys.readouterr().out
    main(replace(config, save_every=0), resume=tmp_path / "cut")
    assert prints(tmp_path / "cut") == prints(tmp_path / "whole")


@pytest.mark.usefixtures("no_report")
def test_the_penalty_of_a_resumed_run_is_the_one_it_had(tmp_path):
    """Doubled or halved since the start, and so not the one of the configuration."""
    main(tiny("penalty", tmp_path / "run"))
    penalty = ppo.Penalty(1.0)
    Run.open(tmp_path / "run").load(penalty=penalty)
    assert penalty.beta != 1.0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()][1:]
    for one, two in itertools.pairwise(lines):
        factor = 2.0 if one["policy/kl"] > 1.5e-4 else 0.5 if one["policy/kl"] < 1e-4 / 1.5 else 1.0
        assert two["policy/penalty"] == factor * one["policy/penalty"]


@pytest.mark.usefixtures("no_report")
def test_evaluating_changes_nothing(tmp_path):
    often, never = tiny("ppo", tmp_path / "often"), tiny("ppo", tmp_path / "never")
    main(replace(often, eval_every=1))
    main(replace(never, eval_every=0))
    kept = [prints(tmp_path / name) for name in ("often", "never")]
    for found in kept:
        found.pop("metrics")
    assert kept[0] == kept[1]


def test_the_report_with_its_pictures_holds_the_policy_that_was_saved(tmp_path):
    report = main(tiny("ppo", tmp_path / "run"))
    assert "mean return" in report.text
    assert (tmp_path / "run" / "report.md").exists()
    assert (tmp_path / "run" / "curves.png").exists()
    loaded = load(Run.open(tmp_path / "run"))
    assert loaded.metrics["eval/return"] == report.metrics["eval/return"]
    scores = [evaluate_policy(p, env="CartPole-v1", episodes=5, seed=1) for p in (report.policy, loaded.policy)]
    assert scores[0] == scores[1]


def test_a_finished_run_resumed_is_left_as_it_is(tmp_path):
    config = tiny("ppo", tmp_path / "run")
    text = main(config).text
    before = prints(tmp_path / "run")
    assert main(config, resume=tmp_path / "run").text == text
    assert prints(tmp_path / "run") == before


def test_several_seeds_are_the_runs_they_would_be_alone(tmp_path):
    """Two processes; seed 6 trained among others has the numbers of seed 6 alone. PPO's early stop keeps its seeds from
    training in lockstep (test_lockstep.py)."""
    config = tiny("ppo", tmp_path / "both", seed=5, seeds=2, target_kl=0.5)
    report = main(config)
    main(tiny("ppo", tmp_path / "alone", seed=6, target_kl=0.5))
    alone = [json.loads(line) for line in (tmp_path / "alone" / "metrics.jsonl").open()]
    among = [json.loads(line) for line in (tmp_path / "both" / "seed-6" / "metrics.jsonl").open()]
    assert among == [line for line in alone if line["step"] in {other["step"] for other in among}]
    merged = [json.loads(line) for line in (tmp_path / "both" / "metrics.jsonl").open()]
    assert merged[-1]["seed6/eval/return"] == alone[-1]["eval/return"]
    assert {"seed5/eval/return", "seed6/eval/return"} <= set(merged[0])
    for words in ("seed    5", "seed    6", "mean", "iqm"):
        assert words in report.text
    assert main(config, resume=tmp_path / "both").text == report.text  # nothing is left to train
    assert load(Run.open(tmp_path / "both")).run_dir.parent == tmp_path / "both"


def test_a_seed_that_fails_says_why(tmp_path):
    config = tiny("ppo", tmp_path / "run", seeds=2, target_kl=0.5)
    Run.create(config.out, recipe="control", config=to_json(config)).close()
    (tmp_path / "run" / "seed-1").mkdir()
    (tmp_path / "run" / "seed-1" / "stranger").touch()
    with pytest.raises(TrainingError, match=r"seed 1 ended with exit code 1: .*seed-1 exists and is not empty"):
        main(config, resume=tmp_path / "run")


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize(("steps", "said"), [(31, True), (32, False)])
def test_fewer_steps_than_a_rollout_has_are_said_to_be_all_of_it(steps, said, tmp_path):
    main(tiny("ppo", tmp_path / "run", steps=steps))
    words = "steps is 31, less than one rollout (2 worlds x 16 steps): 32 are played and learnt from once."
    log = tmp_path / "run" / "log.txt"
    assert (log.exists() and words in log.read_text()) == said
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 32


def test_presets_are_found_by_algorithm_and_world():
    assert starting_point("ppo", {"env": "CartPole-v1"}) == PRESETS["ppo/CartPole-v1"]
    assert starting_point("ppo", {}) == PRESETS["ppo/CartPole-v1"]
    other = starting_point("a2c", {"env": "Blackjack-v1", "steps": 7})
    assert other == replace(DEFAULTS["a2c"], env="Blackjack-v1")
    with pytest.raises(ConfigError, match="Did you mean 'reinforce'"):
        starting_point("reinforc", {})
    for name, preset in PRESETS.items():
        assert re.fullmatch(re.escape(f"{preset.algo}/{preset.env}") + "(-[a-z]+)?", name)
        assert from_json(Config, to_json(preset)) == preset


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"num_envs": 0}, "num_envs is 0"),
        ({"n_steps": 0}, "n_steps is 0"),
        ({"eval_every": -1}, "eval_every is -1"),
        ({"gamma": 1.01}, "gamma is 1.01"),
        ({"algo": "trpo"}, "target_kl is None"),
        ({"penalty": 1.0}, "penalty is 1.0 without a target_kl"),
        ({"algo": "reinforce", "schedule": "linear"}, "number of updates is not known"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, words):
    with pytest.raises(ConfigError, match=words):
        method_of(Config(**wrong))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "actions are numbered"),
        ({"env": "Pendulum-v1", "recurrent": "lstm"}, "sde.use with recurrent 'lstm'"),
    ],
)
def test_noise_by_state_where_there_is_none_is_refused(given, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        main(Config(sde=SdeOptions(use=True), out=str(tmp_path / "run"), **given))


@pytest.mark.parametrize("seeds", [1, 2])
def test_an_unknown_world_offers_the_nearest_and_leaves_nothing_behind(seeds, tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'CartPole-v1'"):
        main(Config(env="CartPole-v9", out=str(tmp_path / "run"), seeds=seeds))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_cartpole_is_solved_within_100k_steps(seed, tmp_path):
    """The zoo's hyperparameters: a mean of 475 over 100 greedy episodes of the last policy, for every seed."""
    report = main(replace(PRESETS["ppo/CartPole-v1"], seed=seed, eval_every=0, out=str(tmp_path / "run")))
    assert report.metrics["eval/return"] >= 475
