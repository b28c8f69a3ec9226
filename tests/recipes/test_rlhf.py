"""PPO-RLHF's recipe: resumed to the bit with critic, steered KL and mixed text; where it starts; what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sacrebleu.metrics import CHRF

from onepolicy.algos import rlhf as algorithm
from onepolicy.errors import ConfigError, DataError, ModelError
from onepolicy.nn.language import build_model, save_model
from onepolicy.nn.scorer import load_scorer
from onepolicy.recipes import reward_model, rlhf
from onepolicy.recipes.options import ExamOptions, Machine, Update
from onepolicy.tasks import letters
from onepolicy.tasks.form import side_of

DEATHS = [
    (1, "before log"), (1, "in save"), (2, "after save"), (3, "after log"), (3, "after save"), (4, "after save"),
]  # fmt: skip


@pytest.fixture
def tiny(tmp_path, letters_model):
    """tiny(name, **fields): four rollouts of a moment each, text mixed in."""
    text = tmp_path / "text.txt"
    text.write_text(
        "\n\n".join(row["completion"] + "-" + row["prompt"] for row in letters.demonstration_rows(30, seed=1))
    )

    def make(name="run", **fields):
        config = rlhf.Config(
            model=letters_model,
            steps=4,
            prompts=6,
            max_tokens=8,
            lr=1e-3,
            eval_every=2,
            save_every=1,
            out=str(tmp_path / name),
            ptx=rlhf.Ptx(data=str(text), coef=2.0, batch_size=4),
            update=Update(epochs=2, minibatches=2, warmup_steps=0),
            exam=ExamOptions(size=3, k=2),
            machine=Machine(threads=1, slots=16),
        )
        return replace(config, **fields)

    return make


@pytest.fixture
def judge(tmp_path, letters_model, monkeypatch):
    """A reward model of two steps over the same tokenizer."""
    monkeypatch.setattr("onepolicy.recipes.reward_model.calibration", lambda *_: None)
    rankings = tmp_path / "rankings.jsonl"
    rankings.write_text("".join(json.dumps(row) + "\n" for row in letters.ranking_rows(12, k=3)))
    out = str(tmp_path / "judge")
    reward_model.main(
        reward_model.Config(model=letters_model, data=str(rankings), steps=2, batch_size=4, lr=1e-3, out=out,
                            machine=Machine(threads=1))
    )  # fmt: skip
    return out


@pytest.mark.parametrize(
    "fields",
    [{}, {"kl": rlhf.Kl(coef=0.1, target=0.01, horizon=20), "ptx": rlhf.Ptx()}, {"lora_rank": 2}],
    ids=["text mixed in", "steered KL", "lora"],
)
def test_killed_at_every_step(fields, tiny, resume_through, digests):
    straight, killed = tiny("straight", **fields), tiny("killed", **fields)
    report = rlhf.main(straight)
    again = resume_through(rlhf.main, killed, DEATHS)
    assert digests(straight.out) == digests(killed.out)
    assert again.metrics == report.metrics


def test_with_a_reward_model_the_critic_starts_as_it_and_then_moves(tiny, judge):
    config = tiny(reward_model=judge, steps=1, lr=1e-9)
    found = rlhf.main(config).metrics
    was = load_scorer(f"{judge}/checkpoints/step-2/reward_model").state_dict()
    now = load_scorer(f"{config.out}/checkpoints/step-1/critic").state_dict()
    assert all(torch.allclose(was[name], now[name], atol=1e-6) for name in was)
    assert found["eval/true_score"] != found["eval/score"]
    moved = tiny("moved", reward_model=judge, steps=1)
    rlhf.main(moved)
    now = load_scorer(f"{moved.out}/checkpoints/step-1/critic").state_dict()
    assert not torch.allclose(was["model.score.weight"], now["model.score.weight"], atol=1e-4)


def test_at_unchanged_weights_nothing_has_moved(tiny):
    """The first exam: KL 0 to the reference, every duel a draw."""
    config = tiny(steps=1)
    rlhf.main(config)
    first = json.loads(Path(config.out, "metrics.jsonl").read_text().splitlines()[0])
    assert first["eval/kl"] == pytest.approx(0.0, abs=1e-4)
    assert first["eval/win_rate"] == 0.5


def test_a_metric_of_overlap_is_the_reward(tiny):
    """`--reward chrf`: what each sample scored is sacrebleu's number against the task's answer."""
    config = tiny(reward="chrf", steps=1)
    rlhf.main(config)
    answer = {task.messages[-1].content: task.answer for task in letters.load("train").tasks}
    chrf = CHRF()
    samples = [json.loads(line) for line in Path(config.out, "samples.jsonl").read_text().splitlines()]
    assert samples
    for row in samples:
        said = side_of(row["text"], "answer")  # what is thought does not count
        expected = chrf.sentence_score(said, [answer[row["prompt"]]]).score / 100 if said else 0.0
        assert row["score"] == pytest.approx(expected), row


def test_bad_input_is_named(tiny, tmp_path):
    with pytest.raises(ConfigError, match="model is empty"):
        rlhf.main(tiny(model=""))
    with pytest.raises(ConfigError, match="one judge"):
        tiny(reward="a:b", reward_model="c")
    with pytest.raises(ConfigError, match=r"temperature is 0"):
        tiny(temperature=0.0)
    with pytest.raises(ConfigError, match="lam 2"):
        algorithm.Credit(lam=2)
    with pytest.raises(DataError, match="does not exist"):
        rlhf.main(tiny(ptx=rlhf.Ptx(data=str(tmp_path / "no.txt"))))
    strange = tmp_path / "strange.txt"
    strange.write_text("über\n\nalles")
    with pytest.raises(DataError, match="document 0"):
        rlhf.main(tiny(ptx=rlhf.Ptx(data=str(strange))))
    other = tmp_path / "other"
    save_model(build_model("tiny-0.2m", 9, context=32, pad_token_id=0, eos_token_id=1), None, other)
    with pytest.raises(ModelError):
        rlhf.main(tiny(critic=str(other)))
    assert not (tmp_path / "run").exists()
