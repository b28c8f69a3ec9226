"""Metrics: their names, and where they are sent besides metrics.jsonl.

Trackers (tensorboard, wandb, trackio) are extras behind one seam, `Sink`, and are imported nowhere else.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, final

from onepolicy.errors import ConfigError, nearest
from onepolicy.types import Metrics

_KEY = re.compile(r"[a-z0-9_]+(/[A-Za-z0-9_.@+-]+)+")


def checked(metrics: Metrics) -> dict[str, float | int]:
    """Metrics as plain numbers: integers stay integers, tensors and numpy scalars of one element become floats.

    Raises: ConfigError for a key that is not `area/name`, or a value that is no number.
    """
    clean: dict[str, float | int] = {}
    for key, value in metrics.items():
        if not _KEY.fullmatch(key):
            raise ConfigError(
                f"{key!r} is not a metric's name; expected area/name, in lower case, such as policy/loss."
            )
        try:
            clean[key] = value if type(value) is int else float(value)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"Metric {key} is {value!r}, which is no number. Log floats.") from error
    return clean


def resources() -> dict[str, float]:
    """What every timing line carries: seconds since the epoch, and this process's resident memory in MiB."""
    found = {"time/unix": round(time.time(), 3)}
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return found
    return {**found, "memory/resident": pages * 4096 / 2**20}


class Sink(Protocol):
    """Where metrics go besides the run directory."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def open_sink(tracker: str, directory: Path, recipe: str, config: Mapping[str, Any]) -> Sink | None:
    """The tracker called `tracker`; None for "".

    Raises: ConfigError for an unknown tracker, or one that is not installed, with the command that installs it.
    """
    if not tracker:
        return None
    if tracker not in TRACKERS:
        raise ConfigError(f"{tracker!r} is not a tracker. {nearest(tracker, TRACKERS)}")
    try:
        return TRACKERS[tracker](directory, recipe, config)
    except ImportError as error:
        raise ConfigError(
            f'The tracker {tracker!r} is not installed ({error}). Install it: pip install "onepolicy[{tracker}]"'
        ) from error


@final
class _Tensorboard:
    """Event files in the run directory, for `tensorboard --logdir`."""

    def __init__(self, directory: Path, recipe: str, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(directory / "tensorboard"))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        self._writer.close()


@final
class _Hosted:
    """wandb, and trackio which has its interface; a resumed run continues under the same name."""

    def __init__(self, module: Any, arguments: Mapping[str, Any]) -> None:
        self._module = module
        module.init(**arguments)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._module.log({key: value for key, value in metrics.items() if math.isfinite(value)}, step=step)

    def close(self) -> None:
        self._module.finish()


def _wandb(directory: Path, recipe: str, config: Mapping[str, Any]) -> Sink:
    import wandb

    place = {"dir": str(directory), "id": directory.name, "name": directory.name, "resume": "allow"}
    return _Hosted(wandb, {"project": f"onepolicy-{recipe}", "config": dict(config), **place})


def _trackio(directory: Path, recipe: str, config: Mapping[str, Any]) -> Sink:
    import trackio

    place = {"name": directory.name, "resume": "allow"}
    return _Hosted(trackio, {"project": f"onepolicy-{recipe}", "config": dict(config), **place})


TRACKERS: dict[str, Callable[[Path, str, Mapping[str, Any]], Sink]] = {
    "tensorboard": _Tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
}
