"""The state of one gymnasium world, taken out of it and put back: exact, or not at all.

In: worlds made of plain Python and numpy state, wrapped in whatever; MuJoCo's; those that save themselves (`Saving`).
Not in: other engines, whose state is an object of their own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from types import BuiltinFunctionType, FunctionType
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

from onepolicy.errors import ConfigError

PLAIN = (bool, int, float, str, type(None), np.ndarray, np.generic)
UNCHANGING = (gymnasium.Space, EnvSpec, type, FunctionType, BuiltinFunctionType)
"""Attributes of a world that describe it and do not change while it runs."""
ENGINE = ("MjModel", "MujocoRenderer")
"""Types of MuJoCo's that do not change either; a world that changes its model's numbers is not put back exactly."""
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


def load_copies(env: Any, state: dict[str, Any], put_back: Callable[[dict[str, Any]], None]) -> None:
    """Several copies as they were saved, by `put_back`; where they could not be, a warning says so, and new episodes
    begin, others at every resume.

    env: with env_id, num_envs, restarts, steps, seed, reset. Raises: ConfigError for another number of copies.
    """
    if len(state["obs"]) != env.num_envs:
        raise ConfigError(
            f"the saved state is of {len(state['obs'])} copies, this {env.env_id} has {env.num_envs}. Make it "
            f"with num_envs={len(state['obs'])}."
        )
    env.restarts, env.steps = state["restarts"], state["steps"]
    if state["obstacle"] is None:
        put_back(state)
        return
    warnings.warn(
        f"The state of {env.env_id} cannot be saved: {state['obstacle']}. Training goes on with new episodes in "
        f"its {env.num_envs} copies, so this run will differ from one that was never interrupted.",
        RuntimeWarning,
        stacklevel=3,
    )
    env.restarts += 1
    env.reset(state["seed"] + env.restarts * env.num_envs)
    env.seed = state["seed"]


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
    lasting = mujoco.MjData(model)  # what each step makes anew, such as contacts, is still empty in it
    names = [name for name in dir(data) if not name.startswith("_")]
    arrays = [name for name in names if isinstance(getattr(lasting, name), np.ndarray) and getattr(lasting, name).size]
    return {"integrated": integrated, "derived": {name: getattr(data, name).copy() for name in arrays}}


def _restore_engine(model: Any, data: Any, state: dict[str, Any]) -> None:
    import mujoco

    mujoco.mj_setState(model, data, state["integrated"], mujoco.mjtState.mjSTATE_INTEGRATION)
    for name, value in state["derived"].items():
        getattr(data, name)[...] = value
