"""The learner: a PolicyBatch in, one optimizer step out, whoever acts.

It knows policies, losses and weights; it knows no rewards, no text and no algorithm. Loss weights are computed
once from the whole step's mask over all ranks, before micro-batching, so that the gradient does not depend on how
the batch was cut, padded or spread.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from onepolicy.batch import Evaluation, LossOutput, PolicyBatch, TokenInputs
from onepolicy.core.policy import PolicyLoss, policy_loss
from onepolicy.core.reduce import Reduction, loss_count, loss_weights
from onepolicy.core.slopes import policy_slopes
from onepolicy.data.packing import split_by_tokens
from onepolicy.errors import ConfigError, TrainingError
from onepolicy.learning.distributed import sum_over_ranks, world_size
from onepolicy.learning.optim import OptimConfig, precision_context
from onepolicy.learning.stepper import Guard, Stepper, out_of_memory
from onepolicy.nn.policy_gradient import PolicyGradient, gradient_of
from onepolicy.types import Metrics


@dataclass(frozen=True)
class Mixed:
    """A second batch in the same optimizer step: coef times its own loss is added (PPO-ptx's pretraining gradient).

    name: its loss is logged as `name/loss`. coef: above 0, units of the first loss per unit of this one. Its reduction
    is over its own tokens, whatever the first batch's size. policy: what evaluates it, None for the learner's own (an
    actor alone, where the learner has a critic too). Source: Ouyang et al. 2022 (InstructGPT), equation 2.
    """

    name: str
    batch: PolicyBatch
    loss: PolicyLoss
    coef: float
    reduction: Reduction = "token_mean"
    policy: Any = None

    def __post_init__(self) -> None:
        if not self.coef > 0:
            raise ConfigError(f"coef of {self.name!r} is {self.coef}; it must be above 0. Leave the batch out instead.")


class PolicyLearner:
    """The only owner of a policy's optimizer state.

    policy: a torch module with `evaluate(inputs, action)`. loss: surrogate, ratio level and extra terms.
    optim: optimizer and schedule. reduction, length: see core.reduce.loss_weights. micro_tokens: at most this many
    (padded) tokens or steps in memory at once, None for the whole batch. dump_dir: where bad batches go. apart,
    apart_lr: a part of the policy, its critic, with apart_lr times the learning rate and a gradient clipped on its own.
    """

    def __init__(
        self,
        policy: Any,
        loss: PolicyLoss,
        *,
        optim: OptimConfig,
        reduction: Reduction = "token_mean",
        length: int | None = None,
        micro_tokens: int | None = None,
        guard: Guard | None = None,
        dump_dir: Path | None = None,
        apart: torch.nn.Module | None = None,
        apart_lr: float = 1.0,
    ) -> None:
        if micro_tokens is not None and micro_tokens < 1:
            raise ConfigError(f"micro_tokens is {micro_tokens}; a micro-batch holds at least 1 token. Set it >= 1.")
        self.policy = policy
        self.loss = loss
        self.optim = optim
        self.reduction = reduction
        self.length = length
        self.micro_tokens = micro_tokens
        self.stepper = Stepper(policy, optim, guard, dump_dir, apart=apart, scale=apart_lr)
        self.dtype = torch.float64 if self.stepper.parameters[0].dtype == torch.float64 else torch.float32
        self._hand: PolicyGradient | None = None
        self._weighed: tuple[Tensor, Reduction] | None = None

    def step(self, batch: PolicyBatch, mix: Sequence[Mixed] = ()) -> Metrics:
        """One optimizer step on `batch`, and on what is mixed in; returns its metrics.

        Raises: TrainingError after guard.max_bad_steps non-finite steps in a row, or when a single row does not
        fit into memory.
        """
        self.stepper.begin()
        sums, gap, micro_batches, retries = self._backward(batch)
        for extra in mix:
            self._add(extra, sums)
        metrics = self.stepper.finish(sums, lambda found, path: dump_batch(batch, found, path))
        metrics["learner/logp_gap"] = float(gap)
        metrics["learner/micro_batches"] = float(micro_batches)
        metrics["learner/oom_retries"] = float(retries)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Everything but the policy's own parameters."""
        return self.stepper.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict."""
        self.stepper.load_state_dict(state)

    def _add(self, extra: Mixed, sums: dict[str, Tensor]) -> None:
        """The gradient of coef times a mixed batch's loss, and its loss among the sums."""
        weight = extra.coef * self._weights(extra.batch.mask, extra.reduction)
        found, _, _ = self._accumulate(extra.batch, weight, self.micro_tokens, extra.loss, extra.policy)
        sums["learner/loss"] = sums["learner/loss"] + found["learner/loss"]
        sums[f"{extra.name}/loss"] = found["learner/loss"] / extra.coef

    def _backward(self, batch: PolicyBatch) -> tuple[dict[str, Tensor], Tensor, int, int]:
        """Accumulated gradients; summed metrics, largest gap, micro-batches, out-of-memory retries."""
        weight = self._weights(batch.mask, self.reduction)
        budget, retries = self.micro_tokens, 0
        while True:
            try:
                return (*self._accumulate(batch, weight, budget, self.loss), retries)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                self.stepper.discard()
                budget = self._smaller(batch, budget, error)
                self.micro_tokens = budget
                retries += 1

    def _accumulate(
        self, batch: PolicyBatch, weight: Tensor, budget: int | None, loss: PolicyLoss, policy: Any = None
    ) -> tuple[dict[str, Tensor], Tensor, int]:
        sums: dict[str, Tensor] = {}
        gaps: list[Tensor] = []
        for micro, part in _micro_batches(batch, weight, budget):
            logp, out = self._differentiate(policy or self.policy, micro, part, loss)
            values = {**out.metrics, "learner/loss": out.loss.detach()}
            sums = {name: sums[name] + value for name, value in values.items()} if gaps else values
            difference = torch.where(micro.mask, logp - micro.logp_behaviour, 0.0)
            gaps.append(torch.linalg.vector_norm(difference, math.inf))
        return sums, torch.stack(gaps).max(), len(gaps)

    def _differentiate(
        self, policy: Any, batch: PolicyBatch, weight: Tensor, loss: PolicyLoss
    ) -> tuple[Tensor, LossOutput]:
        """The log-probs of a batch and its loss, whose gradient is added to the parameters'."""
        hand = self._gradient_of(policy) if loss.value_coef and batch.value_target is not None else None
        if hand is not None:
            evaluation = hand.evaluate(batch.inputs, batch.action)
            out, slopes = policy_slopes(evaluation, batch, weight, loss)
            hand.backward(slopes)
            return evaluation.logp, out
        with precision_context(self.optim, weight.device):
            evaluation = policy.evaluate(batch.inputs, batch.action)
        out = policy_loss(evaluation, batch, weight, loss)
        out.loss.backward()  # type: ignore[no-untyped-call]
        return evaluation.logp.detach(), out

    def _gradient_of(self, policy: Any) -> PolicyGradient | None:
        """The learner's own policy with its gradient by hand, where that is known."""
        if self._hand is None or not self._hand.current:
            self._hand = gradient_of(self.policy)
        return self._hand if policy is self.policy and self.optim.precision == "fp32" else None

    def _weights(self, mask: Tensor, reduction: Reduction) -> Tensor:
        """Loss weights of the local rows, normalised by the count over all ranks.

        Where everything counts they are kept for the next batch of that shape; not with several ranks, which must all
        take part in a count.
        """
        whole = world_size() == 1 and mask.device.type == "cpu" and bool(mask.all())
        known = self._weighed
        if whole and known is not None and known[0].shape == mask.shape and known[1] == reduction:
            return known[0]
        count = sum_over_ranks([loss_count(mask, reduction)])[0].clamp(min=1)
        weight = loss_weights(mask, reduction, count=count, length=self.length, dtype=self.dtype)
        if whole:
            self._weighed = weight, reduction
        return weight

    def _smaller(self, batch: PolicyBatch, budget: int | None, error: BaseException) -> int:
        """Half the token budget; raises TrainingError when a single row is already too much."""
        longest = int(_lengths(batch).max())
        size = budget if budget is not None else longest * len(batch)
        if size <= longest:
            raise TrainingError(
                f"out of memory with one row of {longest} tokens at a time; nothing smaller is left to try. Use "
                "shorter sequences, a smaller model, LoRA or bf16."
            ) from error
        return max(longest, size // 2)


@torch.no_grad()
def evaluate_in_parts(policy: Any, batch: PolicyBatch, budget: int | None) -> Evaluation:
    """What `policy` says of the batch's actions, [B, T] without a graph, at most `budget` padded tokens at a time."""
    zeros = torch.zeros(batch.mask.shape, dtype=batch.logp_behaviour.dtype, device=batch.mask.device)
    logp, entropy, value = zeros, zeros.clone(), None
    for index, span, part in _parts(batch, budget):
        found = policy.evaluate(part.inputs, part.action)
        logp[index, span] = found.logp.to(logp.dtype)
        entropy[index, span] = found.entropy.to(logp.dtype)
        if found.value is not None:
            value = zeros.clone() if value is None else value
            value[index, span] = found.value.to(logp.dtype)
    return Evaluation(logp=logp, entropy=entropy, value=value)


def dump_batch(batch: PolicyBatch, metrics: Metrics, path: Path) -> Path:
    """The batch's tensors and the step's metrics as one safetensors file; `path` without the suffix."""
    path = path.with_name(path.name + ".safetensors")
    inputs = batch.inputs
    tensors = {"inputs": inputs} if isinstance(inputs, Tensor) else _tensors("inputs", inputs)
    tensors |= _tensors("", batch)
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
        path,
        metadata={"metrics": json.dumps({name: repr(value) for name, value in metrics.items()})},
    )
    return path


def _tensors(prefix: str, record: Any) -> dict[str, Tensor]:
    named = {f"{prefix}.{f.name}".lstrip("."): getattr(record, f.name) for f in fields(record)}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}


