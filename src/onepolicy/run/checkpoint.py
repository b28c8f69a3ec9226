"""The content of checkpoints: any nesting of tensors, arrays, numbers and text as safetensors and JSON, exactly.

A part becomes `<name>.json`, its structure, and `<name>.safetensors`, its tensors, which the structure refers to; a
part that saves itself becomes the directory `<name>/`. Integers of any size, NaN, tuples, integer keys (torch's
optimizer states) and bit patterns survive. No pickle, no `torch.load`: a checkpoint cannot run code.
In: encoding, decoding, saving and loading parts. Not in: which checkpoint is valid (manifest.py).
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from onepolicy.errors import CheckpointError
from onepolicy.run.files import out_of_space, tree_bytes
from onepolicy.run.manifest import publish, saved_steps, seal, step_path, temporary_path

MARGIN = 2**22
"""Bytes that must be free beyond the size of the last checkpoint before a new one is begun."""
SCALARS = (bool, int, float, str, type(None))


@runtime_checkable
class StatefulPart(Protocol):
    """State as a nested dict: modules, optimizers, schedules, random generators' wrappers, counters."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


@runtime_checkable
class DirectoryPart(Protocol):
    """State that writes its own files, such as a Hugging Face model directory."""

    def save_to(self, directory: Path) -> None: ...

    def load_from(self, directory: Path) -> None: ...


Part = StatefulPart | DirectoryPart


def write_checkpoint(root: Path, step: int, parts: Mapping[str, Part], facts: Mapping[str, Any]) -> Path | None:
    """The directory of a new checkpoint below `root`, all of it or nothing; None when the disk has no room.

    facts: JSON values for its manifest. Raises: CheckpointError when a part cannot be stored.
    """
    before = saved_steps(root)
    room = MARGIN + (tree_bytes(step_path(root, before[0])) if before else 0)
    temporary = temporary_path(root, step)
    try:
        temporary.mkdir(parents=True)
        if shutil.disk_usage(root).free < room:
            return None
        for name, part in parts.items():
            save_part(temporary, name, part)
        seal(temporary, facts)
        publish(temporary, step_path(root, step))
    except (OSError, SafetensorError) as error:
        if not out_of_space(error):
            raise
        return None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return step_path(root, step)


def save_part(directory: Path, name: str, part: Part) -> None:
    """Writes a part below `directory`. Raises CheckpointError when it is no part or holds what cannot be stored."""
    if isinstance(part, DirectoryPart):
        (directory / name).mkdir()
        part.save_to(directory / name)
    elif isinstance(part, StatefulPart):
        tensors: dict[str, Tensor] = {}
        tree = encode(part.state_dict(), tensors)
        (directory / f"{name}.json").write_text(json.dumps(tree, allow_nan=False), encoding="utf-8")
        if tensors:
            save_file(tensors, directory / f"{name}.safetensors")
    else:
        raise CheckpointError(
            f"{name} is a {type(part).__name__}, which is no checkpoint part; it needs state_dict() and "
            "load_state_dict(), or save_to(directory) and load_from(directory)."
        )


def load_parts(directory: Path, parts: Mapping[str, Part], *, every: bool) -> None:
    """Loads `parts` by name from a checkpoint. every: leaving out a saved part is an error.

    Raises: CheckpointError for a part the checkpoint has not, for one left out, and as `load_part`.
    """
    saved = part_names(directory)
    for name in parts:
        if name not in saved:
            raise CheckpointError(
                f"{directory} has no part {name!r}; it has {', '.join(saved)}. Was it made by another recipe?"
            )
    unused = sorted(set(saved) - set(parts))
    if every and unused:
        raise CheckpointError(
            f"{directory} has {', '.join(unused)}, which resume() was not given; it would be lost. Pass all parts."
        )
    for name, part in parts.items():
        load_part(directory, name, part)


def load_part(directory: Path, name: str, part: Part) -> None:
    """Puts a saved part's state into `part`. Raises CheckpointError when it does not fit."""
    try:
        if isinstance(part, DirectoryPart):
            part.load_from(directory / name)
        else:
            part.load_state_dict(read_state(directory, name))
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, OSError) as error:
        raise CheckpointError(
            f"{name} of {directory} does not load into this {type(part).__name__}: {error}. Was it made by another "
            "configuration or version?"
        ) from error


