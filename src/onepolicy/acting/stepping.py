"""The stepping runner: continuous batching through torch, one forward per token, on any device and in any dtype.

A fixed number of rows hold running sequences. A finished sequence's row takes the next waiting sample at once; when
none waits, the last live row moves into the gap, so that a step costs what its live rows and their longest context
cost. Prompts are computed ahead of need, several of similar length at once; a sample starts as a copy of its prompt's
cache. In: the schedule. Not in: the forward (decoder.py, lean.py), the draw (sampling.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from onepolicy.acting.cache import Cache, Prompts
from onepolicy.acting.decoder import Decoder
from onepolicy.acting.plan import Done, Plan, check_room
from onepolicy.acting.sampling import draw, streams, uniforms

PREFILL_TOKENS = 8192
"""Prompt tokens computed ahead of need in one go, when the cache's bound leaves room for them."""


@final
class StepRunner:
    """Runs plans by stepping a decoder; its cache is kept from call to call."""

    def __init__(self, decoder: Decoder, dtype: torch.dtype, device: torch.device) -> None:
        self.path = decoder.path
        self._decoder, self._device = decoder, device
        self._cache = Cache(decoder.shapes, dtype, device)

    def refresh(self) -> None:
        """Takes over changed weights of the model."""
        self._decoder.refresh()

    def release(self) -> None:
        """Frees the cache."""
        self._cache.release()

    def run(self, plan: Plan) -> Done:
        """Every sample of the plan, decoded to its end."""
        lengths = [len(prompt) for prompt in plan.prompts]
        capacity = max(length + limit for length, limit in zip(lengths, plan.limits, strict=True)) - 1
        rows = check_room(plan, capacity, spare=max(lengths))
        ahead = max(PREFILL_TOKENS, max(lengths))
        if plan.cache_tokens is not None:
            ahead = min(ahead, plan.cache_tokens - rows * capacity)
        self._cache.reserve(rows, capacity)
        done = Done.empty(len(plan.prompts) * plan.n, max(plan.limits))
        done.rows = rows
        _Loop(plan, done, _Ahead(plan, done, self._decoder, self._cache, ahead, self._device)).run()
        done.occupancy = done.row_steps / max(1, done.steps * rows)
        done.cache_tokens += rows * capacity
        done.cache_bytes += self._cache.bytes
        return done