def _lengths(batch: PolicyBatch) -> Tensor:
    """Tokens or steps of each row, [B] int64."""
    if isinstance(batch.inputs, TokenInputs):
        return batch.inputs.attention.sum(-1)
    return torch.full((len(batch),), batch.mask.shape[-1])


def _micro_batches(batch: PolicyBatch, weight: Tensor, budget: int | None) -> Iterator[tuple[PolicyBatch, Tensor]]:
    """The batch in parts of at most `budget` padded tokens, each with its weights."""
    if budget is None or weight.numel() <= budget:
        yield batch, weight
        return
    for index, span, part in _parts(batch, budget):
        yield part, weight[index, span]


def _parts(batch: PolicyBatch, budget: int | None) -> Iterator[tuple[Tensor, Tensor, PolicyBatch]]:
    """(rows [b, 1], columns [t], the batch there), by similar length and trimmed to the columns in use."""
    lengths = _lengths(batch).tolist()
    columns = torch.arange(batch.mask.shape[1], device=batch.mask.device)
    for group in split_by_tokens(lengths, budget or sum(lengths) * len(batch)):
        index = torch.tensor(group, device=batch.mask.device)
        part, span = batch.rows(index), columns
        if isinstance(part.inputs, TokenInputs):
            used = part.inputs.attention.any(0).nonzero()
            span = columns[int(used[0]) : int(used[-1]) + 1]
            part = part.map(lambda x, s=span: x[:, s])  # type: ignore[misc]
        yield index[:, None], span, part
