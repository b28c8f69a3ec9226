"""The learner's behaviour: schedules, clipping, guards, out-of-memory retries, state."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from torch import nn

from onepolicy.batch import Evaluation, PolicyBatch
from onepolicy.core.policy import PolicyLoss, reinforce
from onepolicy.errors import ConfigError, ModelError, TrainingError
from onepolicy.learning.learner import Guard, Mixed, PolicyLearner
from onepolicy.learning.optim import OptimConfig, lr_at, make_optimizer
from onepolicy.learning.weights import publish

LOSS = PolicyLoss(surrogate=reinforce)


class Bandit(nn.Module):
    """A softmax over three arms; the observation is ignored."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(3))
        self.limit = 10**9

    def evaluate(self, inputs, action):
        if action.numel() > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        logp = torch.log_softmax(self.logits, -1)
        entropy = -(logp.exp() * logp).sum().expand(action.shape)
        return Evaluation(logp=logp[action], entropy=entropy)


def bandit_batch(actions, advantage):
    action = torch.tensor(actions)[:, None]
    zeros = torch.zeros(action.shape)
    return PolicyBatch(
        inputs=torch.zeros(*action.shape, 1),
        action=action,
        mask=torch.ones(action.shape, dtype=torch.bool),
        logp_behaviour=zeros - 1.0986123,
        advantage=torch.tensor(advantage)[:, None],
    )


def test_one_sgd_step_by_hand():
    """Arms 0 and 1 once each, advantages 1 and 0, uniform policy: dJ/dlogits = 1/2 (e_0 - 1/3) = (1/3, -1/6, -1/6)."""
    policy = Bandit()
    optim = OptimConfig(lr=0.3, name="sgd", betas=(0.0, 0.0), max_grad_norm=0.0)
    metrics = PolicyLearner(policy, LOSS, optim=optim).step(bandit_batch([0, 1], [1.0, 0.0]))
    assert policy.logits.tolist() == pytest.approx([0.1, -0.05, -0.05])
    assert metrics["policy/loss"] == pytest.approx(0.5 * 1.0986123)
    assert metrics["learner/grad_norm"] == pytest.approx((1 / 9 + 2 / 36) ** 0.5)
    assert metrics["policy/entropy"] == pytest.approx(1.0986123)
    assert metrics["learner/logp_gap"] == pytest.approx(0.0, abs=1e-6)


def test_gradient_clipping_bounds_the_step_and_reports_the_norm_before():
    policy = Bandit()
    optim = OptimConfig(lr=1.0, name="sgd", betas=(0.0, 0.0), max_grad_norm=0.1)
    metrics = PolicyLearner(policy, LOSS, optim=optim).step(bandit_batch([0, 1], [1.0, 0.0]))
    assert float(policy.logits.detach().norm()) == pytest.approx(0.1, rel=1e-4)
    assert metrics["learner/grad_norm"] > 0.4


