"""A transformer's forward over a tile of rows, compiled: norms, rotation, attention, feed-forward, one token per row.

The rows of a tile are independent: they may belong to different sequences, or be consecutive tokens of one prompt
(whose keys and values are all written before any row attends). Every row sees two stretches of cache: its prompt's,
shared by all samples of that prompt, and its own. float32 only. Not in: which row does what (worker.py).

Layout of a cache: keys [slot, layer, kv head, positions / 16, D, 16] and values [slot, layer, kv head, DV / 16,
positions, 16], DV being D padded to 16: both are panels of matmul.py, so that scores and mixtures are products.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from onepolicy.acting.matmul import BLOCK, FAST, PANEL, inner, multiply_add, one_row, one_row_four_chains

TILE = 32
"""Rows that go through the layers together: enough to reuse a weight from the cache, few enough to stay in it."""


class Net(NamedTuple):
    """A model for the compiled forward: sizes, then float32 weights; matrices as panels, absent biases zero-sized.

    dv: head dimension of the values, padded to 16. Booleans say what family it is; see `family.Blueprint`.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    d: int
    dv: int
    hidden: int
    vocab: int
    eps: float
    rms: bool
    gated: bool
    qk_norm: bool
    rotary: bool
    embed: np.ndarray
    positions: np.ndarray
    cos: np.ndarray
    sin: np.ndarray
    norm1: np.ndarray
    norm1_bias: np.ndarray
    qkv: np.ndarray
    qkv_bias: np.ndarray
    q_norm: np.ndarray
    k_norm: np.ndarray
    o: np.ndarray
    o_bias: np.ndarray
    norm2: np.ndarray
    norm2_bias: np.ndarray
    up: np.ndarray
    up_bias: np.ndarray
    down: np.ndarray
    down_bias: np.ndarray
    norm: np.ndarray
    norm_bias: np.ndarray
    head: np.ndarray


class Tile(NamedTuple):
    """Scratch of one thread, and what its rows stand for.

    x, h [TILE, padded width], qkv, up, mixed [TILE, ...], logits [TILE, padded vocab]: activations.
    scores [1, positions]. token, position [TILE]: fed token and its place in the sequence. prompt, own [TILE]:
    cache slots; shared, private [TILE]: how many of their positions the row sees, the fed token included. The fed
    token's keys and values go to the last private position, or, where private is 0, to the last shared one. reader
    [TILE]: who reads the row's logits, in the worker's terms.
    """

    x: np.ndarray
    h: np.ndarray
    qkv: np.ndarray
    up: np.ndarray
    mixed: np.ndarray
    logits: np.ndarray
    scores: np.ndarray
    token: np.ndarray
    position: np.ndarray
    prompt: np.ndarray
    own: np.ndarray
    shared: np.ndarray
    private: np.ndarray
    reader: np.ndarray


class Store(NamedTuple):
    """Caches of one thread's prompts and rows; the layout is the module's."""

    prompt_keys: np.ndarray
    prompt_values: np.ndarray
    own_keys: np.ndarray
    own_values: np.ndarray


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
def _turn(head, d, weight, eps, cos, sin, scale, qk_norm, rotary):  # type: ignore[no-untyped-def]
    """One head's query or key [d], normalised, rotated by its position's angles and scaled, in place."""
    if qk_norm:
        square = np.float32(0.0)
        for j in range(d):
            square += head[j] * head[j]
        norm = np.float32(1.0) / np.sqrt(square / np.float32(d) + np.float32(eps))
        for j in range(d):
            head[j] *= norm * weight[j]
    if rotary:
        half = d // 2
        for j in range(half):
            a, b = head[j], head[half + j]
            head[j] = (a * cos[j] - b * sin[j]) * scale
            head[half + j] = (b * cos[j] + a * sin[j]) * scale
    elif scale != np.float32(1.0):
        for j in range(d):
            head[j] *= scale


