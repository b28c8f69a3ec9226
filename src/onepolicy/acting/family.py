"""What the lean forward steps need of a model: its plan in numbers and its weights, fused and laid out for `x @ W`.

In: Qwen2, Qwen3, Llama and GPT-2 causal LMs as transformers builds them. Whatever else a model has (adapters, hooks,
sliding windows, rotary tables that change with the length, other activations) is a reason to decline, given in words.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    GPT2LMHeadModel,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
)

ROTARY = (LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
_OWN_CODE = ("torch.nn.modules.", "transformers.models.", "transformers.activations", "transformers.pytorch_utils")


@dataclass(frozen=True)
class Blueprint:
    """A decoder-only transformer in numbers.

    layers, width (of the residual stream), heads (of queries), kv_heads, head_dim, hidden (of the feed-forward part),
    vocab, context: sizes. eps: of the norms. rms: norms without mean and bias. gated: silu(gate) * up instead of
    gelu(up). qk_norm: queries and keys are normalised per head. rotary: rotated by position instead of embedded.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocab: int
    context: int
    eps: float
    rms: bool
    gated: bool
    qk_norm: bool
    rotary: bool


@dataclass(frozen=True)
class Fused:
    """A model's weights, layers stacked on the first axis, matrices [in, out], absent biases zero-sized.

    embed [V, W]. positions [C, W] or [0, W]. cos, sin [C, D / 2] or [0, ...]. norm1, norm2 [L, W] and their biases.
    qkv [L, W, (heads + 2 kv_heads) D]. q_norm, k_norm [L, D] or [L, 0]. o [L, heads D, W]. up [L, W, 2 hidden] (gate,
    then up) or [L, W, hidden]. down [L, hidden, W]. norm [W]. head [W, V].
    """

    embed: Tensor
    positions: Tensor
    cos: Tensor
    sin: Tensor
    norm1: Tensor
    norm1_bias: Tensor
    qkv: Tensor
    qkv_bias: Tensor
    q_norm: Tensor
    k_norm: Tensor
    o: Tensor
    o_bias: Tensor
    norm2: Tensor
    norm2_bias: Tensor
    up: Tensor
    up_bias: Tensor
    down: Tensor
    down_bias: Tensor
    norm: Tensor
    norm_bias: Tensor
    head: Tensor

    def copy_(self, other: Fused) -> None:
        """Takes over another's values in place."""
        for field in fields(self):
            getattr(self, field.name).copy_(getattr(other, field.name))


def decline(model: PreTrainedModel) -> str | None:
    """Why a model cannot take a lean step, in words; None when it can."""
    config = model.config
    if type(model) not in (*ROTARY, GPT2LMHeadModel):
        return f"{type(model).__name__} is not one of the families with a lean step"
    for name, module in model.named_modules():
        if not f"{type(module).__module__}.".startswith(_OWN_CODE):
            return f"{name} is a {type(module).__module__}.{type(module).__name__}"
        if module._forward_hooks or module._forward_pre_hooks:
            return f"{name} has forward hooks"
    if type(model) is GPT2LMHeadModel:
        if config.activation_function not in ("gelu_new", "gelu_pytorch_tanh"):
            return f"its activation is {config.activation_function}"
        if config.scale_attn_by_inverse_layer_idx or not config.scale_attn_weights or config.add_cross_attention:
            return "its attention is scaled by layer, unscaled, or crosses to an encoder"
        return None
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}"
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        return "some of its layers attend to a sliding window"
    kind = config.rope_parameters["rope_type"]
    if kind not in ("default", "linear", "llama3", "yarn"):
        return f"its rotary table ({kind}) changes with the length"
    return None


def blueprint(model: PreTrainedModel) -> Blueprint:
    """The plan of a model that `decline` does not decline."""
    config = model.config
    common: dict[str, Any] = {
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "heads": config.num_attention_heads,
        "vocab": model.get_input_embeddings().weight.shape[0],
        "context": config.max_position_embeddings,
    }
    if type(model) is GPT2LMHeadModel:
        hidden = config.n_inner if config.n_inner is not None else 4 * config.n_embd
        return Blueprint(
            **common,
            kv_heads=config.n_head,
            head_dim=config.n_embd // config.n_head,
            hidden=hidden,
            eps=config.layer_norm_epsilon,
            rms=False,
            gated=False,
            qk_norm=False,
            rotary=False,
        )
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Blueprint(
        **common,
        kv_heads=config.num_key_value_heads,
        head_dim=head_dim,
        hidden=config.intermediate_size,
        eps=config.rms_norm_eps,
        rms=True,
        gated=True,
        qk_norm=type(model) is Qwen3ForCausalLM,
        rotary=True,
    )


