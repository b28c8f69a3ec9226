"""Preference optimisation's recipe: resumed to the bit offline and online, the reference's cache, what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from onepolicy.algos.dpo import Objective
from onepolicy.errors import ConfigError, DataError, ModelError, RewardError
from onepolicy.recipes import dpo, reward_model
from onepolicy.recipes.arena import rescorer
from onepolicy.recipes.options import ExamOptions, Machine, Tiny
from onepolicy.recipes.scoring import trained_reward_model
from onepolicy.tasks import letters
from onepolicy.types import Episode, Score

DEATHS = [
    (1, "before log"), (1, "in save"), (2, "after save"), (3, "after log"), (3, "after save"), (4, "after save"),
]  # fmt: skip


@pytest.fixture
def tiny(tmp_path, letters_model, monkeypatch):
    """tiny(name, **fields): four steps of a moment each."""
    monkeypatch.setenv("ONEPOLICY_CACHE", str(tmp_path / "cache"))
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in letters.ranking_rows(20, k=2)))

    def make(name="run", **fields):
        config = dpo.Config(
            model=letters_model,
            data=str(pairs),
            eval_share=0.25,
            tasks="letters",
            steps=4,
            batch_size=4,
            lr=1e-3,
            max_tokens=8,
            eval_every=2,
            save_every=1,
            out=str(tmp_path / name),
            exam=ExamOptions(size=3, k=2),
            machine=Machine(threads=1, slots=16),
        )
        return replace(config, **fields)

    return make


ONLINE = {"data": "", "online": dpo.Online(rounds=2, prompts=6, samples=3)}


@pytest.mark.parametrize(
    "fields",
    [{}, {"objective": Objective("kto")}, {"objective": Objective("simpo")}, ONLINE,
     {**ONLINE, "objective": Objective("kto"), "online": replace(ONLINE["online"], moving_reference=True)}],
    ids=["dpo", "kto", "simpo", "online", "online kto, moving reference"],
)  # fmt: skip
def test_killed_at_every_step(fields, tiny, resume_through, digests):
    """Odd and even steps, so that the online rounds of two steps are killed within and between."""
    straight, killed = tiny("straight", **fields), tiny("killed", **fields)
    report = dpo.main(straight)
    again = resume_through(dpo.main, killed, DEATHS)
    assert digests(straight.out) == digests(killed.out)
    assert again.metrics == report.metrics


def test_the_reference_s_numbers_are_found_again_unless_weights_or_texts_change(tiny, tmp_path, capsys):
    """One file per set of texts; the second run says that it found both, a run on other data does not."""
    dpo.main(tiny("one"))
    files = sorted((tmp_path / "cache" / "reference").iterdir())
    assert len(files) == 2
    first = Path(tiny("one").out, "metrics.jsonl").read_text()
    dpo.main(tiny("two"))
    assert "found in" in Path(tiny("two").out, "log.txt").read_text()
    assert Path(tiny("two").out, "metrics.jsonl").read_text() == first
    for file in files:
        file.write_bytes(b"damaged")
    dpo.main(tiny("three"))
    assert Path(tiny("three").out, "metrics.jsonl").read_text() == first
    dpo.main(tiny("four", eval_share=0.5))
    assert len(list((tmp_path / "cache" / "reference").iterdir())) == 4


def test_a_reward_model_judges_and_one_with_other_tokens_is_refused(tiny, tmp_path, letters_model, monkeypatch):
    monkeypatch.setattr("onepolicy.recipes.reward_model.calibration", lambda *_: None)
    rankings = tmp_path / "rankings.jsonl"
    rankings.write_text("".join(json.dumps(row) + "\n" for row in letters.ranking_rows(12, k=3)))
    make = reward_model.Config(
        data=str(rankings), steps=2, batch_size=4, machine=Machine(threads=1), tiny=Tiny(context=32)
    )
    reward_model.main(replace(make, model=letters_model, out=str(tmp_path / "same")))
    accent = tmp_path / "accent.jsonl"
    accent.write_text(rankings.read_text() + json.dumps({"prompt": "é", "chosen": "a", "rejected": "b"}) + "\n")
    reward_model.main(replace(make, data=str(accent), out=str(tmp_path / "other")))
    found = dpo.main(tiny("judged", reward_model=str(tmp_path / "same"), **ONLINE)).metrics
    assert "eval/true_score" in found  # the task's own score beside the model's
    assert found["eval/true_score"] != found["eval/score"]
    model = trained_reward_model(str(tmp_path / "same"))
    model.scorer.known = (-0.5, 0.5)
    episode = Episode("t", 0, (2, 3), (False, True), (0.0, -1.0), Score(7.0))
    scores = iter([0.4, 0.6])
    model.scorer.forward = lambda inputs: torch.tensor([next(scores)])
    inside, outside = (rescorer(model, re_encode=False)([episode], [])[0].score for _ in range(2))
    assert inside.parts == {"task": 7.0, "in_range": 1.0}
    assert outside.parts == {"task": 7.0, "in_range": 0.0}
    with pytest.raises(ModelError, match="another tokenizer"):
        dpo.main(tiny("refused", reward_model=str(tmp_path / "other")))
    dpo.main(tiny("said", reward_model=str(tmp_path / "other"), re_encode=True))
    with pytest.raises(ModelError, match="is no reward model"):
        dpo.main(tiny("none", reward_model=letters_model))


def test_bad_input_is_named(tiny, tmp_path):
    with pytest.raises(ConfigError, match="model is empty"):
        dpo.main(tiny(model=""))
    with pytest.raises(ConfigError, match="data is empty"):
        dpo.main(tiny(data=""))
    with pytest.raises(ConfigError, match="leave data out"):
        tiny(online=dpo.Online(rounds=1))
    with pytest.raises(ConfigError, match="samples is 1"):
        dpo.Online(rounds=1, samples=1)
    with pytest.raises(ConfigError, match="one judge"):
        tiny(reward="a:b", reward_model="c")
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps({"prompt": "a-b4?", "chosen": "ab", "rejected": "ab"}) + "\n")
    with pytest.raises(DataError, match="line 1: answers 0 and 1 are equal"):
        dpo.main(tiny(data=str(bad)))
    rewards = tmp_path / "same.py"
    rewards.write_text("def same(prompts, completions):\n    return [1.0] * len(completions)\n")
    with pytest.raises(RewardError, match="round 0: none of 6 prompts"):
        dpo.main(tiny("flat", reward=f"{rewards}:same", **ONLINE))