def read_state(directory: Path, name: str) -> dict[str, Any]:
    """The state that `save_part` wrote, tensors on the CPU."""
    tree = json.loads((directory / f"{name}.json").read_text(encoding="utf-8"))
    stored = directory / f"{name}.safetensors"
    state: dict[str, Any] = decode(tree, load_file(stored) if stored.exists() else {})
    return state


def part_names(directory: Path) -> list[str]:
    """The names of the parts in a checkpoint."""
    folders = [path.name for path in directory.iterdir() if path.is_dir()]
    states = [path.stem for path in directory.glob("*.json") if path.name != "MANIFEST.json"]
    return sorted(folders + states)


def encode(value: Any, tensors: dict[str, Tensor], *, path: str = "") -> Any:
    """`value` as JSON, with its tensors put into `tensors` (changed in place) under their dotted paths.

    Tagged objects stand for what JSON lacks: {"$tensor": "weight"}, {"$array": "order", ...}, {"$tuple": [...]},
    {"$dict": [[key, value], ...]} for keys that are not text, {"$float": "nan"}.
    path: where `value` is. Raises: CheckpointError for a type that has no exact form.
    """
    if isinstance(value, Tensor):
        return {"$tensor": _put(value.detach(), tensors, path)}
    if isinstance(value, np.ndarray | np.generic):
        return _encode_array(value, tensors, path)
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    if isinstance(value, SCALARS):
        return value
    if isinstance(value, list):
        return [encode(item, tensors, path=_below(path, i)) for i, item in enumerate(value)]
    if isinstance(value, tuple):
        return {"$tuple": [encode(item, tensors, path=_below(path, i)) for i, item in enumerate(value)]}
    if isinstance(value, Mapping):
        items = [(key, encode(item, tensors, path=_below(path, key))) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in items):
            return dict(items)
        return {"$dict": [[encode(key, tensors, path=_below(path, "key")), item] for key, item in items]}
    raise CheckpointError(
        f"{path or 'The state'} is a {type(value).__name__}, which a checkpoint cannot hold exactly. Use tensors, "
        "numpy arrays, numbers, text, None, lists, tuples and mappings in state_dict()."
    )


def decode(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The value that `encode` was given, tensors and arrays as copies of their own."""
    if isinstance(tree, list):
        return [decode(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "$tensor" in tree:
        return tensors[tree["$tensor"]].clone()
    if "$array" in tree:
        raw = tensors[tree["$array"]].numpy().tobytes()
        array = np.frombuffer(raw, dtype=np.dtype(tree["dtype"])).reshape(tree["shape"]).copy()
        return array[()] if tree["scalar"] else array
    if "$float" in tree:
        return float(tree["$float"])
    if "$tuple" in tree:
        return tuple(decode(item, tensors) for item in tree["$tuple"])
    if "$dict" in tree:
        return {decode(key, tensors): decode(item, tensors) for key, item in tree["$dict"]}
    return {key: decode(item, tensors) for key, item in tree.items()}


def _below(path: str, key: object) -> str:
    """The dotted path of an item."""
    return f"{path}.{key}" if path else str(key)


def _put(tensor: Tensor, tensors: dict[str, Tensor], path: str) -> str:
    """The name under which a tensor is stored: dense, on the CPU, sharing memory with no other."""
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise CheckpointError(f"{path} is a tensor of layout {tensor.layout}; make it dense in state_dict().")
    free = path and path not in tensors and path != "__metadata__"
    name = path if free else f"{path}#{len(tensors)}"
    stored = tensor.cpu().resolve_conj().resolve_neg().contiguous()
    tensors[name] = stored.clone() if stored.data_ptr() == tensor.data_ptr() else stored
    return name


def _encode_array(value: Any, tensors: dict[str, Tensor], path: str) -> dict[str, Any]:
    """A numpy array or scalar as its bytes."""
    array = np.asarray(value)
    if array.dtype.hasobject or array.dtype.fields is not None:
        raise CheckpointError(f"{path} is an array of {array.dtype}; a checkpoint holds plain numbers and text only.")
    raw = torch.from_numpy(np.frombuffer(array.tobytes(), dtype=np.uint8).copy())
    scalar = isinstance(value, np.generic)
    name = _put(raw, tensors, path)
    return {"$array": name, "dtype": array.dtype.str, "shape": list(array.shape), "scalar": scalar}
