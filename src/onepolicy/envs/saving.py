"""The state of one gymnasium world, taken out of it and put back: exact, or not at all.

In: worlds made of plain Python and numpy state, wrapped in whatever; MuJoCo's; those that save themselves (`Saving`).
Not in: other engines, whose state is an object of their own.
"""

from __future__ import annotations

from copy import deepcopy
from types import BuiltinFunctionType, FunctionType
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

PLAIN = (bool, int, float, str, type(None), np.ndarray, np.generic)
UNCHANGING = (gymnasium.Space, EnvSpec, type, FunctionType, BuiltinFunctionType)
"""Attributes of a world that describe it and do not change while it runs."""
ENGINE = ("MjModel", "MujocoRenderer")
"""Types of MuJoCo's that do not change either; a world that changes its model's numbers is not put back exactly."""
TRANSIENT = ("efc_", "iefc_", "efm_", "bvh_", "island_", "map_", "q", "M", "ten_", "wrap_", "flex", "moment_", "crb")
"""First letters of MuJoCo's arrays that each step makes anew and no world reads; those in INTEGRATED are kept."""
_FIXED = object()


@runtime_checkable
class Saving(Protocol):
    """A world or wrapper that saves itself and all that it wraps, as arrays, numbers, text and nestings of these."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def snapshot(env: Any) -> list[dict[str, Any]]:
    """The changing attributes of each layer. Raises TypeError naming one that is no plain value."""
    found: list[dict[str, Any]] = []
    for layer in _layers(env):
        if isinstance(layer, Saving):
            return [*found, {"itself": layer.state_dict()}]
        attributes = vars(layer).items()
        found.append({name: saved for name, v in attributes if (saved := _plain(layer, name, v)) is not _FIXED})
    return found


def restore(env: Any, layers: list[dict[str, Any]]) -> None:
    """The inverse of snapshot, in a world just reset."""
    for layer, saved in zip(_layers(env), layers):
        if isinstance(layer, Saving):
            layer.load_state_dict(saved["itself"])
            return
        for name, value in saved.items():
            if isinstance(value, dict) and "bit_generator" in value:
                getattr(layer, name).bit_generator.state = value
            elif isinstance(value, dict) and "integrated" in value:
                _restore_engine(layer.model, getattr(layer, name), value)
            else:
                setattr(layer, name, deepcopy(value))


def _layers(env: Any) -> list[Any]:
    """The world's wrappers from the outside in, and the world."""
    found = [env]
    while found[-1] is not env.unwrapped:
        found.append(found[-1].env)
    return found


def _plain(layer: Any, name: str, value: Any) -> Any:
    """An attribute as a checkpoint holds it; _FIXED for what never changes."""
    kind = type(value).__name__
    if isinstance(value, UNCHANGING) or value is getattr(layer, "env", _FIXED) or kind in ENGINE:
        return _FIXED
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if kind == "MjData":
        return _engine_state(layer.model, value)
    if _is_plain(value):
        return deepcopy(value)
    raise TypeError(f"its {type(layer).__name__}.{name} is a {type(value).__name__}, not numbers or text")


def _is_plain(value: Any) -> bool:
    if type(value) in (tuple, list):
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    return isinstance(value, PLAIN)


def _engine_state(model: Any, data: Any) -> dict[str, Any]:
    """What MuJoCo integrates, warm start included, and what worlds read that was derived from it before the last step.

    Deriving it anew would be one substep ahead of the world that goes on.
    """
    import mujoco

    spec = mujoco.mjtState.mjSTATE_INTEGRATION
    integrated = np.empty(mujoco.mj_stateSize(model, spec))
    mujoco.mj_getState(model, data, integrated, spec)
    names = [name for name in dir(data) if not name.startswith(("_", *TRANSIENT))]
    derived = {name: value.copy() for name in names if isinstance(value := getattr(data, name), np.ndarray)}
    return {"integrated": integrated, "derived": {n: v for n, v in derived.items() if v.size}}


def _restore_engine(model: Any, data: Any, state: dict[str, Any]) -> None:
    import mujoco

    mujoco.mj_setState(model, data, state["integrated"], mujoco.mjtState.mjSTATE_INTEGRATION)
    for name, value in state["derived"].items():
        getattr(data, name)[...] = value
