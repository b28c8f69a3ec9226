"""Tiny seeded models of the three families, and a naive decoder to compare with."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCAB, CONTEXT = 43, 96


def _make(family: str) -> PreTrainedModel:
    torch.manual_seed(sum(map(ord, family)))
    wide = {"vocab_size": VOCAB, "initializer_range": 0.2}
    rope = wide | {
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
    }
    match family:
        case "qwen3":
            config = Qwen3Config(**rope, num_key_value_heads=2, head_dim=16, tie_word_embeddings=True)
            model: PreTrainedModel = Qwen3ForCausalLM(config)
        case "llama":
            model = LlamaForCausalLM(LlamaConfig(**rope, num_key_value_heads=1, bos_token_id=0, eos_token_id=1))
        case "gpt2":
            config = GPT2Config(
                **wide, n_embd=48, n_layer=3, n_head=4, n_positions=CONTEXT, bos_token_id=0, eos_token_id=1
            )
            model = GPT2LMHeadModel(config)
        case _:
            raise AssertionError(family)
    with torch.no_grad():  # norms and biases that do something, so that forgetting one shows
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="session")
def make_model() -> Callable[[str], PreTrainedModel]:
    """A new seeded model of a family: "qwen3" (tied, grouped queries, QK-norm), "llama" (untied), "gpt2"."""
    return _make


@pytest.fixture(scope="session")
def models() -> dict[str, PreTrainedModel]:
    """One model of each family, shared: tests must leave the weights alone."""
    return {family: _make(family) for family in ("qwen3", "llama", "gpt2")}


@pytest.fixture(scope="session")
def naive() -> Callable[..., tuple[list[int], list[float]]]:
    """Greedy decoding by a full forward per token: (model, prompt, max_tokens, stop ids) -> tokens, logp."""

    @torch.no_grad()
    def decode(
        model: PreTrainedModel, prompt: list[int], max_tokens: int, stops: set[int]
    ) -> tuple[list[int], list[float]]:
        tokens: list[int] = []
        logps: list[float] = []
        while len(tokens) < max_tokens and not (tokens and tokens[-1] in stops):
            logp = model(torch.tensor([prompt + tokens])).logits[0, -1].float().log_softmax(-1)
            tokens.append(int(logp.argmax()))
            logps.append(float(logp[tokens[-1]]))
        return tokens, logps

    return decode


@pytest.fixture(scope="session")
def full_logp() -> Callable[..., list[float]]:
    """Log-probabilities by one full forward: (model, prompt, tokens, temperature) -> one per token."""

    @torch.no_grad()
    def logp(
        model: PreTrainedModel, prompt: list[int], tokens: tuple[int, ...], temperature: float = 1.0
    ) -> list[float]:
        ids = torch.tensor([prompt + list(tokens)])
        rows = (model(ids).logits[0].float() / temperature).log_softmax(-1)
        return [float(rows[len(prompt) - 1 + i, token]) for i, token in enumerate(tokens)]

    return logp