def test_reinforce_through_the_learner_finds_the_best_arm():
    """Known optimum: arm 2 pays 1, the others 0; with advantage r - 1/3 the policy puts > 0.99 on it."""
    policy = Bandit()
    learner = PolicyLearner(policy, LOSS, optim=OptimConfig(lr=0.1, name="adam"))
    for step in range(300):
        draw = torch.Generator().manual_seed(step)
        actions = torch.multinomial(policy.logits.detach().softmax(-1), 64, True, generator=draw).tolist()
        learner.step(bandit_batch(actions, [float(a == 2) - 1 / 3 for a in actions]))
    assert float(policy.logits.detach().softmax(-1)[2]) > 0.99


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_schedules_start_peak_and_end_where_they_say(schedule):
    config = OptimConfig(lr=2.0, warmup_steps=4, schedule=schedule, total_steps=10, min_lr=0.5)
    rates = [lr_at(config, step) for step in range(12)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[4] == 2.0
    assert rates[7] == pytest.approx(1.25)
    assert rates[10] == rates[11] == pytest.approx(0.5)


def test_the_schedule_reaches_the_optimizer():
    policy = Bandit()
    config = OptimConfig(lr=0.3, name="sgd", betas=(0.0, 0.0), max_grad_norm=0.0, schedule="linear", total_steps=2)
    learner = PolicyLearner(policy, LOSS, optim=config)
    batch = bandit_batch([0, 1], [1.0, 0.0])
    rates = [learner.step(batch)["learner/lr"] for _ in range(3)]
    before = policy.logits.detach().clone()
    learner.step(batch)
    assert rates == pytest.approx([0.3, 0.15, 0.0])
    assert torch.equal(policy.logits, before)


def test_a_non_finite_step_is_skipped_dumped_and_stops_after_m(tmp_path):
    policy = Bandit()
    learner = PolicyLearner(policy, LOSS, optim=OptimConfig(lr=0.1), guard=Guard(2), dump_dir=tmp_path)
    bad = bandit_batch([0, 1], [float("nan"), 1.0])
    before = copy.deepcopy(policy.state_dict())
    metrics = learner.step(bad)
    assert metrics["learner/skipped"] == 1.0
    assert torch.equal(policy.logits, before["logits"])
    with safe_open(tmp_path / "bad-step-0.safetensors", "pt") as dump:
        assert dump.get_tensor("advantage").isnan().tolist() == [[True], [False]]
        assert "learner/loss" in dump.metadata()["metrics"]
    learner.step(bandit_batch([0, 1], [1.0, 0.0]))
    learner.step(bad)
    with pytest.raises(TrainingError, match="2 steps in a row had a non-finite loss"):
        learner.step(bad)


def test_out_of_memory_is_retried_smaller_with_the_same_loss():
    batch = bandit_batch([0, 1, 2, 0, 1, 2, 2, 2], [1.0, -1.0, 0.5, 0.0, 0.25, 2.0, -0.5, 1.0])
    roomy, tight = Bandit(), Bandit()
    tight.limit = 3
    optim = OptimConfig(lr=0.1, name="sgd", betas=(0.0, 0.0), max_grad_norm=0.0)
    expected = PolicyLearner(roomy, LOSS, optim=optim).step(batch)
    learner = PolicyLearner(tight, LOSS, optim=optim)
    metrics = learner.step(batch)
    assert metrics["learner/oom_retries"] == 2.0
    assert metrics["learner/micro_batches"] == 4.0
    assert metrics["policy/loss"] == pytest.approx(expected["policy/loss"])
    assert torch.allclose(tight.logits, roomy.logits)
    assert learner.step(batch)["learner/oom_retries"] == 0.0


def test_out_of_memory_with_one_row_says_so():
    policy = Bandit()
    policy.limit = 0
    with pytest.raises(TrainingError, match="out of memory with one row of 1 tokens"):
        PolicyLearner(policy, LOSS, optim=OptimConfig(lr=0.1)).step(bandit_batch([0, 1], [1.0, 0.0]))


def test_other_runtime_errors_pass_through():
    class Broken(Bandit):
        def evaluate(self, inputs, action):
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        PolicyLearner(Broken(), LOSS, optim=OptimConfig(lr=0.1)).step(bandit_batch([0], [1.0]))


def test_state_continues_to_the_bit(tools):
    """Two steps, save, load into a fresh learner, two more: equal to four steps."""
    batches = [tools.batch(seed=i) for i in range(4)]
    optim = OptimConfig(lr=1e-2, warmup_steps=3)

    straight = tools.policy()
    learner = PolicyLearner(straight, LOSS, optim=optim, micro_tokens=64)
    logged = [learner.step(batch) for batch in batches]

    first = tools.policy()
    learner = PolicyLearner(first, LOSS, optim=optim, micro_tokens=64)
    for batch in batches[:2]:
        learner.step(batch)
    second = tools.policy(seed=5)
    second.load_state_dict(first.state_dict())
    continued = PolicyLearner(second, LOSS, optim=optim, micro_tokens=64)
    continued.load_state_dict(copy.deepcopy(learner.state_dict()))
    assert [continued.step(batch) for batch in batches[2:]] == logged[2:]
    for a, b in zip(straight.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_only_parameters_that_require_a_gradient_move(tools):
    policy = tools.policy()
    for name, p in policy.named_parameters():
        p.requires_grad_("layers.1" in name)
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    PolicyLearner(policy, LOSS, optim=OptimConfig(lr=1e-2)).step(tools.batch())
    moved = {name for name, p in policy.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all("layers.1" in name for name in moved)


def test_bf16_stays_close_to_fp32(tools):
    """Autocast halves the mantissa: the same loss to about 1 %, and still a gradient of the same direction."""
    gradients = []
    for precision in ("fp32", "bf16"):
        policy = tools.policy()
        optim = OptimConfig(lr=1.0, name="sgd", betas=(0.0, 0.0), max_grad_norm=0.0, precision=precision)
        before = torch.cat([p.detach().flatten() for p in policy.parameters()])
        PolicyLearner(policy, LOSS, optim=optim).step(tools.batch())
        gradients.append(torch.cat([p.detach().flatten() for p in policy.parameters()]) - before)
    assert float(torch.cosine_similarity(gradients[0], gradients[1], dim=0)) > 0.99


def test_nothing_counted_gives_no_gradient():
    batch = bandit_batch([0, 1], [1.0, 0.0])
    policy = Bandit()
    metrics = PolicyLearner(policy, LOSS, optim=OptimConfig(lr=0.1, weight_decay=0.0)).step(
        replace(batch, mask=torch.zeros_like(batch.mask))
    )
    assert metrics["learner/grad_norm"] == 0.0
    assert torch.equal(policy.logits, torch.zeros(3))


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match="lr is 0"):
        OptimConfig(lr=0.0)
    with pytest.raises(ConfigError, match="total_steps is 5"):
        OptimConfig(lr=1.0, schedule="linear", warmup_steps=5, total_steps=5)
    with pytest.raises(ConfigError, match="micro_tokens is 0"):
        PolicyLearner(Bandit(), LOSS, optim=OptimConfig(lr=0.1), micro_tokens=0)
    frozen = Bandit()
    frozen.logits.requires_grad_(False)
    with pytest.raises(ConfigError, match="no parameter requires a gradient"):
        PolicyLearner(frozen, LOSS, optim=OptimConfig(lr=0.1))


def test_publication_needs_a_newer_version():
    class Recorder:
        version = 3

        def load(self, state, version):
            self.version, self.state = version, state

    generator = Recorder()
    publish({"w": torch.ones(1)}, generator, 4)
    assert generator.version == 4
    with pytest.raises(ModelError, match="version 4 is not newer"):
        publish({"w": torch.ones(1)}, generator, 4)


def test_a_mixed_batch_adds_coef_times_its_own_mean_loss():
    """Main: arm 0 with advantage 1, gradient -(e_0 - 1/3). Mixed: arm 2, mean gradient -(e_2 - 1/3), times 3.

    Their sum is (-2/3, 1/3, 1/3) + 3 (1/3, 1/3, -2/3) = (1/3, 4/3, -5/3), whatever the size of either batch.
    """
    policy = Bandit()
    optim = OptimConfig(lr=0.3, name="sgd", betas=(0.0, 0.0), max_grad_norm=0.0)
    learner = PolicyLearner(policy, LOSS, optim=optim)
    mixed = Mixed("ptx", bandit_batch([2, 2, 2, 2], [1.0] * 4), LOSS, coef=3.0)
    metrics = learner.step(bandit_batch([0], [1.0]), [mixed])
    assert policy.logits.tolist() == pytest.approx([-0.1, -0.4, 0.5])
    assert metrics["ptx/loss"] == pytest.approx(1.0986123)
    assert metrics["learner/loss"] == pytest.approx(4 * 1.0986123)
    with pytest.raises(ConfigError, match="coef of 'ptx' is 0"):
        Mixed("ptx", mixed.batch, LOSS, coef=0.0)


def test_tensorflows_rmsprop_by_hand():
    """From a mean square of 1: s = 0.99 + 0.01 g^2, step lr g / sqrt(s + eps); two steps, two parameters."""
    weight, bias = torch.nn.Parameter(torch.tensor([1.0, -2.0])), torch.nn.Parameter(torch.tensor([0.5]))
    config = OptimConfig(lr=0.1, name="rmsprop-tf", betas=(0.9, 0.99), eps=1e-5)
    optimizer = make_optimizer([weight, bias], config)
    expected = {"w": [1.0, -2.0], "b": [0.5]}
    square = {"w": [1.0, 1.0], "b": [1.0]}
    for gradients in ({"w": [3.0, 0.0], "b": [1e-3]}, {"w": [-1.0, 2.0], "b": [0.2]}):
        weight.grad, bias.grad = torch.tensor(gradients["w"]), torch.tensor(gradients["b"])
        optimizer.step()
        for name, found in gradients.items():
            for i, g in enumerate(found):
                square[name][i] = 0.99 * square[name][i] + 0.01 * g * g
                expected[name][i] -= 0.1 * g / (square[name][i] + 1e-5) ** 0.5
    torch.testing.assert_close(weight.detach(), torch.tensor(expected["w"]))
    torch.testing.assert_close(bias.detach(), torch.tensor(expected["b"]))
    again = make_optimizer([weight, bias], config)
    again.load_state_dict(optimizer.state_dict())
    assert again.state[bias]["square"].item() == pytest.approx(square["b"][0])
