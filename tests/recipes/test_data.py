"""`onepolicy data`: what each subcommand says and writes, and its exit code."""

from __future__ import annotations

import json

import pytest

from onepolicy.cli import main
from onepolicy.errors import ConfigError, DataError
from onepolicy.evaluation.attempts import GREEDY, SAMPLED, Attempt
from onepolicy.recipes import data, evaluate
from onepolicy.recipes.data_filter import histogram

TRAIN = [
    {
        "question": f"A farmer has {i} hens and each hen lays {i + 2} eggs how many eggs are there in all",
        "answer": f"#### {i * (i + 2)}",
    }
    for i in range(3, 9)
]


@pytest.fixture
def write(tmp_path):
    def make(name, rows):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return make


def test_a_sound_file_is_fit(write):
    """17 words with two numbers that differ: no duplicates, near ones neither."""
    outcome = data.run(["check", write("a.jsonl", TRAIN), "--tasks", "gsm8k"])
    assert outcome.code == 0
    assert "6 rows; 6 problem" in outcome.text
    assert "gold answers by gsm8k: 6 verify, 0 rows refused" in outcome.text
    assert "nothing that forbids" in outcome.text


def test_faults_wrong_golds_and_overlap_give_code_1(write):
    broken = data.run(["check", write("a.jsonl", [*TRAIN, {"question": "x"}])])
    assert (broken.code, "row 7: fields ['question'] fit no form" in broken.text) == (1, True)
    gold = data.run(["check", write("b.jsonl", [*TRAIN, {"question": "x", "answer": "#### seven"}]), "--tasks=gsm8k"])
    assert gold.code == 1
    assert "6 verify, 1 rows refused" in gold.text
    assert "row 7: the final answer 'seven' is not a number" in gold.text
    exam = write("exam.jsonl", [TRAIN[2], {"question": "Nothing like it", "answer": "#### 1"}])
    overlap = data.run(["check", write("c.jsonl", TRAIN), "--against", exam])
    assert overlap.code == 1
    assert "1 of 2 problems share 13 words" in overlap.text
    assert "its row 1 in row 3 (100 % of its 13-grams)" in overlap.text
    assert data.run(["check", write("c.jsonl", TRAIN), "--against", exam, "--fail-on", "faults"]).code == 0


def test_duplicates_count_only_where_asked(write):
    file = write("a.jsonl", [*TRAIN, TRAIN[0]])
    assert data.run(["check", file]).code == 0
    strict = data.run(["check", file, "--fail-on", "duplicates"])
    assert strict.code == 1
    assert "rows 1, 7 are equal" in strict.text


def test_lengths_in_a_tokenizers_tokens(write, model_directory):
    """A character tokenizer: as many tokens as characters."""
    outcome = data.run(["check", write("a.jsonl", TRAIN), "--tokenizer", str(model_directory("llama"))])
    plain = data.run(["check", write("a.jsonl", TRAIN)])
    assert outcome.text.replace("tokens", "characters") == plain.text


def test_a_mixture_and_its_description(write, tmp_path):
    """Weights 3 to 1 over 6 and 4 rows: 8 rows at most without repeats (6 / 0.75), 6 and 2; twice the same bytes."""
    first = write("if.jsonl", [{"prompt": f"p{i}", "answer": str(i)} for i in range(6)])
    second = write("chat.jsonl", [{"messages": [i]} for i in range(4)])
    line = ["mix", f"if={first}:3", f"chat={second}:1", "--out", str(tmp_path / "mix.jsonl")]
    outcome = data.run(line)
    content = (tmp_path / "mix.jsonl").read_bytes()
    rows = [json.loads(row) for row in content.splitlines()]
    assert sorted(row["source_row"] for row in rows if row["source"] == "if") == [1, 2, 3, 4, 5, 6]
    assert sum(row["source"] == "chat" for row in rows) == 2
    assert all(row["prompt"] == f"p{row['source_row'] - 1}" for row in rows if row["source"] == "if")
    assert "1.00 epochs of 6" in outcome.text
    about = json.loads((tmp_path / "mix.jsonl.json").read_text())
    assert about["rows"] == 8
    assert about["sources"]["chat"]["epochs"] == 0.5
    data.run(line)
    assert (tmp_path / "mix.jsonl").read_bytes() == content
    data.run([*line, "--seed", "1"])
    assert (tmp_path / "mix.jsonl").read_bytes() != content
    with pytest.raises(ConfigError, match=r"if would be gone through 2\.00 times, max_epochs is 1"):
        data.run([*line, "--size", "16"])
    assert data.run([*line, "--size", "16", "--max-epochs", "2"]).code == 0