@final
class _Ahead:
    """Prompts computed ahead of need, and the samples waiting for them, in order."""

    def __init__(
        self, plan: Plan, done: Done, decoder: Decoder, cache: Cache, tokens: int, device: torch.device
    ) -> None:
        self.plan, self.decoder, self.cache, self.device = plan, decoder, cache, device
        self.waiting = len(plan.prompts) * plan.n
        self._done, self._tokens = done, tokens
        self._groups: list[_Group] = []
        self._computed = 0  # prompts computed so far
        self._next = 0

    def admit(self, rows: np.ndarray) -> np.ndarray:
        """The next samples start in `rows`; returns them [<= len(rows)], in order."""
        plan, first = self.plan, self._next
        while self.waiting and self._next - first < len(rows):
            if self._next // plan.n >= self._computed:
                self._compute(self._next // plan.n)
            until = min(first + len(rows), self._computed * plan.n)
            self._copy(rows[self._next - first : until - first], np.arange(self._next, until) // plan.n)
            self.waiting -= until - self._next
            self._next = until
        return np.arange(first, self._next)

    def _copy(self, rows: np.ndarray, prompts: np.ndarray) -> None:
        for group in self._groups:
            mine = np.isin(prompts, group.members)
            if group.prompts is not None and mine.any():
                which = np.searchsorted(group.members, prompts[mine])
                into = torch.from_numpy(rows[mine]).to(self.device)
                self.cache.admit(into, group.prompts, torch.from_numpy(which).to(self.device))

    def _compute(self, first: int) -> None:
        """Runs the prompts from `first` on through the model, as many as the bound allows."""
        plan, self._groups = self.plan, []
        longest = count = 0
        for prompt in plan.prompts[first:]:
            longest = max(longest, len(prompt))
            if count and longest * (count + 1) > self._tokens:
                break
            count += 1
        order = sorted(range(first, first + count), key=lambda index: len(plan.prompts[index]))
        while order:
            shortest = len(plan.prompts[order[0]])
            alike = [index for index in order if len(plan.prompts[index]) <= shortest * 1.25 + 8]
            order = order[len(alike) :]
            self._groups.append(self._group(sorted(alike)))
        self._computed = first + count
        held = sum(group.prompts.bytes for group in self._groups if group.prompts is not None)
        tokens = sum(group.prompts.tokens for group in self._groups if group.prompts is not None)
        self._done.cache_bytes = max(self._done.cache_bytes, held)
        self._done.cache_tokens = max(self._done.cache_tokens, tokens)

    def _group(self, members: list[int]) -> _Group:
        """All but the last token of each prompt: that one is fed when a sample of it starts."""
        pasts = [self.plan.prompts[index][:-1] for index in members]
        longest, total = max(map(len, pasts)), sum(map(len, pasts))
        self._done.prefill_tokens += total
        self._done.prefill_saved += (self.plan.n - 1) * total
        if longest == 0:
            return _Group(np.array(members), None)
        tokens = np.zeros((len(pasts), longest), dtype=np.int64)
        for row, past in enumerate(pasts):
            tokens[row, : len(past)] = past
        return _Group(np.array(members), self.decoder.prefill(torch.from_numpy(tokens).to(self.device)))


@dataclass(frozen=True, eq=False)
class _Group:
    """Prompts `members`, ascending, computed together; None when each is a single token, which has no past."""

    members: np.ndarray
    prompts: Prompts | None


@final
class _Loop:
    """Which sample runs in which row. Live rows are always the first ones.

    sample, token, position [rows]: by row, its sample, the token to feed next and that token's position.
    """

    def __init__(self, plan: Plan, done: Done, ahead: _Ahead) -> None:
        self._plan, self._done, self._ahead = plan, done, ahead
        self._stream = streams(plan.seeds, plan.n)
        self._limit = np.repeat(np.array(plan.limits), plan.n)
        self._last = np.array([prompt[-1] for prompt in plan.prompts])
        self._past = np.array([len(prompt) - 1 for prompt in plan.prompts])
        self._is_stop = np.zeros(plan.vocab, dtype=bool)
        self._is_stop[list(plan.stop_tokens)] = True
        self._sample, self._token, self._position = (np.zeros(done.rows, dtype=np.int64) for _ in range(3))

    def run(self) -> None:
        done = self._done
        live = self._start(np.arange(done.rows))
        while live:
            now = self._sample[:live]
            new = self._advance(now, live)
            stopped = self._is_stop[new]
            if self._plan.sampling.stop:
                stopped |= [self._plan.ends(done.tokens[s, : done.count[s]]) for s in now.tolist()]
            finished = stopped | (done.count[now] >= self._limit[now])
            if finished.any():
                done.stopped[now] = stopped
                gaps = np.flatnonzero(finished)
                live = self._close(gaps[self._start(gaps) :], live)

    def _advance(self, now: np.ndarray, live: int) -> np.ndarray:
        """Feeds every live row's token and draws the next; returns the tokens drawn."""
        done, sampling, device = self._done, self._plan.sampling, self._ahead.device
        token, position = torch.from_numpy(self._token[:live]), torch.from_numpy(self._position[:live])
        length = int(self._position[:live].max()) + 1
        logits = self._ahead.decoder.step(token.to(device), position.to(device), self._ahead.cache, length)
        at = done.count[now]
        u = torch.from_numpy(uniforms(self._stream[now], at)).to(device)
        drawn, logp = draw(logits, u, temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p)
        new = drawn.cpu().numpy()
        done.tokens[now, at], done.logp[now, at] = new, logp.cpu().numpy()
        done.count[now] = at + 1
        done.steps += 1
        done.row_steps += live
        self._token[:live] = new
        self._position[:live] += 1
        return new

    def _start(self, rows: np.ndarray) -> int:
        """Waiting samples start in `rows`, first come first served; returns how many did."""
        if not self._ahead.waiting:
            return 0
        begun = self._ahead.admit(rows)
        into, prompt = rows[: len(begun)], begun // self._plan.n
        self._sample[into], self._token[into], self._position[into] = begun, self._last[prompt], self._past[prompt]
        return len(begun)

    def _close(self, gaps: np.ndarray, live: int) -> int:
        """Moves the last live rows into the gaps; returns how many rows are live then."""
        left = live - len(gaps)
        target = gaps[gaps < left]
        if len(target):
            source = np.setdiff1d(np.arange(left, live), gaps, assume_unique=True)
            length, device = int(self._position[source].max()), self._ahead.device
            self._ahead.cache.move(torch.from_numpy(source).to(device), torch.from_numpy(target).to(device), length)
            for state in (self._sample, self._token, self._position):
                state[target] = state[source]
        return left
