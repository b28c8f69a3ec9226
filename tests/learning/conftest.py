"""Small language models and batches of episodes for the learner's tests."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onepolicy.batch import PolicyBatch, TokenInputs
from onepolicy.data.packing import token_batch
from onepolicy.nn.language import ModelShape, build_model
from onepolicy.nn.token_policy import TokenPolicy
from onepolicy.types import Episode, Score

VOCABULARY = 23


def make_policy(arch="qwen3", dtype=torch.float32, seed=0):
    """A two-layer model; its embeddings are scaled up so that probabilities are far from uniform."""
    model = build_model(
        ModelShape(width=16, depth=2, heads=2, mlp=24),
        VOCABULARY,
        context=64,
        arch=arch,
        seed=seed,
        pad_token_id=0,
        eos_token_id=1,
    )
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3.0 if p.dim() > 1 else 1.0)
    return TokenPolicy(model.to(dtype))


def make_episodes(count, seed=0, longest=20):
    """Random prompts and completions of varying length."""
    rng = np.random.default_rng(seed)
    episodes = []
    for i in range(count):
        p, c = int(rng.integers(1, 8)), int(rng.integers(1, longest))
        tokens = tuple(int(t) for t in rng.integers(2, VOCABULARY, size=p + c))
        logp = (0.0,) * p + tuple(float(x) for x in -rng.uniform(1.5, 4.5, size=c))
        episodes.append(Episode(str(i), i // 2, tokens, (False,) * p + (True,) * c, logp, Score(float(i % 2))))
    return episodes


def make_batch(count=9, seed=0):
    """Episodes with random advantages as one right-padded batch."""
    rng = np.random.default_rng(seed + 1)
    return token_batch(make_episodes(count, seed), rng.normal(size=count), pad_id=0)


def pad(batch: PolicyBatch, left: int, right: int) -> PolicyBatch:
    """The same rows with `left` and `right` more padding columns."""

    def wider(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(x, (left, right))

    return batch.map(wider)


def left_padded(batch: PolicyBatch) -> PolicyBatch:
    """The same rows, each pushed to the right edge."""
    assert isinstance(batch.inputs, TokenInputs)
    shift = batch.mask.shape[1] - batch.inputs.attention.sum(-1)
    columns = (torch.arange(batch.mask.shape[1])[None] - shift[:, None]) % batch.mask.shape[1]
    return batch.map(lambda x: x.gather(1, columns))


@pytest.fixture
def tools():
    """The helpers above, by attribute."""

    class Tools:
        policy = staticmethod(make_policy)
        episodes = staticmethod(make_episodes)
        batch = staticmethod(make_batch)
        pad = staticmethod(pad)
        left_padded = staticmethod(left_padded)

    return Tools
