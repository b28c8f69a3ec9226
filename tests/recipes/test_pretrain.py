"""Pretraining: packed without contamination, exact bits per byte, resumed to the bit, what it learns and refuses."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

import onepolicy as op
from onepolicy.algos import sft
from onepolicy.core.policy import policy_loss
from onepolicy.core.reduce import loss_weights
from onepolicy.data.text import chunks
from onepolicy.data.tokenizer import FIM, TAGS, bpe_tokenizer
from onepolicy.errors import ConfigError, DataError, ModelError
from onepolicy.nn.language import ModelShape, build_model
from onepolicy.nn.token_policy import TokenPolicy
from onepolicy.recipes import pretrain
from onepolicy.recipes.options import Machine, Tiny

PAGES = [f"the cat {n} sat on mat {n * n % 7} and saw {'moon' if n % 2 else 'sun, 日本'}" for n in range(30)]


@pytest.fixture
def tiny(tmp_path):
    """tiny(name, **fields): four steps of a moment each."""
    data = tmp_path / "pages.jsonl"
    data.write_text("".join(json.dumps({"text": page}) + "\n" for page in PAGES))

    def make(name="run", **fields):
        config = pretrain.Config(
            data=str(data), eval_share=0.1, steps=4, batch_tokens=120, lr=3e-3, warmup_steps=1, eval_every=2,
            save_every=1, out=str(tmp_path / name), tiny=Tiny(context=48), machine=Machine(threads=1),
        )  # fmt: skip
        return replace(config, **fields)

    return make


@pytest.mark.parametrize("arch", ["qwen3", "gpt2"])
def test_a_packed_batch_is_its_documents_alone(arch):
    """Loss and gradient of five documents packed into one row: those of each run alone through transformers."""
    tokenizer = bpe_tokenizer(PAGES, 280, (*TAGS, *FIM))
    shape = ModelShape(width=16, depth=2, heads=2, mlp=24)
    model = build_model(
        shape, len(tokenizer), context=64, arch=arch, seed=1, pad_token_id=0, eos_token_id=tokenizer.eos_token_id
    ).double()
    rows = [chunk.example for chunk in chunks(tokenizer, PAGES[:4], 24)]
    assert len(rows) > 4  # a document in several pieces is among them
    expected = torch.zeros((), dtype=torch.float64)
    count = sum(len(tokens) - 1 for tokens, _ in rows)
    for tokens, _ in rows:
        ids = torch.tensor([tokens])
        expected = expected + cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="sum") / count
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    batch = sft.credit(rows, 0)
    weight = loss_weights(batch.mask, "token_mean", dtype=torch.float64)
    packed = TokenPolicy(model, layout="packed").evaluate(batch.inputs, batch.action)
    loss = policy_loss(packed, batch, weight, sft.LOSS).loss
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize(
    "fields",
    [{"infill": pretrain.Infill(on=True, share=0.5)}, {"vocab_size": 300, "save_every": 1}],
    ids=["infilling", "bpe"],
)
def test_killed_at_every_step(fields, tiny, resume_through, digests):
    """Weights, optimizer, place in the text, what was infilled, tokenizer."""
    straight, killed = tiny("straight", **fields), tiny("killed", **fields)
    report = pretrain.main(straight)
    deaths = [(1, "before log"), (1, "in save"), (2, "after save"), (3, "after log"), (4, "after save")]
    again = resume_through(pretrain.main, killed, deaths)
    assert digests(straight.out) == digests(killed.out)
    assert again.metrics == report.metrics


@pytest.mark.parametrize("vocab_size", [0, 300])
def test_bits_per_byte_are_nats_over_bytes(vocab_size, tiny):
    """Recomputed from the saved model by transformers alone, document by document; known at uniform weights."""
    config = tiny(vocab_size=vocab_size, tiny=Tiny(context=128))
    report = pretrain.main(config)
    model = AutoModelForCausalLM.from_pretrained(f"{config.out}/model")
    tokenizer = report.policy.tokenizer
    held_out = pretrain.read(config).held_out
    nats, tokens = 0.0, 0
    for text in held_out:
        end = tokenizer.eos_token_id
        ids = torch.tensor([[end, *tokenizer(text, add_special_tokens=False)["input_ids"], end]])
        with torch.no_grad():
            nats += cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="sum").item()
        tokens += ids.shape[1] - 1
    size = sum(len(text.encode()) for text in held_out)
    assert report.metrics["eval/nll"] == pytest.approx(nats / tokens, rel=1e-4)
    assert report.metrics["eval/bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-4)
    assert len(held_out) == 3
    assert not set(held_out) & {text for texts in pretrain.read(config).train.values() for text in texts}


def test_it_learns_and_its_bound_is_the_datas_entropy(tiny, tmp_path):
    """Documents that are "ab" or "ba" by a fair coin: one bit each, half a bit per byte; nothing less, little more."""
    data = tmp_path / "coin.jsonl"
    data.write_text("".join(json.dumps({"text": "ab" if n % 2 else "ba"}) + "\n" for n in range(64)))
    config = tiny(data=str(data), eval_data=str(data), steps=80, batch_tokens=128, lr=1e-2, eval_every=0, save_every=0)
    found = pretrain.main(config).metrics["eval/bits_per_byte"]
    assert 0.5 <= found < 0.52


def test_infilling_is_learnt_where_it_is_on_and_not_where_it_is_off(tiny, tmp_path):
    """Texts of one letter, six times: with prefix and suffix in sight the middle is that letter, however long."""
    data = tmp_path / "same.jsonl"
    data.write_text("".join(json.dumps({"text": letter * 6}) + "\n" for letter in "abcdefgh" for _ in range(4)))
    fields = {"data": str(data), "eval_data": str(data), "steps": 50, "lr": 1e-2, "eval_every": 0, "save_every": 0}
    on = pretrain.main(tiny("on", **fields, infill=pretrain.Infill(on=True, share=0.5))).metrics
    off = pretrain.main(tiny("off", **fields, infill=pretrain.Infill(on=True, share=0.0))).metrics
    assert on["eval/infill_nll"] < 1.0 < 1.5 < off["eval/infill_nll"]


def test_epochs_and_the_step_that_ends_them(tiny):
    """27 documents are learnt from; steps are the tokens of two passes over batch_tokens, rounded up."""
    config = tiny(steps=0, epochs=2.0, eval_every=0, save_every=0)
    pretrain.main(config)
    text = pretrain.read(config)
    assert sum(map(len, text.train.values())) == 27
    lines = [json.loads(line) for line in Path(config.out, "metrics.jsonl").read_text().splitlines()]
    pages = text.train[config.data]
    assert max(map(len, pages)) <= 46  # each a single piece, with a start and an end token
    assert len(lines) == math.ceil(2 * sum(len(page) + 2 for page in pages) / 120)
    assert sum(line["pretrain/tokens"] for line in lines) >= 2 * sum(len(page) + 1 for page in pages)


def test_new_weights_for_a_configuration_and_old_ones_gone_on_with(tiny, tmp_path, model_directory):
    base = model_directory("llama")
    new = pretrain.main(tiny("new", model=str(base), weights="new", vocab_size=300, steps=1, eval_every=0)).policy
    assert new.model.config.model_type == "llama"
    assert new.model.get_input_embeddings().weight.shape == (len(new.tokenizer), 32)
    first = pretrain.main(tiny("first", vocab_size=300)).metrics["eval/nll"]
    more = pretrain.main(tiny("more", model=str(tmp_path / "first"), steps=8)).metrics["eval/nll"]
    assert more < first
    assert op.load(str(tmp_path / "more")).policy.complete("the cat", max_tokens=3) is not None
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="no causal language model can be made after"):
        pretrain.main(tiny("none", model=str(tmp_path / "empty"), weights="new", vocab_size=300))


def test_bad_input_is_named(tiny, tmp_path, model_directory):
    page = tmp_path / "one.txt"
    page.write_text("a single paragraph")
    with pytest.raises(ConfigError, match="data is empty"):
        pretrain.main(tiny(data=""))
    with pytest.raises(DataError, match="none can be held out; give --eval-data"):
        pretrain.main(tiny(data=str(page)))
    with pytest.raises(ConfigError, match="none of the sentinels"):
        pretrain.main(tiny(model=str(model_directory("llama")), infill=pretrain.Infill(on=True)))
    with pytest.raises(ConfigError, match=r"infill.share is 1\.5"):
        pretrain.Infill(share=1.5)
    with pytest.raises(ConfigError, match="epochs is 0"):
        tiny(epochs=0.0)
