"""TRPO: its step where the natural gradient has a closed form, its parts alone, its bound over a run."""

from dataclasses import replace

import pytest
import torch

from onepolicy.acting.collect import Collector
from onepolicy.algos import trpo
from onepolicy.batch import PolicyBatch
from onepolicy.envs.classic import CartPole
from onepolicy.errors import ConfigError
from onepolicy.learning.learner import PolicyLearner
from onepolicy.learning.optim import OptimConfig
from onepolicy.nn.flat_actor import FlatActor
from onepolicy.nn.policies import CategoricalPolicy, GaussianPolicy


def positive_definite(size, seed=0):
    rng = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=rng, dtype=torch.float64)
    return root @ root.T + 0.1 * torch.eye(size, dtype=torch.float64), torch.randn(size, generator=rng).double()


def test_conjugate_gradient_solves():
    a, b = positive_definite(12)
    found = trpo.conjugate_gradient(lambda v: a @ v, b, steps=20, tolerance=1e-20)
    assert torch.allclose(found.x, torch.linalg.solve(a, b), atol=1e-8)
    assert not found.curved


def test_conjugate_gradient_needs_a_step_for_each_eigenvalue():
    """Three different eigenvalues among twelve: three steps, and the tolerance ends it there."""
    q, _ = torch.linalg.qr(positive_definite(12)[0])
    values = torch.tensor([1.0, 2.0, 5.0] * 4, dtype=torch.float64)
    a, b = q @ torch.diag(values) @ q.T, positive_definite(12)[1]
    found = trpo.conjugate_gradient(lambda v: a @ v, b, steps=20, tolerance=1e-18)
    assert found.steps == 3
    assert torch.allclose(found.x, torch.linalg.solve(a, b), atol=1e-9)


def test_conjugate_gradient_stops_at_negative_curvature_with_what_it_has():
    """diag(1, -4) from b = (1, 0.1): the first step is along b; the second direction curves down."""
    a, b = torch.diag(torch.tensor([1.0, -4.0])), torch.tensor([1.0, 0.1])
    found = trpo.conjugate_gradient(lambda v: a @ v, b, steps=5, tolerance=0.0)
    assert found.curved
    assert found.steps == 1
    assert torch.allclose(found.x, b * (1.01 / (1 - 0.04)))


def test_line_search_takes_the_first_that_is_accepted_and_no_more_than_its_tries():
    seen = []
    assert trpo.line_search(lambda s: bool(seen.append(s)) or s < 0.6, shrink=0.5, tries=4) == 0.5
    assert seen == [1.0, 0.5]
    assert trpo.line_search(lambda s: bool(seen.append(s)), shrink=0.5, tries=3) == 0.0
    assert seen[2:] == [1.0, 0.5, 0.25]


@pytest.fixture
def gaussian():
    """(policy, batch): a small Gaussian policy in float64, 50 actions with random advantages."""
    rng = torch.Generator().manual_seed(3)
    policy = GaussianPolicy(2, 1, hidden=(2,), seed=0).double()
    action = torch.randn(50, 1, 1, generator=rng, dtype=torch.float64)
    advantage = torch.randn(50, 1, generator=rng, dtype=torch.float64)
    obs = torch.randn(50, 1, 2, generator=rng, dtype=torch.float64)
    logp = policy.evaluate(obs, action).logp.detach()
    return policy, PolicyBatch(obs, action, torch.ones(50, 1, dtype=torch.bool), logp, advantage)


def closed_form(policy, batch, damping, delta):
    """The step by dense algebra: Fisher information diag(1 / std^2, 2) of (mean, log std), by autograd's Jacobian."""
    actor = FlatActor(policy)
    theta, obs, action = actor.vector(), batch.inputs[:, 0], batch.action[:, 0]

    def numbers(vector):
        return actor.forward(vector, obs).out

    j = torch.autograd.functional.jacobian(numbers, theta)
    std = numbers(theta)[:, 1].exp()
    fisher = torch.einsum("mp,m,mq->pq", j[:, 0], std**-2, j[:, 0]) + 2 * torch.einsum("mp,mq->pq", j[:, 1], j[:, 1])
    fisher = fisher / len(obs) + damping * torch.eye(len(theta), dtype=torch.float64)

    def surrogate(vector):
        mean, log_std = numbers(vector).chunk(2, -1)
        logp = torch.distributions.Normal(mean, log_std.exp()).log_prob(action).sum(-1)
        return (torch.exp(logp - batch.logp_behaviour[:, 0]) * batch.advantage[:, 0]).mean()

    gradient = torch.autograd.functional.jacobian(surrogate, theta)
    x = torch.linalg.solve(fisher, gradient)
    return theta + (2 * delta / (x @ fisher @ x)).sqrt() * x


@pytest.mark.parametrize("damping", [0.01, 0.5])
def test_the_step_is_the_natural_gradients_in_closed_form(damping, gaussian):
    policy, batch = gaussian
    config = trpo.Config(damping=damping, target_kl=1e-3, cg_steps=60, cg_tolerance=1e-26)
    expected = closed_form(policy, batch, damping, 1e-3)
    metrics = trpo.improve(FlatActor(policy), batch, config, trpo.Failures())
    assert metrics["policy/step_share"] == 1.0
    assert torch.allclose(FlatActor(policy).vector(), expected, atol=1e-9)


