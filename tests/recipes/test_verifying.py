"""Verifiers in worker processes inside a run: the same results, the three states in its books, its processes gone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.tasks.hostile import Moody, Obey, task

from onepolicy.errors import ConfigError, DataError, RewardError
from onepolicy.recipes import grpo
from onepolicy.recipes.options import Machine, ProblemOptions
from onepolicy.recipes.textual import Problems
from onepolicy.recipes.verifying import Judge, scorer_of
from onepolicy.run.journal import read_lines
from onepolicy.tasks import base
from onepolicy.tasks.arithmetic import load as load_arithmetic
from onepolicy.tasks.base import TaskSet, load_task_set, makes_problems, read_options, task_options


def isolated(split="train", *, level=2, n=100, at_most=False, seed=0, style="totals", system="", weights=None):
    """Arithmetic whose verifiers judge in worker processes."""
    tasks = load_arithmetic(split, level=level, n=n, at_most=at_most, seed=seed, style=style, system=system)
    return replace(tasks, isolated=True, modules=("numpy",))


def moody(split="train", *, level=2, n=100, at_most=False, seed=0, style="totals", system="", weights=None):
    """Problems whose verifier is in a bad mood; what it is shown of an answer is kept small."""
    tasks = isolated(split, level=level, n=n, at_most=at_most, seed=seed, style=style, system=system)
    judged = tuple(replace(one, verifier=Moody()) for one in tasks)
    return replace(tasks, tasks=judged, form=replace(tasks.form, write=lambda thinking, answer: "<answer>"))


@pytest.fixture
def sets(monkeypatch):
    """The task sets of this file, by name."""
    for function in (isolated, moody, family):
        monkeypatch.setitem(base.TASKS, function.__name__, f"{__name__}:{function.__name__}")


def metrics_of(config):
    report = grpo.main(config)
    return [line for line in read_lines(report.run_dir / "metrics.jsonl") if line["step"]], report.run_dir


def test_a_run_is_the_same_with_any_number_of_workers(sets, tiny_grpo):
    """To the byte; in this process too, where the verifiers are the same."""
    books = []
    for name, tasks, workers in (("one", "isolated", 1), ("three", "isolated", 3), ("none", "arithmetic", 0)):
        machine = Machine(threads=1, slots=16, verifier_workers=workers)
        _, directory = metrics_of(tiny_grpo(name, tasks=tasks, reward="", steps=2, machine=machine))
        books.append((directory / "metrics.jsonl").read_bytes())
    assert books[0] == books[1] == books[2]


def test_the_three_states_are_in_the_books(sets, tiny_grpo):
    """Every completion is in one state, and those judged are those trained on; the time is in the other book."""
    config = tiny_grpo(tasks="moody", reward="", steps=3, machine=Machine(threads=1, slots=16, verifier_workers=1))
    lines, directory = metrics_of(config)
    seen = set()
    for line in lines:
        invalid = sum(value for name, value in line.items() if name.startswith("reward/invalid_"))
        assert line["rollout/score_invalid"] == pytest.approx(invalid)
        assert line["rollout/trained"] == pytest.approx(1 - invalid - line["reward/skipped"])
        seen |= {name for name, value in line.items() if name.startswith("reward/") and value}
    assert seen == {"reward/invalid_crash", "reward/skipped"}
    timing = list(read_lines(directory / "timing.jsonl"))
    assert all(0 < line["time/verify_seconds"] <= line["time/step_seconds"] for line in timing if line["step"])
    assert (
        "could not be judged: crash: the verifier's process ended by exit code 1" in (directory / "log.txt").read_text()
    )


def test_a_judge_uses_processes_only_where_a_set_asks_for_them():
    plain, apart = load_arithmetic("train", n=3), isolated(n=3)
    pairs = [(one, f"<think></think><answer>{one.answer}</answer>") for one in plain]
    with Judge(Machine(), plain) as judge:
        assert judge.stats() is None
        assert [score.value for score in judge.score(pairs)] == [1.1] * 3
    with Judge(Machine(verifier_workers=1, verifier_timeout=0.3), plain, apart) as judge:
        hung = judge.verify([*pairs, (task(verifier=Obey()), "sleep 9")])
        assert [score.value for score in hung] == [1.1] * 3 + [None]
        assert hung[3].error == "time-out: no verdict within 0.3 s"
        assert judge.stats().answers == 4
        assert judge.timing() == {"time/verify_seconds": 0.0}
        judge.score(pairs)
        assert judge.timing()["time/verify_seconds"] > 0
    with pytest.raises(RewardError, match="closed"):
        judge.verify(pairs)


@pytest.mark.parametrize("name", ["arithmetic", "bilingual", "code", "countdown", "instructions", "letters"])
def test_sets_of_quick_or_sandboxed_verifiers_need_no_processes(name):
    """The table of docs/verifiers.md; mathematics and reasoning-gym are tested beside their loaders."""
    tasks = load_task_set(name, "train", **({} if name == "letters" else {"n": 4}))
    assert not tasks.isolated
    with Judge(Machine(), tasks) as judge:
        assert judge.stats() is None


@pytest.mark.parametrize("fields", [{"verifier_workers": -1}, {"verifier_timeout": 0.0}, {"verifier_memory": 0}])
def test_settings_that_cannot_work(fields):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        Machine(**fields)


def test_a_reward_in_a_file(tmp_path):
    """`path/file.py:function`, which may import its neighbour; what is wrong with a path is said."""
    (tmp_path / "neighbour_of_reward.py").write_text("FACTOR = 3")
    file = tmp_path / "my_reward.py"
    file.write_text(
        "from neighbour_of_reward import FACTOR\n"
        "def triple(prompts, completions, answer, **columns):\n"
        "    return [FACTOR * float(c == a) if c else None for c, a in zip(completions, answer)]\n"
    )
    scores = scorer_of(f"{file}:triple")([(task(), "7"), (task(), "8"), (task(), "")])
    assert [(score.value, score.state) for score in scores] == [(3.0, "judged"), (0.0, "judged"), (None, "skipped")]
    for path, words in ((f"{tmp_path}/no.py:f", "there is no file"), (f"{file}:dauble", "has no attribute 'dauble'")):
        with pytest.raises(ConfigError, match=f"cannot be imported.*{words}.*path/to/file.py:function"):
            scorer_of(path)


def test_a_reward_by_name_is_the_overlap_with_the_answer():
    """`--reward chrf`: 1 for the answer itself, what sacrebleu says of a part of it, 0 for none of its letters."""
    fox = replace(task(), answer="the quick brown fox jumps")
    texts = ["the quick brown fox jumps", "the quick brown dog", "zzz"]
    for metric in ("bleu", "chrf", "rougeL"):
        whole, part, nothing = (score.value for score in scorer_of(metric)([(fox, text) for text in texts]))
        assert (whole, nothing) == (pytest.approx(1.0), 0.0)
        assert 0.0 < part < 1.0
    assert scorer_of("rougeL")([(fox, texts[1])])[0].value == pytest.approx(2 * 3 / (4 + 5))  # 3 words common
    with pytest.raises(ConfigError, match=r"'blue' cannot be imported: give module:function\. Did you mean 'bleu'"):
        scorer_of("blue")


def family(split="train", *, name, n=5, at_most=False, seed=0, colour="red", sizes=(), **rest):
    """Sets that share a loader, each with options that it checks itself."""
    if unknown := set(rest) - {"extra"}:
        raise ConfigError(f"no {unknown}")
    tasks = tuple(task(f"{name}/{colour}/{sizes}/{rest}/{seed}/{i}") for i in range(n))
    return TaskSet(f"{name}/{split}", tasks, form=replace(base.TAGGED, write=lambda thinking, answer: answer))


def test_a_family_of_sets(sets):
    tasks = load_task_set("family:blue+green", n=1, colour="x", extra=1)
    assert (tasks.name, tasks.tasks[0].id) == ("blue+green/train", "blue+green/x/()/{'extra': 1}/0/0")
    assert task_options("family:a") == ["n", "at_most", "seed", "colour", "sizes"]
    for name, words in (("family", "it is a family of sets: family:NAME"), ("arithmetic:x", "leave out ':x'")):
        with pytest.raises(ConfigError, match=words):
            load_task_set(name)


def test_options_on_the_command_line(sets, tiny_grpo):
    assert read_options("family:a", "sizes=[1, 2],colour=deep blue,extra=None") == {
        "sizes": [1, 2],
        "colour": "deep blue",
        "extra": None,
    }
    assert read_options("arithmetic", " ") == {}
    with pytest.raises(ConfigError, match=r"arithmetic has no option 'levle'\. Did you mean 'level'"):
        read_options("arithmetic", "levle=2")
    with pytest.raises(ConfigError, match=r"'totals' is no key=value"):
        read_options("arithmetic", "style=steps,totals")
    problems = Problems.of(tiny_grpo(tasks="family:a", task_options="colour=blue,n=2", problems=ProblemOptions()))
    assert [one.id for one in problems.train()] == [f"a/blue/()/{{}}/0/{i}" for i in range(2)]


def test_what_a_loader_is_given_is_what_it_has_keywords_for(sets, monkeypatch, tmp_path):
    """A set that reads a file gets path and on_error, one that makes its own n, seed and at_most, by name alone."""
    given = {}

    def reads(split="train", *, path="", on_error="stop", digits=None, system=""):
        given.update(path=path, on_error=on_error, digits=digits, system=system)
        raise DataError("enough")

    monkeypatch.setattr(f"{__name__}.family", reads)
    fields = {"level": 3, "data": "a", "eval_data": "b", "eval_size": 5, "seed": 9, "instructed": False}
    problems = Problems(tasks="family", options=ProblemOptions(digits=2, bad_rows="drop"), **fields)
    with pytest.raises(DataError, match="enough"):
        problems.held_out()
    assert given == {"path": "b", "on_error": "drop", "digits": 2, "system": ""}
    assert [makes_problems(name) for name in ("arithmetic", "family", "gsm8k", "gsm8k-steps")] == [True, *[False] * 3]


def test_the_configuration_is_kept_and_resumed(sets, tiny_grpo, digests, resume_through):
    """Killed and resumed, a run whose verifiers judge in processes is the same to the bit."""
    machine = Machine(threads=1, slots=16, verifier_workers=2)
    fields = {"tasks": "moody", "reward": "", "task_options": "style=totals", "machine": machine, "steps": 3}
    straight = grpo.main(tiny_grpo("straight", **fields)).run_dir
    broken = tiny_grpo("broken", **fields)
    resume_through(grpo.main, broken, [(2, "after save")])
    assert digests(straight) == digests(Path(broken.out))
    assert json.loads((straight / "config.json").read_text())["config"]["task_options"] == "style=totals"
