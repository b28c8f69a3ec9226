"""Small language models, rows of tokens, and the slow plain way to score them, for the policy's tests."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from onepolicy.batch import TokenInputs
from onepolicy.nn.language import ModelShape, build_model

VOCABULARY = 23


def loud(model):
    """The model in float64 with weights scaled up, so that attention and probabilities are far from uniform."""
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4.0 if p.dim() > 1 else 1.0)
    return model.double().eval()


def make(arch="qwen3"):
    shape = ModelShape(width=16, depth=2, heads=2, mlp=24)
    return loud(build_model(shape, VOCABULARY, context=64, arch=arch, pad_token_id=0, eos_token_id=1))


def from_config(config):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return loud(AutoModelForCausalLM.from_config(config))


def rows(seed=0, count=6, shared=True):
    """Right-padded rows: prompts (the same for pairs of rows, if shared) and completions of varying length."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high, size=(1,)):
        return torch.randint(low, high, size, generator=generator)

    sequences = []
    for i in range(count):
        if i % 2 == 0 or not shared:
            prompt = draw(0, VOCABULARY, (int(draw(1, 6)),))
        sequences.append((prompt, draw(0, VOCABULARY, (int(draw(1, 12)),))))
    width = max(len(p) + len(c) for p, c in sequences)
    tokens = torch.zeros(count, width, dtype=torch.int64)
    attention, acts = torch.zeros(2, count, width, dtype=torch.bool)
    for i, (p, c) in enumerate(sequences):
        n = len(p) + len(c)
        tokens[i, :n] = torch.cat([p, c])
        attention[i, :n] = True
        acts[i, len(p) : n] = True
    return TokenInputs(tokens, attention, acts)


def reference(model, inputs, temperature=1.0):
    """Log-prob and entropy by a full forward pass of each row alone, padding removed."""
    logp, entropy = (torch.zeros(inputs.tokens.shape, dtype=model.dtype) for _ in range(2))
    for b, (tokens, attention, acts) in enumerate(zip(inputs.tokens, inputs.attention, inputs.is_action)):
        real = attention.nonzero().squeeze(-1)
        logits = model(input_ids=tokens[real][None]).logits[0] / temperature
        all_logp = logits.log_softmax(-1)
        for place, t in enumerate(real.tolist()):
            if acts[t]:
                logp[b, t] = all_logp[place - 1, tokens[t]]
                entropy[b, t] = -(all_logp[place - 1].exp() * all_logp[place - 1]).sum()
    return logp, entropy


@pytest.fixture(scope="session")
def lm():
    """The helpers of this file."""
    return SimpleNamespace(make=make, from_config=from_config, rows=rows, reference=reference)
