"""LoRA: what it adds, what it leaves alone, and the plain weights it amounts to."""

from __future__ import annotations

import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from onepolicy.batch import TokenInputs
from onepolicy.errors import ConfigError, ModelError
from onepolicy.nn.language import (
    ModelShape,
    add_lora,
    build_model,
    has_lora,
    load_model,
    merged_state,
    plain_copy,
    save_model,
)
from onepolicy.nn.token_policy import TokenPolicy

TOKENS = torch.tensor([[5, 6, 7, 8, 9], [9, 9, 4, 3, 2]])
ARCHITECTURES = ["qwen3", "llama", "gpt2"]


def make(arch="qwen3"):
    shape = ModelShape(width=16, depth=2, heads=2, mlp=24)
    return build_model(shape, 23, context=32, arch=arch, pad_token_id=0, eos_token_id=1)


def trained(arch="qwen3", targets="all-linear"):
    """A model whose adapters are not zero."""
    model = add_lora(make(arch), 3, 5.0, targets)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".lora_B." in name:
                p.normal_(std=0.3, generator=generator)
    return model


def test_one_adapter_by_hand():
    """W + (alpha / rank) B A, with alpha 5 and rank 3, is the merged weight of a layer."""
    model = trained()
    layer = model.model.layers[1].mlp.up_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    expected = layer.base_layer.weight + (5.0 / 3.0) * b @ a
    merged = merged_state(model)["model.layers.1.mlp.up_proj.weight"]
    torch.testing.assert_close(merged, expected.detach())


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_fresh_adapters_change_nothing_and_only_they_are_trainable(arch):
    plain, model = make(arch), add_lora(make(arch), 2)
    assert torch.equal(model(TOKENS).logits, plain(TOKENS).logits)
    assert type(model) is type(plain)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        n for n, _ in model.named_parameters() if ".lora_" in n
    }
    assert has_lora(model)
    assert not has_lora(plain)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_merged_state_loads_into_a_plain_model_and_computes_the_same(arch):
    model = trained(arch)
    want = model(TOKENS).logits
    before = {name: p.clone() for name, p in model.state_dict().items()}
    plain = make(arch)
    assert (want - plain(TOKENS).logits).abs().max() > 1e-3
    plain.load_state_dict(merged_state(model), strict=True)
    torch.testing.assert_close(plain(TOKENS).logits, want, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())
    assert torch.equal(model(TOKENS).logits, want)


def test_without_lora_the_state_is_the_models_own():
    model = make()
    state = merged_state(model)
    assert state.keys() == model.state_dict().keys()
    assert all(state[name].data_ptr() == p.data_ptr() for name, p in model.state_dict().items())


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_saved_merged_as_a_plain_model_and_the_adapter_beside_it(arch, tmp_path):
    model = trained(arch)
    save_model(model, None, tmp_path)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert not has_lora(opened)
    torch.testing.assert_close(opened(TOKENS).logits, model(TOKENS).logits, rtol=1e-5, atol=1e-6)
    adapted = make(arch)
    adapted.load_adapter(tmp_path / "adapter")
    torch.testing.assert_close(adapted.eval()(TOKENS).logits, model(TOKENS).logits, rtol=1e-5, atol=1e-6)
    assert has_lora(model)


def test_a_plain_copy_has_its_own_memory_and_leaves_the_random_state_alone():
    model = trained()
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    copy = plain_copy(model)
    assert torch.equal(torch.rand(2), expected)
    assert not has_lora(copy)
    torch.testing.assert_close(copy(TOKENS).logits, model(TOKENS).logits, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        copy.get_input_embeddings().weight.zero_()
    assert model.get_input_embeddings().weight.abs().sum() > 0


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_the_policys_gradient_reaches_the_adapters_only(layout):
    model = trained()
    policy = TokenPolicy(model, layout=layout)
    real = torch.ones_like(TOKENS, dtype=torch.bool)
    acts = real.clone()
    acts[:, :2] = False
    policy.evaluate(TokenInputs(TOKENS, real, acts), TOKENS).logp.sum().backward()
    for name, p in model.named_parameters():
        assert (p.grad is not None and p.grad.abs().sum() > 0) == (".lora_" in name), name


def test_adapters_are_seeded_and_leave_the_global_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first = add_lora(make(), 2, seed=1).state_dict()
    assert torch.equal(torch.rand(2), expected)
    again, other = add_lora(make(), 2, seed=1).state_dict(), add_lora(make(), 2, seed=2).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_what_cannot_be_adapted_is_an_error_with_the_fix():
    with pytest.raises(ConfigError, match="at least 1"):
        add_lora(make(), 0)
    with pytest.raises(ModelError, match="Did you mean 'q_proj'"):
        add_lora(make(), 2, targets=("q_prj",))
    with pytest.raises(ModelError, match="shares its weight"):
        add_lora(make(), 2, targets="lm_head")
    with pytest.raises(ModelError, match="already"):
        add_lora(add_lora(make(), 2), 2)


def test_without_peft_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match=r"pip install 'onepolicy\[lora\]'"):
        add_lora(make(), 2)


def test_a_merged_directory_loads_and_takes_new_adapters(tmp_path):
    save_model(trained(), None, tmp_path)
    again = add_lora(load_model(tmp_path), 2)
    torch.testing.assert_close(again(TOKENS).logits, load_model(tmp_path)(TOKENS).logits)
