"""GRPO by the command on directories that transformers saved, of three families, with their families' templates."""

from __future__ import annotations

import json

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import onepolicy as op
from onepolicy.cli import main
from onepolicy.data.chat_template import PLAIN_TEMPLATE
from onepolicy.tasks.base import INSTRUCTIONS

CHATML = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
LLAMA3 = (
    "{{- '<|begin_of_text|>' -}}{%- for message in messages -%}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' -}}"
    "{{- message['content'] | trim + '<|eot_id|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}{%- endif -%}"
)
FAMILIES = {
    "qwen3": (CHATML, "<|im_end|>"),
    "llama": (LLAMA3, "<|eot_id|>"),
    "gpt2": (PLAIN_TEMPLATE, "<|endoftext|>"),
}


def tokenizer_of(family):
    """A byte-pair tokenizer of 400 tokens with the family's template and end token, without a pad token."""
    template, end = FAMILIES[family]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        [INSTRUCTIONS, "Question: 12 + 7 ="] * 20,
        trainers.BpeTrainer(vocab_size=380, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False)
    control = ["<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"]
    tokenizer.add_special_tokens({"extra_special_tokens": [*control, "<|eot_id|>", "<|endoftext|>"]})
    tokenizer.add_tokens([AddedToken("<think>"), AddedToken("</think>")])
    tokenizer.eos_token, tokenizer.chat_template = end, template
    return tokenizer


def network_of(family, tokenizer):
    torch.manual_seed(5)
    ids = {"vocab_size": len(tokenizer) + 3, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    rope = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "initializer_range": 0.1,
    }
    if family == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(**ids, **rope, num_key_value_heads=2, head_dim=8, tie_word_embeddings=True))
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**ids, **rope, num_key_value_heads=1))
    return GPT2LMHeadModel(GPT2Config(**ids, n_embd=32, n_layer=2, n_head=4, n_positions=256, initializer_range=0.1))


@pytest.fixture(params=FAMILIES)
def saved(request, tmp_path):
    """A model directory as `save_pretrained` leaves it."""
    tokenizer = tokenizer_of(request.param)
    network_of(request.param, tokenizer).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_the_command_trains_a_directory_and_the_result_opens(saved, tmp_path, own_rewards, capsys):
    """The weights moved, the gap between sampler and trainer stays under 1e-4, transformers opens what came out."""
    out = tmp_path / "run"
    fields = {
        "--model": saved,
        "--out": out,
        "--reward": "tiny_rewards:digits",
        "--level": 2,
        "--steps": 3,
        "--prompts": 3,
        "--group-size": 4,
        "--max-tokens": 10,
        "--lr": 0.003,
        "--warm.steps": 0,
        "--problems.train-size": 30,
        "--exam.size": 4,
        "--machine.threads": 1,
        "--update.warmup-steps": 0,
    }
    main(["train", "grpo", *(str(word) for pair in fields.items() for word in pair)])
    assert "talk to it: onepolicy chat" in capsys.readouterr().out
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    gaps = [line["rollout/logp_gap"] for line in lines if line["step"] > 0]
    assert len(gaps) == 3
    assert max(gaps) < 1e-4
    before = AutoModelForCausalLM.from_pretrained(saved)
    after, info = AutoModelForCausalLM.from_pretrained(out / "model", output_loading_info=True)
    assert type(after) is type(before)
    assert not info["missing_keys"]
    moved = [not p.equal(q) for p, q in zip(before.parameters(), after.parameters(), strict=True)]
    assert all(moved)
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    talk = [{"role": "user", "content": "1+2="}]
    prompt = tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    greedy = after.generate(prompt, max_new_tokens=6, do_sample=False, pad_token_id=0)[0, prompt.shape[1] :]
    assert op.load(out).policy.complete("1+2=", max_tokens=6) == tokenizer.decode(
        greedy[: -1 if int(greedy[-1]) == tokenizer.eos_token_id else None]
    )


def test_lora_on_a_directory_merges_into_a_plain_model(saved, tmp_path, tiny_grpo):
    """What is saved has the parameters' names of the base model, and the gap holds for the merged generator."""
    from onepolicy.recipes import grpo

    report = grpo.main(tiny_grpo(model=str(saved), lora_rank=2, steps=2))
    assert report.metrics["rollout/logp_gap"] < 1e-4
    base = AutoModelForCausalLM.from_pretrained(saved).state_dict()
    merged = AutoModelForCausalLM.from_pretrained(report.run_dir / "model").state_dict()
    assert base.keys() == merged.keys()
    assert any(not base[name].equal(merged[name]) for name in base)