def fuse(model: PreTrainedModel) -> Fused:
    """A copy of the weights of a model that `decline` does not decline, in its dtype and on its device."""
    with torch.no_grad():
        return _fuse_gpt2(model) if type(model) is GPT2LMHeadModel else _fuse_rotary(model)


def _stack(tensors: list[Tensor | None], like: Tensor) -> Tensor:
    """The tensors on a new first axis; where they are None, an empty [L, 0]."""
    if tensors[0] is None:
        return like.new_empty((len(tensors), 0))
    return torch.stack([tensor for tensor in tensors if tensor is not None])


def _joined(linears: list[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """Several linear layers of one input as one: matrix [in, out], bias [out] or None."""
    weight = torch.cat([linear.weight for linear in linears]).T
    bias = None if linears[0].bias is None else torch.cat([linear.bias for linear in linears])
    return weight, bias


def _fuse_rotary(model: Any) -> Fused:
    layers, body = list(model.model.layers), model.model
    attention = [layer.self_attn for layer in layers]
    qkv = [_joined([a.q_proj, a.k_proj, a.v_proj]) for a in attention]
    up = [_joined([layer.mlp.gate_proj, layer.mlp.up_proj]) for layer in layers]
    o, down = [_joined([a.o_proj]) for a in attention], [_joined([layer.mlp.down_proj]) for layer in layers]
    embed = body.embed_tokens.weight
    context = model.config.max_position_embeddings
    cos, sin = body.rotary_emb(embed, torch.arange(context, device=embed.device)[None])
    half = cos.shape[-1] // 2
    none: list[Tensor | None] = [None] * len(layers)
    normed = type(model) is Qwen3ForCausalLM
    return Fused(
        embed=embed.clone(),
        positions=embed.new_empty((0, embed.shape[1])),
        cos=cos[0, :, :half].contiguous(),
        sin=sin[0, :, :half].contiguous(),
        norm1=_stack([layer.input_layernorm.weight for layer in layers], embed),
        norm1_bias=_stack(none, embed),
        qkv=_stack([weight for weight, _ in qkv], embed),
        qkv_bias=_stack([bias for _, bias in qkv], embed),
        q_norm=_stack([a.q_norm.weight for a in attention] if normed else none, embed),
        k_norm=_stack([a.k_norm.weight for a in attention] if normed else none, embed),
        o=_stack([weight for weight, _ in o], embed),
        o_bias=_stack([bias for _, bias in o], embed),
        norm2=_stack([layer.post_attention_layernorm.weight for layer in layers], embed),
        norm2_bias=_stack(none, embed),
        up=_stack([weight for weight, _ in up], embed),
        up_bias=_stack([bias for _, bias in up], embed),
        down=_stack([weight for weight, _ in down], embed),
        down_bias=_stack([bias for _, bias in down], embed),
        norm=body.norm.weight.clone(),
        norm_bias=embed.new_empty(0),
        head=model.lm_head.weight.T.contiguous(),
    )


def _fuse_gpt2(model: Any) -> Fused:
    body, layers = model.transformer, list(model.transformer.h)
    embed = body.wte.weight
    none: list[Tensor | None] = [None] * len(layers)
    empty = embed.new_empty((0, 0))
    return Fused(
        embed=embed.clone(),
        positions=body.wpe.weight.clone(),
        cos=empty,
        sin=empty,
        norm1=_stack([layer.ln_1.weight for layer in layers], embed),
        norm1_bias=_stack([layer.ln_1.bias for layer in layers], embed),
        qkv=_stack([layer.attn.c_attn.weight for layer in layers], embed),
        qkv_bias=_stack([layer.attn.c_attn.bias for layer in layers], embed),
        q_norm=_stack(none, embed),
        k_norm=_stack(none, embed),
        o=_stack([layer.attn.c_proj.weight for layer in layers], embed),
        o_bias=_stack([layer.attn.c_proj.bias for layer in layers], embed),
        norm2=_stack([layer.ln_2.weight for layer in layers], embed),
        norm2_bias=_stack([layer.ln_2.bias for layer in layers], embed),
        up=_stack([layer.mlp.c_fc.weight for layer in layers], embed),
        up_bias=_stack([layer.mlp.c_fc.bias for layer in layers], embed),
        down=_stack([layer.mlp.c_proj.weight for layer in layers], embed),
        down_bias=_stack([layer.mlp.c_proj.bias for layer in layers], embed),
        norm=body.ln_f.weight.clone(),
        norm_bias=body.ln_f.bias.clone(),
        head=model.lm_head.weight.T.contiguous(),
    )