def test_what_cannot_be_mixed(write, tmp_path):
    good, out = write("a.jsonl", [{"a": 1}]), ["--out", str(tmp_path / "m.jsonl")]
    (tmp_path / "b.jsonl").write_text('{"a": 1}\n{')
    for words, error, message in (
        (["a"], ConfigError, "not NAME=FILE:WEIGHT"),
        ([f"a={good}:x"], ConfigError, "weight 'x' is not a number"),
        ([f"a={good}:0"], ConfigError, "above 0"),
        ([f"a={tmp_path / 'b.jsonl'}"], DataError, "row 2: not JSON"),
        ([f"a={write('c.jsonl', [{'source': 'x'}])}"], DataError, "has a field 'source' already"),
        ([], ConfigError, "at least one source"),
    ):
        with pytest.raises(error, match=message):
            data.run(["mix", *words, *out])


def test_the_filter_keeps_what_is_solved_sometimes(write, tmp_path, monkeypatch, model_directory):
    """Pass rates 0, 1/4, 2/4, 3/4, 1 and none judged; 0.25 to 0.75 keeps three rows, with their rates."""
    right = {1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 6: None}

    def attempts(generator, tasks, render, decode, *, k, **options):
        for task in tasks:
            count = right[task.meta["row"]]
            yield Attempt(task.id, GREEDY, 0, "", None, 0.0, {"correct": 0.0})
            for i in range(k):
                value = None if count is None else float(i < count)
                parts = {"correct": value}
                yield Attempt(task.id, SAMPLED, i, "", None, value, parts, "time-out: x" if count is None else None)

    monkeypatch.setattr(evaluate, "make_attempts", lambda *a, **o: list(attempts(*a, **o)))
    file, out = write("a.jsonl", TRAIN), tmp_path / "kept.jsonl"
    line = ["filter", file, "--model", str(model_directory("llama")), "-k", "4", "--keep", "0.25..0.75"]
    outcome = data.run([*line, "--out", str(out), "--max-tokens", "4", "--machine.threads", "1"])
    kept = [json.loads(row) for row in out.read_text().splitlines()]
    assert kept == [{**TRAIN[i], "pass_rate": rate} for i, rate in ((1, 0.25), (2, 0.5), (3, 0.75))]
    assert "3 of 6 problems kept" in outcome.text
    assert "1 problems without a judged sample" in outcome.text
    assert outcome.code == 0


def test_the_filter_samples_the_model_and_its_book_is_used_again(write, tmp_path, model_directory, monkeypatch):
    """A random model solves nothing: no row is kept, code 1; the second call with other bounds generates nothing."""
    line = ["filter", write("a.jsonl", TRAIN[:3]), "--model", str(model_directory("llama")), "-k", "2"]
    line += ["--max-tokens", "3", "--machine.threads", "1"]
    assert data.run(line).code == 1
    assert (tmp_path / "a.kept.jsonl").read_text() == ""
    monkeypatch.setattr("onepolicy.acting.engine.Engine.generate", lambda *a, **o: pytest.fail("generated again"))
    everything = data.run([*line, "--keep", "0..1"])
    assert "3 of 3 problems kept" in everything.text


def test_the_histogram():
    assert histogram([0, 0.1, 0.11, 0.3, 0.99, 1]) == {
        "0": 1, "0 to 0.1": 1, "0.1 to 0.2": 1, "0.2 to 0.3": 1, "0.9 to 1": 1, "1": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["chek", "x"], "Did you mean 'check'"),
        (["check"], "no file was named"),
        (["check", "a", "b"], "expected one FILE, got 2"),
        (["filter", "a"], "name a file and a model"),
        (["filter", "a", "--keep", "0.9..0.1"], "least <= greatest"),
        (["filter", "a", "--keep", "half"], "least..greatest"),
        (["check", "a", "--similarity", "0"], "between 0 and 1"),
        (["check", "a", "--taks", "gsm8k"], "tasks"),
    ],
)
def test_slips_on_the_command_line(line, words):
    with pytest.raises(ConfigError, match=words):
        data.run(line)


def test_the_command_prints_and_exits(write, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["data", "check", write("a.jsonl", [{"x": 1}])])
    assert stop.value.code == 1
    assert "not fit to train on" in capsys.readouterr().out
    main(["data", "--help"])
    assert "named sources by weight" in capsys.readouterr().out
