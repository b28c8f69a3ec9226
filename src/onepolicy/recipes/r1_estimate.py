"""What R1's stages would need, before anything is trained: memory by part, operations, time. Estimates, by formulas.

Memory of training, bytes: 4 N each for weights and gradients and 8 N for Adam's moments (float32 masters), 4 N for a
frozen reference; activations 34 L D bytes a token of a micro-batch (Korthikanti et al. 2022, arXiv 2205.05198, equation
2 without attention's quadratic part) plus three float32 logits a token; KV cache 2 L H_kv d_head numbers a position.
Operations: 2 N a token in a forward pass, 6 N in a training step (Kaplan et al. 2020, arXiv 2001.08361, section 2.1),
attention left out. Completions are taken to be as long as they may be, so both are upper ends. No LoRA is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig

from onepolicy.errors import ConfigError
from onepolicy.nn.language import TINY
from onepolicy.recipes.r1_config import Config, Reinforced, Supervised

HEAD_LOGITS = 1 << 26
"""Logits held at once (nn.token_policy, head_budget)."""


@dataclass(frozen=True)
class Shape:
    """The size of a decoder-only transformer. tied: whether the vocabulary's projection is the embedding."""

    width: int
    depth: int
    heads: int
    kv_heads: int
    head: int
    mlp: int
    vocabulary: int
    tied: bool = False
    bias: bool = False

    @property
    def parameters(self) -> int:
        """Numbers that train: embeddings, attention, gated feed-forward, norms."""
        query, other = self.heads * self.head, self.kv_heads * self.head
        attention = 2 * self.width * query + 2 * self.width * other + (query + 2 * other if self.bias else 0)
        layer = attention + 3 * self.width * self.mlp + 2 * self.width
        return self.vocabulary * self.width * (1 if self.tied else 2) + self.depth * layer + self.width


KNOWN: dict[str, Shape] = {
    "Qwen/Qwen2.5-7B": Shape(3584, 28, 28, 4, 128, 18944, 152_064, bias=True),
    "Qwen/Qwen2.5-1.5B": Shape(1536, 28, 12, 2, 128, 8960, 151_936, tied=True, bias=True),
}
"""Shapes from the models' config.json, so that an estimate needs no network."""


@dataclass(frozen=True)
class Need:
    """What a stage needs. Memory in bytes by part; operations of generation and of training; tokens of both."""

    stage: str
    memory: dict[str, float]
    tokens: float
    generate: float
    train: float

    @property
    def total(self) -> float:
        """Bytes at its peak."""
        return sum(self.memory.values())


def shape_of(model: str, context: int) -> Shape:
    """The size of a model: a preset's, a known one's, or what its config.json says.

    Raises: ConfigError where it cannot be known here.
    """
    if model in TINY:
        one = TINY[model]
        return Shape(one.width, one.depth, one.heads, one.heads, one.width // one.heads, one.mlp, 128, tied=True)
    if model in KNOWN:
        return KNOWN[model]
    try:
        found: Any = AutoConfig.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the size of {model!r} is not known here and its config.json cannot be read ({error}); give a directory, "
            f"or one of {', '.join(KNOWN)}."
        ) from error
    heads, width = found.num_attention_heads, found.hidden_size
    return Shape(
        width, found.num_hidden_layers, heads, getattr(found, "num_key_value_heads", heads) or heads,
        getattr(found, "head_dim", None) or width // heads, getattr(found, "intermediate_size", 4 * width),
        found.vocab_size, tied=bool(found.tie_word_embeddings),
    )  # fmt: skip


def needs(config: Config, stages: Sequence[str]) -> list[Need]:
    """What each stage needs that trains or samples."""
    shape = shape_of(config.model, config.tiny.context)
    reinforced = {"rl": config.rl, "zero": config.rl, "rl2": config.rl2}
    taught = {"base": config.base, "cold": config.cold, "sft": config.sft}
    found = []
    for stage in stages:
        if stage in reinforced:
            found.append(_rl(config, shape, stage, reinforced[stage]))
        elif stage in taught:
            found.append(_sft(config, shape, stage, taught[stage]))
        elif stage == "reject":
            found.append(_sampling(config, shape))
        elif stage == "distill":
            found.append(_sft(config, shape_of(config.student.model, config.tiny.context), stage, config.sft))
    return found


