"""Weight decay of matrices only: by hand, from gradients of zero."""

from __future__ import annotations

import pytest
import torch

from onepolicy.errors import ConfigError
from onepolicy.learning.optim import OptimConfig
from onepolicy.learning.stepper import Stepper


def net():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    with torch.no_grad():
        for p in module.parameters():
            p.fill_(1.0)
    return module


@pytest.mark.parametrize(("decay", "vector"), [("all", 0.95), ("matrices", 1.0)])
def test_norms_and_biases_are_left_out(decay, vector):
    """AdamW with no gradient is p <- p (1 - lr decay) = 0.95 p; biases and the norm's scale stay with "matrices"."""
    module = net()
    stepper = Stepper(module, OptimConfig(lr=0.1, weight_decay=0.5, decay=decay, max_grad_norm=0.0))
    stepper.begin()
    for p in module.parameters():
        p.grad = torch.zeros_like(p)
    stepper.finish({"learner/loss": torch.zeros(())}, lambda metrics, path: path)
    for p in module.parameters():
        torch.testing.assert_close(p.detach(), torch.full_like(p, 0.95 if p.ndim == 2 else vector))


def test_a_learning_rate_and_a_saved_state_reach_both_groups():
    config = OptimConfig(lr=0.1, weight_decay=0.5, decay="matrices", warmup_steps=4)
    stepper = Stepper(net(), config)
    stepper.begin()
    assert [group["lr"] for group in stepper.optimizer.param_groups] == [0.025, 0.025]
    other = Stepper(net(), config)
    other.load_state_dict(stepper.state_dict())
    assert [group["weight_decay"] for group in other.optimizer.param_groups] == [0.5, 0.0]
    module = net()
    with pytest.raises(ConfigError, match="is not for a learner with a part apart"):
        Stepper(module, config, apart=module[1])
