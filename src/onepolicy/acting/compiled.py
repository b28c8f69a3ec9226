"""The compiled runner: a small float32 model on a CPU, decoded by machine code made for it.

A tiny model's step costs less than dispatching its operations one by one, so the whole loop (schedule, forward, draw)
is compiled, and each thread runs its own rows through all layers without waiting for another. In: packing the weights,
memory within the bound, threads, stop strings. Not in: the loop itself (worker.py), large or non-float32 models.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from onepolicy.acting.family import Blueprint, Fused, blueprint, fuse
from onepolicy.acting.kernels import TILE
from onepolicy.acting.layout import Net, Output, Queue, Rows, Store, Tile
from onepolicy.acting.matmul import BLOCK, PANEL, pack, padded
from onepolicy.acting.plan import Done, Plan, check_room
from onepolicy.acting.sampling import streams
from onepolicy.acting.worker import work

LARGEST = 30_000_000
"""Parameters up to which the weights are cheaper to stream by every thread than to share between threads."""
_PLAIN = (
    *("embed", "positions", "cos", "sin", "q_norm", "k_norm", "up_bias", "o_bias", "down_bias"),
    *("norm1", "norm1_bias", "norm2", "norm2_bias", "norm", "norm_bias"),
)
"""Weights the kernels read as they are; the others are matrices, packed."""
_STRIDE = 16
"""Steps between two looks at stop strings; what was drawn past a stop is cut off again."""


@final
class CompiledRunner:
    """Runs plans for a model that `family.decline` accepts, in float32 on the CPU, on torch's number of threads."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.path = "compiled"
        self._model = model
        self._print = blueprint(model)
        self._memory: list[np.ndarray] = []
        self.refresh()

    def refresh(self) -> None:
        """Packs the model's present weights."""
        self._net = _net(self._print, fuse(self._model))

    def release(self) -> None:
        """Frees the caches."""
        self._memory = []

    def run(self, plan: Plan) -> Done:
        """Every sample of the plan, decoded to its end."""
        samples = len(plan.prompts) * plan.n
        shared = padded(max(map(len, plan.prompts)))
        private = padded(max(1, max(plan.limits) - 1))
        rows = check_room(plan, shared + private)
        threads = max(1, min(torch.get_num_threads(), rows))
        queue = _queue(plan, threads)
        done = Done.empty(samples, max(plan.limits))
        ended = np.zeros(samples, dtype=np.int64)
        output = Output(done.tokens, done.logp, done.count, ended)
        share = [rows // threads + (thread < rows % threads) for thread in range(threads)]
        stores = self._stores(share, shared, private)
        arguments = [
            (self._net, _tile(self._net, shared + private), store, queue, output, _rows(self._net, count))
            for store, count in zip(stores, share, strict=True)
        ]
        self._drive(plan, arguments, queue, output)
        states = [argument[-1].counts for argument in arguments]
        done.stopped[:] = ended == 2
        done.steps = max(int(state[1]) for state in states)
        done.row_steps = sum(int(state[2]) for state in states)
        done.occupancy = done.row_steps / max(1, sum(int(s[1]) * count for s, count in zip(states, share, strict=True)))
        done.prefill_tokens = sum(len(plan.prompts[prompt]) for prompt in queue.units[:, 0].tolist())
        done.prefill_saved = plan.n * sum(map(len, plan.prompts)) - done.prefill_tokens
        done.rows, done.cache_tokens = rows, rows * (shared + private)
        done.cache_bytes = sum(memory.nbytes for memory in self._memory)
        return done

    def _drive(self, plan: Plan, arguments: list[tuple[Any, ...]], queue: Queue, output: Output) -> None:
        """Lets every thread work until all samples have ended, looking at stop strings in between if there are any."""
        steps = _STRIDE if plan.sampling.stop else np.iinfo(np.int64).max
        seen = np.zeros(len(output.written), dtype=np.int64)
        with ThreadPoolExecutor(len(arguments)) as pool:
            while not output.ended.all():
                futures = [pool.submit(work, *(*argument, steps)) for argument in arguments]
                try:
                    for future in futures:
                        future.result()
                except BaseException:
                    queue.control[1] = 1  # an interrupt reaches this thread only; the others stop at their next step
                    raise
                if plan.sampling.stop:
                    _cut(plan, output, seen)

    def _stores(self, share: list[int], shared: int, private: int) -> list[Store]:
        """Cache memory for every thread, kept from call to call while it has the right size."""
        net = self._net
        per_row = net.layers * net.kv_heads * (net.d + net.dv) * (shared + private)
        sizes = [count * per_row for count in share]
        if [len(memory) for memory in self._memory] != sizes:
            self._memory = []
            self._memory = [np.zeros(size, dtype=np.float32) for size in sizes]
        return [_store(net, memory, count, shared, private) for memory, count in zip(self._memory, share, strict=True)]


def _store(net: Net, memory: np.ndarray, rows: int, shared: int, private: int) -> Store:
    """A thread's memory as its four caches."""
    views, start = [], 0
    for positions in (shared, private):
        for shape in ((positions // PANEL, net.d, PANEL), (net.dv // PANEL, positions, PANEL)):
            full = (rows, net.layers, net.kv_heads, *shape)
            size = int(np.prod(full))
            views.append(memory[start : start + size].reshape(full))
            start += size
    return Store(*views)


def _queue(plan: Plan, threads: int) -> Queue:
    """The plan for the threads; a prompt is one unit unless that leaves threads idle."""
    parts = min(plan.n, -(-2 * threads // len(plan.prompts))) if len(plan.prompts) < 2 * threads else 1
    if threads == 1:
        parts = 1
    bounds = [plan.n * part // parts for part in range(parts + 1)]
    first = [prompt * plan.n + bound for prompt in range(len(plan.prompts)) for bound in bounds[:-1]]
    last = [prompt * plan.n + bound for prompt in range(len(plan.prompts)) for bound in bounds[1:]]
    is_stop = np.zeros(plan.vocab, dtype=np.bool_)
    is_stop[list(plan.stop_tokens)] = True
    return Queue(
        control=np.zeros(2, dtype=np.int64),
        units=np.stack([np.repeat(np.arange(len(plan.prompts)), parts), first, last], axis=1),
        tokens=np.concatenate([np.asarray(prompt, dtype=np.int64) for prompt in plan.prompts]),
        start=np.cumsum([0, *map(len, plan.prompts)]),
        limit=np.array(plan.limits),
        stream=streams(plan.seeds, plan.n),
        is_stop=is_stop,
        temperature=float(plan.sampling.temperature),
        top_k=int(plan.sampling.top_k),
        top_p=float(plan.sampling.top_p),
    )


def _cut(plan: Plan, output: Output, seen: np.ndarray) -> None:
    """Ends samples at the token that completed a stop string, among the tokens drawn since the last look."""
    for sample in np.flatnonzero(output.written > seen).tolist():
        for count in range(int(seen[sample]) + 1, int(output.written[sample]) + 1):
            if plan.ends(output.tokens[sample, :count]):
                output.written[sample], output.ended[sample] = count, 2
                break
    seen[:] = output.written


def _rows(net: Net, count: int) -> Rows:
    return Rows(
        order=np.arange(count),
        sample=np.zeros(count, dtype=np.int64),
        slot=np.zeros(count, dtype=np.int64),
        unit=np.zeros((count, 5), dtype=np.int64),
        first=np.zeros((count, net.vocab), dtype=np.float32),
        counts=np.zeros(4, dtype=np.int64),
        weights=np.zeros(net.vocab, dtype=np.float32),
    )


def _tile(net: Net, positions: int) -> Tile:
    def floats(columns: int) -> np.ndarray:
        return np.zeros((padded(TILE, BLOCK), padded(columns)), dtype=np.float32)

    def integers() -> np.ndarray:
        return np.zeros(TILE, dtype=np.int64)

    return Tile(
        x=floats(net.width),
        h=floats(net.width),
        qkv=floats((net.heads + net.kv_heads) * net.d + net.kv_heads * net.dv),
        up=floats(net.hidden * (2 if net.gated else 1)),
        mixed=floats(net.heads * net.dv),
        logits=floats(net.vocab),
        scores=np.zeros((1, padded(positions, 32)), dtype=np.float32),
        token=integers(),
        position=integers(),
        prompt=integers(),
        own=integers(),
        shared=integers(),
        private=integers(),
        reader=integers(),
    )


def _net(plan: Blueprint, fused: Fused) -> Net:
    """A model's weights as the kernels read them; value heads padded to whole panels."""
    d, dv = plan.head_dim, padded(plan.head_dim)
    queries_and_keys = (plan.heads + plan.kv_heads) * d

    def wide(matrix: Tensor) -> Tensor:
        """[..., q | k | v], each value head padded to dv columns."""
        values = matrix[..., queries_and_keys:].unflatten(-1, (plan.kv_heads, d))
        values = torch.nn.functional.pad(values, (0, dv - d)).flatten(-2)
        return torch.cat([matrix[..., :queries_and_keys], values], dim=-1)

    o = fused.o.unflatten(1, (plan.heads, d))
    o = torch.nn.functional.pad(o, (0, 0, 0, dv - d)).flatten(1, 2)
    return Net(
        layers=plan.layers,
        width=plan.width,
        heads=plan.heads,
        kv_heads=plan.kv_heads,
        d=d,
        dv=dv,
        hidden=plan.hidden,
        vocab=plan.vocab,
        eps=plan.eps,
        rms=plan.rms,
        gated=plan.gated,
        qk_norm=plan.qk_norm,
        rotary=plan.rotary,
        qkv=pack(wide(fused.qkv).numpy()),
        qkv_bias=(wide(fused.qkv_bias) if fused.qkv_bias.numel() else fused.qkv_bias).numpy(),
        o=pack(o.numpy()),
        up=pack(fused.up.numpy()),
        down=pack(fused.down.numpy()),
        head=pack(fused.head.numpy()),
        **{name: np.ascontiguousarray(getattr(fused, name).numpy()) for name in _PLAIN},
    )
