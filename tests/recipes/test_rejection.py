"""Rejection sampling: every cause by a hand-made answer, the rows, and a run that goes on where it was killed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from onepolicy.data.demonstrations import conversation, read_jsonl
from onepolicy.errors import ConfigError
from onepolicy.recipes import rejection
from onepolicy.recipes.options import Machine, ProblemOptions
from onepolicy.recipes.rejection import Answer, Keep, harvest, select
from onepolicy.tasks import bilingual

TASK = bilingual.load(n=1).tasks[0]
GOOD = Answer("<think>1συν1=2</think><answer>2</answer>", 20, False, 1.1, 1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("answer", "keep", "cause"),
    [
        (replace(GOOD, score=None), Keep(), "could not be judged"),
        (replace(GOOD, text=" "), Keep(), "empty"),
        (replace(GOOD, truncated=True), Keep(), "cut off"),
        (replace(GOOD, correct=0.0), Keep(), "wrong"),
        (replace(GOOD, correct=None), Keep(), "wrong"),
        (GOOD, Keep(least=1.2), "score too low"),
        (replace(GOOD, format=0.0), Keep(), "format"),
        (replace(GOOD, language=0.9), Keep(language_share=1.0), "language"),
        (GOOD, Keep(language="ru", language_share=0.5), "language"),
        (replace(GOOD, text="a b " * 100), Keep(), "repetition"),
        (GOOD, Keep(longest=19), "length"),
        (GOOD, Keep(shortest=21), "length"),
        (GOOD, Keep(longest=20, shortest=20, least=1.1, language_share=1.0), None),
        (replace(GOOD, language=None), Keep(language_share=1.0), None),
        (replace(GOOD, correct=0.0), Keep(right=False), None),
        (replace(GOOD, format=0.0), Keep(format=False), None),
        (GOOD, Keep(language="el", language_share=1.0), None),
    ],
)
def test_each_cause(answer, keep, cause):
    """The first cause that holds, and its absence."""
    kept, causes = select(TASK, [answer], keep)
    assert (kept, causes) == (([answer], []) if cause is None else ([], [cause]))


def test_duplicates_and_choice():
    """Blanks make no difference; of three good ones two are kept, in the order wished for."""
    first, second, third = (
        replace(GOOD, text=t, tokens=n, score=s) for t, n, s in (("a", 9, 1.0), ("b", 7, 3.0), ("c", 8, 2.0))
    )
    answers = [first, replace(first, text=" a "), second, third]
    wanted = {"best": [second, third], "shortest": [second, third], "first": [first, second]}
    for choose, expected in wanted.items():
        kept, causes = select(TASK, answers, Keep(most=2, choose=choose))
        assert kept == expected
        assert causes == ["duplicate", "more than wanted"]
    assert len(select(TASK, answers, Keep(most=0))[0]) == 3


def test_the_harvest_counts_everything_once():
    """Rows and causes add up to the answers; best of 2 by a judge that is right is pass@2."""
    wrong = replace(GOOD, correct=0.0, score=0.1)
    found = harvest([TASK], {TASK.id: [GOOD, wrong, wrong, replace(GOOD, text="x")]}, Keep(most=1))
    assert len(found.rows) + sum(found.causes.values()) == found.answers == 4
    assert found.causes == {"wrong": 2, "more than wanted": 1}
    assert found.best_of[1][0] == 0.5
    assert found.best_of[2][0] == pytest.approx(1 - 1 / 6)
    assert found.rows[0]["messages"][-1] == {"role": "assistant", "content": GOOD.text}
    assert "1 of 4 answers kept, for 1 of 1 prompts" in found.text()


@pytest.fixture
def sampling(tmp_path, letters_model):
    """sampling(name, **fields): a configuration of six prompts, in tmp_path/name.jsonl."""

    def make(name="rows", **fields):
        config = rejection.Config(
            model=letters_model,
            tasks="letters",
            prompts=6,
            n=3,
            max_tokens=6,
            out=str(tmp_path / f"{name}.jsonl"),
            keep=Keep(right=False, format=False, most=2),
            problems=ProblemOptions(instructions=False),
            machine=Machine(threads=1, slots=16),
        )
        return replace(config, **fields)

    return make


def test_rows_are_what_sft_reads(sampling):
    config = sampling(keep=Keep(right=False, format=False, most=0))
    outcome = rejection.main(config)
    rows = read_jsonl(config.out, conversation).rows
    assert outcome.code == 0
    assert all(talk[-1]["role"] == "assistant" for talk in rows)
    report = json.loads(Path(f"{config.out}.report.json").read_text())
    assert report["answers"] == 18
    assert report["rows"] == len(rows) == 18 - sum(report["causes"].values())


def test_killed_between_and_within_lines(sampling, monkeypatch):
    """A torn last line is sampled again; the rows are those of a run that was let alone, to the byte."""
    monkeypatch.setattr(rejection, "CHUNK", 2)
    straight, killed = sampling("straight"), sampling("killed")
    rejection.main(straight)
    rejection.main(killed)
    rows, book = Path(killed.out), Path(f"{killed.out}.samples.jsonl")
    whole = book.read_bytes()
    assert rows.read_bytes() == Path(straight.out).read_bytes()
    for cut in (len(whole) - 7, whole.index(b"\n") + 1, len(whole) // 2):
        book.write_bytes(whole[:cut])
        rows.unlink()
        rejection.main(killed)
        assert book.read_bytes() == whole
        assert rows.read_bytes() == Path(straight.out).read_bytes()


def test_other_rules_need_no_new_samples(sampling, monkeypatch):
    """What is kept can be decided again; another model's or setting's samples are refused."""
    rejection.main(sampling())
    with monkeypatch.context() as patch:
        patch.setattr("onepolicy.acting.episodes.Actor.play", lambda *_: pytest.fail("sampled again"))
        none = rejection.main(sampling(keep=Keep(right=False, format=False, shortest=100)))
    assert none.code == 1
    assert "length" in none.text
    with pytest.raises(ConfigError, match="another model or configuration"):
        rejection.main(sampling(n=4))


def test_no_model():
    with pytest.raises(ConfigError, match="name a model"):
        rejection.main(rejection.Config())
