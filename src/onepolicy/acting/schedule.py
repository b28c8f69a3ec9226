"""The loop of continuous batching: which sequence runs in which row, and when it leaves.

Samples wait in prompt order. Prompts are computed ahead, several of similar length at once, within a bound; a sample
starts as a copy of its prompt's cache. Live rows are always rows 0 to R - 1 of the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from onepolicy.acting.cache import Cache, Prompts
from onepolicy.acting.decoder import Decoder
from onepolicy.acting.sampling import draw, streams, uniforms
from onepolicy.types import Completion, Sampling


@dataclass(frozen=True)
class Plan:
    """One call's work, checked.

    prompts, seeds, limits (most new tokens): one per prompt. n: samples per prompt. rows: sequences in flight at
    most. capacity: positions per row. prefill_tokens: prompt positions held in shared caches at most.
    """

    prompts: list[list[int]]
    n: int
    sampling: Sampling
    seeds: Sequence[int]
    limits: list[int]
    stop_tokens: tuple[int, ...]
    decode: Callable[[Sequence[int]], str] | None
    vocab: int
    rows: int
    capacity: int
    prefill_tokens: int


@dataclass
class Done:
    """What came out: per sample (prompt-major) tokens, log-probabilities, their count and whether a stop ended it."""

    tokens: np.ndarray
    logp: np.ndarray
    count: np.ndarray
    stopped: np.ndarray
    steps: int = 0
    row_steps: int = 0
    prefill_tokens: int = 0
    prompt_tokens_held: int = 0
    cache_bytes: int = 0

    @staticmethod
    def empty(samples: int, longest: int) -> Done:
        return Done(
            tokens=np.zeros((samples, longest), dtype=np.int64),
            logp=np.zeros((samples, longest), dtype=np.float32),
            count=np.zeros(samples, dtype=np.int64),
            stopped=np.zeros(samples, dtype=bool),
        )

    def completions(self, n: int, version: int) -> list[list[Completion]]:
        """The samples as completions, n to a list."""
        flat = [
            Completion(tuple(tokens[:count]), tuple(logp[:count]), "stop" if stopped else "length", version)
            for tokens, logp, count, stopped in zip(
                self.tokens.tolist(), self.logp.tolist(), self.count.tolist(), self.stopped.tolist(), strict=True
            )
        ]
        return [flat[start : start + n] for start in range(0, len(flat), n)]


@final
class Work:
    """What outlives a call: the decoder and the cache's memory."""

    def __init__(self, decoder: Decoder, dtype: torch.dtype, device: torch.device) -> None:
        self.decoder, self.device = decoder, device
        self.cache = Cache(decoder.shapes, dtype, device)


@final
class _Prefill:
    """Prompts computed ahead of need, and the samples waiting for them."""

    def __init__(self, plan: Plan, work: Work, done: Done) -> None:
        self._plan, self._work, self._done = plan, work, done
        self._groups: dict[int, tuple[_Group, int]] = {}  # prompt -> its group and its row there
        self.waiting = len(plan.prompts) * plan.n
        self._next = 0

    def admit(self, rows: np.ndarray) -> np.ndarray:
        """The next samples start in `rows`; returns them [<= len(rows)], in order."""
        sample = np.arange(self._next, self._next + min(len(rows), self.waiting))
        prompt = sample // self._plan.n
        parts: dict[int, tuple[_Group, list[int], list[int]]] = {}
        for row, index in zip(rows.tolist(), prompt.tolist(), strict=False):
            if index not in self._groups:
                self._copy(parts)  # what is computed ahead makes room first
                parts = {}
                self._compute(index)
            group, place = self._groups[index]
            _, into, which = parts.setdefault(id(group), (group, [], []))
            into.append(row)
            which.append(place)
            self._next += 1
            self.waiting -= 1
        self._copy(parts)
        return sample

    def _copy(self, parts: dict[int, tuple[_Group, list[int], list[int]]]) -> None:
        device = self._work.device
        for group, into, which in parts.values():
            if group.prompts is not None:
                rows = torch.tensor(into, device=device)
                self._work.cache.admit(rows, group.prompts, torch.tensor(which, device=device))

    def _compute(self, first: int) -> None:
        """Runs the prompts from `first` on through the model, as many as the bound allows."""
        plan = self._plan
        self._groups = {}
        longest = count = 0
        for prompt in plan.prompts[first:]:
            longest = max(longest, len(prompt))
            if count and longest * (count + 1) > plan.prefill_tokens:
                break
            count += 1
        order = sorted(range(first, first + count), key=lambda index: len(plan.prompts[index]))
        held = 0
        while order:
            shortest = len(plan.prompts[order[0]])
            alike = [index for index in order if len(plan.prompts[index]) <= shortest * 1.25 + 8]
            order = order[len(alike) :]
            group = _Group(self._forward([plan.prompts[index][:-1] for index in alike]))
            self._groups |= {index: (group, place) for place, index in enumerate(alike)}
            held += len(alike) * (len(plan.prompts[alike[-1]]) - 1)
            self._done.cache_bytes = max(
                self._done.cache_bytes, self._work.cache.bytes + (group.prompts.bytes if group.prompts else 0)
            )
        self._done.prompt_tokens_held = max(self._done.prompt_tokens_held, held)

    def _forward(self, prompts: list[list[int]]) -> Prompts | None:
        longest = max(map(len, prompts))
        if longest == 0:
            return None
        tokens = np.zeros((len(prompts), longest), dtype=np.int64)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = prompt
        self._done.prefill_tokens += sum(map(len, prompts))
        return self._work.decoder.prefill(torch.from_numpy(tokens).to(self._work.device))


