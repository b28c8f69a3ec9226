"""Tiny models, and models that load whole or not at all."""

from __future__ import annotations

import json
import shutil

import huggingface_hub.constants
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from onepolicy.data.tokenizer import char_tokenizer
from onepolicy.errors import ConfigError, ModelError
from onepolicy.nn.language import TINY, ModelShape, build_model, load_model, save_model, unit_scale

SMALL = ModelShape(width=16, depth=2, heads=2, mlp=24)
TOKENS = torch.tensor([[5, 6, 7, 8, 9]])


def make(arch="qwen3", shape=SMALL, seed=0, vocab=23):
    return build_model(shape, vocab, context=32, arch=arch, seed=seed, pad_token_id=0, eos_token_id=1)


@pytest.mark.parametrize("arch", ["qwen3", "llama", "gpt2"])
@pytest.mark.parametrize(("preset", "millions"), [("tiny-0.2m", 0.2), ("tiny-1m", 1.0), ("tiny-4m", 4.0)])
def test_a_preset_has_about_the_parameters_in_its_name(preset, millions, arch):
    model = make(arch, preset, vocab=64)
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == pytest.approx(millions * 1e6, rel=0.15)
    assert set(TINY) == {"tiny-0.2m", "tiny-1m", "tiny-4m"}


@pytest.mark.parametrize("arch", ["qwen3", "llama", "gpt2"])
def test_unit_scale_of_a_width_of_64(arch):
    """Standard deviations 1 of embeddings, 1/8 into 64 units, 1 / sqrt(m) out of m; norms and biases as they were."""
    plain, scaled = make(arch, "tiny-0.2m"), unit_scale(make(arch, "tiny-0.2m"))
    for (name, before), after in zip(plain.named_parameters(), scaled.parameters(), strict=True):
        if before.dim() < 2:
            assert torch.equal(before, after)
            continue
        inputs = {"wte": 1, "wpe": 1, "embed_tokens": 1, "down_proj": 256}.get(name.split(".")[-2], 64)
        if arch == "gpt2" and ".mlp.c_proj" in name:
            inputs = 384
        assert after.std().item() == pytest.approx(inputs**-0.5, rel=1e-4)
        assert torch.allclose(after / after.std(), before / before.std(), atol=1e-5)


@pytest.mark.parametrize("arch", ["qwen3", "llama", "gpt2"])
def test_same_seed_same_weights_and_the_global_random_state_is_left_alone(arch):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = make(arch, seed=3).state_dict()
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(99)
    second, other = make(arch, seed=3).state_dict(), make(arch, seed=4).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("arch", ["qwen3", "llama", "gpt2"])
def test_built_models_drop_nothing_out_and_share_the_embedding_with_the_head(arch):
    model = make(arch).train()
    assert torch.equal(model(TOKENS).logits, model(TOKENS).logits)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert not make(arch).training


@pytest.mark.parametrize("arch", ["qwen3", "llama", "gpt2"])
def test_a_saved_directory_opens_with_transformers_alone_and_computes_the_same(arch, tmp_path):
    model, tokenizer = make(arch), char_tokenizer("0123456789+=")
    assert save_model(model, tokenizer, tmp_path / "m") == tmp_path / "m"
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()
    assert type(opened) is type(model)
    assert torch.equal(opened(TOKENS).logits, model(TOKENS).logits)
    assert torch.equal(load_model(tmp_path / "m")(TOKENS).logits, model(TOKENS).logits)
    assert AutoTokenizer.from_pretrained(tmp_path / "m").get_vocab() == tokenizer.get_vocab()
    assert (tmp_path / "m" / "model.safetensors").is_file()


def test_load_model_takes_a_dtype(tmp_path):
    save_model(make(), None, tmp_path)
    assert load_model(tmp_path, dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preset": "tiny-1M"}, "Did you mean 'tiny-1m'"),
        ({"arch": "qwen"}, "Did you mean 'qwen3'"),
        ({"context": 1}, "at least 2"),
        ({"pad_token_id": 23}, "outside the vocabulary of 23"),
        ({"eos_token_id": -1}, "outside the vocabulary of 23"),
    ],
)
def test_build_model_refuses_what_cannot_work(change, message):
    preset = change.pop("preset", SMALL)
    options = {"context": 32, "pad_token_id": 0, "eos_token_id": 1} | change
    with pytest.raises(ConfigError, match=message):
        build_model(preset, 23, **options)


@pytest.mark.parametrize(
    "sizes", [{"width": 18}, {"depth": 0}, {"heads": 3}, {"mlp": 0}], ids=["odd heads", "no layer", "uneven", "no mlp"]
)
def test_a_shape_that_cannot_be_built_says_which_would_be(sizes):
    with pytest.raises(ConfigError, match=r"width|positive"):
        ModelShape(**({"width": 16, "depth": 2, "heads": 2, "mlp": 24} | sizes))


def test_a_directory_without_a_model_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_model(tmp_path)
    with pytest.raises(ModelError, match="does not exist"):
        load_model(tmp_path / "nothing")
    with pytest.raises(ModelError, match="does not exist"):
        load_model("./nothing")


def test_a_directory_without_weights_or_with_broken_ones_is_named(tmp_path):
    save_model(make(), None, tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="Save the model there again"):
        load_model(tmp_path)
    weights.unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load_model(tmp_path)


def test_weights_that_lack_a_layer_are_an_error_not_random_numbers(tmp_path):
    save_model(make(), None, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["num_hidden_layers"] = 3
    config.pop("layer_types")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"lack \d+ parameters, model\.layers\.2"):
        load_model(tmp_path)


def test_an_architecture_nobody_knows_is_an_error(tmp_path):
    save_model(make(), None, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "martian"}))
    with pytest.raises(ModelError, match="martian"):
        load_model(tmp_path)


def test_a_hub_id_that_cannot_be_reached_is_an_error_with_the_fix(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(ModelError, match="check the spelling of owner/name"):
        load_model("nobody/no-such-model")


def test_saving_twice_replaces_the_model(tmp_path):
    save_model(make(seed=1), None, tmp_path)
    save_model(make(seed=2), None, tmp_path)
    assert torch.equal(load_model(tmp_path)(TOKENS).logits, make(seed=2)(TOKENS).logits)
    shutil.rmtree(tmp_path)
