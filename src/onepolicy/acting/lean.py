"""The lean decoder: a forward of known families written out on fused weights, for devices and sizes beyond compiled.py.

The module's own forward spends most of a small step in Python and in dispatch; here a layer is about twenty tensor
operations. Costs a second copy of the weights. In: Qwen2, Qwen3, Llama, GPT-2 in any dtype, on any device. Not in: the
schedule (stepping.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, rms_norm, scaled_dot_product_attention, silu
from transformers import PreTrainedModel

from onepolicy.acting.cache import Cache, Prompts, Shapes
from onepolicy.acting.family import blueprint, fuse

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, queries [R, T, heads, D], keys and values [R, T, kv heads, D]) -> mixed values [R, T, heads D]."""


@final
class LeanDecoder:
    """A `Decoder` for a model that `family.decline` accepts."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.path = "lean"
        self._model = model
        self._plan = plan = blueprint(model)
        self._weights = fuse(model)
        self.shapes: Shapes = [(plan.kv_heads, plan.head_dim)] * (2 * plan.layers)

    def refresh(self) -> None:
        """Copies the model's present weights."""
        self._weights.copy_(fuse(self._model))

    def prefill(self, tokens: Tensor) -> Prompts:
        """The caches of right-padded prompts [P, T]: no token sees what comes after it, padding included."""
        kept: list[Tensor] = []
        group = self._plan.heads // self._plan.kv_heads

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            k, v = k.transpose(1, 2), v.transpose(1, 2)
            kept.extend((k, v))
            k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
            mixed = scaled_dot_product_attention(q.transpose(1, 2), k, v, is_causal=True)
            return mixed.transpose(1, 2).flatten(2)

        positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        self._hidden(tokens, positions, attend)
        return Prompts(kept)

    def step(self, tokens: Tensor, positions: Tensor, cache: Cache, length: int) -> Tensor:
        """Logits [R, V] after one more token per row."""
        count, plan = tokens.shape[0], self._plan
        rows = torch.arange(count, device=tokens.device)
        hidden = torch.arange(length, device=tokens.device) > positions[:, None]
        mask = torch.zeros(hidden.shape, dtype=self._weights.embed.dtype, device=tokens.device)
        mask = mask.masked_fill_(hidden, float("-inf"))[:, None, None]

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = cache.entries[2 * layer], cache.entries[2 * layer + 1]
            keys[rows, :, positions], values[rows, :, positions] = k[:, 0], v[:, 0]
            q = q.view(count, plan.kv_heads, -1, plan.head_dim)  # the heads that share a key as rows of one query
            mixed = scaled_dot_product_attention(q, keys[:count, :, :length], values[:count, :, :length], mask)
            return mixed.reshape(count, 1, -1)

        return self._hidden(tokens[:, None], positions[:, None], attend)[:, 0] @ self._weights.head

    def _hidden(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """The last normalised hidden states [R, T, W]."""
        plan, w = self._plan, self._weights
        split = [plan.heads * plan.head_dim, plan.kv_heads * plan.head_dim, plan.kv_heads * plan.head_dim]
        x = w.embed[tokens]
        turn = (w.cos[positions, None], w.sin[positions, None]) if plan.rotary else None
        if turn is None:
            x = x + w.positions[positions]
        for layer in range(plan.layers):
            h = self._norm(x, w.norm1[layer], w.norm1_bias[layer])
            parts = _linear(h, w.qkv[layer], w.qkv_bias[layer]).split(split, dim=-1)
            q, k, v = (part.unflatten(-1, (-1, plan.head_dim)) for part in parts)
            if plan.qk_norm:
                q = rms_norm(q, q.shape[-1:], w.q_norm[layer], plan.eps)
                k = rms_norm(k, k.shape[-1:], w.k_norm[layer], plan.eps)
            if turn is not None:
                q, k = _turned(q, *turn), _turned(k, *turn)
            x = x + _linear(attend(layer, q, k, v), w.o[layer], w.o_bias[layer])
            up = _linear(self._norm(x, w.norm2[layer], w.norm2_bias[layer]), w.up[layer], w.up_bias[layer])
            x = x + _linear(self._active(up), w.down[layer], w.down_bias[layer])
        return self._norm(x, w.norm, w.norm_bias)

    def _norm(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if self._plan.rms:
            return rms_norm(x, x.shape[-1:], weight, self._plan.eps)
        return layer_norm(x, x.shape[-1:], weight, bias, self._plan.eps)

    def _active(self, up: Tensor) -> Tensor:
        if self._plan.gated:
            gate, value = up.chunk(2, dim=-1)
            return silu(gate) * value
        return gelu(up, approximate="tanh")


def _linear(x: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
    """x [R, T, in] @ matrix [in, out] + bias, where a bias of size 0 is none."""
    y = x @ matrix
    return y + bias if bias.numel() else y


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Heads x [R, T, heads, D] rotated by their positions' angles, cos and sin [R, T, 1, D / 2]."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