@inner(fastmath=FAST)
def _remember(net, tile, store, layer, rows):  # type: ignore[no-untyped-def]
    """Turns every row's queries and keys, and writes its keys and values into its cache."""
    d, dv, kv = net.d, net.dv, net.kv_heads
    scale = np.float32(1.0 / np.sqrt(d))
    none = net.norm
    for i in range(rows):
        line, at = tile.qkv[i], tile.position[i]
        cos, sin = (net.cos[at], net.sin[at]) if net.rotary else (none, none)
        weight = net.q_norm[layer] if net.qk_norm else none
        for head in range(net.heads):
            _turn(line[head * d : (head + 1) * d], d, weight, net.eps, cos, sin, scale, net.qk_norm, net.rotary)
        weight = net.k_norm[layer] if net.qk_norm else none
        if tile.private[i] > 0:
            place = tile.private[i] - 1
            keys, values = store.own_keys[tile.own[i], layer], store.own_values[tile.own[i], layer]
        else:
            place = tile.shared[i] - 1
            keys, values = store.prompt_keys[tile.prompt[i], layer], store.prompt_values[tile.prompt[i], layer]
        for head in range(kv):
            start = (net.heads + head) * d
            key = line[start : start + d]
            _turn(key, d, weight, net.eps, cos, sin, np.float32(1.0), net.qk_norm, net.rotary)
            panel = keys[head, place // PANEL]
            for j in range(d):
                panel[j, place % PANEL] = key[j]
            start = (net.heads + kv) * d + head * dv
            for j in range(dv):
                values[head, j // PANEL, place, j % PANEL] = line[start + j]


@inner(fastmath=FAST)
def _score(line, offset, queries, row, q_start, keys, count):  # type: ignore[no-untyped-def]
    """line[0, offset:] = query @ keys for `count` positions, rounded up to whole panels."""
    query = queries[row : row + 1, q_start : q_start + keys.shape[1]]
    for p in range((count + PANEL - 1) // PANEL):
        for j in range(PANEL):
            line[0, offset + p * PANEL + j] = np.float32(0.0)
        one_row(query, 0, keys[p], line, offset + p * PANEL, keys.shape[1])


@inner(fastmath=FAST)
def _soften(line, shared, start, private):  # type: ignore[no-untyped-def]
    """Softmax over line[:shared] and line[start:start+private], in place and not yet divided; returns the sum.

    What lies between and up to the end of the last panel becomes 0.
    """
    top = np.float32(-3.0e38)
    for j in range(shared):
        top = max(top, line[j])
    for j in range(start, start + private):
        top = max(top, line[j])
    total = np.float32(0.0)
    for j in range(shared):
        line[j] = exp(line[j] - top)
        total += line[j]
    for j in range(shared, start):
        line[j] = np.float32(0.0)
    for j in range(start, start + private):
        line[j] = exp(line[j] - top)
        total += line[j]
    for j in range(start + private, start + (private + PANEL - 1) // PANEL * PANEL):
        line[j] = np.float32(0.0)
    return total


@inner(fastmath=FAST)
def _mix(mixed, row, column, line, start, values, count):  # type: ignore[no-untyped-def]
    """mixed[row, column:column+DV] += line[start:start+count] @ values; count a multiple of 16."""
    if count > 0:
        for p in range(values.shape[0]):
            weights = line[:, start : start + count]
            one_row_four_chains(weights, 0, values[p], mixed[row : row + 1], column + p * PANEL, count)


@inner(fastmath=FAST)
def _attend(net, tile, store, layer, rows):  # type: ignore[no-untyped-def]
    """Every row's mixture of the values it sees."""
    group = net.heads // net.kv_heads
    line = tile.scores
    for i in range(rows):
        shared, private = tile.shared[i], tile.private[i]
        start = (shared + PANEL - 1) // PANEL * PANEL
        after = (private + PANEL - 1) // PANEL * PANEL
        prompt_keys, own_keys = store.prompt_keys[tile.prompt[i], layer], store.own_keys[tile.own[i], layer]
        prompt_values, own_values = store.prompt_values[tile.prompt[i], layer], store.own_values[tile.own[i], layer]
        tile.mixed[i] = np.float32(0.0)
        for head in range(net.heads):
            source = head // group
            _score(line, 0, tile.qkv, i, head * net.d, prompt_keys[source], shared)
            _score(line, start, tile.qkv, i, head * net.d, own_keys[source], private)
            inverse = np.float32(1.0) / _soften(line[0], shared, start, private)
            _mix(tile.mixed, i, head * net.dv, line, 0, prompt_values[source], start)
            _mix(tile.mixed, i, head * net.dv, line, start, own_values[source], after)
            for j in range(head * net.dv, (head + 1) * net.dv):
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


@inner(fastmath=FAST)
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


@inner(fastmath=FAST)
def predict(net, tile, rows):  # type: ignore[no-untyped-def]
    """tile.logits of the first `rows` hidden states in tile.x."""
    _normalise(tile.x, tile.h, rows, net.width, net.norm, net.norm_bias, net.eps, net.rms)
    tile.logits[:rows] = np.float32(0.0)
    multiply_add(tile.h, (rows + BLOCK - 1) // BLOCK * BLOCK, net.head, tile.logits)
