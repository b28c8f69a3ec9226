"""The actor as a function of one vector: the policy's own numbers, and derivatives that are autograd's."""

import pytest
import torch

from onepolicy.core import kl
from onepolicy.errors import ModelError
from onepolicy.nn.flat_actor import FlatActor
from onepolicy.nn.policies import CategoricalPolicy, GaussianPolicy
from onepolicy.nn.state_noise import StateNoisePolicy

M = 7


KINDS = {
    "categorical": (CategoricalPolicy, 3, {}),
    "gaussian": (GaussianPolicy, 2, {}),
    "state noise": (StateNoisePolicy, 2, {}),
    "one deviation a feature": (StateNoisePolicy, 2, {"full_std": False}),
}


@pytest.fixture(params=sorted(KINDS))
def given(request):
    """(policy in float64 with weights far from their start, its actor, observations, actions)."""
    rng = torch.Generator().manual_seed(0)
    kind, extent, options = KINDS[request.param]
    policy = kind(4, extent, hidden=(6, 5), seed=1, **options).double()
    for p in policy.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=rng, dtype=torch.float64)
    obs = torch.randn(M, 4, generator=rng, dtype=torch.float64)
    return policy, FlatActor(policy), obs, policy.act(obs, rng=rng)[0]


def test_it_says_what_the_policy_says(given):
    policy, actor, obs, action = given
    out = actor.forward(actor.vector(), obs).out
    assert torch.allclose(actor.family.logp(out, action), policy.evaluate(obs, action).logp, atol=1e-12)


def test_assigning_moves_the_actor_and_nothing_of_the_critic(given):
    policy, actor, obs, action = given
    before = policy.evaluate(obs, action)
    actor.assign(actor.vector() + 0.1)
    after = policy.evaluate(obs, action)
    assert torch.equal(before.value, after.value)
    assert not torch.isclose(before.logp, after.logp).any()
    out = actor.forward(actor.vector(), obs).out
    assert torch.allclose(actor.family.logp(out, action), after.logp, atol=1e-12)


def test_derivatives_along_and_back_are_autograds(given):
    """J by rows from autograd: along is J v for a random v, back is J^T u for a random u."""
    _, actor, obs, _ = given
    theta = actor.vector()
    said = actor.forward(theta, obs)
    jacobian = torch.autograd.functional.jacobian(lambda vector: torch_forward(actor, vector, obs), theta)
    rng = torch.Generator().manual_seed(2)
    v = torch.randn(len(theta), generator=rng, dtype=torch.float64)
    u = torch.randn(said.out.shape, generator=rng, dtype=torch.float64)
    assert torch.allclose(actor.along(said, v), jacobian @ v, atol=1e-12)
    assert torch.allclose(actor.back(said, u), torch.einsum("mk,mkp->p", u, jacobian), atol=1e-12)


def torch_forward(actor, vector, obs):
    return actor.forward(vector, obs).out


def test_the_metric_is_the_curvature_of_the_divergence(given):
    """The Hessian of the mean KL(old || new) at new = old, by double backward, is J^T metric J / M: nothing is lost."""
    _, actor, obs, _ = given
    theta = actor.vector()
    old = actor.forward(theta, obs)

    def divergence(vector):
        return actor.family.kl(old.out, torch_forward(actor, vector, obs)).mean()

    hessian = torch.autograd.functional.hessian(divergence, theta)
    products = [
        actor.back(old, actor.family.metric(old.out, actor.along(old, e)) / M) for e in torch.eye(len(theta)).double()
    ]
    assert torch.allclose(torch.stack(products), hessian, atol=1e-11)


def test_the_divergence_is_the_distributions(given):
    """Against torch.distributions, at two parameter vectors."""
    policy, actor, obs, _ = given
    one, two = (actor.forward(actor.vector() * scale, obs).out for scale in (1.0, 1.3))
    if isinstance(policy, CategoricalPolicy):
        p, q = (torch.distributions.Categorical(logits=out) for out in (one, two))
        expected = torch.distributions.kl_divergence(p, q)
    else:
        p, q = (torch.distributions.Normal(mean, std.exp()) for mean, std in (out.chunk(2, -1) for out in (one, two)))
        expected = torch.distributions.kl_divergence(p, q).sum(-1)
    assert torch.allclose(actor.family.kl(one, two), expected, atol=1e-12)
    assert torch.equal(actor.family.kl(one, one), torch.zeros(M, dtype=torch.float64))


def test_gaussian_divergence_by_hand():
    """From N(0, 1) to N(1, 2^2): log 2 + (1 + 1) / 8 - 1 / 2."""
    zero, one, log_two = torch.tensor([0.0]), torch.tensor([1.0]), torch.tensor([2.0]).log()
    assert kl.exact_gaussian(zero, zero, one, log_two).item() == pytest.approx(0.693147 + 0.25 - 0.5, abs=1e-6)


def test_another_policy_is_refused():
    with pytest.raises(ModelError, match="Linear is not an actor"):
        FlatActor(torch.nn.Linear(2, 2))
