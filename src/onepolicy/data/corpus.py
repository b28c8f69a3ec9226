"""Pretraining text in the order in which it is learnt: several sources by weight, so many tokens a step, resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from onepolicy.data.demonstrations import Example
from onepolicy.data.mixture import Source
from onepolicy.data.prompts import Shuffled
from onepolicy.data.text import Chunk
from onepolicy.errors import ConfigError, DataError
from onepolicy.run.seeding import derive_rng

Change = Callable[[Chunk, np.random.Generator], Example]
"""What becomes of a chunk each time it is read, such as `fim.Infilling`."""


class TextStream:
    """Batches of about `batch_tokens` tokens, each source shuffled anew every epoch, sources by weight.

    The next chunk is of the source that is furthest behind its share of the tokens (the first named on a tie). What
    `change` draws depends on seed, source, epoch and place alone, so a position is a few numbers.
    """

    def __init__(
        self, sources: Sequence[Source[Chunk]], batch_tokens: int, seed: int, change: Change | None = None
    ) -> None:
        if batch_tokens < 1:
            raise ConfigError(f"batch_tokens is {batch_tokens}; a step learns from at least 1 token.")
        self.sources, self.batch_tokens, self.seed, self.change = list(sources), batch_tokens, seed, change
        self.streams = [Shuffled(source.rows, 1, seed, f"text of {source.name}") for source in sources]
        self.taken = [0 for _ in sources]

    @property
    def tokens(self) -> int:
        """Tokens of all sources, each once."""
        return sum(len(chunk.tokens) for source in self.sources for chunk in source.rows)

    def next(self) -> list[Example]:
        """Chunks up to the first with which they have batch_tokens tokens."""
        batch: list[Example] = []
        size = 0
        while size < self.batch_tokens:
            place = min(range(len(self.streams)), key=lambda i: self.taken[i] / self.sources[i].weight)
            batch.append(self._read(place))
            size += len(batch[-1][0])
            self.taken[place] += len(batch[-1][0])
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Each source's position and the tokens taken from it."""
        return {
            source.name: {**stream.state_dict(), "taken": taken}
            for source, stream, taken in zip(self.sources, self.streams, self.taken, strict=True)
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a saved position. Raises: DataError when it was saved with other sources."""
        names = [source.name for source in self.sources]
        if sorted(state) != sorted(names):
            raise DataError(f"the saved position is in {sorted(state)} but the sources are {names}; resume with those.")
        for place, name in enumerate(names):
            self.streams[place].load_state_dict(state[name])
            self.taken[place] = int(state[name]["taken"])

    def _read(self, place: int) -> Example:
        stream = self.streams[place]
        at = stream.epoch, stream.position
        chunk = stream.next()[0]
        if self.change is None:
            return chunk.example
        return self.change(chunk, derive_rng(self.seed, "change", self.sources[place].name, *at))
