"""The doctor: each rule speaks when its trouble is there, with the numbers, and is silent when it is not."""

import math
import shutil
import subprocess
import sys

import numpy as np
import pytest

from onepolicy.errors import CheckpointError
from onepolicy.run import doctor
from onepolicy.run.process import Status, read_status, write_status
from onepolicy.run.trend import trend

N = 60
STEPS = np.arange(N)
NOISE = np.random.default_rng(0).normal(size=N)


def healthy():
    """A run that learns: every watched metric in its good range."""
    return {
        "rollout/score": list(0.4 + 0.4 * STEPS / N + 0.03 * NOISE),
        "rollout/correct": list(0.4 + 0.4 * STEPS / N + 0.03 * NOISE),
        "rollout/score_invalid": [0.0] * N,
        "rollout/truncated": list(np.where(STEPS < 5, 0.3, 0.02)),
        "rollout/zero_variance": list(0.3 + 0.3 * STEPS / N),
        "rollout/length": list(40 + 0.3 * STEPS),
        "rollout/logp_gap": [2e-5] * N,
        "policy/entropy": list(0.5 * np.exp(-STEPS / N)),
        "policy/kl_ref": list(1e-4 + 1e-3 * STEPS),
        "policy/kl_old": [1e-3] * N,
        "policy/clip_fraction": [0.05] * N,
        "policy/loss": list(0.01 * NOISE),
        "learner/loss": list(0.01 * NOISE),
        "learner/grad_norm": list(np.exp(0.5 * NOISE)),
        "learner/skipped": [0.0] * N,
        "eval/accuracy": [0.4] + [None] * (N - 2) + [0.8],
        "eval/accuracy_low": [0.35] + [None] * (N - 2) + [0.75],
        "eval/accuracy_high": [0.45] + [None] * (N - 2) + [0.85],
    }


def findings(run):
    return {finding.name: finding for finding in doctor.diagnose(run.directory)}


def test_a_healthy_run_gets_no_problem_and_no_warning(make_run):
    timing = {"time/step_seconds": [0.3] * N}
    found = findings(make_run(healthy(), timing=timing, saved=[N]))
    assert {name: f.severity for name, f in found.items()} == {
        "finished": "info",
        "checkpoint": "info",
        "learning": "good",
        "held-out gain": "good",
    }


