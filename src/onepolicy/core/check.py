"""Checks at the boundaries of the mathematics: shapes that agree, numbers that are finite.

A shape check costs nothing and is made wherever tensors of different origin meet. A finiteness check reads the
values (on a GPU it waits for them), so it is called once per step by whoever feeds the core, not by the core.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from onepolicy.errors import ConfigError, DataError, TrainingError


def same_shape(**tensors: Tensor | None) -> None:
    """Agreement in shape of all named tensors; those that are None are left out.

    Raises: DataError naming the first pair that differs, with both shapes.

    >>> import torch
    >>> same_shape(logp=torch.zeros(2, 3), mask=torch.ones(2, 3))
    >>> same_shape(logp=torch.zeros(2, 3), mask=torch.ones(3, 2))
    Traceback (most recent call last):
    ...
    onepolicy.errors.DataError: mask has shape (3, 2) but logp has shape (2, 3); they must be equal. ...
    """
    first: tuple[str, torch.Size] | None = None
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if first is None:
            first = (name, tensor.shape)
        elif tensor.shape != first[1]:
            raise DataError(
                f"{name} has shape {tuple(tensor.shape)} but {first[0]} has shape {tuple(first[1])}; they must be "
                "equal. Give both the same leading dimensions, time on the last axis."
            )


def boolean(name: str, mask: Tensor) -> None:
    """Boolean dtype of a mask.

    Raises: DataError when it has another dtype; a float mask would be a weight, an integer one an index.
    """
    if mask.dtype != torch.bool:
        raise DataError(f"{name} has dtype {mask.dtype}; a mask is torch.bool, True where it counts. Call .bool().")


def finite(name: str, tensor: Tensor, mask: Tensor | None = None) -> None:
    """Finiteness of a tensor where `mask` is True (everywhere when there is no mask).

    Reads the values: not for hot loops on a GPU.
    Raises: TrainingError with the number of bad elements and the place of the first.

    >>> import torch
    >>> finite("advantage", torch.tensor([[1.0, float("nan")]]), torch.tensor([[True, False]]))
    >>> finite("advantage", torch.tensor([[1.0, float("nan")]]))
    Traceback (most recent call last):
    ...
    onepolicy.errors.TrainingError: advantage has 1 non-finite element of 2, the first at (0, 1): nan. ...
    """
    bad = ~torch.isfinite(tensor)
    if mask is not None:
        bad &= mask
    if bool(bad.any()):
        where = tuple(int(i) for i in bad.nonzero()[0])
        total = int(mask.sum()) if mask is not None else tensor.numel()
        count = int(bad.sum())
        raise TrainingError(
            f"{name} has {count} non-finite element{'s' if count > 1 else ''} of {total}, the first at {where}: "
            f"{float(tensor[where])}. Find where it is made; elements that do not count belong under mask=False."
        )


def fraction(name: str, value: float, *, low: float = 0.0, high: float = 1.0) -> float:
    """A number inside [low, high], returned as it is.

    Raises: ConfigError with the value and the range.
    """
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value}; it must lie in [{low}, {high}].")
    return value


def present(needed_by: str, **tensors: Tensor | None) -> None:
    """Presence of the tensors that an option needs.

    Raises: ConfigError naming the first absent one and the option.
    """
    missing = _first_missing(tensors)
    if missing is not None:
        raise ConfigError(f"{missing} is None; {needed_by} needs it. Fill it in the batch, or leave {needed_by} out.")


def _first_missing(tensors: Mapping[str, Tensor | None]) -> str | None:
    return next((name for name, tensor in tensors.items() if tensor is None), None)
