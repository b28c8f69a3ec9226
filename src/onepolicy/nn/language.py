"""Language models: tiny ones made on the spot, any Hugging Face causal model loaded and saved as one, LoRA by peft.

Every model here is a plain `transformers` model; nothing is patched. Not here: how a model becomes a policy
(token_policy.py), how LoRA works (lora.py, whose names are offered here too), tokenizers (data/tokenizer.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PreTrainedModel,
    Qwen3Config,
)
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as hf_logging

from onepolicy.errors import ConfigError, ModelError, nearest
from onepolicy.nn.lora import add_lora, has_lora, merged_state, plain_copy

__all__ = [
    "ARCHITECTURES",
    "TINY",
    "ModelShape",
    "add_lora",
    "build_model",
    "has_lora",
    "load_model",
    "merged_state",
    "new_model",
    "plain_copy",
    "save_model",
    "unit_scale",
]


@dataclass(frozen=True)
class ModelShape:
    """The size of a decoder-only transformer.

    width: of the residual stream. depth: layers. heads: attention heads, each width / heads wide.
    mlp: hidden width of a layer's feed-forward part.
    """

    width: int
    depth: int
    heads: int
    mlp: int

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.heads, self.mlp) < 1:
            raise ConfigError(f"{self} has a size below 1; width, depth, heads and mlp must be positive.")
        if self.width % (2 * self.heads):
            raise ConfigError(
                f"width {self.width} is not a multiple of 2 x heads ({self.heads}); rotary positions need an even "
                f"head width. Use width={2 * self.heads * max(1, round(self.width / (2 * self.heads)))}."
            )


TINY: dict[str, ModelShape] = {
    "tiny-0.2m": ModelShape(width=64, depth=3, heads=4, mlp=256),
    "tiny-1m": ModelShape(width=128, depth=5, heads=4, mlp=344),
    "tiny-4m": ModelShape(width=256, depth=5, heads=8, mlp=688),
}
"""Presets by approximate number of parameters (without embeddings), for a laptop's CPU."""


def _llama_fields(shape: ModelShape) -> dict[str, Any]:
    return {
        "hidden_size": shape.width,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "head_dim": shape.width // shape.heads,
        "intermediate_size": shape.mlp,
        "attention_dropout": 0.0,
    }


def _gpt2_fields(shape: ModelShape) -> dict[str, Any]:
    """GPT-2's feed-forward part has two matrices, not three: 3/2 of the width keeps the parameter count."""
    return {
        "n_embd": shape.width,
        "n_layer": shape.depth,
        "n_head": shape.heads,
        "n_inner": shape.mlp * 3 // 2,
        "activation_function": "gelu_pytorch_tanh",
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }


ARCHITECTURES: dict[str, tuple[Any, Any]] = {
    "qwen3": (Qwen3Config, _llama_fields),
    "llama": (LlamaConfig, _llama_fields),
    "gpt2": (GPT2Config, _gpt2_fields),
}
"""Architecture -> (transformers' config class, its names for a ModelShape)."""


