"""The gradient of a step does not depend on how its batch was cut, padded or spread over ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.core.kl import k3
from onepolicy.core.policy import PolicyLoss, cispo, clipped, reinforce
from onepolicy.learning.learner import PolicyLearner
from onepolicy.learning.optim import OptimConfig

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


LOSSES = {
    "grpo": PolicyLoss(surrogate=partial(clipped, low=0.2, high=0.2), kl_coef=0.1, kl=k3),
    "gspo": PolicyLoss(surrogate=partial(clipped, low=0.2, high=0.2), level="sequence"),
    "cispo": PolicyLoss(surrogate=partial(cispo, low=0.2, high=0.3)),
    "reinforce": PolicyLoss(surrogate=reinforce),
}


def gradient(policy, loss, batch, **options):
    """The gradient PolicyLearner accumulates, flat, in float64."""
    learner = PolicyLearner(policy, loss, optim=OptimConfig(lr=1e-3, max_grad_norm=0.0), **options)
    learner.stepper.discard()
    sums, *_ = learner._backward(batch)
    learner.stepper.sum_gradients()
    flat = torch.cat([p.grad.flatten().double() for p in learner.stepper.parameters])
    learner.stepper.discard()
    return flat, {name: float(value) for name, value in sums.items()}


def with_reference(batch):
    return replace(batch, logp_ref=batch.logp_behaviour - 0.3)


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean", "sequence_sum", "fixed_length"])
@pytest.mark.parametrize("name", LOSSES)
def test_micro_batches_padding_and_side_leave_the_gradient_alone(tools, name, reduction, dtype):
    policy, batch = tools.policy(dtype=dtype), with_reference(tools.batch())
    options = {"reduction": reduction, "length": 50 if reduction == "fixed_length" else None}
    whole, metrics = gradient(policy, LOSSES[name], batch, **options)
    assert whole.norm() > 1e-4
    variants = {
        "split": gradient(policy, LOSSES[name], batch, micro_tokens=40, **options),
        "padded": gradient(policy, LOSSES[name], tools.pad(batch, 5, 11), **options),
        "left": gradient(policy, LOSSES[name], tools.left_padded(batch), **options),
        "left, split": gradient(policy, LOSSES[name], tools.left_padded(batch), micro_tokens=60, **options),
    }
    for what, (other, other_metrics) in variants.items():
        assert relative(other, whole) < TOLERANCE[dtype], what
        assert other_metrics == pytest.approx(metrics, rel=1e-4, abs=1e-6), what


@pytest.mark.parametrize("arch", ["qwen3", "llama", "gpt2"])
def test_every_architecture_is_invariant(tools, arch):
    policy, batch = tools.policy(arch, torch.float64), tools.batch()
    whole, _ = gradient(policy, LOSSES["grpo"], with_reference(batch))
    other, _ = gradient(
        policy, LOSSES["grpo"], with_reference(tools.left_padded(tools.pad(batch, 0, 3))), micro_tokens=50
    )
    assert relative(other, whole) < 1e-10


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(9)), budget=st.integers(30, 400))
def test_row_order_and_any_budget_leave_the_gradient_alone(order, budget):
    from importlib import util

    spec = util.spec_from_file_location("learning_tools", Path(__file__).parent / "conftest.py")
    tools = util.module_from_spec(spec)
    spec.loader.exec_module(tools)
    policy, batch = tools.make_policy(dtype=torch.float64), tools.make_batch()
    whole, _ = gradient(policy, LOSSES["gspo"], batch, reduction="sequence_mean")
    other, _ = gradient(
        policy, LOSSES["gspo"], batch.rows(torch.tensor(order)), reduction="sequence_mean", micro_tokens=budget
    )
    assert relative(other, whole) < 1e-10


def test_the_naive_mean_per_micro_batch_would_differ(tools):
    """The invariance is not vacuous: averaging each micro-batch on its own gives another gradient."""
    policy, batch = tools.policy(dtype=torch.float64), tools.batch()
    whole, _ = gradient(policy, LOSSES["reinforce"], batch)
    halves = [gradient(policy, LOSSES["reinforce"], batch.rows(part))[0] / 2 for part in (slice(0, 4), slice(4, 9))]
    assert relative(halves[0] + halves[1], whole) > 1e-2


WORKER = """
import json, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
import conftest as tools
import test_invariance as here
from onepolicy.learning.distributed import initialise_from_environment, rank, world_size
torch.set_num_threads(1)
initialise_from_environment(60)
batch = here.with_reference(tools.make_batch())
mine = batch.rows(slice(0, 3)) if rank() == 0 else batch.rows(slice(3, 9))
results = {}
for name in ("grpo", "gspo"):
    for reduction in ("token_mean", "sequence_mean"):
        flat, _ = here.gradient(tools.make_policy(dtype=torch.float64), here.LOSSES[name],
                                mine if world_size() > 1 else batch, reduction=reduction, micro_tokens=64)
        results[f"{name} {reduction}"] = flat.tolist()
Path(sys.argv[2]).joinpath(f"{world_size()}-{rank()}.json").write_text(json.dumps(results))
"""


def test_one_rank_and_two_ranks_agree(tmp_path):
    """torchrun with gloo, rows split 3 and 6: both ranks hold the single process's gradient."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [str(script), str(Path(__file__).parent), str(tmp_path)]
    subprocess.run([sys.executable, *arguments], check=True, env=environment, timeout=120)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*launch, *arguments], check=True, env=environment, timeout=240, capture_output=True)
    single = json.loads((tmp_path / "1-0.json").read_text())
    for rank in (0, 1):
        double = json.loads((tmp_path / f"2-{rank}.json").read_text())
        assert set(double) == set(single)
        for key, flat in single.items():
            assert relative(torch.tensor(double[key]).double(), torch.tensor(flat).double()) < 1e-6, key
