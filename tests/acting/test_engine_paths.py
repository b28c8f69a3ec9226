"""Which forward an engine takes, what makes it decline, and that every one it takes is the model's own."""

from __future__ import annotations

import logging

import pytest
import torch
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from onepolicy.acting.engine import Engine
from onepolicy.errors import ConfigError, ModelError
from onepolicy.types import Sampling

BASE = {
    "vocab_size": 43,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 96,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
GROUPED = BASE | {"num_key_value_heads": 2}
WINDOW = {"sliding_window": 7}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}


def make(name: str) -> PreTrainedModel:
    torch.manual_seed(1)
    match name:
        case "qwen2":
            model: PreTrainedModel = Qwen2ForCausalLM(Qwen2Config(**GROUPED))
        case "llama with biases":
            model = LlamaForCausalLM(LlamaConfig(**BASE, attention_bias=True, mlp_bias=True))
        case "llama, wide heads":
            model = LlamaForCausalLM(LlamaConfig(**GROUPED, head_dim=40))
        case "llama, scaled rotary":
            rope = LLAMA3 | {"original_max_position_embeddings": 32}
            model = LlamaForCausalLM(LlamaConfig(**GROUPED, rope_parameters=rope))
        case "llama, dynamic rotary":
            model = LlamaForCausalLM(LlamaConfig(**GROUPED, rope_parameters=DYNAMIC))
        case "qwen3 with a window in some layers":
            model = Qwen3ForCausalLM(
                Qwen3Config(**GROUPED, **WINDOW, head_dim=8, use_sliding_window=True, max_window_layers=1)
            )
        case "mistral with a window":
            model = MistralForCausalLM(MistralConfig(**GROUPED, **WINDOW))
        case "gpt-neox":
            model = GPTNeoXForCausalLM(GPTNeoXConfig(**BASE))
        case _:
            raise AssertionError(name)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("qwen2", "compiled"),
        ("llama with biases", "compiled"),
        ("llama, wide heads", "compiled"),
        ("llama, scaled rotary", "compiled"),
        ("qwen3 with a window in some layers", "module"),
        ("mistral with a window", "module"),
        ("gpt-neox", "module"),
        ("llama, dynamic rotary", "module"),
    ],
)
def test_each_model_takes_the_fastest_path_it_can_and_decodes_as_naively(name, path, naive):
    model = make(name)
    engine = Engine(model, eos_token_ids=[1])
    assert engine.path == path
    prompts = [[3, 4, 5], [6, 7] * 9, [8]]
    out = engine.generate(prompts, 1, Sampling(max_tokens=25, temperature=0.0), [0, 0, 0])
    for prompt, [completion] in zip(prompts, out, strict=True):
        tokens, logp = naive(model, prompt, 25, {1})
        assert list(completion.tokens) == tokens
        assert completion.logp == pytest.approx(logp, abs=1e-4)


def test_half_precision_takes_the_lean_path_within_its_rounding(make_model, full_logp):
    model = make_model("qwen3").to(torch.bfloat16)
    engine = Engine(model, eos_token_ids=[1])
    assert engine.path == "lean"
    [group] = engine.generate([[3, 4, 5]], 3, Sampling(20), [0])
    for completion in group:
        assert completion.logp == pytest.approx(full_logp(model, [3, 4, 5], completion.tokens), abs=0.2)


@pytest.mark.parametrize("path", ["compiled", "lean", "module"])
def test_an_adapted_model_is_sampled_with_its_adapters_and_a_plain_copy_with_them_merged(path, make_model, full_logp):
    peft = pytest.importorskip("peft")
    model = make_model("llama")
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, config)
    engine = Engine(model, eos_token_ids=[1])  # the model now holds the adapters
    assert engine.path == "module"
    [[completion]] = engine.generate([[3, 4]], 1, Sampling(10), [0])
    assert completion.logp == pytest.approx(full_logp(model, [3, 4], completion.tokens), abs=1e-4)
    plain = Engine(make_model("llama"), eos_token_ids=[1], path=path)
    [[before]] = plain.generate([[3, 4]], 1, Sampling(10), [0])
    plain.load(adapted.merge_and_unload().state_dict(), 1)
    [[merged]] = plain.generate([[3, 4]], 1, Sampling(10), [0])
    assert merged.tokens == completion.tokens
    assert merged.logp == pytest.approx(completion.logp, abs=1e-4)
    assert merged.logp != before.logp


def test_a_path_that_does_not_agree_with_the_model_is_left_with_a_word(make_model, caplog):
    """A forward changed on the instance cannot be seen in its weights; the first samples show it."""
    model = make_model("qwen3")
    plain = model.model.norm.forward
    model.model.norm.forward = lambda x: 1.5 * plain(x)
    with caplog.at_level(logging.WARNING):
        engine = Engine(model, eos_token_ids=[1])
    assert engine.path == "module"
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "Qwen3ForCausalLM does not take the compiled path",
        "Qwen3ForCausalLM does not take the lean path",
    ]
    with pytest.raises(ModelError, match=r"cannot take the compiled path: its log-probabilities are .* off"):
        Engine(model, eos_token_ids=[1], path="compiled")


def test_hooks_are_seen(make_model):
    model = make_model("qwen3")
    model.model.layers[0].mlp.register_forward_hook(lambda module, inputs, output: output * 0.5)
    assert Engine(model, eos_token_ids=[1]).path == "module"
    with pytest.raises(ModelError, match=r"model\.layers\.0\.mlp has forward hooks"):
        Engine(model, eos_token_ids=[1], path="lean")


def test_a_model_without_keys_and_values_is_refused(monkeypatch):
    """By its configuration, by what its layers do where that says nothing, and for want of a context."""
    model = MambaForCausalLM(MambaConfig(vocab_size=43, hidden_size=16, num_hidden_layers=1, state_size=4))
    with pytest.raises(ModelError, match="MambaForCausalLM has layers of type 'linear_attention'; the engine caches"):
        Engine(model, eos_token_ids=[1], context=64)
    monkeypatch.delattr(MambaConfig, "layer_types")
    with pytest.raises(ModelError, match="MambaForCausalLM does not hand keys and values to a cache; the engine needs"):
        Engine(model, eos_token_ids=[1], context=64)
    with pytest.raises(ModelError, match=r"MambaForCausalLM does not say how long a sequence may be\. Pass context="):
        Engine(model, eos_token_ids=[1])


def test_a_context_may_be_shorter_than_the_models_but_not_longer(models):
    engine = Engine(models["gpt2"], eos_token_ids=[], context=10)
    [[completion]] = engine.generate([[3, 4, 5]], 1, Sampling(20), [0])
    assert (len(completion.tokens), completion.stop) == (7, "length")
    for context, words in ((97, "context is 97; GPT2LMHeadModel has 96 positions"), (1, "context is 1; a prompt and")):
        with pytest.raises(ConfigError, match=words):
            Engine(models["gpt2"], eos_token_ids=[], context=context)


def test_an_unknown_path_is_named(models):
    with pytest.raises(ConfigError, match="Did you mean 'compiled'"):
        Engine(models["qwen3"], eos_token_ids=[1], path="compile")
