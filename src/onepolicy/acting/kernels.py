"""A transformer's forward over a tile of rows, compiled: norms, rotation, attention, feed-forward, one token per row.

The rows of a tile are independent: they may belong to different sequences, or be consecutive tokens of one prompt
(whose keys and values are all written before any row attends). Every row sees two stretches of cache: its prompt's,
shared by all samples of that prompt, and its own. float32 only. Not in: which row does what (worker.py),
how the arrays are laid out (layout.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from onepolicy.acting.matmul import BLOCK, FAST, PANEL, add_long_row, inner, multiply_add, set_long_row, set_one_row

_NEVER = np.float32(-3.0e38)
TILE = 32
"""Rows that go through the layers together: enough to reuse a weight from the cache, few enough to stay in it."""


@intrinsic  # type: ignore[misc]
def as_float(typingctx: Any, bits: Any) -> Any:
    """The float32 whose bits an int32 has."""
    return types.float32(types.int32), lambda context, builder, signature, args: builder.bitcast(
        args[0], ir.FloatType()
    )


@inner(fastmath=FAST)
def exp(x):  # type: ignore[no-untyped-def]
    """e^x in float32, relative error about 2e-7, in operations a loop can vectorise; x below -87 gives about 0.

    x = n log 2 + r with |r| <= log(2) / 2; e^r by a polynomial, 2^n by writing the exponent's bits.
    Source: Cephes, expf.c.
    """
    x = min(max(x, np.float32(-87.0)), np.float32(88.0))
    n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    y = np.float32(1.9875691500e-4) * r + np.float32(1.3981999507e-3)
    y = y * r + np.float32(8.3334519073e-3)
    y = y * r + np.float32(4.1665795894e-2)
    y = y * r + np.float32(1.6666665459e-1)
    y = y * r + np.float32(5.0000001201e-1)
    y = y * r * r + r + np.float32(1.0)
    return y * as_float(np.int32(np.int32(n) + np.int32(127)) << np.int32(23))


@inner(fastmath=FAST)
def _normalise(x, h, rows, width, weight, bias, eps, rms):  # type: ignore[no-untyped-def]
    """h = x / rms(x) * weight, or with mean and bias; rows of `width`."""
    for i in range(rows):
        mean = np.float32(0.0)
        if not rms:
            for j in range(width):
                mean += x[i, j]
            mean /= np.float32(width)
        square = np.float32(0.0)
        for j in range(width):
            square += (x[i, j] - mean) * (x[i, j] - mean)
        scale = np.float32(1.0) / np.sqrt(square / np.float32(width) + np.float32(eps))
        if rms:
            for j in range(width):
                h[i, j] = x[i, j] * scale * weight[j]
        else:
            for j in range(width):
                h[i, j] = (x[i, j] - mean) * scale * weight[j] + bias[j]


@inner(fastmath=FAST)
def _fill(c, rows, bias):  # type: ignore[no-untyped-def]
    """Rows of c start as the bias, 0 where there is none."""
    for i in range(rows):
        c[i] = np.float32(0.0)
        for j in range(bias.shape[0]):
            c[i, j] = bias[j]


@inner(fastmath=FAST)
def _shift(c, rows, bias):  # type: ignore[no-untyped-def]
    """Rows of c plus the bias."""
    for i in range(rows):
        for j in range(bias.shape[0]):
            c[i, j] += bias[j]


@inner(fastmath=FAST)
def _turn(line, start, heads, d, weight, eps, cos, sin, scale, qk_norm, rotary):  # type: ignore[no-untyped-def]
    """Heads of a query or key, normalised, rotated by their position's angles and scaled, in place.

    line[start:] is heads x d; cos, sin [d / 2].
    """
    half = d // 2
    for head in range(start, start + heads * d, d):
        if qk_norm:
            square = np.float32(0.0)
            for j in range(head, head + d):
                square += line[j] * line[j]
            norm = np.float32(1.0) / np.sqrt(square / np.float32(d) + np.float32(eps))
            for j in range(d):
                line[head + j] *= norm * weight[j]
        if rotary:
            for j in range(half):
                a, b = line[head + j], line[head + half + j]
                line[head + j] = (a * cos[j] - b * sin[j]) * scale
                line[head + half + j] = (b * cos[j] + a * sin[j]) * scale
        elif scale != np.float32(1.0):
            for j in range(head, head + d):
                line[j] *= scale


@inner(fastmath=FAST)
def _remember(net, tile, store, layer, rows):  # type: ignore[no-untyped-def]
    """Turns every row's queries and keys, and writes its keys and values into its cache."""
    d, dv, kv = net.d, net.dv, net.kv_heads
    scale, one = np.float32(1.0 / np.sqrt(d)), np.float32(1.0)
    none = net.norm
    for i in range(rows):
        line, at = tile.qkv[i], tile.position[i]
        cos, sin = (net.cos[at], net.sin[at]) if net.rotary else (none, none)
        weight = net.q_norm[layer] if net.qk_norm else none
        _turn(line, 0, net.heads, d, weight, net.eps, cos, sin, scale, net.qk_norm, net.rotary)
        weight = net.k_norm[layer] if net.qk_norm else none
        _turn(line, net.heads * d, kv, d, weight, net.eps, cos, sin, one, net.qk_norm, net.rotary)
        if tile.private[i] > 0:
            place = tile.private[i] - 1
            keys, values = store.own_keys[tile.own[i], layer], store.own_values[tile.own[i], layer]
        else:
            place = tile.shared[i] - 1
            keys, values = store.prompt_keys[tile.prompt[i], layer], store.prompt_values[tile.prompt[i], layer]
        for head in range(kv):
            panel, start = keys[head, place // PANEL], (net.heads + head) * d
            for j in range(d):
                panel[j, place % PANEL] = line[start + j]
            start = (net.heads + kv) * d + head * dv
            for j in range(dv):
                values[head, j // PANEL, place, j % PANEL] = line[start + j]


@inner(fastmath=FAST)
def _soften(line, shared, start, private):  # type: ignore[no-untyped-def]
    """Exponentials for a softmax over line[:shared] and line[start:start+private], in place; returns their sum.

    What lies between, and after as far as a multiple of 32, becomes 0 (1e-38): loops over whole vectors only.
    """
    end = (start + private + 31) // 32 * 32
    for j in range(shared, start):
        line[j] = _NEVER
    for j in range(start + private, end):
        line[j] = _NEVER
    top = _NEVER
    for j in range(end):
        top = max(top, line[j])
    total = np.float32(0.0)
    for j in range(end):
        line[j] = exp(line[j] - top)
        total += line[j]
    return total


@inner(fastmath=FAST)
def _attend(net, tile, store, layer, rows):  # type: ignore[no-untyped-def]
    """Every row's mixture of the values it sees."""
    d, group, line = net.d, net.heads // net.kv_heads, tile.scores
    for i in range(rows):
        slot, row, shared, private = tile.prompt[i], tile.own[i], tile.shared[i], tile.private[i]
        panels, more = (shared + PANEL - 1) // PANEL, (private + PANEL - 1) // PANEL
        start = panels * PANEL
        for head in range(net.heads):
            kv = head // group
            query = tile.qkv[i : i + 1, head * d :]
            for p in range(panels):
                set_one_row(query, 0, store.prompt_keys[slot, layer, kv, p], line, 0, p * PANEL, d)
            for p in range(more):
                set_one_row(query, 0, store.own_keys[row, layer, kv, p], line, 0, start + p * PANEL, d)
            inverse = np.float32(1.0) / _soften(line[0], shared, start, private)
            for p in range(net.dv // PANEL):
                to = head * net.dv + p * PANEL
                set_long_row(line, 0, store.prompt_values[slot, layer, kv, p], tile.mixed, i, to, start)
                add_long_row(line[:, start:], 0, store.own_values[row, layer, kv, p], tile.mixed, i, to, more * PANEL)
                for j in range(to, to + PANEL):
                    tile.mixed[i, j] *= inverse


@inner(fastmath=FAST)
def _activate(up, rows, hidden, gated):  # type: ignore[no-untyped-def]
    """silu(gate) * up, or gelu in its tanh form, into the first `hidden` columns.

    tanh(z) = 2 sigmoid(2z) - 1, so 0.5 u (1 + tanh(z)) = u sigmoid(2z), z = sqrt(2 / pi) (u + 0.044715 u^3).
    """
    one = np.float32(1.0)
    for i in range(rows):
        line = up[i]
        if gated:
            for j in range(hidden):
                line[j] = line[j] / (one + exp(-line[j])) * line[hidden + j]
        else:
            for j in range(hidden):
                u = line[j]
                z = np.float32(1.5957691216) * (u + np.float32(0.044715) * u * u * u)
                line[j] = u / (one + exp(-z))


@inner(inline="always")
def forward(net, tile, store, rows):  # type: ignore[no-untyped-def]
    """Feeds the tile's first `rows` tokens: caches are written, tile.x holds the last hidden states."""
    blocks = (rows + BLOCK - 1) // BLOCK * BLOCK
    for i in range(rows):
        for j in range(net.width):
            tile.x[i, j] = net.embed[tile.token[i], j]
        if not net.rotary:
            for j in range(net.width):
                tile.x[i, j] += net.positions[tile.position[i], j]
    for layer in range(net.layers):
        _normalise(tile.x, tile.h, rows, net.width, net.norm1[layer], net.norm1_bias[layer], net.eps, net.rms)
        _fill(tile.qkv, rows, net.qkv_bias[layer])
        multiply_add(tile.h, blocks, net.qkv[layer], tile.qkv)
        _remember(net, tile, store, layer, rows)
        _attend(net, tile, store, layer, rows)
        _shift(tile.x, rows, net.o_bias[layer])
        multiply_add(tile.mixed, blocks, net.o[layer], tile.x)
        _normalise(tile.x, tile.h, rows, net.width, net.norm2[layer], net.norm2_bias[layer], net.eps, net.rms)
        _fill(tile.up, rows, net.up_bias[layer])
        multiply_add(tile.h, blocks, net.up[layer], tile.up)
        _activate(tile.up, rows, net.hidden, net.gated)
        _shift(tile.x, rows, net.down_bias[layer])
        multiply_add(tile.up, blocks, net.down[layer], tile.x)


@inner(inline="always")
def predict(net, tile, rows):  # type: ignore[no-untyped-def]
    """tile.logits of the first `rows` hidden states in tile.x."""
    _normalise(tile.x, tile.h, rows, net.width, net.norm, net.norm_bias, net.eps, net.rms)
    tile.logits[:rows] = np.float32(0.0)
    multiply_add(tile.h, (rows + BLOCK - 1) // BLOCK * BLOCK, net.head, tile.logits)
