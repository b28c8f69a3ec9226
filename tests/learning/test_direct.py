"""The direct step is torch's own step to the bit, after a loaded state too; what it does not know steps itself."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from onepolicy.learning.direct import DirectStep
from onepolicy.learning.optim import OptimConfig, clip_gradients, make_optimizer


def parameters() -> list[nn.Parameter]:
    rng = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=rng)) for shape in ((3, 4), (4,), (2, 3, 5))]


def gradients(step: int) -> list[Tensor]:
    rng = torch.Generator().manual_seed(100 + step)
    return [torch.randn(p.shape, generator=rng) for p in parameters()]


CONFIGS = [
    OptimConfig(lr=0.1, name="adam"),
    OptimConfig(lr=0.1, name="adam", weight_decay=0.3, betas=(0.5, 0.7), eps=1e-3),
    OptimConfig(lr=0.1, name="adamw", weight_decay=0.3),
    OptimConfig(lr=0.1, name="adamw", weight_decay=0.3, decay="matrices"),
    OptimConfig(lr=0.1, name="sgd"),
    OptimConfig(lr=0.1, name="rmsprop"),
    OptimConfig(lr=0.1, name="rmsprop-tf"),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.name}-{c.weight_decay}-{c.decay}")
def test_equal_to_the_optimizers_own_step(config: OptimConfig) -> None:
    own, direct = parameters(), parameters()
    theirs, ours = make_optimizer(own, config), make_optimizer(direct, config)
    descend = DirectStep(ours)
    for step in range(6):
        for group, other in zip(theirs.param_groups, ours.param_groups, strict=True):
            group["lr"] = other["lr"] = 0.1 / (1 + step)
        for p, q, g in zip(own, direct, gradients(step), strict=True):
            p.grad, q.grad = g.clone(), g.clone()
        theirs.step()
        descend()
        assert all(torch.equal(p, q) for p, q in zip(own, direct, strict=True)), step
    assert str(theirs.state_dict()) == str(ours.state_dict())


def test_the_kernel_is_called_from_the_second_step_on(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = parameters()
    optimizer = make_optimizer(mine, OptimConfig(lr=0.1, name="adam"))
    descend, calls = DirectStep(optimizer), []
    step = optimizer.step
    monkeypatch.setattr(optimizer, "step", lambda: calls.append(1) or step())
    for k in range(4):
        for p, g in zip(mine, gradients(k), strict=True):
            p.grad = g
        descend()
    assert calls == [1]


def test_goes_on_from_a_loaded_state() -> None:
    own, direct = parameters(), parameters()
    theirs, ours = (make_optimizer(p, OptimConfig(lr=0.1, name="adam")) for p in (own, direct))
    descend, saved = DirectStep(ours), None
    for step in range(5):
        if step == 3 and saved is not None:  # back to what was after the second step
            theirs.load_state_dict(copy.deepcopy(saved))
            ours.load_state_dict(copy.deepcopy(saved))
        for p, q, g in zip(own, direct, gradients(step), strict=True):
            p.grad, q.grad = g.clone(), g.clone()
        theirs.step()
        descend()
        if step == 1:
            saved = copy.deepcopy(ours.state_dict())
        assert all(torch.equal(p, q) for p, q in zip(own, direct, strict=True)), step


def test_a_parameter_without_a_gradient_stays_as_it_is() -> None:
    mine = parameters()
    before = mine[1].detach().clone()
    descend = DirectStep(make_optimizer(mine, OptimConfig(lr=0.1, name="adam")))
    for step in range(3):
        for place, (p, g) in enumerate(zip(mine, gradients(step), strict=True)):
            p.grad = None if place == 1 else g
        descend()
    assert torch.equal(mine[1], before)
    assert not torch.equal(mine[0], parameters()[0])


@pytest.mark.parametrize("most", [0.0, 0.5, 1e3])
def test_gradients_that_are_parts_of_one_tensor_are_clipped_as_any(most):
    """Norm and scale of the parts together; and of some of the parts only, which are not the whole."""
    rng = torch.Generator().manual_seed(0)
    whole = torch.randn(12, generator=rng)
    for used in (3, 2):
        joined, apart = ([torch.nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), (4,), (2,))] for _ in range(2))
        parts = whole.clone().split([6, 4, 2])
        for one, two, part in zip(joined, apart, parts, strict=True):
            one.grad, two.grad = part.view(one.shape), part.clone().view(two.shape)
        found, expected = clip_gradients(joined[:used], most), clip_gradients(apart[:used], most)
        assert found == pytest.approx(expected, rel=1e-6)
        for one, two in zip(joined, apart, strict=True):
            torch.testing.assert_close(one.grad, two.grad)
