"""One optimizer for learners side by side: the steps each would make alone, and failures that name whose they are."""

from copy import deepcopy

import pytest
import torch

from onepolicy.errors import TrainingError
from onepolicy.learning.optim import OptimConfig
from onepolicy.learning.stacked import StackedOptimizer


def parameters(seed=0):
    """Weights [3, 4, 2] and biases [3, 1, 2] of three learners."""
    rng = torch.Generator().manual_seed(seed)
    shapes = ((3, 4, 2), (3, 1, 2))
    return [torch.nn.Parameter(torch.randn(shape, generator=rng)) for shape in shapes]


def losses(weight, bias, step):
    """Learner k's has gradients of about the size 10^k."""
    scale = 10.0 ** torch.arange(3)[: len(weight)]
    return scale * ((weight - step).square().sum((1, 2)) + (bias * weight[:, :1]).sum((1, 2)))


@pytest.mark.parametrize("most", [0.0, 0.5, 60.0])
def test_each_learner_steps_as_it_would_alone(most):
    """Torch's Adam and clip_grad_norm_ on each learner's part, with losses of very different size."""
    stacked = parameters()
    optimizer = StackedOptimizer(stacked, (5, 6, 7), OptimConfig(lr=0.1, name="adam", max_grad_norm=most))
    single = [[torch.nn.Parameter(p.detach()[k : k + 1].clone()) for p in stacked] for k in range(3)]
    alone = [torch.optim.Adam(mine, lr=0.1) for mine in single]
    for step in range(4):
        found = optimizer.step(losses(*stacked, step))
        for k in range(3):
            loss = 10.0**k * losses(*single[k], step)
            torch.testing.assert_close(found[k : k + 1], loss.detach())
            alone[k].zero_grad()
            loss.sum().backward()
            if most:
                torch.nn.utils.clip_grad_norm_(single[k], most)
            alone[k].step()
            for whole, mine in zip(stacked, single[k], strict=True):
                torch.testing.assert_close(whole[k : k + 1], mine, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_the_seed_and_changes_nothing(bad):
    stacked = parameters()
    optimizer = StackedOptimizer(stacked, (5, 6, 7), OptimConfig(lr=0.1, name="adam"))
    optimizer.step(losses(*stacked, 0))
    before = [p.detach().clone() for p in stacked]
    with pytest.raises(TrainingError, match=rf"loss of seed 6 is {bad} at optimizer step 1; lower lr"):
        optimizer.step(losses(*stacked, 1) * torch.tensor([1.0, bad, 1.0]))
    assert all(torch.equal(one, two) for one, two in zip(before, stacked, strict=True))


def test_the_learning_rate_follows_its_schedule():
    """Plain descent on a slope of 1 with lr 0.4 to 0 over 4 steps: 0.4, 0.3, 0.2, 0.1."""
    at = torch.nn.Parameter(torch.zeros(1, 1))
    config = OptimConfig(lr=0.4, name="sgd", betas=(0.0, 0.0), max_grad_norm=0.0, schedule="linear", total_steps=4)
    optimizer = StackedOptimizer([at], (0,), config)
    places = []
    for _ in range(4):
        optimizer.step(at[:, 0])
        places.append(-at.item())
    assert places == pytest.approx([0.4, 0.7, 0.9, 1.0])


def test_loaded_it_goes_on_as_it_would_have():
    one, two = parameters(), parameters()
    config = OptimConfig(lr=0.1, name="adam", schedule="linear", total_steps=5)
    first, second = (StackedOptimizer(mine, (5, 6, 7), config) for mine in (one, two))
    first.step(losses(*one, 0))
    second.load_state_dict(deepcopy(first.state_dict()))
    with torch.no_grad():
        for old, new in zip(one, two, strict=True):
            new.copy_(old)
    for step in range(1, 4):
        first.step(losses(*one, step))
        second.step(losses(*two, step))
    assert all(torch.equal(x, y) for x, y in zip(one, two, strict=True))