def build_model(
    preset: str | ModelShape,
    vocab_size: int,
    *,
    context: int,
    arch: str = "qwen3",
    seed: int = 0,
    pad_token_id: int,
    eos_token_id: int,
) -> PreTrainedModel:
    """A freshly initialised causal language model of a tiny preset or any ModelShape.

    context: longest sequence, prompt and completion together, in tokens. seed: of the weights; the global random
    state is left as it was. Embeddings are tied, dropout is 0, weights are float32, the model is in eval mode.

    Raises: ConfigError for an unknown preset or architecture, a context below 2, or a special token outside the
    vocabulary.
    """
    if isinstance(preset, str) and preset not in TINY:
        raise ConfigError(f"unknown model preset {preset!r}. {nearest(preset, TINY)} Or pass a ModelShape.")
    if arch not in ARCHITECTURES:
        raise ConfigError(f"unknown architecture {arch!r}. {nearest(arch, ARCHITECTURES)}")
    if context < 2:
        raise ConfigError(f"context is {context}; a prompt and a completion need at least 2 tokens.")
    for name, token in (("pad_token_id", pad_token_id), ("eos_token_id", eos_token_id)):
        if not 0 <= token < vocab_size:
            raise ConfigError(
                f"{name} is {token}, outside the vocabulary of {vocab_size}; use the tokenizer's own ids."
            )
    config_class, fields = ARCHITECTURES[arch]
    config = config_class(
        vocab_size=vocab_size,
        max_position_embeddings=context,
        pad_token_id=pad_token_id,
        bos_token_id=None,
        eos_token_id=eos_token_id,
        tie_word_embeddings=True,
        **fields(TINY[preset] if isinstance(preset, str) else preset),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    return model.eval()


@torch.no_grad()
def unit_scale(model: PreTrainedModel) -> PreTrainedModel:
    """A freshly drawn model, its backbone scaled so that activations keep a size near 1; the model itself.

    Every matrix gets the standard deviation 1 / sqrt(what it takes in), embeddings 1. Configurations draw with 0.02,
    which is that for a width of 2,500; at a width of 64, what depends on two tokens at once is too small at first to be
    found from one score a sequence (docs/log.md). For models with a head of their own: a tied one grows as well.
    Source of the scale: LeCun et al. 1998, Efficient BackProp, section 4.6.
    """
    for layer in model.base_model.modules():
        if isinstance(layer, nn.Embedding):
            layer.weight.div_(layer.weight.std())
        elif isinstance(layer, nn.Linear | Conv1D):
            inputs = layer.weight.shape[0 if isinstance(layer, Conv1D) else 1]
            layer.weight.div_(layer.weight.std() * inputs**0.5)
    return model


def new_model(
    path_or_id: str | Path, vocab_size: int, *, seed: int = 0, pad_token_id: int, eos_token_id: int
) -> PreTrainedModel:
    """A causal language model of the shape that a directory's or hub id's config.json says, its weights new.

    vocab_size: of the tokenizer; the shape's own is kept where it is larger by less than a hundredth, as padding.
    seed: of the weights; the global random state is left as it was. Float32, in eval mode.
    Raises: ModelError when there is no configuration of a causal language model.
    """
    try:
        config = AutoConfig.from_pretrained(
            str(path_or_id), trust_remote_code=False, local_files_only=Path(path_or_id).is_dir()
        )
        if not vocab_size <= config.vocab_size <= 1.01 * vocab_size:
            config.vocab_size = vocab_size
        config.pad_token_id, config.eos_token_id = pad_token_id, eos_token_id
        if (config.bos_token_id or 0) >= config.vocab_size:
            config.bos_token_id = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ModelError(
            f"no causal language model can be made after {str(path_or_id)!r}: {reason} Expected a directory with a "
            "config.json of transformers, or a hub id."
        ) from error
    return model.eval()


def named_place(path_or_id: str | Path) -> tuple[str, bool]:
    """(a model's directory or hub id as text, whether it is a directory).

    Raises: ModelError for what can only be a path, and is none.
    """
    name, local = str(path_or_id), Path(path_or_id).is_dir()
    if not local and (name.startswith((".", "~", "/")) or name.count("/") > 1):
        raise ModelError(f"the model directory {name!r} does not exist; check the path, or give a hub id owner/name.")
    return name, local


def load_model(path_or_id: str | Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The causal language model in a local directory or on the Hugging Face hub, in eval mode.

    dtype: of the weights in memory. No code from the model's repository is run, and a directory never reaches for the
    network. Weights that the files lack are an error, not freshly drawn numbers.

    Raises: ModelError when it is neither a model directory nor a hub id that can be reached, or is incomplete.
    """
    name, local = named_place(path_or_id)
    if local and not any((Path(path_or_id) / file).is_file() for file in ("config.json", "adapter_config.json")):
        raise ModelError(
            f"the directory {name!r} has no config.json, so it is not a Hugging Face model; expected config.json and "
            "model.safetensors. Point to a directory written by save_pretrained."
        )
    try:
        with bars(visible=not local):
            model, info = AutoModelForCausalLM.from_pretrained(
                name, dtype=dtype, trust_remote_code=False, local_files_only=local, output_loading_info=True
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        fix = (
            "Save the model there again with save_pretrained."
            if local
            else "Give a local directory, check the spelling of owner/name, or download it on a machine with network."
        )
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ModelError(f"no causal language model could be loaded from {name!r}: {reason} {fix}") from error
    missing = sorted(key for key in info["missing_keys"] if ".lora_" not in key)
    if missing:
        raise ModelError(
            f"the weights in {name!r} lack {len(missing)} parameters, {missing[0]} the first; they would be random. "
            "The files are incomplete or belong to another architecture: save the model there again."
        )
    return model.eval()


def save_model(model: PreTrainedModel, tokenizer: Any, directory: str | Path) -> Path:
    """A Hugging Face directory (config.json, model.safetensors, tokenizer files) that opens without this library.

    LoRA is merged into the weights; the adapter alone is kept beside them in `adapter/`. The model is not changed.
    tokenizer: anything with save_pretrained, or None to leave it out.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with bars(visible=False):
        if has_lora(model):
            with torch.device("meta"):
                empty = AutoModelForCausalLM.from_config(deepcopy(model.config))
            empty.generation_config = model.generation_config
            empty.save_pretrained(directory, state_dict=merged_state(model))
            model.save_pretrained(directory / "adapter")
        else:
            model.save_pretrained(directory)
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)
    return directory


@contextmanager
def bars(*, visible: bool) -> Iterator[None]:
    """transformers' progress bars hidden unless `visible`: short work on local files needs none."""
    shown = hf_logging.is_progress_bar_enabled()
    if not visible:
        hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()
