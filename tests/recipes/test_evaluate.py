"""The exam of a saved model: the same numbers as in training, as by the evaluation room, and as by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from onepolicy.data.chat_template import render
from onepolicy.errors import ConfigError, DataError, ModelError
from onepolicy.evaluation.accuracy import evaluate_tasks
from onepolicy.recipes import control, evaluate, sft
from onepolicy.recipes.language import language_of
from onepolicy.recipes.options import ExamOptions, Machine, ProblemOptions, Tiny
from onepolicy.recipes.textual import Problems
from onepolicy.run.journal import read_lines
from onepolicy.tasks.base import INSTRUCTIONS, TAGGED
from onepolicy.types import Sampling

PROBLEMS = {"level": 1, "max_tokens": 12, "machine": Machine(threads=1, slots=8)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose model knows some held-out problems by heart and others not, so that accuracies are between 0 and 1.

    It learnt the answers to half of the twenty held-out sums of two digits.
    """
    place = tmp_path_factory.mktemp("exam")
    config = sft.Config(
        data=str(place / "talks.jsonl"),
        steps=60,
        batch_size=10,
        lr=4e-3,
        warmup_steps=5,
        out=str(place / "run"),
        tiny=Tiny(context=32),
        exam=ExamOptions(size=20, k=2),
        **PROBLEMS,
    )
    held_out = Problems.of(config).held_out()
    talks = [{"prompt": t.messages[-1].content, "completion": TAGGED.write("", t.answer)} for t in held_out.tasks[::2]]
    (place / "talks.jsonl").write_text("\n".join(map(json.dumps, talks)))
    sft.main(config)
    return place / "run"


@pytest.fixture
def sit(run):
    """sit(model, **fields): the Report of an evaluation on the same problems."""

    def examine(model=run, **fields):
        config = evaluate.Config(model=str(model), size=20, problems=ProblemOptions(instructions=False), **PROBLEMS)
        return evaluate.main(replace(config, **fields))

    return examine


def test_the_run_its_model_and_its_checkpoint_get_the_mark_of_the_last_exam(run, sit):
    """One definition of correct: training's last line, the run directory, the directory inside it, the checkpoint's."""
    last = list(read_lines(run / "metrics.jsonl"))[-1]
    assert 0.2 < last["eval/accuracy"] < 1
    for model in (run, run / "model", run / "checkpoints/step-60/model"):
        metrics = sit(model).metrics
        for name in ("accuracy", "accuracy_low", "accuracy_high", "format", "length", "truncated"):
            assert metrics[f"arithmetic/{name}"] == last[f"eval/{name}"]


def test_greedy_accuracy_by_hand(run, sit):
    """transformers' greedy generation, each answer cut out and compared as text."""
    language, right = language_of(run), []
    tasks = Problems.of(replace(sft.Config(**PROBLEMS), exam=ExamOptions(size=20))).held_out()
    for task in tasks:
        prompt = torch.tensor([render(language.tokenizer, task.messages)])
        tokens = language.model.generate(prompt, max_new_tokens=12, do_sample=False)[0, prompt.shape[1] :].tolist()
        text = language.decode(tokens)
        right.append(text.partition("<answer>")[2].partition("</answer>")[0] == task.answer)
    assert sit().metrics["arithmetic/accuracy"] == np.mean(right)


def test_sampled_numbers_agree_with_the_evaluation_room(run, sit):
    """avg@4, pass@j, maj@j and the rates, whatever the number of slots; another seed draws other samples."""
    language = language_of(run)
    tasks = Problems.of(replace(sft.Config(**PROBLEMS), exam=ExamOptions(size=20))).held_out()
    report = evaluate_tasks(
        language.engine(slots=3, cache_tokens=None),
        tasks.tasks,
        language.render,
        language.decode,
        k=4,
        sampling=Sampling(12, 0.8),
        seed=7,
    )
    found = sit(k=4, temperature=0.8, top_p=1.0, seed=7).metrics
    expected = {f"arithmetic/{name.removeprefix('eval/')}": value for name, value in report.metrics().items()}
    assert found == expected
    assert {"arithmetic/avg@4", "arithmetic/pass@2", "arithmetic/maj@4"} <= set(found)
    assert found["arithmetic/avg@4"] <= found["arithmetic/pass@2"] <= found["arithmetic/pass@4"]
    other = sit(k=4, temperature=0.8, seed=8).metrics
    assert other["arithmetic/accuracy"] == found["arithmetic/accuracy"]
    assert other["arithmetic/sampled_length"] != found["arithmetic/sampled_length"]


