"""PPO with a KL penalty: the surrogate by hand and by its gradient, beta's rule, the KL over a run."""

import statistics

import pytest
import torch

from onepolicy.acting.collect import Collector
from onepolicy.algos import ppo
from onepolicy.core.policy import kl_penalised
from onepolicy.data.rollout import flatten
from onepolicy.envs.classic import CartPole
from onepolicy.errors import ConfigError
from onepolicy.learning.learner import PolicyLearner
from onepolicy.learning.optim import OptimConfig
from onepolicy.nn.policies import CategoricalPolicy


def test_the_surrogate_by_hand():
    """r = 2, A = 3, beta = 10: -6 + 10 (1 - log 2); at r = 1 it is -A, whatever beta."""
    log_two = torch.tensor(2.0).log()
    found = kl_penalised(log_two, torch.tensor(0.0), torch.tensor(3.0), beta=10.0)
    assert found.item() == pytest.approx(-6 + 10 * (1 - log_two.item()))
    assert kl_penalised(torch.tensor(0.0), torch.tensor(0.0), torch.tensor(3.0), beta=10.0).item() == -3.0


def test_its_mean_is_the_surrogate_and_the_divergence():
    """Weighted by the old policy over all actions: value and gradient are those of -E[r A] + beta KL(old || new)."""
    rng = torch.Generator().manual_seed(0)
    old, advantage = torch.randn(2, 5, generator=rng, dtype=torch.float64)
    new = torch.randn(5, generator=rng, dtype=torch.float64, requires_grad=True)
    p, log_q = torch.softmax(old, -1), torch.log_softmax(new, -1)
    sampled = (p * kl_penalised(log_q - p.log(), log_q, advantage, beta=0.7)).sum()
    exact = -(log_q.exp() * advantage).sum() + 0.7 * (p * (p.log() - log_q)).sum()
    assert sampled.item() == pytest.approx(exact.item(), abs=1e-12)
    slopes = [torch.autograd.grad(value, new, retain_graph=True)[0] for value in (sampled, exact)]
    assert torch.allclose(*slopes, atol=1e-12)


def test_beta_doubles_above_and_halves_below():
    """Target 0.02: the band is 0.0133... to 0.03, both ends in it."""
    penalty, seen = ppo.Penalty(1.0), []
    for kl in (0.0301, 0.03, 0.02, 0.0134, 0.0133, 0.0):
        penalty.adapt(kl, 0.02)
        seen.append(penalty.beta)
    assert seen == [2.0, 2.0, 2.0, 2.0, 1.0, 0.5]
    other = ppo.Penalty(1.0)
    other.load_state_dict(penalty.state_dict())
    assert other.beta == 0.5


def run(updates, *, target, beta=1.0, lr=1e-3):
    """CartPole in rollouts of 512 steps; the metrics of each."""
    policy, seen = CategoricalPolicy(4, 2, seed=0), []
    config = ppo.Config(epochs=5, batch_size=128, target_kl=target, penalty=beta, lam=0.9)
    adam = OptimConfig(lr=lr, name="adam", eps=1e-5, max_grad_norm=0.5)
    learner = PolicyLearner(policy, ppo.loss(config, 1.0, beta), optim=adam)
    play = Collector(CartPole(4, 0), policy, steps=128, seed=0)

    def after_step(_, metrics):
        seen.append(metrics)
        return len(seen) == updates

    ppo.fit(learner, play, config, ppo.Penalty(beta), steps=10**9, seed=0, after_step=after_step)
    return seen


@pytest.mark.parametrize("target", [0.003, 0.03])
def test_the_divergence_stays_around_its_target(target):
    """After 10 rollouts to find beta, the median is within a factor of 2; single rollouts go further both ways."""
    seen = run(50, target=target)
    assert target / 2 < statistics.median(m["policy/kl"] for m in seen[10:]) < 2 * target
    assert len({m["policy/penalty"] for m in seen}) > 2
    assert seen[-1]["rollout/return"] > 2 * seen[0]["rollout/return"]


def test_a_beta_that_does_not_adapt_misses_it(monkeypatch):
    monkeypatch.setattr(ppo.Penalty, "adapt", lambda *_: None)
    seen = run(25, target=0.003, beta=1e-3)
    assert statistics.median(m["policy/kl"] for m in seen[10:]) > 5 * 0.003


def test_no_update_is_left_out_under_a_penalty(notebook):
    """With the clip, a KL of 1 would end the rollout's updates at the first of five; here it raises beta alone."""
    learner = notebook([1.0] * 5)
    learner.policy = CategoricalPolicy(4, 2, seed=0)
    play = Collector(CartPole(2, 0), learner.policy, steps=6, seed=0)
    config = ppo.Config(epochs=5, batch_size=12, target_kl=0.02, penalty=4.0)
    ppo.fit(learner, play, config, ppo.Penalty(4.0), steps=12, seed=0, after_step=lambda *_: False)
    assert len(learner.batches) == 5
    assert {loss.surrogate.keywords["beta"] for loss in learner.losses} == {4.0}
    assert learner.losses[0].surrogate.func is kl_penalised


def test_the_divergence_that_is_measured_is_that_of_all_updates():
    """0 for the policy that played; after a change the mean of (r - 1) - log r over the rollout."""
    policy = CategoricalPolicy(4, 2, seed=0)
    batch = flatten(ppo.credit(Collector(CartPole(2, 0), policy, steps=20, seed=0).collect(), ppo.Config()))
    assert ppo.divergence(policy, batch) == pytest.approx(0.0, abs=1e-12)
    policy.networks.actor.bias.data += torch.tensor([0.5, -0.5])
    log_ratio = policy.evaluate(batch.inputs, batch.action).logp.detach() - batch.logp_behaviour
    assert ppo.divergence(policy, batch) == pytest.approx(float((log_ratio.exp() - 1 - log_ratio).mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"penalty": 1.0}, "penalty is 1.0 without a target_kl"),
        ({"penalty": 0.0, "target_kl": 0.01}, "penalty is 0.0"),
    ],
)
def test_choices_that_cannot_work_are_refused(wrong, words):
    with pytest.raises(ConfigError, match=words):
        ppo.Config(**wrong)
