"""SFT on one's own conversations: packed is alone, the turn is ended, held-out NLL, epochs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from onepolicy.algos import sft as algorithm
from onepolicy.core.policy import policy_loss
from onepolicy.core.reduce import loss_weights
from onepolicy.data.chat_template import render, render_with_mask
from onepolicy.data.tokenizer import char_tokenizer
from onepolicy.errors import ConfigError, DataError
from onepolicy.nn.language import ModelShape, build_model
from onepolicy.nn.token_policy import TokenPolicy
from onepolicy.recipes import sft
from onepolicy.types import Sampling

TALKS = [{"prompt": f"{n}?", "completion": "ab" * (n % 3 + 1)} for n in range(8)]


@pytest.fixture
def talks(tmp_path):
    path = tmp_path / "talks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in TALKS))
    return str(path)


@pytest.mark.parametrize("arch", ["qwen3", "gpt2"])
def test_packed_conversations_do_not_see_each_other(arch):
    """Loss and gradient of the assistant's tokens, several turns too: those of each conversation alone."""
    tokenizer = char_tokenizer("abc?")
    turns = [("user", "a?"), ("assistant", "bb"), ("user", "c?"), ("assistant", "abcab")]
    talks = [turns, turns[:2], [("user", "ccc?"), ("assistant", "a")]]
    rows = [render_with_mask(tokenizer, [{"role": r, "content": c} for r, c in talk]) for talk in talks]
    shape = ModelShape(width=16, depth=2, heads=2, mlp=24)
    model = build_model(shape, len(tokenizer), context=32, arch=arch, seed=1, pad_token_id=0, eos_token_id=1).double()
    count = sum(sum(mask) for _, mask in rows)
    assert count == 2 + 1 + 5 + 1 + 2 + 1 + 1 + 1  # letters and an end token a turn
    expected = torch.zeros((), dtype=torch.float64)
    for tokens, mask in rows:
        target = torch.tensor([t if acts else -100 for t, acts in zip(tokens, mask, strict=True)])
        logits = model(torch.tensor([tokens])).logits[0]
        expected = expected + cross_entropy(logits[:-1], target[1:], reduction="sum") / count
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    batch = algorithm.credit(rows, 0)
    weight = loss_weights(batch.mask, "token_mean", dtype=torch.float64)
    packed = TokenPolicy(model, layout="packed").evaluate(batch.inputs, batch.action)
    loss = policy_loss(packed, batch, weight, algorithm.LOSS).loss
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("lora_rank", [0, 8])
def test_it_ends_its_turn(lora_rank, tiny_sft, talks):
    """Replies of two, four and six letters, each ended by the end token long before the limit."""
    fields = {"data": talks, "steps": 60, "batch_size": 8, "lr": 1e-2, "save_every": 0, "eval_every": 0}
    language = sft.main(tiny_sft(lora_rank=lora_rank, **fields)).policy
    prompts = [render(language.tokenizer, [{"role": "user", "content": row["prompt"]}]) for row in TALKS]
    sampling = Sampling(max_tokens=20, temperature=0.0)
    replies = [
        one[0] for one in language.engine(slots=8, cache_tokens=None).generate(prompts, 1, sampling, seeds=range(8))
    ]
    assert [reply.stop for reply in replies] == ["stop"] * 8
    assert [reply.tokens[-1] for reply in replies] == [language.tokenizer.eos_token_id] * 8
    if not lora_rank:
        assert [language.decode(reply.tokens) for reply in replies] == [row["completion"] for row in TALKS]


def test_held_out_conversations_and_epochs(tiny_sft, talks, tmp_path):
    """eval/nll recomputed by transformers alone from the saved model; 8 talks twice by 3 a step are 6 steps."""
    unseen = tmp_path / "unseen.jsonl"
    unseen.write_text(json.dumps({"prompt": "9€?", "completion": "abcd"}) + "\n")
    config = tiny_sft(data=talks, eval_data=str(unseen), epochs=2.0, batch_size=3)
    report = sft.main(config)
    lines = [json.loads(line) for line in Path(config.out, "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "eval/nll" in line] == [2, 4, 6]
    language = report.policy
    tokens, mask = render_with_mask(
        language.tokenizer, [{"role": "user", "content": "9€?"}, {"role": "assistant", "content": "abcd"}]
    )
    model = AutoModelForCausalLM.from_pretrained(f"{config.out}/model")
    with torch.no_grad():
        logp = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    expected = [-logp[at - 1, token].item() for at, (token, acts) in enumerate(zip(tokens, mask, strict=True)) if acts]
    assert report.metrics["eval/nll"] == pytest.approx(sum(expected) / len(expected), rel=1e-4)
    assert len(expected) == 5
    with pytest.raises(ConfigError, match="epochs is 0"):
        replace(config, epochs=0.0)
    unseen.write_text(json.dumps({"prompt": "9"}) + "\n")
    with pytest.raises(DataError, match="are neither 'messages' nor"):
        sft.main(replace(config, out=str(tmp_path / "other")))