def test_greedy_only_says_nothing_of_samples(sit):
    report = sit()
    assert not any("@" in name or "sampled" in name for name in report.metrics)
    assert "avg@" not in report.text
    assert report.text.startswith("arithmetic\naccuracy, greedy, 20 problems")


def test_several_task_sets_and_what_is_written(run, sit, tmp_path):
    """report.json has the numbers of the Report, samples.jsonl every transcript with the set it is of."""
    report = sit(tasks="arithmetic, countdown", size=5, k=2, out=str(tmp_path / "marks"))
    written = json.loads((tmp_path / "marks/report.json").read_text())
    assert written["metrics"] == report.metrics
    assert (written["model"], written["k"], written["seed"]) == (str(run), 2, 0)
    lines = [json.loads(line) for line in (tmp_path / "marks/samples.jsonl").read_text().splitlines()]
    assert [sum(line["tasks"] == name for line in lines) for name in ("arithmetic", "countdown")] == [15, 15]
    right = [line["correct"] for line in lines if line["tasks"] == "arithmetic" and line["mode"] == "greedy"]
    assert np.mean(right) == report.metrics["arithmetic/accuracy"]
    assert "countdown\naccuracy, greedy, 5 problems" in report.text


def test_a_model_is_told_the_format_as_its_run_told_it(run, model_directory):
    """A run decides for its model, whatever the model could read; a directory that reads is told, if not forbidden."""
    config = evaluate.Config(model=str(run))
    assert not evaluate.tasks_of(config, "arithmetic").instructed
    reads = replace(config, model=str(model_directory("llama")))
    for asked, told in ((None, True), (False, False), (True, True)):
        problems = evaluate.tasks_of(replace(reads, problems=ProblemOptions(instructions=asked)), "arithmetic")
        assert problems.instructed is told
    assert problems.held_out().tasks[0].messages[0].content == INSTRUCTIONS


@pytest.mark.parametrize(
    ("model", "level", "expected"),
    [("run", None, 1), ("run", 2, 2), ("run/model", None, None), ("run/model", 3, 3)],
)
def test_the_level_is_the_runs_unless_another_is_asked_for(model, level, expected, run):
    """Only in the task set that it trained on; without either it is the set's own."""
    config = evaluate.Config(model=str(run.parent / model), level=level)
    assert evaluate.tasks_of(config, "arithmetic").level == expected
    assert evaluate.tasks_of(config, "countdown").level == level


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"model": ""}, ConfigError, "no model was named; give a run directory"),
        ({"tasks": " , "}, ConfigError, "give at least one task set, see: onepolicy list"),
        ({"tasks": "arithmetik"}, ConfigError, "Did you mean 'arithmetic'"),
        ({"k": 2, "temperature": 0.0}, ConfigError, "k is 2 at temperature 0"),
        ({"tasks": "gsm8k", "eval_data": "nowhere.jsonl"}, DataError, "nowhere.jsonl is not a file"),
        ({"model": "tiny-0.2m"}, ConfigError, "there is nothing to load"),
        ({"level": 8}, DataError, r"leave no room for an answer: the longest, .* context is 32"),
    ],
)
def test_what_cannot_be_examined(fields, error, words, sit):
    with pytest.raises(error, match=words):
        sit(**fields)


def test_the_exams_bar_comes_to_its_end(tiny_sft, monkeypatch, capsys):
    """All problems are counted, at every sitting."""
    monkeypatch.setattr("onepolicy.run.progress.SHOW_AFTER", 0.0)
    sft.main(tiny_sft(steps=2))
    assert capsys.readouterr().err.count("held-out exam: 6/6") == 1


def test_a_run_of_a_controller_is_no_language_model(tmp_path, sit):
    small = {"steps": 32, "num_envs": 2, "n_steps": 16, "batch_size": 16, "epochs": 1, "eval_episodes": 2}
    control.main(control.Config(out=str(tmp_path / "ppo"), **small))
    with pytest.raises(ModelError, match="is a run of control, which trains no language model"):
        sit(tmp_path / "ppo")
