"""Low-rank adapters by peft (an extra, imported only here): adding them, and the plain weights they amount to.

Not here: saving (language.py).
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from onepolicy.errors import ConfigError, ModelError, nearest


def add_lora(
    model: PreTrainedModel,
    rank: int,
    alpha: float | None = None,
    targets: str | tuple[str, ...] = "all-linear",
    *,
    seed: int = 0,
) -> PreTrainedModel:
    """The same model, changed in place, with trainable low-rank adapters; every other parameter is frozen.

    A target's weight W acts as W + (alpha / rank) B A with B = 0 at the start, so the function is unchanged at first.
    rank: of B A. alpha: None means 2 rank. targets: names of linear layers ("q_proj", ...) or "all-linear" for all but
    the vocabulary projection. seed: of A; the global random state is left as it was. The model keeps its class.

    Raises: ModelError when peft is not installed, when no target matches, a target's weight is shared with the
    embedding, or LoRA was already added; ConfigError for a rank below 1. Source: Hu et al. 2021, LoRA, section 4.1.
    """
    if rank < 1:
        raise ConfigError(f"LoRA rank is {rank}; it must be at least 1. Typical ranks are 8 to 64.")
    if has_lora(model):
        raise ModelError("the model already has LoRA adapters; add them once, or load the model again.")
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    known = sorted({name.rsplit(".", 1)[-1] for name, module in linear.items()})
    wanted = [targets] if isinstance(targets, str) and targets != "all-linear" else targets
    for target in [] if wanted == "all-linear" else wanted:
        if target not in known:
            raise ModelError(f"LoRA target {target!r} is no linear layer of this model. {nearest(target, known)}")
        if model.config.tie_word_embeddings and linear.get(target) is model.get_output_embeddings():
            raise ModelError(f"LoRA target {target!r} shares its weight with the embedding; leave it out of targets.")
    peft = _peft()
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=0.0,
        target_modules=wanted if isinstance(wanted, str) else list(wanted),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in linear.values()),
        task_type=peft.TaskType.CAUSAL_LM,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.add_adapter(config)
    return model.eval()


def has_lora(model: nn.Module) -> bool:
    """Whether the model carries LoRA adapters."""
    return any(".lora_A." in name for name, _ in model.named_parameters())


@torch.no_grad()
def merged_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """Parameter name -> tensor as in the model without LoRA, the adapters merged into the weights.

    The model being trained is not touched. Tensors without an adapter are the model's own, not copies.
    """
    if not has_lora(model):
        return {name: tensor.detach() for name, tensor in model.state_dict().items()}
    layer_type = _peft().tuners.lora.LoraLayer
    layers = {name: module for name, module in model.named_modules() if isinstance(module, layer_type)}
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        owner, _, leaf = name.rpartition(".base_layer.")
        if owner in layers and leaf == "weight":
            layer: Any = layers[owner]
            delta = sum(layer.get_delta_weight(adapter) for adapter in layer.active_adapters)
            state[f"{owner}.weight"] = (tensor + delta.to(tensor.dtype)).detach()
        elif ".lora_" not in name:
            state[name.replace(".base_layer.", ".")] = tensor.detach()
    return state


def plain_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A model of its own memory that computes the same, without LoRA layers, in eval mode; for a generator to own."""
    with torch.random.fork_rng(devices=[]):
        plain = AutoModelForCausalLM.from_config(deepcopy(model.config), dtype=model.dtype, attn_implementation="sdpa")
    plain.load_state_dict(merged_state(model))
    plain.generation_config = deepcopy(model.generation_config)
    return plain.to(model.device).eval()


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ModelError("LoRA needs the package peft, which is missing. Run: pip install 'onepolicy[lora]'") from error
    return peft
