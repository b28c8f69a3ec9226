"""Pretraining text beside reinforcement learning: its rows, and what of it goes into each optimizer step."""

from __future__ import annotations

from dataclasses import dataclass

from onepolicy.algos import sft
from onepolicy.data.demonstrations import Example
from onepolicy.data.prompts import Shuffled
from onepolicy.data.text import documents, token_rows
from onepolicy.errors import ConfigError
from onepolicy.learning.learner import Mixed
from onepolicy.recipes.language import Language
from onepolicy.recipes.loop import require_count, require_positive
from onepolicy.run.seeding import derive_rng


@dataclass(frozen=True)
class Ptx:
    """Pretraining text in every optimizer step (PPO-ptx)."""

    data: str = ""
    """Text file, or JSONL with `text`; empty mixes nothing in, but held-out text is watched where given."""
    coef: float = 27.8
    """gamma: what a nat per token of its loss weighs beside PPO's loss."""
    batch_size: int = 32
    """Rows of text an optimizer step."""
    eval_data: str = ""
    """Held-out text; empty keeps a tenth of `data`."""

    def __post_init__(self) -> None:
        require_positive(self, "batch_size")
        require_count(self, "coef")


@dataclass(frozen=True)
class Text:
    """Pretraining text as token rows: to mix in, and held out."""

    train: list[Example]
    held_out: list[Example]


class Mixer:
    """What is mixed into each optimizer step: the next rows of pretraining text, or nothing.

    stream: the resumable order of the text, None where nothing is mixed in.
    """

    def __init__(self, ptx: Ptx, language: Language, text: Text, seed: int) -> None:
        self.coef, self.policy, self.pad_id = ptx.coef, language.policy, language.pad_id
        mixed = ptx.data and ptx.coef
        self.stream = Shuffled(text.train, ptx.batch_size, seed, "pretraining text") if mixed else None

    def next(self) -> list[Mixed]:
        """The next rows, for the actor alone."""
        if self.stream is None:
            return []
        batch = sft.credit(self.stream.next(), self.pad_id)
        return [Mixed("ptx", batch, sft.LOSS, self.coef, policy=self.policy)]


def text_of(ptx: Ptx, language: Language, seed: int) -> Text:
    """The pretraining text as rows; a tenth of it held out where no file is.

    Raises: DataError for a file that is missing, empty, or has characters the tokenizer does not know.
    """
    rows: dict[str, list[Example]] = {}
    for name, path in (("train", ptx.data), ("held_out", ptx.eval_data)):
        rows[name] = token_rows(language.tokenizer, documents(path), language.context) if path else []
    if rows["train"] and not rows["held_out"]:
        order = derive_rng(seed, "held-out-text").permutation(len(rows["train"])).tolist()
        cut = max(1, len(order) // 10)
        rows = {
            name: [rows["train"][i] for i in part] for name, part in (("held_out", order[:cut]), ("train", order[cut:]))
        }
    if ptx.data and not rows["train"]:
        raise ConfigError(f"{ptx.data} has a single row of text; give ptx.eval_data too, or more text.")
    return Text(rows["train"], rows["held_out"])
