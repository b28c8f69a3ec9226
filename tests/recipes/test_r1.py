"""R1: a pipeline of seconds, killed in every stage and resumed; its stages, and what is missing."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from onepolicy.errors import ConfigError
from onepolicy.recipes import r1, r1_estimate
from onepolicy.recipes.language import language_of
from onepolicy.recipes.options import ExamOptions, Machine, ProblemOptions
from onepolicy.recipes.r1_config import Reinforced, Rewarded, Sampled, Student, Supervised
from onepolicy.recipes.r1_stages import plan
from onepolicy.recipes.rejection import Keep
from onepolicy.tasks.base import read_options


@pytest.fixture
def mini(tmp_path):
    """mini(name, **fields): every stage in a moment, nothing learnt."""

    def make(name, **fields):
        rl = Reinforced(steps=2, prompts=2, group_size=2, lr=1e-3, minibatches=1)
        config = replace(
            r1.PRESETS["tiny"],
            max_tokens=20,
            problems=ProblemOptions(instructions=False, train_size=200),
            base=Supervised(demonstrations=30, general=10, style="rough", steps=3, batch_size=8, lr=3e-3),
            cold=Supervised(demonstrations=20, steps=2, batch_size=8, lr=1e-3),
            rl=rl,
            rl2=rl,
            reward=Rewarded(rows=70, lr=1e-3),
            reject=Sampled(prompts=4, n=2, general_prompts=3, keep=Keep(right=False, format=False)),
            sft=Supervised(steps=2, batch_size=4, lr=1e-3),
            exam=ExamOptions(size=4),
            machine=Machine(threads=1, slots=16),
            out=str(tmp_path / name),
        )
        return replace(config, **fields)

    return make


def everything(directory):
    """The sha256 of all models, sampled rows and scores of a pipeline but for its training seconds."""
    directory = Path(directory)
    files = [*directory.glob("*/model/*"), *directory.glob("*/metrics.jsonl")]
    files += [directory / "reject" / f"{name}.jsonl" for name in ("rows", "reasoning", "general")]
    return {str(f.relative_to(directory)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.is_file()}


def test_killed_in_every_stage(mini, kill_at, monkeypatch):
    """Models, metrics and the sampled set are those of a pipeline that was let alone; the table has each stage."""
    student = Student("tiny-0.2m", steps=1)
    straight, killed = mini("straight", student=student), mini("killed", student=student)
    report = r1.main(straight)
    resume = None
    for death in [(1, "before save"), (2, "after log"), (1, "after sample"), (2, "in save"), (2, "after save")]:
        with kill_at(*death):
            r1.main(killed, resume=resume)
        resume = Path(killed.out)
    again = r1.main(killed, resume=resume)
    found = everything(straight.out)
    assert found == everything(killed.out)
    models = {f"{stage}/model/model.safetensors" for stage in ("base", "rl2", "distill", "teach")}
    assert models | {"reject/rows.jsonl"} <= found.keys()
    assert again.metrics == report.metrics
    for stage in ("base", "cold", "rl", "sft", "rl2", "distill", "teach", "reject (general)", "reward"):
        assert f"\n{stage}" in f"\n{report.text}"
    assert language_of(Path(straight.out) / "cold" / "model").complete("1+1=", max_tokens=2) is not None


def test_zero_is_rl_on_the_base(mini):
    """No SFT on demonstrations of reasoning between the base and its reinforcement learning."""
    config = mini("zero", stages="zero", general="")
    assert plan(config) == ["base", "zero"]
    r1.main(config)
    assert not (Path(config.out) / "cold").exists()
    assert (Path(config.out) / "zero" / "model").is_dir()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ["base", "cold", "rl", "reward", "reject", "sft", "rl2"]),
        ({"general": ""}, ["base", "cold", "rl", "reject", "sft", "rl2"]),
        ({"model": "some/where", "stages": "zero"}, ["zero"]),
        ({"stages": "rl2, sft,reject,reward,rl,cold"}, ["base", "cold", "rl", "reward", "reject", "sft", "rl2"]),
        ({"student": Student("tiny-0.2m", steps=3), "general": ""},
         ["base", "cold", "rl", "reject", "sft", "rl2", "distill", "teach"]),
    ],
)  # fmt: skip
def test_the_plan(mini, fields, expected):
    assert plan(mini("plan", **fields)) == expected


@pytest.mark.parametrize(
    ("stages", "missing"),
    [
        ("rl", "cold"),
        ("cold,reject", "rl"),
        ("sft", "reject"),
        ("cold,rl,reject,sft,rl2", "reward"),
        ("teach", "distill"),
    ],
)
def test_a_stage_without_its_input(mini, stages, missing):
    """Said before anything is trained, with what to add."""
    config = mini("missing", stages=stages)
    with pytest.raises(ConfigError, match=f"Add '{missing}'"):
        r1.main(config)
    assert not Path(config.out).exists()


def test_an_unknown_stage_and_a_student_that_is_not_named(mini):
    with pytest.raises(ConfigError, match="cold"):
        mini("bad", stages="cld")
    with pytest.raises(ConfigError, match=r"student\.model"):
        plan(mini("bad", stages="cold,rl,reward,reject,distill"))


def test_the_parameters_of_qwen_by_its_own_count():
    """7,615,616,512 and 1,543,714,304, as the models' cards and weight files have them."""
    assert r1_estimate.KNOWN["Qwen/Qwen2.5-7B"].parameters == 7_615_616_512
    assert r1_estimate.KNOWN["Qwen/Qwen2.5-1.5B"].parameters == 1_543_714_304


def test_the_estimate_by_hand():
    """RL of the 7B preset: 650 x 512 x 16 outputs of 32,768 tokens, 2 N to write, 8 N to learn; 16 N + 4 N bytes."""
    config = r1.PRESETS["r1-7b"]
    need = next(n for n in r1_estimate.needs(config, plan(config)) if n.stage == "rl")
    tokens, n = 650 * 512 * 16 * 32_768, 7_615_616_512
    assert need.tokens == tokens
    assert need.generate + need.train == pytest.approx(10 * n * tokens)
    fixed = sum(need.memory[name] for name in ("weights", "gradients", "Adam", "reference"))
    assert fixed == 20 * n
    assert need.memory["KV cache"] == 4 * 2 * 28 * 4 * 128 * 2**20


def test_dry_run_trains_nothing(mini):
    config = mini("dry", dry_run=True)
    report = r1.main(config)
    assert "nothing is trained" in report.text
    assert not Path(config.out).exists()
    assert "7.62 billion" in r1.main(replace(r1.PRESETS["r1-7b"], dry_run=True)).text


def test_the_mixtures_options_can_be_read_back():
    """What the stages tell the task set is what it takes."""
    from onepolicy.recipes.r1_stages import mixture

    config = replace(r1.PRESETS["tiny"], options="letters.system=Hi;bilingual.seed=3", level=2)
    found = read_options("mixture", mixture(config, "bilingual", "letters"))
    assert found["sets"] == ["bilingual", "letters"]
    own = ["letters.system=Hi", "bilingual.seed=3", "bilingual.level=2", "bilingual.language=1.0"]
    assert found["options"] == own
