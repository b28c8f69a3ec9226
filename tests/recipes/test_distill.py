"""On-policy distillation: the student becomes the teacher, resumes exactly, and refuses what it cannot learn from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from onepolicy.data.tokenizer import char_tokenizer
from onepolicy.errors import ConfigError, DataError, ModelError
from onepolicy.nn.language import ModelShape, build_model, save_model
from onepolicy.recipes import distill
from onepolicy.recipes.options import ExamOptions, Machine, Tiny, Update
from onepolicy.run.journal import read_lines
from onepolicy.tasks import letters

DEATHS = [
    (0, "before log"),
    (1, "after sample"),
    (2, "after log"),
    (2, "in save"),
    (3, "before save"),
    (4, "after save"),
]


@pytest.fixture
def tiny_distill(tmp_path, letters_model):
    """tiny_distill(name, **fields): a configuration of 4 steps of a moment each, in tmp_path/name."""

    def make(name="run", **fields):
        config = distill.Config(
            model="tiny-0.2m",
            teacher=letters_model,
            tasks="letters",
            steps=4,
            prompts=4,
            group_size=2,
            max_tokens=6,
            lr=1e-3,
            eval_every=2,
            save_every=1,
            out=str(tmp_path / name),
            tiny=Tiny(context=32),
            update=Update(warmup_steps=0),
            exam=ExamOptions(size=4),
            machine=Machine(threads=1, slots=16),
        )
        return replace(config, **fields)

    return make


@pytest.mark.parametrize("loss", ["sampled", "exact"])
def test_killed_at_every_step(tiny_distill, resume_through, digests, loss):
    """Weights, optimizer, prompts, metrics and samples."""
    straight, killed = tiny_distill("straight", loss=loss), tiny_distill("killed", loss=loss)
    report = distill.main(straight)
    again = resume_through(distill.main, killed, DEATHS)
    assert digests(straight.out) == digests(killed.out)
    assert again.metrics == report.metrics
    assert ("distill/kl_exact" in report.metrics) == (loss == "exact")


@pytest.mark.parametrize("loss", ["sampled", "exact"])
def test_the_student_becomes_the_teacher(tiny_distill, loss):
    """From a third of a nat a token to next to nothing, on answers to prompts not trained on."""
    config = tiny_distill(
        loss=loss, steps=40 if loss == "sampled" else 24, prompts=8, group_size=4, lr=1e-2, eval_every=0,
        save_every=0, update=Update(warmup_steps=3, schedule="linear"), exam=ExamOptions(size=16),
    )  # fmt: skip
    distill.main(config)
    apart = [
        row["eval/teacher_kl"] for row in read_lines(Path(config.out) / "metrics.jsonl") if "eval/teacher_kl" in row
    ]
    assert apart[0] > 0.2
    assert apart[-1] < 0.01


def test_another_vocabulary_is_refused(tiny_distill, tmp_path):
    """A teacher that has other tokens has no opinion of the student's."""
    tokenizer = char_tokenizer(letters.CHARACTERS)
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape = ModelShape(width=16, depth=1, heads=2, mlp=16)
    other = save_model(
        build_model(shape, len(tokenizer), context=32, arch="qwen3", seed=0, **ids), tokenizer, tmp_path / "m"
    )
    with pytest.raises(ModelError, match="another vocabulary"):
        distill.main(tiny_distill(model=str(other)))
    assert not (tmp_path / "run").exists()


def test_another_teacher_is_another_experiment(tiny_distill, kill_at, letters_model, monkeypatch):
    """A teacher whose weights changed between two sessions is found out."""
    config = tiny_distill()
    with kill_at(2, "after save"):
        distill.main(config)
    monkeypatch.setattr(distill, "weights_hash", lambda _: "other")
    with pytest.raises(DataError, match="teacher changed"):
        distill.main(config, resume=config.out)


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"model": ""}, "model is empty"), ({"teacher": ""}, "teacher is empty"), ({"teacher": "tiny-0.2m"}, "preset")],
)
def test_what_is_missing_is_named(tiny_distill, fields, words):
    with pytest.raises(ConfigError, match=words):
        distill.main(tiny_distill(**fields))


def test_texts_are_learnt_from_once(tiny_distill):
    with pytest.raises(ConfigError, match="learnt from once"):
        tiny_distill(update=Update(epochs=2))
