"""Optimizers, their schedule and the precision policy: the one place where numbers' widths are decided."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch

from onepolicy.errors import ConfigError


@dataclass(frozen=True)
class OptimConfig:
    """How gradients become steps.

    name: optimizer. lr: peak learning rate. betas, eps, weight_decay: as in torch (rmsprop takes betas[1] as its
    smoothing constant; rmsprop-tf is TensorFlow's form of it). max_grad_norm: global 2-norm bound, 0 turns clipping
    off. warmup_steps: linear from lr / warmup_steps to lr. schedule: after the warm-up, constant, or to min_lr at
    total_steps linearly or along a half cosine. decay: weight decay of all parameters, or of those with two dimensions
    or more, which leaves out norms and biases (AdamW only). precision: "bf16" runs the policy under autocast;
    parameters, log-probs and losses stay float32.
    """

    lr: float
    name: Literal["adam", "adamw", "rmsprop", "rmsprop-tf", "sgd"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    warmup_steps: int = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    total_steps: int = 0
    min_lr: float = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"
    decay: Literal["all", "matrices"] = "all"

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ConfigError(f"lr is {self.lr}; a learning rate is positive. Set lr > 0.")
        if self.schedule != "constant" and self.total_steps <= self.warmup_steps:
            raise ConfigError(
                f"total_steps is {self.total_steps} with schedule {self.schedule!r} and warmup_steps "
                f"{self.warmup_steps}; a decay needs steps after the warm-up. Set total_steps to the run's length."
            )


def lr_at(config: OptimConfig, step: int) -> float:
    """Learning rate of optimizer step `step` (0-based).

    >>> config = OptimConfig(lr=1.0, warmup_steps=2, schedule="linear", total_steps=6)
    >>> [lr_at(config, step) for step in range(7)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    done = min(1.0, (step - config.warmup_steps) / (config.total_steps - config.warmup_steps))
    left = 1.0 - done if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return config.min_lr + (config.lr - config.min_lr) * left


def make_optimizer(parameters: Iterable[torch.nn.Parameter], config: OptimConfig) -> torch.optim.Optimizer:
    """The optimizer over those parameters that require a gradient; fused where torch has a fused kernel."""
    trained = [p for p in parameters if p.requires_grad]
    if not trained:
        raise ConfigError("no parameter requires a gradient; unfreeze the policy or add LoRA before training it.")
    if config.name == "rmsprop-tf":
        return RMSpropTF(trained, config.lr, config.betas[1], config.eps)
    if config.name == "rmsprop":
        return torch.optim.RMSprop(
            trained, lr=config.lr, alpha=config.betas[1], eps=config.eps, weight_decay=config.weight_decay
        )
    if config.name == "sgd":
        return torch.optim.SGD(trained, lr=config.lr, momentum=config.betas[0], weight_decay=config.weight_decay)
    groups = parameter_groups(trained, config)
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    fused = trained[0].device.type in ("cpu", "cuda") and all(p.dtype.is_floating_point for p in trained)
    return kind(groups, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, fused=fused)


def parameter_groups(trained: list[torch.nn.Parameter], config: OptimConfig) -> list[dict[str, Any]]:
    """The parameters as one group, or by dimensions as two, the second without weight decay."""
    if config.decay == "all":
        return [{"params": trained}]
    matrices = [p for p in trained if p.ndim >= 2]
    return [{"params": matrices}, {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0}]


class RMSpropTF(torch.optim.Optimizer):
    """RMSprop with epsilon inside the root and a mean square that begins at 1, as TensorFlow's.

        s <- decay s + (1 - decay) g^2,   theta <- theta - lr g / sqrt(s + eps)

    With small gradients it steps far less than torch's form; A2C was tuned with it. Weight decay is not in.
    Source: stable-baselines3's RMSpropTFLike, after TensorFlow 1's.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float, decay: float, eps: float) -> None:
        super().__init__(parameters, {"lr": lr, "decay": decay, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step down the gradients."""
        for group in self.param_groups:
            used = [p for p in group["params"] if p.grad is not None]
            gradients = [p.grad for p in used]
            for p in used:
                if not self.state[p]:
                    self.state[p]["square"] = torch.ones_like(p)
            squares = [self.state[p]["square"] for p in used]
            torch._foreach_mul_(squares, group["decay"])
            torch._foreach_addcmul_(squares, gradients, gradients, 1.0 - group["decay"])
            roots = torch._foreach_add(squares, group["eps"])
            torch._foreach_sqrt_(roots)
            torch._foreach_addcdiv_(used, gradients, roots, -group["lr"])


def precision_context(config: OptimConfig, device: torch.device) -> AbstractContextManager[object]:
    """The context in which the policy is evaluated."""
    if config.precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def clip_gradients(parameters: list[torch.nn.Parameter], max_norm: float) -> float:
    """Global 2-norm of the gradients before clipping; scales them in place to at most max_norm when that is > 0.

    The arithmetic of torch.nn.utils.clip_grad_norm_, whose sorting of tensors by device takes as long as all of it.
    """
    gradients = _joined([p.grad for p in parameters if p.grad is not None])
    norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))
    if 0 < max_norm < norm:
        torch._foreach_mul_(gradients, max_norm / (norm + 1e-6))
    return norm


def _joined(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """The tensor that all of them are parts of, where they are the whole of it; else the tensors themselves."""
    whole = tensors[0]._base if tensors else None
    if whole is None or any(part._base is not whole for part in tensors):
        return tensors
    return [whole] if sum(part.numel() for part in tensors) == whole.numel() else tensors
