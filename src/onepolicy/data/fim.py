"""Fill-in-the-middle: a text's middle moved behind its end, so that a model that reads left to right learns to infill.

    PSM   <PRE> prefix <SUF> suffix <MID> middle <end>
    SPM   <PRE> <SUF> suffix <MID> prefix middle <end>

The two cuts are uniform over characters, and a text is cut after it was made to fit the context, so no middle is lost.
Source: Bavarian et al. 2022 (arXiv 2207.14255), section 3: context-level FIM, SPM in its second variant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from onepolicy.data.demonstrations import Example
from onepolicy.data.text import Chunk, start_token
from onepolicy.data.tokenizer import FIM, encode
from onepolicy.errors import ConfigError

KNOWN = (FIM, ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"), ("<PRE>", "<SUF>", "<MID>"))
"""Names by which tokenizers have the three sentinels: Qwen2.5-Coder and ours, StarCoder, others."""

EXTRA = 5
"""Tokens of an infilled text beside those of its three parts: start, three sentinels, end."""


@dataclass(frozen=True)
class Sentinels:
    """Token ids that stand before prefix, suffix and middle."""

    prefix: int
    suffix: int
    middle: int


def sentinels(tokenizer: PreTrainedTokenizerBase) -> Sentinels:
    """The tokenizer's sentinels. Raises: ConfigError when it has none of the known three."""
    vocabulary = tokenizer.get_vocab()
    for names in KNOWN:
        if all(name in vocabulary for name in names):
            return Sentinels(*(vocabulary[name] for name in names))
    raise ConfigError(
        f"the tokenizer has none of the sentinels {', '.join(' '.join(names) for names in KNOWN)}; fill-in-the-middle "
        "needs three. Use a model that was trained with them, or have a tokenizer made here: --vocab-size 4096."
    )


def infilled(
    tokenizer: PreTrainedTokenizerBase, text: str, cuts: tuple[int, int], form: str, known: Sentinels
) -> tuple[list[int], int]:
    """A text as tokens with its middle, text[cuts[0]:cuts[1]], at the end, and how many of them the middle has.

    The start token is in front, the end token behind. form: "psm" or "spm".
    """
    low, high = sorted(cuts)
    prefix, middle, suffix = (
        encode(tokenizer, part) if part else [] for part in (text[:low], text[low:high], text[high:])
    )
    start, end = start_token(tokenizer), int(tokenizer.eos_token_id)
    if form == "psm":
        head = [start, known.prefix, *prefix, known.suffix, *suffix, known.middle]
    else:
        head = [start, known.prefix, known.suffix, *suffix, known.middle, *prefix]
    return [*head, *middle, end], len(middle)


@dataclass(frozen=True)
class Infilling:
    """Which chunks are infilled: a share of them, of those a share in the form SPM. context: of the model, tokens.

    A chunk that would be longer than the context stays as it is.
    """

    tokenizer: PreTrainedTokenizerBase
    known: Sentinels
    share: float
    spm: float
    context: int

    def __call__(self, chunk: Chunk, rng: np.random.Generator) -> Example:
        """The chunk's example, infilled or not; all tokens but the first are predicted."""
        if rng.random() >= self.share:
            return chunk.example
        form = "spm" if rng.random() < self.spm else "psm"
        tokens, _ = infilled(self.tokenizer, chunk.text, draw_cuts(chunk.text, rng), form, self.known)
        return (tokens, [False] + [True] * (len(tokens) - 1)) if len(tokens) <= self.context else chunk.example

    def middles(self, chunks: Sequence[Chunk], rng: np.random.Generator) -> list[Example]:
        """Every chunk in the form PSM, its middle and its end token alone to be predicted; too long ones left out."""
        found: list[Example] = []
        for chunk in chunks:
            tokens, size = infilled(self.tokenizer, chunk.text, draw_cuts(chunk.text, rng), "psm", self.known)
            if len(tokens) <= self.context:
                found.append((tokens, [False] * (len(tokens) - size - 1) + [True] * (size + 1)))
        return found


def draw_cuts(text: str, rng: np.random.Generator) -> tuple[int, int]:
    """Two places between characters, ends included, each uniform, the smaller first."""
    low, high = sorted(int(x) for x in rng.integers(0, len(text) + 1, size=2))
    return low, high
