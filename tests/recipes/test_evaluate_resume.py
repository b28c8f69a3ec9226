"""An evaluation on file: killed anywhere and continued, compared, checked for copies; the same bytes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from onepolicy.acting.engine import Engine
from onepolicy.errors import CheckpointError, ConfigError
from onepolicy.evaluation.stats import pass_at_k
from onepolicy.recipes import evaluate
from onepolicy.recipes.evaluate_book import Book, read_problems
from onepolicy.recipes.options import Machine

FILES = ("eval.json", "samples.jsonl", "report.json", "report.md", "problems.jsonl")
ROWS = [
    {"question": f"What is {i} plus {i + 1} minus {i % 3} when you count them all up", "answer": f"#### {i}"}
    for i in range(7)
]


class Killed(BaseException):
    """Nothing in the house catches it."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    place = tmp_path_factory.mktemp("bench")
    (place / "gsm8k").mkdir()
    (place / "gsm8k/test.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    choices = [{"text": "yes", "label": "A"}, {"text": "never", "label": "B"}]
    arc = [{"question": {"stem": f"Is {i} hot?", "choices": choices}, "answerKey": "AB"[i % 2]} for i in range(5)]
    (place / "ARC-Easy").mkdir()
    (place / "ARC-Easy/ARC-Easy-Test.jsonl").write_text("\n".join(map(json.dumps, arc)))
    return place


@pytest.fixture
def config(data, tmp_path, model_directory):
    return evaluate.Config(
        model=str(model_directory("llama")),
        tasks="gsm8k,arc-easy",
        data_dir=str(data),
        k=4,
        max_tokens=6,
        temperature=1.0,
        prompt="plain",
        out=str(tmp_path / "whole"),
        machine=Machine(threads=1, slots=4),
    )


@pytest.fixture
def kill_after(monkeypatch):
    """kill_after(n, main, config): main dies in its n-th call of the generator (from 0)."""

    def run(n, config):
        whole, calls = Engine.generate, []

        def dying(self, *args, **options):
            calls.append(1)
            if len(calls) > n:
                raise Killed
            return whole(self, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Engine, "generate", dying)
            with pytest.raises(Killed):
                evaluate.main(config)

    return run


def content(config):
    return {name: (evaluate.Path(config.out) / name).read_bytes() for name in FILES}


def test_killed_and_continued_is_byte_equal(config, tmp_path, kill_after):
    """2 problems a batch: 4 batches of gsm8k and 3 of ARC, two calls each; killed in the 1st, 2nd and 6th call,
    and in the 7th of what was left, with a torn line at the end."""
    evaluate.main(config)
    killed = replace(config, out=str(tmp_path / "killed"))
    sizes = []
    for n in (0, 1, 5, 6):
        kill_after(n, killed)
        samples = tmp_path / "killed/samples.jsonl"
        sizes.append(len(samples.read_bytes().splitlines()) if samples.exists() else 0)
        if sizes[-1]:
            with samples.open("ab") as file:
                file.write(b'{"tasks": "gsm8k", "task": "gsm8k/te')
    assert sizes == [0, 0, 20, 45]
    evaluate.main(killed)
    assert content(killed) == content(config)


def test_a_finished_evaluation_generates_nothing_more(config, kill_after, monkeypatch):
    first = evaluate.main(config)
    monkeypatch.setattr(Engine, "generate", lambda *a, **k: pytest.fail("generated again"))
    again = evaluate.main(replace(config, at="1,3"))
    assert again.metrics["gsm8k/avg@4"] == first.metrics["gsm8k/avg@4"]
    assert {"gsm8k/pass@1", "gsm8k/pass@3"} <= set(again.metrics)
    assert "gsm8k/pass@2" not in again.metrics


def test_the_bytes_do_not_depend_on_the_slots(config, tmp_path):
    evaluate.main(config)
    other = replace(config, out=str(tmp_path / "other"), machine=Machine(threads=1, slots=3))
    evaluate.main(other)
    first, second = ((tmp_path / name / "report.json").read_bytes() for name in ("whole", "other"))
    assert first == second


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"k": 2}, "k: 4 -> 2"),
        ({"tasks": "gsm8k"}, "tasks"),
        ({"shots": 0, "size": 3}, "tasks"),
    ],
)
def test_another_evaluation_is_not_continued(change, words, config):
    evaluate.main(config)
    with pytest.raises(ConfigError, match=f"other settings .*{words}"):
        evaluate.main(replace(config, **change))


def test_another_model_is_not_continued(config, model_directory):
    evaluate.main(config)
    with pytest.raises(ConfigError, match="weights"):
        evaluate.main(replace(config, model=str(model_directory("gpt2"))))


