"""The arrays of the compiled path, by who uses them: a model, a thread's scratch and caches, the shared queue, results.

Named tuples, because compiled code takes them apart at no cost. float32 and int64 throughout. A cache's keys are
[slot, layer, kv head, positions / 16, D, 16], its values [slot, layer, kv head, DV / 16, positions, 16], DV being D
padded to 16: both are panels of matmul.py, so that scores and mixtures are products.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


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


class Queue(NamedTuple):
    """What all threads read, and the counter they share.

    control [2] int64: next unit; non-zero to stop early. units [U, 3]: prompt, first sample, last sample + 1. tokens,
    start: prompt p is tokens[start[p]:start[p + 1]]. limit: most new tokens, by prompt. stream: random stream, by
    sample. is_stop [V]. temperature, top_k, top_p: see `Sampling`.
    """

    control: np.ndarray
    units: np.ndarray
    tokens: np.ndarray
    start: np.ndarray
    limit: np.ndarray
    stream: np.ndarray
    is_stop: np.ndarray
    temperature: float
    top_k: int
    top_p: float


class Output(NamedTuple):
    """What all threads write, each its own samples: tokens, logp [S, longest]; written (how many), ended (0 live, 1
    length, 2 stop) [S]."""

    tokens: np.ndarray
    logp: np.ndarray
    written: np.ndarray
    ended: np.ndarray


class Rows(NamedTuple):
    """One thread's state between calls.

    order [rows]: row numbers, the live ones first. sample, slot [rows]: by row, its sample and its prompt's slot.
    unit [rows, 5]: by prompt slot, its prompt, next and last waiting sample, tokens read, and live rows that use it; a
    slot with no waiting sample and no user is free. first [rows, V]: by prompt slot, the logits after the prompt.
    counts [4]: live rows; steps and row steps so far; the code's revision. weights [V]: scratch.
    """

    order: np.ndarray
    sample: np.ndarray
    slot: np.ndarray
    unit: np.ndarray
    first: np.ndarray
    counts: np.ndarray
    weights: np.ndarray
