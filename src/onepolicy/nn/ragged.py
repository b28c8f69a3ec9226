"""Sequences of different lengths in one row, without padding, a prompt that several of them share computed once.

All layers but attention see a single row of real tokens. Attention gathers each sequence's keys and values from it, in
buckets of similar length, and is plainly causal within a sequence: a block-diagonal mask that is never built.
Transformers' own extension point (`AttentionInterface`) carries it; models are not patched. Not here: who uses it
(token_policy.py).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from onepolicy.errors import ModelError

ATTENTION = "onepolicy_ragged"
"""Name of the attention implementation; it is plain sdpa for calls that bring no Ragged layout."""

SIMILAR = 0.8
"""A bucket's shortest sequence is at least this share of its longest."""


class Ragged(NamedTuple):
    """Where attention finds its sequences in a row of N tokens.

    buckets: each [b, L] int64, a sequence per row: the token's place in the row of N (0 behind a sequence's end, where
    nothing is read). owner [N] int64: the place of each token's result among all buckets, laid end to end.
    """

    buckets: tuple[Tensor, ...]
    owner: Tensor


class Packed(NamedTuple):
    """B sequences in one row of N tokens.

    tokens, positions [1, N] int64: positions restart with every sequence. place [B, L] int64: where in the row the
    r-th token of sequence b is. ragged: the layout for attention.
    """

    tokens: Tensor
    positions: Tensor
    place: Tensor
    ragged: Ragged


def pack(tokens: Tensor, length: Tensor, shared: Tensor) -> Packed:
    """Right-padded sequences [B, L] as one row of their first length[b] tokens.

    length [B]: tokens to keep, 0 leaves the sequence out. shared [B]: the first shared[b] <= length[b] tokens are kept
    once for all sequences in which they are the same.

    >>> packed = pack(torch.tensor([[5, 6, 7], [5, 6, 8], [9, 1, 0]]), torch.tensor([3, 3, 2]), torch.tensor([2, 2, 1]))
    >>> packed.tokens.tolist(), packed.positions.tolist(), packed.place.tolist()
    ([[5, 6, 7, 8, 9, 1]], [[0, 1, 2, 2, 0, 1]], [[0, 1, 2], [0, 1, 3], [4, 5, 0]])
    """
    rows = tokens.cpu().numpy()
    lengths: list[int] = length.tolist()
    place = np.zeros(rows.shape, dtype=np.int64)
    parts: list[np.ndarray] = []
    starts: list[tuple[int, int]] = []
    known: dict[bytes, int] = {}
    total = 0
    for b, (n, s) in enumerate(zip(lengths, shared.tolist())):
        prefix = rows[b, :s].tobytes()
        if s and prefix in known:
            place[b, :s] = np.arange(known[prefix], known[prefix] + s)
            begin = s
        else:
            known[prefix] = total
            begin = 0
        place[b, begin:n] = np.arange(total, total + n - begin)
        parts.append(rows[b, begin:n])
        starts.append((begin, n))
        total += n - begin
    positions = [np.arange(begin, n) for begin, n in starts]
    device = tokens.device
    return Packed(
        tokens=torch.from_numpy(np.concatenate(parts))[None].to(device),
        positions=torch.from_numpy(np.concatenate(positions))[None].to(device),
        place=torch.from_numpy(place).to(device),
        ragged=_buckets(place, np.asarray(lengths), total, device),
    )


def _buckets(place: np.ndarray, length: np.ndarray, total: int, device: torch.device) -> Ragged:
    """The sequences sorted by length and cut where one is much shorter than its bucket's longest."""
    order = np.argsort(-length, kind="stable")
    order = order[length[order] > 0]
    owner = np.zeros(total, dtype=np.int64)
    buckets: list[Tensor] = []
    offset = 0
    while len(order):
        longest = length[order[0]]
        count = int((length[order] >= SIMILAR * longest).sum())
        rows, order = order[:count], order[count:]
        index = place[rows, :longest]
        real = np.arange(longest) < length[rows, None]
        owner[index[real]] = offset + np.flatnonzero(real)
        buckets.append(torch.from_numpy(np.where(real, index, 0)).to(device))
        offset += index.size
    return Ragged(tuple(buckets), torch.from_numpy(owner).to(device))


