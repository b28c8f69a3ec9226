"""Log-probabilities of a frozen reference, computed once: kept on disk under a hash of its weights and the texts."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from onepolicy.algos.dpo import logp_in_parts
from onepolicy.data.demonstrations import Example
from onepolicy.nn.token_policy import TokenPolicy
from onepolicy.recipes.language import Language


def cache_directory() -> Path:
    """Where log-probabilities are kept: $ONEPOLICY_CACHE, or ~/.cache/onepolicy."""
    return Path(os.environ.get("ONEPOLICY_CACHE", "") or Path.home() / ".cache" / "onepolicy")


def reference_logp(
    language: Language, policy: TokenPolicy, *, budget: int | None, say: Callable[[str], None]
) -> Callable[[Sequence[Example]], list[float]]:
    """The function that gives each answer's log-probability under `policy` as it is now, by way of the cache.

    say: told whether the numbers were found or computed. A damaged file is computed anew.
    """
    weights = weights_hash(policy)

    def logp(examples: Sequence[Example]) -> list[float]:
        place = cache_directory() / "reference" / f"{content_hash(weights, examples)}.safetensors"
        found = _read(place, len(examples))
        if found is not None:
            say(f"reference log-probabilities of {len(examples)} answers found in {place}")
            return found
        found = logp_in_parts(policy, examples, pad_id=language.pad_id, budget=budget)
        _write(place, found)
        return found

    return logp


def weights_hash(module: torch.nn.Module) -> str:
    """The sha256 of a module's parameters and buffers, names and bytes."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def content_hash(weights: str, examples: Sequence[Example]) -> str:
    """The sha256 of a model's weights and the tokens it is asked about."""
    digest = hashlib.sha256(weights.encode())
    for tokens, is_action in examples:
        digest.update(json.dumps([list(tokens), [int(acts) for acts in is_action]]).encode())
    return digest.hexdigest()


def _read(place: Path, count: int) -> list[float] | None:
    try:
        values: Any = load_file(place)["logp"]
    except (OSError, KeyError, ValueError, SafetensorError):
        return None
    return [float(x) for x in values] if values.shape == (count,) and np.isfinite(values).all() else None


def _write(place: Path, values: Sequence[float]) -> None:
    """The numbers on disk, all of the file or none; a disk that takes none is no reason to stop."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        building = place.with_name(f"{place.name}.{os.getpid()}.tmp")
        save_file({"logp": np.asarray(values, dtype=np.float64)}, building)
        building.replace(place)
    except (OSError, SafetensorError):
        return