def test_every_sample_is_kept_and_the_report_is_made_of_them(config):
    """7 x (1 + 4) + 5 x (1 + 4) attempts and 5 lines of likelihoods; pass@j by its formula from the lines."""
    report = evaluate.main(config)
    place = evaluate.Path(config.out)
    lines = [json.loads(line) for line in (place / "samples.jsonl").read_text().splitlines()]
    assert len(lines) == 7 * 5 + 5 * 5 + 5
    sampled = [line for line in lines if line["tasks"] == "arc-easy" and line["mode"] == "sampled"]
    right = np.array([line["correct"] for line in sampled]).reshape(5, 4).sum(axis=1)
    assert report.metrics["arc-easy/pass@2"] == pytest.approx(pass_at_k(4, right, 2).mean())
    written = json.loads((place / "report.json").read_text())
    assert written["metrics"] == report.metrics
    assert written["intervals"]["gsm8k"]["greedy"][0] == report.metrics["gsm8k/accuracy"]
    by_problem = read_problems(place)
    assert {line["task"] for line in lines} == {*by_problem["gsm8k"], *by_problem["arc-easy"]}
    page = (place / "report.md").read_text()
    assert "| gsm8k | 7 |" in page
    assert "| gsm8k/test/1 |" in page


def test_the_picture_is_drawn_pictures(config):
    evaluate.main(replace(config, tasks="arc-easy", size=2))
    assert (evaluate.Path(config.out) / "report.png").read_bytes().startswith(b"\x89PNG")


def test_two_models_problem_by_problem(config, model_directory, tmp_path):
    """A model against itself differs nowhere: p = 1; against another by name and by its report, the same."""
    same = evaluate.main(replace(config, against=config.model))
    assert same.metrics["gsm8k/accuracy_difference"] == 0.0
    assert (same.metrics["gsm8k/accuracy_p"], same.metrics["arc-easy/acc_norm_p"]) == (1.0, 1.0)
    assert "against" in same.text
    other = replace(config, model=str(model_directory("gpt2")), out=str(tmp_path / "other"))
    alone = evaluate.main(other)
    by_report = evaluate.main(replace(config, against=str(tmp_path / "other")))
    expected = same.metrics["arc-easy/acc"] - alone.metrics["arc-easy/acc"]
    assert by_report.metrics["arc-easy/acc_difference"] == pytest.approx(expected)
    body = json.loads((tmp_path / "whole/report.json").read_text())
    assert {pair["name"] for pair in body["against"]["comparisons"]} >= {
        "gsm8k accuracy",
        "gsm8k avg@4",
        "arc-easy acc",
    }
    assert "corrected for" in by_report.text


def test_an_unfinished_report_cannot_be_compared_with(tmp_path):
    with pytest.raises(CheckpointError, match="no finished evaluation"):
        read_problems(tmp_path)


def test_copies_in_a_training_file_are_flagged_and_left_out(config, tmp_path):
    """Rows 2 and 5 of the seven stand in the file: listed, and the accuracies without them are over five."""
    train = tmp_path / "train.jsonl"
    train.write_text("\n".join(json.dumps({"text": ROWS[i]["question"].upper()}) for i in (1, 4)))
    report = evaluate.main(replace(config, contamination=str(train)))
    assert report.metrics["gsm8k/contaminated"] == 2.0
    assert report.metrics["arc-easy/contaminated"] == 0.0
    problems = read_problems(evaluate.Path(config.out))["gsm8k"]
    assert {name for name, one in problems.items() if one["contaminated"]} == {"gsm8k/test/2", "gsm8k/test/5"}
    clean = [one["scores"]["accuracy"] for one in problems.values() if not one["contaminated"]]
    assert report.metrics["gsm8k/accuracy_clean"] == np.mean(clean)
    assert "2 of 7 problems share 13 words in a row" in report.text
    assert "| gsm8k/test/2 | 1.00 | 1 |" in (evaluate.Path(config.out) / "report.md").read_text()


def test_the_command_line():
    """Two words are two models; without --out a directory is found."""
    assert evaluate.arguments(["m", "-k", "4"]) == ["--model", "m", "--k", "4", "--out", "auto"]
    assert evaluate.arguments(["--help"]) == ["--help"]
    with pytest.raises(ConfigError, match="one model or two, got 3"):
        evaluate.arguments(["a", "b", "c"])


def test_a_directory_is_named_after_what_decides_the_samples(config, tmp_path, monkeypatch, model_directory):
    """The same call goes on in the same place; another seed or other weights have their own, j and copies not."""
    monkeypatch.chdir(tmp_path)
    small = replace(config, tasks="arc-easy", size=1, k=2, out="auto")
    places = [
        evaluate.main(one).run_dir
        for one in (
            small,
            replace(small, at="2"),
            replace(small, seed=1),
            replace(small, model=str(model_directory("gpt2"))),
        )
    ]
    assert places[0] == places[1]
    assert len(set(places)) == 3
    assert places[0].name.startswith("eval-model-")
    assert (places[0] / "report.json").is_file()


def test_a_book_without_a_directory_keeps_nothing():
    book = Book(None, {}, 2)
    assert book.take("x", ["a"], 1) is None
    book.add([{"tasks": "x", "task": "a"}])
    book.close()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"at": "1,x", "k": 2}, "whole numbers"),
        ({"at": "3", "k": 2}, "at names 3"),
        ({"k": 1, "temperature": 0.0}, "temperature 0"),
    ],
)
def test_what_cannot_be_asked(fields, words):
    with pytest.raises(ConfigError, match=words):
        evaluate.Config(model="m", **fields)