last = slice(N - 20, N)
SICK = {
    "truncation": ({"rollout/truncated": [0.25] * N}, "problem", ["25 %"]),
    "groups without variance: all fail": (
        {"rollout/zero_variance": [0.95] * N, "rollout/correct": [0.01] * N, "rollout/score": [0.1] * N},
        "problem", ["95 %", "0.01", "fail"],
    ),
    "groups without variance: solved": (
        {"rollout/zero_variance": [0.9] * N, "rollout/correct": [0.97] * N}, "warning", ["90 %", "0.97"],
    ),
    "groups without variance": (
        {"rollout/zero_variance": [0.85] * N, "rollout/correct": [0.5] * N}, "problem", ["always or never"],
    ),
    "verifier errors": ({"rollout/score_invalid": [0.02] * N}, "problem", ["2 %", "timed out after 5 s"]),
    "entropy collapse": (
        {"policy/entropy": list(0.5 * np.exp(-STEPS / 8)), "rollout/correct": [0.3] * N}, "problem", ["of its start"],
    ),
    "entropy low, tasks solved": (
        {"policy/entropy": list(0.5 * np.exp(-STEPS / 8)), "rollout/correct": [0.97] * N}, "info", ["0.97"],
    ),
    "KL blow-up": ({"policy/kl_ref": [0.5] * N, "rollout/length": [40.0] * N}, "problem", ["20 nats"]),
    "KL jump": (
        {"policy/kl_ref": [0.02] * 40 + list(np.linspace(0.03, 0.2, 8)) + [0.2] * (N - 48)}, "problem", ["0.02 to"],
    ),
    "steps too large: KL": ({"policy/kl_old": [0.2] * N}, "problem", ["0.2 nats"]),
    "steps too large: clipping": ({"policy/clip_fraction": [0.4] * N}, "problem", ["40 %"]),
    "sampler/trainer gap": (
        {"rollout/logp_gap": [2e-5] * 50 + [0.3] * 10}, "problem", ["0.3 nats", "10 of the last 20"],
    ),
    "gradient spikes": (
        {"learner/grad_norm": [30.0 if i in (40, 45, 50) else 1.0 for i in range(N)]}, "warning",
        ["3 gradient norms", "30 times"],
    ),
    "skipped steps": ({"learner/skipped": [0.0] * 20 + [4.0] * 40}, "problem", ["4 optimizer steps", "by step 21"]),
    "loss not finite": (
        {"learner/loss": [0.1] * 50 + [math.nan] * 10}, "problem", ["at step 60", "last number was at step 50"],
    ),
    "no learning": (
        {"rollout/score": list(0.4 + 0.05 * NOISE), "eval/accuracy_low": [0.35] * N}, "warning",
        ["No significant change"],
    ),
    "getting worse": ({"rollout/score": list(0.8 - 0.5 * STEPS / N + 0.05 * NOISE)}, "problem", ["0.7"]),
    "solved from the start": ({"rollout/score": list(np.minimum(1, 0.97 + 0.01 * NOISE))}, "info", ["0.97"]),
    "at its highest": ({"rollout/score": list(500 - np.abs(NOISE))}, "info", ["near its highest value, 500"]),
    "too early to tell": ({"rollout/score": list(0.4 + 0.05 * NOISE)[:29]}, "info", ["29 values of rollout/score"]),
    "held-out loss": (
        {"eval/accuracy": [0.8, 0.4], "eval/accuracy_low": [0.75, 0.35], "eval/accuracy_high": [0.85, 0.45]},
        "problem", ["80 % [75 %, 85 %] at step 1", "40 % [35 %, 45 %] at step 2"],
    ),
    "reward up, held-out flat": (
        {"eval/accuracy": [0.4, 0.41], "eval/accuracy_low": [0.35, 0.36], "eval/accuracy_high": [0.45, 0.46]},
        "warning", ["training score rises"],
    ),
    "length drift": ({"rollout/length": list(40 + 5.0 * STEPS)}, "warning", ["tokens"]),
    "repetition": ({}, "warning", ["15 of the last 25"]),
    "reward hacking": (
        {"eval/score": [0.1, 0.5, 0.9], "eval/true_score": [0.1, 0.4, 0.2]}, "problem", ["0.1 to 0.9", "by way of 0.4"],
    ),
    "languages mixed": ({"rollout/language": list(np.linspace(0.95, 0.7, N))}, "warning", ["26 %", "over 10 %"]),
    "stale samples": ({"rollout/staleness": [12.0] * N}, "problem", ["12 updates"]),
    "few effective samples": ({"rollout/effective_share": [0.3] * N}, "problem", ["30 %"]),
    "reward model out of range": ({"rollout/in_range": [0.8] * N}, "warning", ["20 %"]),
    "chosen answers unlearnt": (
        {"dpo/chosen_drift": list(-0.2 * STEPS + 0.1 * NOISE), "dpo/margin": list(0.1 * STEPS)}, "warning",
        ["nats less"],
    ),
    "updates without effect": (
        {"policy/surrogate_before": [0.0] * N, "policy/surrogate_after": [-0.01] * N, "policy/loss": [1e-4] * N},
        "warning", ["says nothing", "did not rise"],
    ),
    "surrogate": (
        {"policy/surrogate_before": [0.0] * N, "policy/surrogate_after": [0.02] * N, "policy/loss": [1e-4] * N},
        "info", ["rose by 0.02"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SICK)
def test_each_trouble_is_named_with_its_numbers_and_a_fix(make_run, name):
    changed, severity, words = SICK[name]
    samples = [{"completion": "", "error": "timed out after 5 s"}] * 3 + [{"completion": "", "error": "crash"}]
    if name == "repetition":
        samples = [{"completion": "and so on " * 10}] * 15 + [{"completion": " ".join(map(str, range(30)))}] * 10
    run = make_run({**healthy(), **changed}, samples=samples)
    found = findings(run)
    assert name in found, sorted(found)
    finding = found[name]
    assert finding.severity == severity
    for word in words:
        assert word in finding.words
    if severity in ("problem", "warning"):
        assert finding.advice
        assert finding.steps is not None
        assert 1 <= finding.steps[0] <= finding.steps[1] <= N + 1


EDGE = {
    "truncation": {"rollout/truncated": [0.5] * 40 + [0.05] * 20},
    "groups without variance": {"rollout/zero_variance": [0.79] * N, "rollout/correct": [0.5] * N},
    "verifier errors": {"rollout/score_invalid": [0.009] * N},
    "entropy collapse": {"policy/entropy": list(np.linspace(-1.0, -4.0, N)), "rollout/correct": [0.3] * N},
    "KL blow-up": {"policy/kl_ref": [0.2] * N, "rollout/length": [40.0] * N},
    "KL jump": {"policy/kl_ref": [0.02] * 30 + [0.2] + [0.02] * 29},
    "steps too large: KL": {"policy/kl_old": [0.09] * N},
    "steps too large: clipping": {"policy/clip_fraction": [0.29] * N},
    "sampler/trainer gap": {"rollout/logp_gap": [9e-3] * N},
    "gradient spikes": {"learner/grad_norm": [30.0 if i in (40, 50) else 1.0 for i in range(N)]},
    "skipped steps": {},
    "loss not finite": {"learner/loss": [math.nan] * 50 + [0.1] * 10},
    "no learning": {"rollout/score": list(0.4 + 0.05 * NOISE)[:29]},
    "length drift": {"rollout/length": list(40 + 1.0 * STEPS)},
    "reward hacking": {"eval/score": [0.1, 0.5, 0.9], "eval/true_score": [0.1, 0.4, 0.38]},
    "languages mixed": {"rollout/language": [0.91] * N},
    "stale samples": {"rollout/staleness": [8.0] * N},
    "few effective samples": {"rollout/effective_share": [0.51] * N},
    "reward model out of range": {"rollout/in_range": [0.96] * N},
    "chosen answers unlearnt": {"dpo/chosen_drift": list(-5.0 + 0.1 * NOISE), "dpo/margin": [1.0] * N},
    "updates without effect": {
        "policy/surrogate_before": [0.0] * N, "policy/surrogate_after": [0.01] * N, "policy/loss": [1e-4] * N,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", EDGE)
def test_just_below_its_threshold_a_trouble_is_not_named(make_run, name):
    """Passed truncation, differential entropy below 0, a KL spike that went back, 29 points: none is a trouble."""
    assert name not in findings(make_run({**healthy(), **EDGE[name]}))


def test_two_values_are_not_judged(make_run):
    assert "truncation" not in findings(make_run({"rollout/truncated": [0.9, 0.9]}))


def test_a_run_of_another_kind_is_judged_by_its_own_outcome(make_run):
    """Control has returns, SFT a loss that must fall."""
    up = {"rollout/return": list(20 + 5.0 * STEPS)}
    assert "rollout/return went from" in findings(make_run(up, name="ppo"))["learning"].words
    down = {"sft/nll": list(3 - 2 * STEPS / N + 0.1 * NOISE)}
    assert "sft/nll went from" in findings(make_run(down, name="sft"))["learning"].words
    worse = {"sft/nll": list(1 + 2 * STEPS / N + 0.1 * NOISE)}
    assert "getting worse" in findings(make_run(worse, name="bad"))


def test_seeds_trained_at_once_are_judged_one_by_one_and_told_together(make_run):
    """Of three seeds two clip too much; all are in one run's file under seed<n>/."""
    metrics = {f"seed{s}/rollout/return": list(20 + 5.0 * STEPS) for s in (0, 2, 10)}
    metrics |= {f"seed{s}/policy/clip_fraction": [clip] * N for s, clip in ((0, 0.1), (2, 0.4), (10, 0.5))}
    found = findings(make_run(metrics))
    assert set(found) == {"finished", "learning", "steps too large: clipping"}
    assert found["steps too large: clipping"].words.startswith("2 of 3 seeds (2, 10). Seed 2: 40 % of actions")
    assert found["learning"].words.startswith("3 of 3 seeds (0, 2, 10). Seed 0: rollout/return went")


def test_the_trend_test_keeps_its_level_on_independent_and_on_drifting_noise():
    """At p < 0.01 about 1 % of trendless series may look like learning; a plain t-test on an AR(1) errs far more."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(600, 90))
    alarms = np.mean([trend(row).p < 0.01 for row in noise])
    assert alarms < 0.02
    drifting = np.zeros_like(noise)
    for t in range(1, 90):
        drifting[:, t] = 0.6 * drifting[:, t - 1] + noise[:, t]
    plain = np.mean([_plain_welch(row) < 0.01 for row in drifting])
    ours = np.mean([trend(row).p < 0.01 for row in drifting])
    assert plain > 0.08
    assert ours < 0.5 * plain


def _plain_welch(row):
    from scipy.stats import ttest_ind

    return ttest_ind(row[:30], row[-30:], equal_var=False).pvalue


def test_the_trend_test_is_welchs_where_successive_values_are_independent():
    """Without positive autocorrelation the effective sample size is n, and p is scipy's."""
    rng = np.random.default_rng(3)
    checked = 0
    for _ in range(200):
        row = rng.normal(size=90)
        row[60:] += 0.4
        thirds = [row[:30], row[60:]]
        time = np.arange(30) - 14.5
        residuals = [x - x.mean() - time * (time @ x) / (time @ time) for x in thirds]
        if all(r[1:] @ r[:-1] <= 0 for r in residuals):
            assert trend(row).p == pytest.approx(_plain_welch(row), rel=1e-9)
            checked += 1
    assert checked > 20


def test_a_constant_series_has_no_trend_and_a_clean_jump_is_certain():
    assert trend([0.5] * 30).p == 1.0
    assert trend([0.0] * 15 + [1.0] * 15).p == 0.0


def test_a_dead_run_says_how_to_resume_and_what_it_costs(make_run, counter):
    run = make_run(healthy(), saved=[40, 55])
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    write_status(run.directory, "running")
    _edit_status(run.directory, pid=child.pid)
    found = findings(run)
    assert found["died"].severity == "problem"
    assert f"onepolicy resume {run.directory}" in found["died"].advice
    assert "step 60" in found["died"].words
    assert "step 55; a resume repeats 5 logged steps" in found["checkpoint"].words


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        ({"state": "interrupted"}, "interrupted", "asked to stop at step 60"),
        ({"state": "failed", "error": "ValueError: no"}, "failed", "ValueError: no"),
        ({"state": "running"}, "alive", "is at step 60"),
        ({"state": "running", "host": "elsewhere"}, "elsewhere", "cannot be seen"),
    ],
)
def test_the_other_states_of_a_run(make_run, change, name, words):
    run = make_run(healthy())
    _edit_status(run.directory, **change)
    assert words in findings(run)[name].words


def test_a_living_run_that_went_silent(make_run, monkeypatch):
    run = make_run(healthy())
    _edit_status(run.directory, state="running")
    now = doctor_time(run)
    monkeypatch.setattr("onepolicy.run.vitals.time.time", lambda: now + 100)
    assert "silent" not in findings(run)
    monkeypatch.setattr("onepolicy.run.vitals.time.time", lambda: now + 200)
    assert "logged nothing for 200 s" in findings(run)["silent"].words


def doctor_time(run):
    """When the run last logged."""
    import json

    return json.loads((run.directory / "timing.jsonl").read_text().splitlines()[-1])["time/unix"]


def _edit_status(directory, **change):
    import json
    from dataclasses import asdict

    status = Status(**{**asdict(read_status(directory)), **change})
    (directory / "status.json").write_text(json.dumps(asdict(status)))


def test_damaged_checkpoints_missing_ones_and_moved_ones(make_run, counter):
    run = make_run(healthy(), saved=[40, 55])
    (run.checkpoints / "step-55" / "counter.json").write_text("{}")
    before = sorted(run.directory.rglob("*"))
    found = findings(run)
    assert "1 of 2 checkpoints do not verify" in found["damaged checkpoint"].words
    assert "step 40; a resume repeats 20" in found["checkpoint"].words
    assert sorted(run.directory.rglob("*")) == before
    run.resume(counter=counter())
    assert "step-55.corrupt-" in findings(run)["checkpoint moved aside"].words
    shutil.rmtree(run.checkpoints)
    assert "a resume starts at 0" in findings(run)["no checkpoint"].words


def test_a_disk_nearly_full(make_run, monkeypatch):
    run = make_run(healthy(), saved=[60])
    usage = shutil.disk_usage(run.directory)
    monkeypatch.setattr("onepolicy.run.vitals.shutil.disk_usage", lambda path: usage._replace(free=2**20))
    assert "1 MiB are free" in findings(run)["disk nearly full"].words


def test_steps_that_became_slow(make_run):
    slow = {"time/step_seconds": [0.3] * 30 + [1.0] * 30}
    assert "A step takes 1 s, at the start 0.3 s" in findings(make_run(healthy(), timing=slow))["slowing down"].words


def test_memory_that_grows(make_run, monkeypatch):
    grown = iter(np.linspace(500, 4000, N))
    monkeypatch.setattr("onepolicy.run.run.resources", lambda: {"memory/resident": float(next(grown))})
    assert "to 4000 MiB" in findings(make_run(healthy()))["memory grows"].words


def test_a_fresh_run_and_a_directory_that_is_none(make_run, tmp_path):
    assert set(findings(make_run())) == {"finished"}
    with pytest.raises(CheckpointError, match="no run directory"):
        doctor.diagnose(tmp_path)


def test_the_text_has_the_worst_first_and_a_count(make_run):
    run = make_run({**healthy(), "rollout/truncated": [0.25] * N, "learner/skipped": [1.0] * N})
    text = doctor.format(doctor.diagnose(run.directory), width=80)
    lines = text.splitlines()
    assert lines[0] == "problem  truncation (steps 41-60)"
    assert lines[-1] == "1 problem, 1 warning."
    assert "    -> Raise max_tokens" in text
    assert max(map(len, lines)) <= 80
    order = [line.split()[0] for line in lines if line[0] != " "][:-1]
    assert order == sorted(order, key=("problem", "warning", "note", "good").index)


def test_markup_in_an_error_is_shown_as_it_is(make_run):
    run = make_run(healthy())
    _edit_status(run.directory, state="failed", error="KeyError: '[/bold] [red]x'")
    assert "'[/bold] [red]x'" in doctor.format(doctor.diagnose(run.directory))
