"""A language model with one number at every token: a reward model, and the critic that starts from one.

The network is transformers' own sequence-classification form (backbone, one linear `score` row), so what is saved opens
there, and theirs opens here. Padding never reaches it: rows are compacted first, as in token_policy.py, so the score
does not depend on where a row is padded. Not here: losses (core/preference.py, core/value.py), training (algos/).
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import embedding
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from onepolicy.batch import TokenInputs
from onepolicy.errors import DataError, ModelError
from onepolicy.nn.language import bars, named_place
from onepolicy.nn.lora import has_lora
from onepolicy.nn.token_policy import compact, harmless_id


class Scorer(nn.Module):
    """A reward model: what a text is worth, and at every token what it will be worth.

    model: a transformers sequence-classification model with one label (`new_scorer`, `load_scorer`). The score of row b
    is gain * head(h at its last real token) - shift; `gain`, `shift` are buffers that put rewards on a known scale
    (Ziegler et al. 2019; InstructGPT: demonstrations score 0 on average). known: the lowest and the highest
    score of texts like those it was trained on, None where nobody noted them. Dropout is always off.
    Source: Stiennon et al. 2020, section 3.4; Ouyang et al. 2022, section 3.5.
    """

    gain: Tensor
    shift: Tensor

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        if int(model.config.num_labels) != 1:
            raise ModelError(
                f"the model has {model.config.num_labels} labels; a reward model has 1. Load it with num_labels=1, or "
                "name a model that was trained to give one score."
            )
        self.model = model
        self.register_buffer("gain", torch.ones((), device=model.device))
        self.register_buffer("shift", torch.zeros((), device=model.device))
        self.known: tuple[float, float] | None = None
        self.train(False)

    @property
    def context(self) -> int:
        """The longest sequence the model takes, in tokens."""
        return int(self.model.config.max_position_embeddings)

    def train(self, mode: bool = True) -> Scorer:
        """The scorer itself, its model in eval mode."""
        super().train(mode)
        self.model.eval()
        return self

    def values(self, inputs: TokenInputs) -> Tensor:
        """The number after every real token, [B, T] float32; 0 at padding.

        Raises: DataError for a row beyond the context.
        """
        states, rank = self._states(inputs)
        row = torch.arange(len(rank), device=rank.device)[:, None]
        place = (row * states.shape[1] + rank.clamp(min=0)).masked_fill(~inputs.attention, 0)
        found = self._head(states).flatten()[place]
        return found.masked_fill(~inputs.attention, 0.0)

    def before(self, inputs: TokenInputs) -> Tensor:
        """A critic's V(s_t), [B, T] float32: the number after the real token before each action; 0 elsewhere.

        Raises: DataError for a row beyond the context, or one whose first real token is an action.
        """
        states, rank = self._states(inputs)
        row, column = inputs.is_action.nonzero(as_tuple=True)
        at = rank[row, column] - 1
        if bool((at < 0).any()):
            raise DataError("a row's first token is marked as an action; no state is before it. Give it a prompt.")
        found = self._head(embedding(row * states.shape[1] + at, states.flatten(0, 1)))
        place = row * inputs.tokens.shape[1] + column
        return found.new_zeros(inputs.tokens.numel()).index_copy(0, place, found).view(inputs.tokens.shape)

    def forward(self, inputs: TokenInputs) -> Tensor:
        """The score of every row [B] float32, read at its last real token wherever the row is padded.

        Raises: DataError for a row without a real token, or beyond the context.
        """
        if bool((empty := ~inputs.attention.any(-1)).any()):
            raise DataError(f"row {int(empty.nonzero()[0])} has no token; an empty text has no score. Leave it out.")
        states, rank = self._states(inputs)
        row = torch.arange(len(rank), device=rank.device)
        return self._head(states[row, rank[:, -1]])

    @torch.no_grad()
    def rescale(self, *, gain: float, shift: float) -> None:
        """Scores from now on are gain * s - shift, s what they were."""
        self.shift.mul_(gain).add_(shift)
        self.gain.mul_(gain)
        if self.known is not None:
            low, high = sorted(gain * score - shift for score in self.known)
            self.known = low, high

    def _head(self, states: Tensor) -> Tensor:
        return self.gain * head_of(self.model)(states).squeeze(-1).float() - self.shift

    def _states(self, inputs: TokenInputs) -> tuple[Tensor, Tensor]:
        tokens, rank = compact(inputs.tokens, inputs.attention, harmless_id(self.model))
        if tokens.shape[1] > self.context:
            raise DataError(
                f"a row has {tokens.shape[1]} tokens but the reward model's context is {self.context}; shorten it, or "
                "use a model with a longer context."
            )
        return self.model.base_model(input_ids=tokens, use_cache=False).last_hidden_state, rank


def head_of(model: PreTrainedModel) -> nn.Module:
    """The linear row on top of a sequence-classification model. Raises: ModelError when it has another head."""
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Linear) or head.out_features != 1:
        raise ModelError(f"{type(model).__name__} has no linear `score` head with one row; use a decoder-only model.")
    return head


def new_scorer(model: PreTrainedModel, *, seed: int) -> Scorer:
    """A reward model on a copy of a causal language model's backbone, its head drawn from N(0, 1/(D+1)).

    Source of the head's scale: Stiennon et al. 2020 (arXiv 2009.01325), appendix C.
    Raises: ModelError for one with LoRA, or without a sequence-classification form.
    """
    if has_lora(model):
        raise ModelError("the model carries LoRA adapters; save it merged first and start the reward model from that.")
    config = deepcopy(model.config)
    config.num_labels = 1
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            scorer = AutoModelForSequenceClassification.from_config(
                config, attn_implementation="sdpa", dtype=model.dtype
            )
    except ValueError as error:
        raise ModelError(f"{type(model).__name__} has no sequence-classification form in transformers.") from error
    scorer.base_model.load_state_dict(model.base_model.state_dict())
    weight: Any = head_of(scorer).weight
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weight.normal_(std=(weight.shape[1] + 1) ** -0.5)
    return Scorer(scorer.to(model.device).eval())


def load_scorer(path_or_id: str | Path, dtype: torch.dtype = torch.float32) -> Scorer:
    """The reward model in a local directory or on the Hugging Face hub, in sequence-classification form.

    Its scale is read from `config.reward_scale`, (gain, shift), where `save_scorer` puts it; 1 and 0 without.
    Raises: ModelError when there is none, it has more than one label, or the files lack weights (its head, for one).
    """
    name, local = named_place(path_or_id)
    try:
        with bars(visible=not local):
            model, info = AutoModelForSequenceClassification.from_pretrained(
                name, dtype=dtype, trust_remote_code=False, local_files_only=local, output_loading_info=True
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ModelError(f"no reward model could be loaded from {name!r}: {reason}") from error
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"the weights in {name!r} lack {', '.join(missing[:3])}; they would be random. It is a language model, not "
            "a reward model, or the files are incomplete: train one with `onepolicy train reward-model`."
        )
    scorer = Scorer(model.eval())
    gain, shift = getattr(model.config, "reward_scale", (1.0, 0.0))
    scorer.rescale(gain=float(gain), shift=float(shift))
    known = getattr(model.config, "reward_range", None)
    scorer.known = None if known is None else (float(known[0]), float(known[1]))
    return scorer


def save_scorer(scorer: Scorer, tokenizer: Any, directory: str | Path) -> Path:
    """A Hugging Face directory that `AutoModelForSequenceClassification` opens; the scale goes into its config.

    transformers itself gives the raw head; `load_scorer` applies the scale again.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    scorer.model.config.reward_scale = [float(scorer.gain), float(scorer.shift)]
    scorer.model.config.reward_range = None if scorer.known is None else list(scorer.known)
    with bars(visible=False):
        scorer.model.save_pretrained(directory)
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)
    return directory