@dataclass(frozen=True, eq=False)
class _Group:
    """Prompts computed together; None when each is a single token, which has no past."""

    prompts: Prompts | None


def decode_all(plan: Plan, work: Work) -> Done:
    """Every sample of the plan, decoded to its end."""
    sampling, device = plan.sampling, work.device
    samples = len(plan.prompts) * plan.n
    done = Done.empty(samples, max(plan.limits))
    work.cache.reserve(plan.rows, plan.capacity)
    prefill = _Prefill(plan, work, done)
    stream = streams(plan.seeds, plan.n)
    limit = np.repeat(np.array(plan.limits), plan.n)
    is_stop = np.zeros(plan.vocab, dtype=bool)
    is_stop[list(plan.stop_tokens)] = True
    last = np.array([prompt[-1] for prompt in plan.prompts])
    past = np.array([len(prompt) - 1 for prompt in plan.prompts])
    sample = np.zeros(plan.rows, dtype=np.int64)  # by row: which sample, its last token and that token's position
    token = np.zeros(plan.rows, dtype=np.int64)
    position = np.zeros(plan.rows, dtype=np.int64)

    def start(rows: np.ndarray) -> int:
        begun = prefill.admit(rows)
        into = rows[: len(begun)]
        sample[into], token[into] = begun, last[begun // plan.n]
        position[into] = past[begun // plan.n]
        return len(begun)

    live = start(np.arange(plan.rows))
    while live:
        length = int(position[:live].max()) + 1
        logits = work.decoder.step(
            torch.from_numpy(token[:live]).to(device), torch.from_numpy(position[:live]).to(device), work.cache, length
        )
        now = sample[:live]
        at = done.count[now]
        u = torch.from_numpy(uniforms(stream[now], at)).to(device)
        drawn, logp = draw(logits, u, temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p)
        new = drawn.cpu().numpy()
        done.tokens[now, at], done.logp[now, at] = new, logp.cpu().numpy()
        done.count[now] = at + 1
        done.steps += 1
        done.row_steps += live
        token[:live] = new
        position[:live] += 1
        stopped = is_stop[new]
        if sampling.stop:
            stopped |= [_ends(plan, done.tokens[s, : c + 1]) for s, c in zip(now.tolist(), at.tolist(), strict=True)]
        finished = stopped | (at + 1 >= limit[now])
        if finished.any():
            done.stopped[now] = stopped
            gaps = np.flatnonzero(finished)
            filled = start(gaps) if prefill.waiting else 0
            gaps = gaps[filled:]
            if len(gaps):
                live = _close(gaps, live, work, sample, token, position)
    return done


def _close(gaps: np.ndarray, live: int, work: Work, sample: np.ndarray, token: np.ndarray, position: np.ndarray) -> int:
    """Moves the last live rows into the gaps; returns how many rows are live then."""
    left = live - len(gaps)
    target = gaps[gaps < left]
    source = np.setdiff1d(np.arange(left, live), gaps, assume_unique=True)
    if len(target):
        length = int(position[source].max())
        device = work.device
        work.cache.move(torch.from_numpy(source).to(device), torch.from_numpy(target).to(device), length)
        for state in (sample, token, position):
            state[target] = state[source]
    return left


def _ends(plan: Plan, tokens: np.ndarray) -> bool:
    """Whether the text of `tokens` ends in, or its last token completed, one of the stop strings.

    Only as many last tokens are decoded as give text longer than the longest stop string, with some to spare: the
    first characters of a cut text may be wrong (half of a multi-byte character).
    """
    assert plan.decode is not None
    needed = max(map(len, plan.sampling.stop)) + 8
    window = needed
    while True:
        text = plan.decode(tokens[-window:].tolist())
        if len(text) >= needed or window >= len(tokens):
            return any(stop in text for stop in plan.sampling.stop)
        window *= 2
