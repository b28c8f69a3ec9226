"""The reward model's recipe: resumed to the bit, its scale, its forms on disk, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import onepolicy as op
from onepolicy.errors import ConfigError, DataError, ModelError
from onepolicy.recipes import reward_model
from onepolicy.recipes.options import Machine, Tiny
from onepolicy.recipes.scoring import open_reward_model, same_tokenizer, trained_reward_model
from onepolicy.tasks import letters


@pytest.fixture
def rankings(tmp_path):
    """A file of 24 rankings of three."""
    path = tmp_path / "rankings.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in letters.ranking_rows(24, k=3)))
    return path


@pytest.fixture
def tiny(tmp_path, rankings, monkeypatch):
    """tiny(name, **fields): four steps of a moment each."""
    monkeypatch.setattr("onepolicy.recipes.reward_model.calibration", lambda *_: None)

    def make(name="run", **fields):
        config = reward_model.Config(
            data=str(rankings),
            eval_share=0.25,
            steps=4,
            batch_size=5,
            lr=1e-3,
            eval_every=2,
            save_every=1,
            out=str(tmp_path / name),
            tiny=Tiny(context=32),
            machine=Machine(threads=1),
        )
        return replace(config, **fields)

    return make


@pytest.mark.parametrize("form", ["k-wise", "pairwise"])
def test_killed_at_every_step(form, tiny, resume_through, digests):
    straight, killed = tiny("straight", form=form), tiny("killed", form=form)
    report = reward_model.main(straight)
    deaths = [(1, "before log"), (1, "in save"), (2, "after save"), (3, "after log"), (4, "after save")]
    again = resume_through(reward_model.main, killed, deaths)
    assert digests(straight.out) == digests(killed.out)
    assert again.metrics == report.metrics


def test_demonstrations_are_worth_nothing_on_average_and_the_model_opens_everywhere(tiny):
    """The mean over the best answers of the training rankings is 0; transformers' own class gives score + shift."""
    config = tiny()
    model = reward_model.main(config).policy
    data = reward_model.prepare(
        config, model, {"data": [letters_ranking(row) for row in letters.ranking_rows(24, k=3)]}
    )
    assert sum(model.score_tokens([tokens for tokens, _ in data.demonstrations])) == pytest.approx(0.0, abs=1e-4)
    again = op.load(config.out).policy
    seen = [x for row in data.held_out for x in model.score_tokens([tokens for tokens, _ in row.examples])]
    assert again.scorer.known == pytest.approx((min(seen), max(seen)), abs=1e-5)
    prompt, answers = "c-f8?", ["cacac", "ff"]
    assert again.score(prompt, answers) == pytest.approx(model.score(prompt, answers), abs=1e-6)
    plain = AutoModelForSequenceClassification.from_pretrained(f"{config.out}/checkpoints/step-4/reward_model")
    tokens = again.tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": "ff"}], tokenize=True, return_dict=False
    )
    with torch.no_grad():
        raw = plain(input_ids=torch.tensor([tokens])).logits.item()
    assert raw - again.scorer.shift.item() == pytest.approx(again.score(prompt, ["ff"])[0], abs=1e-5)
    further = reward_model.main(tiny("further", model=config.out))  # a reward model can be trained on
    assert same_tokenizer(further.policy.tokenizer, again.tokenizer)


def letters_ranking(row):
    from onepolicy.data.preferences import ranking

    return ranking(row)


def test_bad_input_is_named(tiny, tmp_path, rankings):
    with pytest.raises(ConfigError, match="data is empty"):
        reward_model.main(tiny(data=""))
    with pytest.raises(DataError, match=r"longer .* than the context of 8"):
        reward_model.main(tiny(tiny=Tiny(context=8)))
    one = tmp_path / "one.jsonl"
    one.write_text(json.dumps({"prompt": "p", "chosen": "a", "rejected": "b"}) + "\n")
    with pytest.raises(DataError, match="1 prompt; holding some out needs at least 2"):
        reward_model.main(tiny(data=str(one)))
    with pytest.raises(ConfigError, match=r"eval_share is 1\.0"):
        tiny(eval_share=1.0)
    with pytest.raises(ConfigError, match="preset that training makes anew"):
        open_reward_model("tiny-0.2m")
    assert not (tmp_path / "run").exists()


def test_a_language_model_is_no_trained_reward_model(model_directory):
    with pytest.raises(ModelError, match="is no reward model but a language model"):
        trained_reward_model(str(model_directory("qwen3")))
