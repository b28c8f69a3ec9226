"""onepolicy: everything that acts is a policy, trained by one core, from a bandit to a language model.

`import onepolicy` loads no torch; the names below load what they need when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from onepolicy.api import evaluate, load, resume, train
    from onepolicy.core.conventions import convention
    from onepolicy.errors import OnePolicyError
    from onepolicy.recipes.callbacks import Event
    from onepolicy.run.report import Report
    from onepolicy.tasks.base import load_task_set
    from onepolicy.types import Completion, Episode, Message, Sampling, Score, Task

_HOMES = {
    "train": "onepolicy.api",
    "evaluate": "onepolicy.api",
    "load": "onepolicy.api",
    "resume": "onepolicy.api",
    "convention": "onepolicy.core.conventions",
    "Event": "onepolicy.recipes.callbacks",
    "OnePolicyError": "onepolicy.errors",
    "Report": "onepolicy.run.report",
    "load_task_set": "onepolicy.tasks.base",
    "Completion": "onepolicy.types",
    "Episode": "onepolicy.types",
    "Message": "onepolicy.types",
    "Sampling": "onepolicy.types",
    "Score": "onepolicy.types",
    "Task": "onepolicy.types",
}

__all__ = [
    "Completion",
    "Episode",
    "Event",
    "Message",
    "OnePolicyError",
    "Report",
    "Sampling",
    "Score",
    "Task",
    "__version__",
    "convention",
    "evaluate",
    "load",
    "load_task_set",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'onepolicy' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
