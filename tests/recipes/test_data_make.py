"""`onepolicy data make`: what the files hold, that training reads them, and what is refused."""

from __future__ import annotations

import json

import pytest

from onepolicy.data.demonstrations import conversation, read_jsonl
from onepolicy.data.preferences import ranking
from onepolicy.data.text import documents
from onepolicy.errors import ConfigError, DataError
from onepolicy.recipes import data
from onepolicy.tasks import letters

SIZES = ["--rankings", "40", "--demonstrations", "25", "--held-out", "12"]


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_letters_are_read_by_training_and_split_by_prompt(tmp_path):
    outcome = data.run(["make", "letters", "--out", str(tmp_path / "a"), *SIZES, "--k", "5"])
    train, test = (rows(tmp_path / "a" / f"rankings{end}.jsonl") for end in ("", "_test"))
    assert [len(ranking(row).answers) for row in train] == [5] * 40
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in test}
    for name, source in (("pairs", train), ("pairs_test", test)):
        for pair, row in zip(rows(tmp_path / "a" / f"{name}.jsonl"), source, strict=True):
            rank = dict(zip(row["answers"], row["ranks"], strict=True))
            assert rank[pair["chosen"]] < rank[pair["rejected"]]
            assert ranking(pair).rank == (1.0, 2.0)
    demos = read_jsonl(tmp_path / "a" / "demonstrations.jsonl", conversation).rows
    assert len(demos) == 25
    pages = documents(tmp_path / "a" / "text.txt")
    assert [page.count("\n") + 1 for page in pages] == [10, 10, 5]
    assert pages[0].splitlines()[3] == "".join(turn["content"] for turn in demos[3])
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["best_accuracy_on_these_labels"] == round(letters.true_accuracy(test), 4)
    assert f"best accuracy expected: {manifest['best_accuracy_expected']}" in outcome.text
    data.run(["make", "letters", "--out", str(tmp_path / "b"), *SIZES, "--k", "5"])
    data.run(["make", "letters", "--out", str(tmp_path / "c"), *SIZES, "--k", "5", "--seed", "1"])
    first, same, other = ((tmp_path / name / "rankings.jsonl").read_bytes() for name in "abc")
    assert first == same != other


def solved(question, *right):
    found = {f"m{i}": {"solution": f"<<1+{i}={i}>>{i}. A: {i}", "is_correct": one} for i, one in enumerate(right)}
    return {"question": question, "ground_truth": "A: 0", **found}


@pytest.fixture
def solutions(tmp_path):
    """Ten problems: one all wrong, one all right, one whose four solutions are two texts."""
    found = [solved(f"q{i}", True, i % 2 == 0, False, False) for i in range(7)]
    double = solved("double", True, False, True, False)
    double["m2"]["solution"] = double["m0"]["solution"]
    path = tmp_path / "solutions.jsonl"
    every = [*found, solved("wrong", False, False), solved("right", True, True), double]
    path.write_text("".join(json.dumps(row) + "\n" for row in every))
    return path


def test_solutions_become_rankings(tmp_path, solutions):
    """Ties stay, all-tied problems go, no problem is on both sides; two in ten are held out."""
    outcome = data.run(["make", "gsm8k-rankings", str(solutions), "--out", str(tmp_path), "--annotations", "drop"])
    train, test = (rows(tmp_path / f"rankings{end}.jsonl") for end in ("", "_test"))
    found = {row["prompt"]: row for row in (*train, *test)}
    assert sorted(found) == ["double", *(f"q{i}" for i in range(7))]
    assert len(train) + len(test) == len(found)
    assert found["q0"]["scores"] == [1.0, 1.0, 0.0, 0.0]
    assert sorted(ranking(found["q0"]).pairs()) == [(0, 2), (0, 3), (1, 2), (1, 3)]
    assert found["q1"]["answers"] == ["0. A: 0", "1. A: 1", "2. A: 2", "3. A: 3"]
    assert found["double"]["answers"] == ["0. A: 0", "1. A: 1", "3. A: 3"]
    assert found["double"]["writers"] == ["m0", "m1", "m3"]
    assert "problems: 10\nall wrong: 1\nall right: 1" in outcome.text
    data.run(["make", "gsm8k-rankings", str(solutions), "--out", str(tmp_path / "kept")])
    kept = [*rows(tmp_path / "kept" / "rankings.jsonl"), *rows(tmp_path / "kept" / "rankings_test.jsonl")]
    assert all("<<1+1=1>>" in row["answers"][1] for row in kept)


def test_what_is_refused(tmp_path, solutions):
    out = ["--out", str(tmp_path / "x")]
    for line, error, message in (
        (["make", "leters", *out], ConfigError, "Did you mean 'letters'"),
        (["make", "letters"], ConfigError, "name a directory"),
        (["make", "a", "b", "c", *out], ConfigError, "at most one FILE"),
        (["make", "gsm8k-rankings", *out], ConfigError, "name the file of solutions"),
        (["make", "letters", "--k", "1", *out], ConfigError, "k is 1"),
    ):
        with pytest.raises(error, match=message):
            data.run(line)
    whole = solutions.read_text()
    for text, message in (
        (whole + json.dumps(solved("q0", True, False)), "1 problems twice"),
        (json.dumps({"question": "q", "a": {"solution": "x"}}), "a lacks a solution, or is_correct"),
        (json.dumps(solved("q", True)), "1 solutions; a ranking needs at least 2"),
        (json.dumps({"m": {}}), "there is no question"),
    ):
        solutions.write_text(text)
        with pytest.raises(DataError, match=message):
            data.run(["make", "gsm8k-rankings", str(solutions), *out])
    assert not (tmp_path / "x").exists()
