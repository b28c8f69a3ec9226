"""Draws: by hand, against a naive loop, in distribution, and random numbers that depend on nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.acting.sampling import check_sampling, draw, mix, streams, uniforms
from onepolicy.errors import ConfigError
from onepolicy.types import Sampling


def splitmix(x: int) -> int:
    """The finaliser in Python's own integers."""
    full = (1 << 64) - 1
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & full
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & full
    return x ^ (x >> 31)


def test_mix_gives_the_published_first_output_of_splitmix64_seeded_with_zero():
    """splitmix64 from state 0 first adds the golden gamma, then finalises: 0xE220A8397B1DCDAF."""
    assert int(mix(np.array([0x9E3779B97F4A7C15], dtype=np.uint64))[0]) == 0xE220A8397B1DCDAF


@given(st.integers(0, 2**63 - 1), st.integers(0, 63), st.integers(0, 10_000))
def test_uniforms_are_the_hash_of_seed_k_and_position(seed: int, k: int, position: int):
    golden, full = 0x9E3779B97F4A7C15, (1 << 64) - 1
    stream = splitmix((splitmix(seed) + (k + 1) * golden) & full)
    expected = (splitmix((stream + (position + 1) * golden) & full) >> 12) * 2.0**-52
    got = uniforms(streams([5, seed], 64)[64 + k : 65 + k], np.array([position]))[0]
    assert got == expected


def test_uniforms_are_uniform_and_neighbours_uncorrelated():
    u = uniforms(np.repeat(streams(range(50), 8), 100), np.tile(np.arange(100), 400)).reshape(50, 8, 100)
    assert u.min() >= 0.0
    assert u.max() < 1.0
    counts = np.histogram(u, bins=20, range=(0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 45  # chi-square, 19 degrees of freedom, p = 7e-4
    for a, b in ((u[1:], u[:-1]), (u[:, 1:], u[:, :-1]), (u[..., 1:], u[..., :-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02


def test_draw_by_hand():
    """Probabilities 1/2, 1/4, 1/4: u = 0.6 lies in the second token's interval [0.5, 0.75).

    At temperature 2 the weights are sqrt(2), 1, 1, so the first interval ends at 0.4142.
    """
    logits = torch.tensor([[2.0, 1.0, 1.0]]).log()
    token, logp = draw(logits, torch.tensor([0.6]).double(), temperature=1.0, top_k=0, top_p=1.0)
    assert token.tolist() == [1]
    assert logp.item() == pytest.approx(math.log(0.25))
    token, logp = draw(logits, torch.tensor([0.42]).double(), temperature=2.0, top_k=0, top_p=1.0)
    assert token.tolist() == [1]
    assert logp.item() == pytest.approx(math.log(1 / (2 + math.sqrt(2))))


def naive_draw(logits: list[float], u: float, temperature: float, top_k: int, top_p: float) -> dict[int, float]:
    """The kept tokens and their probabilities, largest first, by a plain loop."""
    weights = sorted(((math.exp(x / temperature), -i) for i, x in enumerate(logits)), reverse=True)
    weights = weights[: top_k or None]
    total, kept, reached = sum(w for w, _ in weights), [], 0.0
    for w, i in weights:
        if reached >= top_p:
            break
        kept.append((w, -i))
        reached += w / total
    norm = sum(w for w, _ in kept)
    return {i: w / norm for w, i in kept}


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.floats(0.0, 0.999),
    st.floats(0.3, 3.0),
    st.integers(0, 12),
    st.sampled_from([1.0, 0.9, 0.5, 0.1]),
)
def test_filters_and_logp_agree_with_a_naive_loop(seed: int, u: float, temperature: float, top_k: int, top_p: float):
    logits = torch.randn(1, 9, generator=torch.Generator().manual_seed(seed))
    kept = naive_draw(logits[0].tolist(), u, temperature, top_k, top_p)
    token, logp = draw(logits, torch.tensor([u]).double(), temperature=temperature, top_k=top_k, top_p=top_p)
    assert token.item() in kept
    assert logp.item() == pytest.approx(math.log(kept[token.item()]), abs=1e-5)


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (3, 1.0), (0, 0.7)])
def test_a_grid_of_uniforms_gives_every_token_its_probability(top_k: int, top_p: float):
    """With u on a grid of n points each token is drawn probability * n times, up to the grid's ends."""
    logits, n = torch.tensor([[0.1, 1.3, -0.5, 0.9, 0.0]]), 10_000
    u = (torch.arange(n).double() + 0.5) / n
    token, logp = draw(logits.expand(n, -1), u, temperature=0.8, top_k=top_k, top_p=top_p)
    kept = naive_draw(logits[0].tolist(), 0.0, 0.8, top_k, top_p)
    for index, count in enumerate(torch.bincount(token, minlength=5).tolist()):
        assert count == pytest.approx(kept.get(index, 0.0) * n, abs=1.5)
    assert logp.exp().sum().item() / n == pytest.approx(sum(p * p for p in kept.values()), abs=1e-3)


def test_a_token_of_probability_zero_is_never_drawn():
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0, -math.inf]]).expand(4, -1)
    u = torch.tensor([0.0, 0.5, 1 - 2.0**-52, 0.25], dtype=torch.float64)
    token, logp = draw(logits, u, temperature=1.0, top_k=0, top_p=1.0)
    assert token.tolist() == [1, 3, 3, 1]
    assert logp.tolist() == pytest.approx([math.log(0.5)] * 4)


def test_greedy_is_the_limit_of_small_temperature_with_the_untempered_logp():
    logits = torch.randn(20, 11, generator=torch.Generator().manual_seed(0))
    u = torch.rand(20, generator=torch.Generator().manual_seed(1)).double()
    greedy, logp = draw(logits, u, temperature=0.0, top_k=3, top_p=0.5)
    cold, _ = draw(logits, u, temperature=1e-4, top_k=0, top_p=1.0)
    assert greedy.tolist() == cold.tolist() == logits.argmax(-1).tolist()
    assert torch.allclose(logp, logits.log_softmax(-1).max(-1).values, atol=1e-6)


@pytest.mark.parametrize(
    ("settings_", "word"),
    [
        (Sampling(max_tokens=0), "max_tokens is 0"),
        (Sampling(max_tokens=1, temperature=-0.1), "temperature is -0.1"),
        (Sampling(max_tokens=1, temperature=math.nan), "temperature is nan"),
        (Sampling(max_tokens=1, top_k=-1), "top_k is -1"),
        (Sampling(max_tokens=1, top_p=0.0), "top_p is 0.0"),
        (Sampling(max_tokens=1, top_p=1.5), "top_p is 1.5"),
        (Sampling(max_tokens=1, stop=("",)), "empty string"),
    ],
)
def test_settings_that_cannot_work_are_named(settings_: Sampling, word: str):
    with pytest.raises(ConfigError, match=word):
        check_sampling(settings_)
