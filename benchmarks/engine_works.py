"""The work of engine_vs_transformers.py: models, prompts and lengths, the same for every side.

Imported in vLLM's environment too, so torch and transformers only.

Lengths are the model's own: a freshly initialised model gives every token nearly the same probability, so that with one
end token in a vocabulary of V a completion's length is geometric with mean V, cut at max_tokens. Nothing is forced on
either side; each draws its own samples of the same distribution, and speed is counted in tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

END, PAD = 1, 0


@dataclass(frozen=True)
class Work:
    """prompts x n completions of at most max_tokens by a Qwen3 of a width; vocabulary = mean length without the cut."""

    title: str
    width: int
    layers: int
    hidden: int
    vocab: int
    prompts: int
    n: int
    max_tokens: int


WORKS = {
    "varying": Work("64 x <=256 tokens, mean 56, 1M", 128, 5, 344, 56, 64, 1, 256),
    "demo": Work("512 x <=64 tokens, mean 32, 0.2M", 64, 4, 176, 44, 64, 8, 64),
    "demo-1m": Work("512 x <=64 tokens, mean 32, 1M", 128, 5, 344, 44, 64, 8, 64),
}


def build(work: Work) -> PreTrainedModel:
    """The work's model: seeded, float32, untrained."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=work.vocab,
        hidden_size=work.width,
        intermediate_size=work.hidden,
        num_hidden_layers=work.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=work.width // 4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=END,
        dtype="float32",
    )
    return Qwen3ForCausalLM(config).eval()


def save(work: Work, directory: Path) -> None:
    """The work's model as a Hugging Face directory."""
    build(work).save_pretrained(directory)


def prompts(work: Work) -> list[list[int]]:
    """10 to 20 tokens each, without the end and padding tokens."""
    rng = np.random.default_rng(0)
    return [rng.integers(2, work.vocab, size=rng.integers(10, 21)).tolist() for _ in range(work.prompts)]


def record(seconds: float, lengths: list[int]) -> dict[str, Any]:
    """What one run of a side was."""
    return {"seconds": seconds, "tokens": sum(lengths), "longest": max(lengths), "completions": len(lengths)}
