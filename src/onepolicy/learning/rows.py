"""A learner whose rows are whole comparisons: rankings for a reward model, pairs for DPO.

What `PolicyLearner` is for actions, this is for rows that must stay together because their loss is not a sum over
tokens. The loss is a mean over the step's rows, fixed before micro-batching and over all ranks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, final

import torch
from torch import nn

from onepolicy.batch import LossOutput
from onepolicy.data.packing import split_by_tokens
from onepolicy.errors import ConfigError, TrainingError
from onepolicy.learning.distributed import sum_over_ranks
from onepolicy.learning.optim import OptimConfig, precision_context
from onepolicy.learning.stepper import Guard, Stepper, out_of_memory
from onepolicy.types import Metrics

X = TypeVar("X")


@final
class RowLearner(Generic[X]):
    """The only owner of a module's optimizer state, for losses of whole rows.

    loss: (rows, weight) -> the scalar weight * (sum of the rows' losses), and metrics that are sums with the same
    weight; weight is 1 / the step's rows. tokens: padded tokens that a row needs in memory. micro_tokens: at most this
    many at once, None for all.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[[Sequence[X], float], LossOutput],
        tokens: Callable[[X], int],
        *,
        optim: OptimConfig,
        micro_tokens: int | None = None,
        guard: Guard | None = None,
        dump_dir: Path | None = None,
    ) -> None:
        if micro_tokens is not None and micro_tokens < 1:
            raise ConfigError(f"micro_tokens is {micro_tokens}; a micro-batch holds at least 1 token. Set it >= 1.")
        self.loss = loss
        self.tokens = tokens
        self.micro_tokens = micro_tokens
        self.stepper = Stepper(module, optim, guard, dump_dir)

    def step(self, rows: Sequence[X]) -> Metrics:
        """One optimizer step on `rows`; returns its metrics, means over rows.

        Raises: TrainingError after guard.max_bad_steps non-finite steps in a row, or when one row does not fit.
        """
        self.stepper.begin()
        parameter = self.stepper.parameters[0]
        weight = 1.0 / float(sum_over_ranks([torch.tensor([float(len(rows))], device=parameter.device)])[0])
        sums: dict[str, torch.Tensor] = {}
        retries = 0
        while not sums:
            try:
                for part in self._parts(rows):
                    with precision_context(self.stepper.optim, parameter.device):
                        out = self.loss(part, weight)
                    out.loss.backward()  # type: ignore[no-untyped-call]
                    values = {**out.metrics, "learner/loss": out.loss.detach()}
                    sums = {name: sums[name] + value for name, value in values.items()} if sums else values
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                self._shrink(rows, error)
                sums, retries = {}, retries + 1
        metrics = self.stepper.finish(sums, lambda found, path: _dump(rows, found, path))
        metrics["learner/oom_retries"] = float(retries)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Everything but the module's own parameters."""
        return self.stepper.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of state_dict."""
        self.stepper.load_state_dict(state)

    def _parts(self, rows: Sequence[X]) -> list[list[X]]:
        return parts(rows, self.tokens, self.micro_tokens)

    def _shrink(self, rows: Sequence[X], error: BaseException) -> None:
        self.stepper.discard()
        longest = max(self.tokens(row) for row in rows)
        size = longest * len(rows) if self.micro_tokens is None else self.micro_tokens
        if size <= longest:
            raise TrainingError(
                f"out of memory with one row of {longest} tokens at a time; nothing smaller is left to try. Use "
                "shorter answers, fewer answers a ranking, a smaller model, LoRA or bf16."
            ) from error
        self.micro_tokens = max(longest, size // 2)


def parts(rows: Sequence[X], tokens: Callable[[X], int], budget: int | None) -> list[list[X]]:
    """Rows in groups of similar size, each of at most `budget` padded tokens.

    Raises: ConfigError when one row alone is larger.
    """
    sizes = [tokens(row) for row in rows]
    groups = split_by_tokens(sizes, budget or max(sizes) * len(rows))
    return [[rows[i] for i in group] for group in groups]


def _dump(rows: Sequence[Any], metrics: Metrics, path: Path) -> Path:
    """Rows and the step's metrics as JSON, to look at."""
    place = path.with_name(path.name + ".json")
    written = [asdict(row) if is_dataclass(row) and not isinstance(row, type) else repr(row) for row in rows]
    place.write_text(json.dumps({"metrics": {k: repr(v) for k, v in metrics.items()}, "rows": written}), "utf-8")
    return place