def test_on_a_bandits_softmax_the_step_is_along_the_advantages():
    """Bias alone (observation 0): F = diag(p) - p p^T, whose pseudo-inverse turns g = p (A - mean A) into A - mean A.

    Uniform p over 3 arms, each taken once with advantages 1, 0, -1: the logits move by c (1, 0, -1), KL delta, so
    c^2 (1 + 1) / 3 = 2 delta.
    """
    policy = CategoricalPolicy(1, 3, hidden=(2,), seed=0).double()
    for p in policy.parameters():
        p.data.zero_()
    batch = PolicyBatch(
        torch.zeros(3, 1, 1).double(),
        torch.tensor([[0], [1], [2]]),
        torch.ones(3, 1, dtype=torch.bool),
        torch.full((3, 1), 1 / 3).double().log(),
        torch.tensor([[1.0], [0.0], [-1.0]]).double(),
    )
    trpo.improve(FlatActor(policy), batch, trpo.Config(damping=1e-9, target_kl=1e-4), trpo.Failures())
    c = (3 * 1e-4) ** 0.5
    assert policy.networks.actor.bias.tolist() == pytest.approx([c, 0.0, -c], abs=1e-8)


def test_a_step_beyond_the_bound_is_taken_back(gaussian):
    """So far away the quadratic model is off, and what counts is the KL itself."""
    policy, batch = gaussian
    start, failures = FlatActor(policy).vector(), trpo.Failures()
    config = trpo.Config(damping=1e-6, target_kl=8.0, cg_steps=50, tries=30)
    metrics = trpo.improve(FlatActor(policy), batch, config, failures)
    assert 0 < metrics["policy/step_share"] < 1
    assert 0 < metrics["policy/kl"] < 8.0
    FlatActor(policy).assign(start)
    metrics = trpo.improve(FlatActor(policy), batch, replace(config, tries=1), failures)
    assert metrics["policy/step_share"] == metrics["policy/kl"] == 0.0
    assert metrics["learner/rejected"] == failures.rejected == 1
    assert torch.equal(FlatActor(policy).vector(), start)


def test_advantages_that_are_all_zero_move_nothing(gaussian):
    policy, batch = gaussian
    start = FlatActor(policy).vector()
    nothing = replace(batch, advantage=torch.zeros_like(batch.advantage))
    metrics = trpo.improve(FlatActor(policy), nothing, trpo.Config(), trpo.Failures())
    assert torch.equal(FlatActor(policy).vector(), start)
    assert metrics["learner/negative_curvature"] == 0


def test_negative_curvature_is_counted_and_survived(gaussian, monkeypatch):
    policy, batch = gaussian
    actor, failures = FlatActor(policy), trpo.Failures()
    start = actor.vector()
    down = replace(actor.family, metric=lambda out, tangent: -100.0 * tangent)
    monkeypatch.setattr(actor, "family", down)
    for count in (1, 2):
        metrics = trpo.improve(actor, batch, trpo.Config(damping=0.0), failures)
        assert metrics["learner/negative_curvature"] == count
    assert torch.equal(actor.vector(), start)
    other = trpo.Failures()
    other.load_state_dict(failures.state_dict())
    assert (other.rejected, other.curvature) == (2, 2)


def run(updates, **changes):
    """A short run on CartPole; the policy, and the metrics of every rollout."""
    policy = CategoricalPolicy(4, 2, seed=0)
    adam = OptimConfig(lr=1e-3, name="adam", eps=1e-5, max_grad_norm=0.0)
    learner = PolicyLearner(policy, trpo.loss(), optim=adam)
    play, seen = Collector(CartPole(4, 0), policy, steps=256, seed=0), []
    config = trpo.Config(**{"lam": 0.98, "damping": 0.001, "batch_size": 512, "epochs": 10, **changes})

    def after_step(_, metrics):
        seen.append(metrics)
        return len(seen) == updates

    trpo.fit(learner, play, config, trpo.Failures(), steps=10**9, seed=0, after_step=after_step)
    return policy, seen


def test_it_learns_cartpole_and_every_step_keeps_its_bound():
    _, seen = run(25)
    kl = [m["policy/kl"] for m in seen]
    assert max(kl) < 0.01
    assert sum(k > 0.004 for k in kl) >= 20  # the bound is used
    assert seen[0]["rollout/return"] < 30
    assert seen[-1]["rollout/return"] > 100


def test_the_critics_steps_leave_the_actor_to_the_bit():
    """One rollout, the actor held by a bound of nothing: Adam's steps of the critic must not move it."""
    start = FlatActor(CategoricalPolicy(4, 2, seed=0)).vector()
    policy, seen = run(1, target_kl=1e-30)
    assert torch.equal(FlatActor(policy).vector(), start) or seen[0]["policy/step_share"] > 0
    moved, _ = run(1)
    again, _ = run(1, epochs=1)
    assert torch.equal(FlatActor(moved).vector(), FlatActor(again).vector())
    assert not torch.equal(moved.networks.critic.weight, again.networks.critic.weight)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"gamma": 1.5}, "gamma is 1.5"),
        ({"cg_steps": 0}, "cg_steps is 0"),
        ({"tries": 0}, "tries is 0"),
        ({"target_kl": 0.0}, "target_kl is 0.0"),
        ({"damping": -0.1}, "damping is -0.1"),
        ({"shrink": 1.0}, "shrink is 1.0"),
    ],
)
def test_choices_that_cannot_work_are_refused(wrong, words):
    with pytest.raises(ConfigError, match=words):
        trpo.Config(**wrong)