def ragged_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    ragged: Ragged | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each sequence of a Ragged layout; without one, transformers' sdpa attention.

    query [1, H, N, d]; key, value [1, K, N, d] with H a multiple of K. Returns [1, N, H, d].
    """
    if ragged is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    if options.get("softcap") is not None or options.get("position_bias") is not None:
        raise ModelError('this model caps or biases its attention scores; use layout="padded" with it.')
    window = options.get("sliding_window")
    (_, heads, n, width), few = query.shape, key.shape[1]
    query, key, value = (x[0].transpose(0, 1).reshape(n, -1) for x in (query, key, value))
    results = []
    for index in ragged.buckets:
        b, longest = index.shape
        # embedding, not indexing: the same numbers, and a backward pass that sums shared tokens quickly
        q, k, v = (embedding(index, x).view(b, longest, -1, width).transpose(1, 2) for x in (query, key, value))
        mask = _band(longest, window, index.device) if window is not None and window < longest else None
        out = scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=heads != few
        )
        results.append(out.transpose(1, 2).reshape(b * longest, heads * width))
    return torch.cat(results).index_select(0, ragged.owner).view(1, n, heads, width), None


def _band(longest: int, window: int, device: torch.device) -> Tensor:
    """[L, L] bool: True where a query sees a key: not later, and less than `window` tokens back."""
    seen = torch.ones(longest, longest, dtype=torch.bool, device=device)
    return seen.tril().triu(1 - window)


def forward_packed(module: PreTrainedModel, packed: Packed) -> Any:
    """The output of a model (or its backbone) for the packed row.

    A four-dimensional mask is handed on by transformers as it is, unread by ragged_attention: no mask is built.
    Raises: ModelError when another attention has been set since: it would let sequences see each other.
    """
    if module.config._attn_implementation != ATTENTION:
        raise ModelError(
            f"the model's attention is {module.config._attn_implementation!r}, but a packed row needs {ATTENTION!r}; "
            "something set it after the policy was made. Make the TokenPolicy last, or use layout='padded'."
        )
    mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=packed.tokens.device)
    return module(
        input_ids=packed.tokens,
        position_ids=packed.positions,
        attention_mask=mask,
        use_cache=False,
        ragged=packed.ragged,
    )


def require_packable(model: PreTrainedModel) -> None:
    """The model switched to ragged attention, after it gave the same states packed as padded on a small example.

    Raises: ModelError, the model as it was, when it does not: not every architecture keeps to transformers' attention
    interface, and recurrent ones would let sequences run into each other.
    """
    before = model.config._attn_implementation
    length = torch.tensor([6, 4])
    tokens = torch.tensor([[0, 1, 2, 0, 3, 1], [0, 1, 3, 2, 0, 0]]).remainder(int(model.config.vocab_size))
    tokens = tokens.to(model.device)
    packed = pack(tokens, length, shared=torch.tensor([2, 2]))
    real = (torch.arange(6) < length[:, None]).to(model.device)
    try:
        model.eval().set_attn_implementation(ATTENTION)
        with torch.no_grad():
            padded = model.base_model(input_ids=tokens, attention_mask=real.long(), use_cache=False)
            states = forward_packed(model.base_model, packed).last_hidden_state[0][packed.place]
        want, got = padded.last_hidden_state[real].double(), states[real].double()
        bound = 5e-2 if model.dtype in (torch.bfloat16, torch.float16) else 1e-4
        fits = bool((want - got).abs().max() <= bound * want.abs().max())
    except (ValueError, TypeError, RuntimeError):
        fits = False
    if not fits:
        model.set_attn_implementation(before)
        raise ModelError(
            f'{type(model).__name__} does not give the same states packed as padded; use layout="padded" with it.'
        )


AttentionInterface.register(ATTENTION, ragged_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
