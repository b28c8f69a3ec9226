"""One optimizer and what surrounds a step of it: the schedule, sums over ranks, clipping, and the guard against NaN."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from onepolicy.errors import ConfigError, TrainingError
from onepolicy.learning.direct import DirectStep
from onepolicy.learning.distributed import sum_over_ranks, world_size
from onepolicy.learning.optim import OptimConfig, clip_gradients, lr_at, make_optimizer
from onepolicy.types import Metrics

Dump = Callable[[Metrics, Path], Path]
"""(metrics, path without suffix) -> the file in which a batch was written."""


@dataclass(frozen=True)
class Guard:
    """What to do with a step whose loss or gradient is not finite.

    The step is skipped and its batch written to the learner's dump directory; after max_bad_steps such steps in a
    row training stops.
    """

    max_bad_steps: int = 5


@final
class Stepper:
    """The only owner of its parameters' optimizer state; a step is `begin`, backward passes, `finish`.

    dump_dir: where bad batches go, None for nowhere. apart: parameters, all of the module's, that have a learning rate
    of their own, `scale` times the schedule's, and whose gradient is clipped apart from the others': a critic's.
    """

    def __init__(
        self,
        module: nn.Module,
        optim: OptimConfig,
        guard: Guard | None = None,
        dump_dir: Path | None = None,
        *,
        apart: nn.Module | None = None,
        scale: float = 1.0,
    ) -> None:
        self.optim = optim
        self.guard = guard or Guard()
        self.dump_dir = dump_dir
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(self.parameters, optim)
        own = {id(p) for p in apart.parameters()} if apart is not None else set()
        self.groups = [[p for p in self.parameters if (id(p) in own) == side] for side in (False, True)]
        self.scale = scale
        if own and optim.decay == "matrices":
            raise ConfigError("decay='matrices' is not for a learner with a part apart; use decay='all'.")
        if own:
            group = self.optimizer.param_groups[0]
            rest = {name: value for name, value in group.items() if name != "params"}
            group["params"] = self.groups[0]
            self.optimizer.add_param_group({**rest, "params": self.groups[1]})
        self._descend = DirectStep(self.optimizer)
        self.steps = 0
        self.bad_steps = 0
        self.skipped = 0

    def begin(self) -> None:
        """The learning rate of this step."""
        for group, scale in zip(self.optimizer.param_groups, (1.0, self.scale)):
            group["lr"] = scale * lr_at(self.optim, self.steps)

    def discard(self) -> None:
        """No gradients, as before the first backward pass."""
        self.optimizer.zero_grad(set_to_none=True)

    def finish(self, sums: Mapping[str, Tensor], dump: Dump) -> Metrics:
        """The step itself, unless loss or gradient is not finite; `sums` over all ranks and the step's own metrics.

        sums: scalars that add up over ranks, `learner/loss` among them.
        Raises: TrainingError after guard.max_bad_steps non-finite steps in a row.
        """
        self.sum_gradients()
        norms = [clip_gradients(group, self.optim.max_grad_norm) for group in self.groups if group]
        norm = math.hypot(*norms)
        names = sorted(sums)
        totals = sum_over_ranks([torch.stack([sums[name] for name in names]).double()])[0].tolist()
        metrics: Metrics = dict(zip(names, totals, strict=True))
        metrics["learner/grad_norm"] = norm
        metrics["learner/lr"] = lr_at(self.optim, self.steps)
        if math.isfinite(metrics["learner/loss"]) and math.isfinite(norm):
            self._descend()
            self.bad_steps = 0
        else:
            self._skip(metrics, dump)
        for p in self.parameters:
            p.grad = None
        self.steps += 1
        metrics["learner/skipped"] = float(self.skipped)
        return metrics

    def sum_gradients(self) -> None:
        """Every parameter's gradient summed over all ranks."""
        if world_size() == 1:
            return
        for p in self.parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        summed = sum_over_ranks([p.grad for p in self.parameters if p.grad is not None])
        for p, gradient in zip(self.parameters, summed, strict=True):
            p.grad = gradient

    def state_dict(self) -> dict[str, Any]:
        """Everything but the parameters."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
            "bad_steps": self.bad_steps,
            "skipped": self.skipped,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of state_dict."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = int(state["steps"])
        self.bad_steps = int(state["bad_steps"])
        self.skipped = int(state["skipped"])

    def _skip(self, metrics: Metrics, dump: Dump) -> None:
        self.bad_steps += 1
        self.skipped += 1
        place = "not written: no dump directory"
        if self.dump_dir is not None:
            self.dump_dir.mkdir(parents=True, exist_ok=True)
            place = str(dump(metrics, self.dump_dir / f"bad-step-{self.steps}"))
        if self.bad_steps >= self.guard.max_bad_steps:
            raise TrainingError(
                f"{self.bad_steps} steps in a row had a non-finite loss or gradient (loss {metrics['learner/loss']}, "
                f"gradient norm {metrics['learner/grad_norm']}). Last batch: {place}. Lower lr, or look for NaN in it."
            )


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
