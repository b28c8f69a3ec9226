"""A step of Adam straight to torch's fused kernel, for small networks, whose step costs less than what surrounds it.

torch's `optimizer.step()` sorts parameters by device and looks after hooks, graphs and profilers each time; for six
tensors that takes longer than the arithmetic. In: the call. Not in: the state, which stays the optimizer's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

_KERNELS: dict[type[torch.optim.Optimizer], str] = {
    torch.optim.Adam: "_fused_adam_",
    torch.optim.AdamW: "_fused_adamw_",
}
_Group = tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor], Tensor]
"""Parameters, first and second moments, each one's count of steps, and all these counts as one tensor."""


@final
class DirectStep:
    """What `optimizer.step()` does, in the same numbers; an optimizer other than a fused Adam on a CPU steps itself.

    It is for an optimizer without hooks. The first step, the first after a loaded state, and those where a parameter
    has no gradient are the optimizer's own.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        kernel = getattr(torch, _KERNELS.get(type(optimizer), ""), None)
        fused = all(
            group.get("fused")
            and not (group["amsgrad"] or group["maximize"] or group["differentiable"])
            and all(p.device.type == "cpu" for p in group["params"])
            for group in optimizer.param_groups
        )
        self._kernel: Callable[..., Any] | None = kernel if fused else None
        self._seen: object = None
        self._groups: list[_Group] = []

    @torch.no_grad()
    def __call__(self) -> None:
        """One step down the gradients that the parameters hold."""
        optimizer, kernel = self.optimizer, self._kernel
        gradients = None
        if kernel is not None and self._seen is optimizer.state:
            gradients = [[p.grad for p in group[0]] for group in self._groups]
        if kernel is None or gradients is None or any(g is None for mine in gradients for g in mine):
            optimizer.step()
            self._find()
            return
        for group, (parameters, first, second, steps, count), mine in zip(
            optimizer.param_groups, self._groups, gradients, strict=True
        ):
            count.add_(1.0)
            kernel(
                parameters, mine, first, second, [], steps,
                lr=group["lr"], beta1=group["betas"][0], beta2=group["betas"][1], weight_decay=group["weight_decay"],
                eps=group["eps"], amsgrad=False, maximize=False, grad_scale=None, found_inf=None,
            )  # fmt: skip

    def _find(self) -> None:
        """The optimizer's state as lists, once all of it is there; its counts of steps become parts of one tensor."""
        self._seen, self._groups = None, []
        names = ("exp_avg", "exp_avg_sq", "step")
        for group in self.optimizer.param_groups:
            states = [self.optimizer.state.get(p, {}) for p in group["params"]]
            if not all(name in state for state in states for name in names):
                return
            count = torch.stack([state["step"] for state in states])
            for state, step in zip(states, count.unbind(), strict=True):
                state["step"] = step
            first, second, steps = ([state[name] for state in states] for name in names)
            self._groups.append((list(group["params"]), first, second, steps, count))
        self._seen = self.optimizer.state
