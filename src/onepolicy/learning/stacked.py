"""One optimizer for S learners side by side, none of which feels another: clipping and failures are each one's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from onepolicy.batch import PolicyBatch
from onepolicy.core.policy import PolicyLoss
from onepolicy.core.slopes import row_slopes
from onepolicy.errors import TrainingError
from onepolicy.learning.direct import DirectStep
from onepolicy.learning.optim import OptimConfig, lr_at, make_optimizer
from onepolicy.nn.policy_gradient import PolicyGradient
from onepolicy.nn.stacked_policy import StackedPolicy


@final
class Rows:
    """Tensors as rows: what each learner, their first axis, has in all of them, seen through views that are kept."""

    def __init__(self, tensors: Sequence[Tensor], learners: int) -> None:
        self.rows = [tensor.view(learners, -1) for tensor in tensors]
        self.learners = learners
        at_hand = all(row.device.type == "cpu" for row in self.rows)
        self._arrays = [row.numpy() for row in self.rows] if at_hand else None

    def norms(self) -> Tensor:
        """Each learner's 2-norm, [S]; on a CPU by numpy, in a third of torch's time."""
        if self._arrays is None:
            return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(r, dim=1) for r in self.rows]), dim=0)
        squares = np.sum([np.vecdot(row, row) for row in self._arrays], axis=0)
        return torch.from_numpy(np.sqrt(squares))

    def clip(self, most: float) -> Tensor:
        """Scales each learner's row to a norm of at most `most`, in place; the norms of before."""
        norm = self.norms()
        if norm.max().item() > most:
            scale = (most / (norm + 1e-6)).clamp_(max=1.0).unsqueeze(1)
            torch._foreach_mul_(self.rows, [scale] * len(self.rows))
        return norm


@final
class StackedOptimizer:
    """Steps on parameters whose first axis is S learners (times networks of each), by losses [S].

    seeds: their names in errors. The sum of the losses is what is differentiated: parameters of one learner get the
    gradient of its own loss alone, and Adam works element by element. max_grad_norm bounds each learner's own norm.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], seeds: tuple[int, ...], config: OptimConfig) -> None:
        self.parameters, self.seeds, self.config = list(parameters), seeds, config
        self.optimizer = make_optimizer(self.parameters, config)
        self._descend = DirectStep(self.optimizer)
        self.steps = 0
        self._gradients: Sequence[Tensor] = ()
        self._rows = Rows((), len(seeds))
        self.norm: Tensor | None = None
        """Of the last step: each learner's gradient norm before clipping, [S]; None where nothing bounds it."""

    def step(self, loss: Tensor) -> Tensor:
        """One step down `loss` [S]; the losses, without gradient.

        Raises: TrainingError for a loss that is not finite, naming the seed; no parameter has changed then.
        """
        return self.apply(loss.detach(), lambda: torch.autograd.grad(loss.sum(), self.parameters))

    def apply(self, found: Tensor, gradients_of: Callable[[], Sequence[Tensor]]) -> Tensor:
        """One step by the gradients of the sum of losses [S] that are known already; the losses.

        gradients_of: called once the losses are known to be finite; in the order of the parameters. The same list again
        stands for the same tensors with new numbers.
        Raises: as `step`.
        """
        if not math.isfinite(found.sum().item()):
            bad = int((~torch.isfinite(found)).nonzero()[0])
            raise TrainingError(
                f"the loss of seed {self.seeds[bad]} is {found[bad].item()} at optimizer step {self.steps}; lower lr, "
                "set max_grad_norm, or look for large rewards."
            )
        for group in self.optimizer.param_groups:
            group["lr"] = lr_at(self.config, self.steps)
        gradients = gradients_of()
        if gradients is not self._gradients:
            self._gradients, self._rows = gradients, Rows(gradients, len(self.seeds))
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.grad = gradient
        if self.config.max_grad_norm > 0:
            self.norm = self._rows.clip(self.config.max_grad_norm)
        self._descend()
        self.steps += 1
        return found

    def state_dict(self) -> dict[str, Any]:
        """Everything but the parameters."""
        return {"optimizer": self.optimizer.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]


@final
class StackedPolicyLearner:
    """A `PolicyLearner` for S policies side by side: a batch [S, B] in, one optimizer step of each out.

    Each learner's loss is the mean over its own row, as a lone learner's over its batch. loss: what is minimised, to
    be replaced as training goes on.
    """

    def __init__(self, policy: StackedPolicy, seeds: tuple[int, ...], loss: PolicyLoss, *, optim: OptimConfig) -> None:
        self.policy, self.loss = policy, loss
        self.gradient = PolicyGradient(policy, policy.activation, stacked=True)
        self.optimizer = StackedOptimizer(policy.parameters(), seeds, optim)

    def step(self, batch: PolicyBatch) -> dict[str, Tensor]:
        """The metrics of one step, [S] each; those of the batch at the weights before it.

        Raises: TrainingError for a loss that is not finite, naming the seed.
        """
        evaluation = self.gradient.evaluate(batch.inputs, batch.action)
        found, slopes = row_slopes(evaluation, batch, self.loss)
        gap = (evaluation.logp - batch.logp_behaviour).abs().amax(-1)
        lr = lr_at(self.optimizer.config, self.optimizer.steps)
        self.optimizer.apply(found["learner/loss"], lambda: self.gradient.gradients(slopes))
        found["learner/logp_gap"] = gap
        if self.optimizer.norm is not None:
            found["learner/grad_norm"] = self.optimizer.norm
        return found | {"learner/lr": torch.full_like(gap, lr)}

    def state_dict(self) -> dict[str, Any]:
        """The policies and the optimizer."""
        return {"policy": self.policy.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict."""
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
