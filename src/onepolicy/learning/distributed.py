"""The few collectives training needs; each is a no-op in a single process.

Gradients are summed, not averaged: loss weights are already normalised by the whole step's count over all ranks.
"""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of ranks, 1 when torch.distributed is not initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's rank, 0 when torch.distributed is not initialised."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def initialise_from_environment(timeout_seconds: float = 600.0) -> bool:
    """Join the process group that torchrun describes in the environment; False when there is none."""
    if "RANK" not in os.environ or world_size() > 1:
        return False
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout_seconds))
    return True


def sum_over_ranks(tensors: list[Tensor]) -> list[Tensor]:
    """The tensors summed over all ranks, through one flat buffer per dtype; unchanged in a single process."""
    if world_size() == 1 or not tensors:
        return tensors
    summed: list[Tensor] = list(tensors)
    for dtype in {t.dtype for t in tensors}:
        chosen = [i for i, t in enumerate(tensors) if t.dtype == dtype]
        flat = torch.cat([tensors[i].reshape(-1) for i in chosen])
        dist.all_reduce(flat)
        for i, part in zip(chosen, flat.split([tensors[i].numel() for i in chosen]), strict=True):
            summed[i] = part.view_as(tensors[i])
    return summed