def _sft(config: Config, shape: Shape, stage: str, chosen: Supervised) -> Need:
    tokens = float(chosen.steps * chosen.batch_size * config.max_tokens)
    return Need(stage, _training(config, shape, 0), tokens, 0.0, 6.0 * shape.parameters * tokens)


def _rl(config: Config, shape: Shape, stage: str, chosen: Reinforced) -> Need:
    tokens = float(chosen.steps * chosen.prompts * chosen.group_size * config.max_tokens)
    reference = 4 * shape.parameters if chosen.kl_coef else 0
    n = shape.parameters
    memory = _training(config, shape, reference) | {"KV cache": _cache(config, shape)}
    return Need(stage, memory, tokens, 2.0 * n * tokens, (6.0 + (2.0 if reference else 0.0)) * n * tokens)


def _sampling(config: Config, shape: Shape) -> Need:
    prompts = config.reject.prompts + config.reject.general_prompts
    tokens = float(prompts * config.reject.n * config.max_tokens)
    memory = {"weights": 4.0 * shape.parameters, "KV cache": _cache(config, shape)}
    return Need("reject", memory, tokens, 2.0 * shape.parameters * tokens, 0.0)


def _training(config: Config, shape: Shape, reference: int) -> dict[str, float]:
    n, machine = shape.parameters, config.machine
    micro = max(machine.micro_tokens, config.max_tokens)
    wide = 1.0 if machine.precision == "bf16" else 2.0
    logits = 3 * 4.0 * min(HEAD_LOGITS, micro * shape.vocabulary)
    found = {"weights": 4.0 * n, "gradients": 4.0 * n, "Adam": 8.0 * n}
    found |= {"reference": float(reference)} if reference else {}
    return found | {"activations": wide * 34.0 * shape.depth * shape.width * micro + logits}


def _cache(config: Config, shape: Shape) -> float:
    """Bytes of the generator's keys and values, float32."""
    machine = config.machine
    positions = machine.cache_tokens or machine.slots * config.max_tokens
    return 4.0 * 2 * shape.depth * shape.kv_heads * shape.head * positions


def text(config: Config, stages: Sequence[str]) -> str:
    """The estimate as a table, with what it assumes."""
    found = needs(config, stages)
    shape = shape_of(config.model, config.tiny.context)
    lines = [f"{config.model}: {shape.parameters / 1e9:.3g} billion parameters; nothing is trained. Upper ends:"]
    lines += [f"{'stage':<8} {'memory':>10} {'tokens':>9} {'operations':>11} {'time':>10}   memory by part"]
    for need in found:
        parts = ", ".join(f"{name} {_bytes(size)}" for name, size in need.memory.items())
        work = need.generate + need.train
        lines.append(
            f"{need.stage:<8} {_bytes(need.total):>10} {need.tokens:>9.2g} {work:>11.2g} "
            f"{_hours(work / config.flops):>10}   {parts}"
        )
    total = sum(need.generate + need.train for need in found)
    lines.append(
        f"All: {total:.2g} operations, {_hours(total / config.flops)} at the {config.flops:.3g} a second assumed "
        "(--flops), all devices together; memory is that of one copy, to be divided over devices. Completions are "
        f"taken to be {config.max_tokens} tokens long; verifiers, evaluation and reward model are left out."
    )
    return "\n".join(lines)


def _bytes(size: float) -> str:
    return f"{size / 2**30:.3g} GiB" if size >= 2**30 else f"{size / 2**20:.3g} MiB"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.3g} h" if seconds >= 3600 else f"{seconds:,.3g} s"
