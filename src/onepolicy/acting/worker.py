"""Continuous batching inside compiled code: one thread's rows, from taking samples to writing what was drawn.

Threads share a queue of units (a prompt and some of its samples) through one atomic counter, and nothing else that
changes. A thread computes a unit's prompt when it has a free row for it, draws the samples' first tokens from the
prompt's last logits, and steps all its live rows together. In: the loop and the draw. Not in: the forward (kernels.py),
what the arrays are (layout.py), memory and threads (compiled.py).
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from onepolicy.acting.kernels import TILE, as_float, exp, forward, predict
from onepolicy.acting.matmul import FAST, inner
from onepolicy.acting.sampling import mix

_mix = inner()(mix)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
PROMPT, NEXT, LAST, READ, USERS = range(5)


@intrinsic  # type: ignore[misc]
def _take(typingctx: Any, counter: Any) -> Any:
    """counter[0]++ as one atomic operation; returns the value before."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(counter)(context, builder, args[0])
        return builder.atomic_rmw("add", array.data, cgutils.intp_t(1), "monotonic")

    return types.intp(counter), generate


@inner()
def _cut(weights, goal, counting):  # type: ignore[no-untyped-def]
    """Zeroes all but the largest weights that together reach the goal, in number or in sum; returns their sum.

    Of equal weights at the edge the first are kept. Weights are in [0, 1], so their order is that of their bits:
    bisection finds the largest threshold at which the goal is still reached.
    """
    low, high = np.int32(0), np.int32(0x3F800001)  # 0.0 and just above 1.0
    while high - low > 1:
        middle = np.int32(low + (high - low) // 2)
        threshold, reached = as_float(middle), 0.0
        for weight in weights:
            if weight >= threshold:
                reached += 1.0 if counting else weight
        if reached >= goal:
            low = middle
        else:
            high = middle
    threshold, reached, total = as_float(low), 0.0, 0.0
    for weight in weights:
        if weight > threshold:
            reached += 1.0 if counting else weight
    for j in range(weights.shape[0]):
        if weights[j] == threshold and reached < goal:
            reached += 1.0 if counting else weights[j]
        elif weights[j] <= threshold:
            weights[j] = np.float32(0.0)
        total += weights[j]
    return total


@inner(fastmath=FAST)
def draw_row(line, weights, u, temperature, top_k, top_p):  # type: ignore[no-untyped-def]
    """One token and its log-probability from logits `line` [V], as `sampling.draw` defines them; line is changed."""
    vocab = weights.shape[0]
    best = 0
    for j in range(1, vocab):
        if line[j] > line[best]:
            best = j
    if temperature != 0.0 and temperature != 1.0:
        for j in range(vocab):
            line[j] /= np.float32(temperature)
    total = 0.0
    for j in range(vocab):
        weights[j] = exp(line[j] - line[best])
        total += weights[j]
    token = best
    if temperature != 0.0:
        if 0 < top_k < vocab:
            total = _cut(weights, np.float64(top_k), True)
        if top_p < 1.0:
            total = _cut(weights, top_p * total, False)
        target, running = u * total, 0.0
        for j in range(vocab):
            if weights[j] > 0.0:
                token = j
                running += weights[j]
                if running > target:
                    break
    return token, np.float64(line[token] - line[best]) - np.log(total)


@inner(inline="always")
def _append(line, sample, prompt, queue, output, rows):  # type: ignore[no-untyped-def]
    """Draws the sample's next token from logits `line`."""
    at = output.written[sample]
    bits = _mix(queue.stream[sample] + np.uint64(at + 1) * _GOLDEN)
    u = np.float64(bits >> np.uint64(12)) * 2.0**-52
    token, logp = draw_row(line, rows.weights, u, queue.temperature, queue.top_k, queue.top_p)
    output.tokens[sample, at] = token
    output.logp[sample, at] = logp
    output.written[sample] = at + 1
    if queue.is_stop[token]:
        output.ended[sample] = 2
    elif at + 1 >= queue.limit[prompt]:
        output.ended[sample] = 1


@inner(inline="always")
def _retire(output, rows):  # type: ignore[no-untyped-def]
    """Frees the rows whose sample has ended."""
    live = rows.counts[0]
    for i in range(live - 1, -1, -1):
        row = rows.order[i]
        if output.ended[rows.sample[row]] != 0:
            live -= 1
            rows.order[i], rows.order[live] = rows.order[live], row
            rows.unit[rows.slot[row], USERS] -= 1
    rows.counts[0] = live


@inner(inline="always")
def _start(queue, output, rows, logits):  # type: ignore[no-untyped-def]
    """Starts waiting samples of prompts that have been read, while rows are free; `logits` [V] is scratch."""
    for slot in range(rows.unit.shape[0]):
        unit = rows.unit[slot]
        prompt = unit[PROMPT]
        if unit[READ] < queue.start[prompt + 1] - queue.start[prompt]:
            continue
        while unit[NEXT] < unit[LAST] and rows.counts[0] < rows.order.shape[0]:
            sample = unit[NEXT]
            unit[NEXT] += 1
            for j in range(rows.first.shape[1]):
                logits[j] = rows.first[slot, j]
            _append(logits, sample, prompt, queue, output, rows)
            if output.ended[sample] == 0:
                row = rows.order[rows.counts[0]]
                rows.sample[row], rows.slot[row] = sample, slot
                unit[USERS] += 1
                rows.counts[0] += 1


@inner(inline="always")
def _claim(queue, rows):  # type: ignore[no-untyped-def]
    """Takes units off the queue for the rows that are free and not yet spoken for; returns prompt tokens to read."""
    unread = 0
    free = rows.order.shape[0] - rows.counts[0]
    for slot in range(rows.unit.shape[0]):
        unit = rows.unit[slot]
        free -= unit[LAST] - unit[NEXT]
    for slot in range(rows.unit.shape[0]):
        unit = rows.unit[slot]
        if free > 0 and unit[NEXT] == unit[LAST] and unit[USERS] == 0:
            taken = _take(queue.control)
            if taken < queue.units.shape[0]:
                unit[PROMPT], unit[NEXT], unit[LAST] = queue.units[taken]
                unit[READ] = 0
                free -= unit[LAST] - unit[NEXT]
        if unit[NEXT] < unit[LAST]:
            unread += queue.start[unit[PROMPT] + 1] - queue.start[unit[PROMPT]] - unit[READ]
    return unread


@inner(inline="always")
def _fill_tile(tile, queue, output, rows, begin):  # type: ignore[no-untyped-def]
    """The next rows of a tile: one token for each live row from `begin` on, then tokens of prompts still to be read.

    Returns how many rows the tile has.
    """
    count = 0
    while count < TILE and begin + count < rows.counts[0]:
        row = rows.order[begin + count]
        slot, written = rows.slot[row], output.written[rows.sample[row]]
        prompt = rows.unit[slot, PROMPT]
        length = queue.start[prompt + 1] - queue.start[prompt]
        tile.token[count] = output.tokens[rows.sample[row], written - 1]
        tile.position[count] = length + written - 1
        tile.prompt[count], tile.own[count] = slot, row
        tile.shared[count], tile.private[count] = length, written
        tile.reader[count] = row
        count += 1
    for slot in range(rows.unit.shape[0]):
        unit = rows.unit[slot]
        if unit[NEXT] < unit[LAST]:
            start, end = queue.start[unit[PROMPT]] + unit[READ], queue.start[unit[PROMPT] + 1]
            for at in range(start, min(end, start + TILE - count)):
                tile.token[count], tile.position[count] = queue.tokens[at], unit[READ]
                unit[READ] += 1
                tile.prompt[count], tile.own[count] = slot, 0
                tile.shared[count], tile.private[count] = unit[READ], 0
                tile.reader[count] = -2 - slot if at + 1 == end else -1
                count += 1
    return count


@inner(inline="always")
def _gather(tile, count, width):  # type: ignore[no-untyped-def]
    """Moves the hidden states whose logits somebody reads to the front; returns how many."""
    kept = 0
    for i in range(count):
        if tile.reader[i] != -1:
            tile.reader[kept] = tile.reader[i]
            for j in range(width):
                tile.x[kept, j] = tile.x[i, j]
            kept += 1
    return kept


@inner(inline="always")
def _hand_out(tile, count, queue, output, rows):  # type: ignore[no-untyped-def]
    """Gives logits to their readers: a live row draws from them, a prompt keeps them for its samples."""
    for i in range(count):
        reader = tile.reader[i]
        if reader >= 0:
            sample, prompt = rows.sample[reader], rows.unit[rows.slot[reader], PROMPT]
            _append(tile.logits[i], sample, prompt, queue, output, rows)
        else:
            for j in range(rows.first.shape[1]):
                rows.first[-2 - reader, j] = tile.logits[i, j]


def _compile(revision: int) -> Any:
    """`work`, compiled on first use and kept on disk.

    numba renews what it kept when this file changes; `revision` makes it do so when the files it calls change.
    """

    @njit(nogil=True, cache=True, _nrt=False, error_model="numpy")
    def work(net, tile, store, queue, output, rows, steps):  # type: ignore[no-untyped-def]
        """Runs a thread's rows for `steps` steps, or until nothing is left to do.

        A step is one more token for every live row, and the reading of the prompts that free rows wait for.
        """
        rows.counts[3] = revision
        for _ in range(steps):
            _retire(output, rows)
            _start(queue, output, rows, tile.logits[0])
            live = rows.counts[0]
            items = live + _claim(queue, rows)
            if items == 0 or queue.control[1] != 0:
                break
            rows.counts[1] += 1
            rows.counts[2] += live
            begin = 0
            while begin < items:
                count = _fill_tile(tile, queue, output, rows, begin)
                begin += count
                forward(net, tile, store, count)
                count = _gather(tile, count, net.width)
                predict(net, tile, count)
                _hand_out(tile, count, queue, output, rows)

    return work


def _revision() -> int:
    """A hash of the source this file's machine code is made from."""
    folder = Path(__file__).parent
    text = b"".join((folder / name).read_bytes() for name in ("layout.py", "matmul.py", "kernels.py", "sampling.py"))
    return int.from_bytes(blake2b(text, digest_size=4).digest(), "little")


work = _compile(_revision())
