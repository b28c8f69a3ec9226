"""A reward model with its tokenizer: opened from wherever it is, asked what answers are worth, kept in checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from onepolicy.algos.reward_model import scores_of
from onepolicy.data.demonstrations import Example, example
from onepolicy.data.tokenizer import char_tokenizer, check_vocabulary, load_tokenizer
from onepolicy.errors import ConfigError, ModelError
from onepolicy.nn.language import TINY, build_model, unit_scale
from onepolicy.nn.scorer import Scorer, load_scorer, new_scorer, save_scorer
from onepolicy.recipes.language import check_name, is_run, language_of
from onepolicy.recipes.options import Tiny
from onepolicy.run import manifest
from onepolicy.run.run import Run
from onepolicy.types import Message

PART = "reward_model"
"""Where a checkpoint has it."""


@dataclass(frozen=True)
class RewardModel:
    """A reward model ready to be asked.

    budget: padded tokens scored at once, None for all.
    """

    scorer: Scorer
    tokenizer: Any
    budget: int | None = 32_768

    @property
    def pad_id(self) -> int:
        """Token id that fills a batch; never read."""
        return int(self.tokenizer.pad_token_id)

    def score(self, prompt: str | Sequence[Message | Mapping[str, Any]], answers: Sequence[str]) -> list[float]:
        """What each answer to a prompt is worth, reward units.

        Raises: DataError for one longer than the model's context, or with characters its tokenizer does not know.
        """
        turns: list[Any] = [Message("user", prompt)] if isinstance(prompt, str) else list(prompt)
        talks = [[*turns, Message("assistant", answer)] for answer in answers]
        return self.score_tokens([example(self.tokenizer, talk, self.scorer.context)[0] for talk in talks])

    def score_tokens(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """What each sequence of this tokenizer's ids, prompt and answer with its end of turn, is worth."""
        examples: list[Example] = [(list(row), [False] * len(row)) for row in rows]
        return scores_of(self.scorer, examples, pad_id=self.pad_id, budget=self.budget)

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds of it: a Hugging Face directory."""
        return {PART: ScorerDirectory(self)}


@dataclass(frozen=True)
class ScorerDirectory:
    """The reward model as a directory that transformers opens as it is."""

    model: RewardModel

    def save_to(self, directory: Path) -> None:
        """Write model, scale and tokenizer."""
        save_scorer(self.model.scorer, self.model.tokenizer, directory)

    def load_from(self, directory: Path) -> None:
        """Read weights and scale back, to the bit."""
        self.model.scorer.load_state_dict(load_scorer(directory).state_dict())


def open_reward_model(name: str, *, seed: int = 0, tiny: Tiny | None = None, characters: str = "") -> RewardModel:
    """The reward model in a run, a Hugging Face directory or on the hub; a language model gets a new head.

    A tiny preset's name makes one on the spot over `characters`, its weights at unit scale. seed: of a new head.
    Raises: ConfigError for a misspelt preset; ModelError for anything that cannot be opened as one.
    """
    check_name(name)
    if name in TINY:
        if tiny is None or not characters:
            raise ConfigError(f"{name} is a preset that training makes anew; name the run of a reward model.")
        tokenizer: Any = char_tokenizer(characters)
        network = build_model(
            name,
            len(tokenizer),
            context=tiny.context,
            arch=tiny.arch,
            seed=seed,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        return RewardModel(new_scorer(unit_scale(network), seed=seed), tokenizer)
    place = newest_part(Path(name)) if is_run(Path(name)) else name
    if _is_scorer(place):
        found = RewardModel(load_scorer(place), load_tokenizer(str(place)))
    else:
        language = language_of(name)
        found = RewardModel(new_scorer(language.model, seed=seed), language.tokenizer)
    check_vocabulary(found.tokenizer, found.scorer.model.get_input_embeddings().weight.shape[0])
    return found


def trained_reward_model(name: str) -> RewardModel:
    """The reward model that somebody has trained, in a run, a directory or on the hub.

    Raises: ModelError for a language model, which would score with a head drawn at random.
    """
    check_name(name)
    place = newest_part(Path(name)) if is_run(Path(name)) else name
    if not _is_scorer(place):
        raise ModelError(
            f"{name} is no reward model but a language model; train one with `onepolicy train reward-model --model "
            f"{name} --data rankings.jsonl`, and name its run."
        )
    return open_reward_model(name)


def newest_part(place: Path) -> Path:
    """The reward model in a run's newest checkpoint, or where it has none, the run itself."""
    run = Run.open(place)
    _, checkpoint, _ = manifest.newest_readable(run.checkpoints)
    return checkpoint / PART if (checkpoint / PART).is_dir() else place


def _is_scorer(place: str | Path) -> bool:
    """Whether a directory or hub id has a sequence-classification model."""
    if Path(place).is_dir() and not (Path(place) / "config.json").is_file():
        return False
    try:
        config = AutoConfig.from_pretrained(str(place), trust_remote_code=False, local_files_only=Path(place).is_dir())
    except (OSError, ValueError, KeyError):
        return False
    return any("ForSequenceClassification" in name for name in config.architectures or ())


def same_tokenizer(one: Any, other: Any) -> bool:
    """Whether two tokenizers give every text the same ids: vocabulary, special tokens, template and rules."""
    if len(one) != len(other) or one.get_vocab() != other.get_vocab():
        return False
    if one.special_tokens_map != other.special_tokens_map or one.chat_template != other.chat_template:
        return False
    rules: list[Any] = [getattr(each, "backend_tokenizer", None) for each in (one, other)]
    return all(rules) and rules[0].to_str() == rules[1].to_str()


def same_device(model: RewardModel, device: str) -> RewardModel:
    """The reward model moved to a device."""
    model.scorer.to(torch.device(device))
    return model
