"""Language models: tiny ones made on the spot, any Hugging Face causal model loaded and saved as one, LoRA by peft.

Every model here is a plain `transformers` model; nothing is patched. Not here: how a model becomes a policy
(token_policy.py), tokenizers (data/tokenizer.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PreTrainedModel,
    Qwen3Config,
)

from onepolicy.errors import ConfigError, ModelError, nearest


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
    "tiny-0.2m": ModelShape(width=64, depth=4, heads=4, mlp=176),
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


def load_model(path_or_id: str | Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The causal language model in a local directory or on the Hugging Face hub, in eval mode.

    No code from the model's repository is run, and a directory never reaches for the network.
    Raises: ModelError when it is neither a model directory nor a hub id that can be reached.
    """
    path = Path(path_or_id)
    local = path.is_dir()
    if local and not (path / "config.json").is_file() and not (path / "adapter_config.json").is_file():
        raise ModelError(
            f"the directory {str(path)!r} has no config.json, so it is not a Hugging Face model; expected config.json "
            "and model.safetensors. Point to a directory written by save_pretrained."
        )
    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(path_or_id), dtype=dtype, trust_remote_code=False, local_files_only=local
        )
    except (OSError, ValueError, KeyError) as error:
        fix = (
            "Save the model there again with save_pretrained."
            if local
            else "Give a local directory, check the spelling of owner/name, or download it on a machine with network."
        )
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ModelError(
            f"no causal language model could be loaded from {str(path_or_id)!r}: {reason} {fix}"
        ) from error
    return model.eval()


def save_model(model: PreTrainedModel, tokenizer: Any, directory: str | Path) -> Path:
    """A Hugging Face directory (config.json, model.safetensors, tokenizer files) that opens without this library.

    LoRA is merged into the weights; the adapter alone is kept beside them in `adapter/`. The model is not changed.
    tokenizer: anything with save_pretrained, or None to leave it out.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    if has_lora(model):
        plain = _empty_copy(model)
        plain.save_pretrained(directory, state_dict=merged_state(model))
        _save_adapter(model, directory / "adapter")
    else:
        model.save_pretrained(directory)
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)
    return directory


def add_lora(
    model: PreTrainedModel, rank: int, alpha: float, targets: str | tuple[str, ...] = "all-linear"
) -> PreTrainedModel:
    """The same model with trainable low-rank adapters; every other parameter is frozen.

    A target's weight W acts as W + (alpha / rank) B A with B = 0 at the start, so the function is unchanged at first.
    rank: of B A. targets: names of linear layers ("q_proj", ...) or "all-linear" for all but the vocabulary projection.

    Raises: ModelError when peft is not installed, when no target matches, or when LoRA was already added; ConfigError
    for a rank below 1. Source: Hu et al. 2021, LoRA, section 4.1.
    """
    if rank < 1:
        raise ConfigError(f"LoRA rank is {rank}; it must be at least 1. Typical ranks are 8 to 64.")
    if has_lora(model):
        raise ModelError("the model already has LoRA adapters; add them once, or load the model again.")
    peft = _peft()
    wanted = targets if isinstance(targets, str) else list(targets)
    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=wanted, task_type=peft.TaskType.CAUSAL_LM
    )
    try:
        model.add_adapter(config)
    except ValueError as error:
        linear = sorted({name.rsplit(".", 1)[-1] for name, m in model.named_modules() if isinstance(m, nn.Linear)})
        raise ModelError(
            f"LoRA targets {targets!r} do not fit this model: {error} Its linear layers are {', '.join(linear)}."
        ) from error
    return model.eval()


def has_lora(model: nn.Module) -> bool:
    """Whether the model carries LoRA adapters."""
    return any(".lora_A." in name for name, _ in model.named_parameters())


@torch.no_grad()
def merged_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """Parameter name -> tensor as in the model without LoRA, the adapters merged into the weights.

    The model being trained is not touched. Without LoRA, the tensors are the model's own (not copies).
    """
    if not has_lora(model):
        return {name: tensor.detach() for name, tensor in model.state_dict().items()}
    layer_type = _peft().tuners.lora.LoraLayer
    layers = {name: module for name, module in model.named_modules() if isinstance(module, layer_type)}
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if ".lora_" in name:
            continue
        owner, _, leaf = name.rpartition(".base_layer.")
        if owner in layers and leaf == "weight":
            layer: Any = layers[owner]
            delta = sum(layer.get_delta_weight(adapter) for adapter in layer.active_adapters)
            state[f"{owner}.weight"] = (tensor + delta.to(tensor.dtype)).detach()
        else:
            state[name.replace(".base_layer.", ".")] = tensor.detach()
    return state


def _empty_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A model of the same configuration without LoRA and without memory for its weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(model.config)


def _save_adapter(model: PreTrainedModel, directory: Path) -> None:
    """The LoRA parameters and their configuration, as peft saves them."""
    model.save_pretrained(directory)


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ModelError("LoRA needs the package peft, which is missing. Run: pip install 'onepolicy[lora]'") from error
    return peft
