"""Masks of actions and several choices at once: probability 0, no gradient, equality with a smaller set of actions."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from onepolicy.acting.explore import any_legal, epsilon_greedy
from onepolicy.algos.dqn import q_target
from onepolicy.batch import PolicyBatch
from onepolicy.core.policy import PolicyLoss, reinforce
from onepolicy.errors import ConfigError
from onepolicy.learning.learner import PolicyLearner
from onepolicy.learning.optim import OptimConfig
from onepolicy.nn.flat_actor import FlatActor
from onepolicy.nn.legal import LOWEST, legal_of
from onepolicy.nn.multi import Choices, MultiCategoricalPolicy
from onepolicy.nn.policies import CategoricalPolicy
from onepolicy.nn.stacked import StackedQ


def spread(policy):
    """The policy with weights far from their near-uniform start."""
    with torch.no_grad():
        for p in policy.networks.actor.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    return policy


def rows(count, sizes, seed=0):
    """Observations of 3 features, and masks with a legal value of each choice."""
    rng = np.random.default_rng(seed)
    masks = [rng.integers(0, 2, (count, size)) for size in sizes]
    for mask in masks:
        mask[np.arange(count), rng.integers(0, mask.shape[1], count)] = 1
    seen = np.concatenate([rng.standard_normal((count, 3)), *masks], axis=1)
    return torch.from_numpy(seen.astype(np.float32))


KINDS = {
    "one": (lambda **more: CategoricalPolicy(3 + 5, 5, masked=True, **more), (5,)),
    "several": (lambda **more: MultiCategoricalPolicy(3 + 9, (2, 4, 3), masked=True, **more), (2, 4, 3)),
}


@pytest.mark.parametrize("recurrent", ["none", "lstm"])
@pytest.mark.parametrize("kind", KINDS)
def test_illegal_values_are_never_chosen_in_any_way_of_acting(kind, recurrent):
    make, sizes = KINDS[kind]
    policy = spread(make(recurrent=recurrent, hidden=(8,)))
    obs = rows(3000, sizes)
    drawn = policy.sampler(np.random.default_rng(0)).draw(obs.numpy())[0].action
    ways = [torch.from_numpy(drawn), policy.act(obs)[0], torch.from_numpy(policy.greedy()(obs.numpy()))]
    for action in ways:
        for k, mask in enumerate(obs[:, 3:].split(sizes, dim=1)):
            chosen = action.view(3000, -1)[:, k]
            assert bool((mask.gather(1, chosen[:, None]) == 1).all())


@pytest.mark.parametrize("kind", KINDS)
def test_illegal_logits_have_no_gradient_and_no_part_in_the_entropy(kind):
    """Value 1 of each choice is illegal everywhere: its row of the actor's head stays as it is."""
    make, sizes = KINDS[kind]
    policy = spread(make())
    obs = rows(20, sizes)
    illegal = np.cumsum((0, *sizes[:-1])) + 1
    obs[:, 3:] = 1.0
    obs[:, 3 + illegal] = 0.0
    action, said = policy.act(obs)
    again = policy.evaluate(obs, action)
    (again.logp.sum() + again.entropy.sum()).backward()
    gradient = policy.networks.actor.weight.grad
    assert gradient[illegal].abs().max() == 0
    assert gradient.abs().max() > 0
    assert bool(torch.isfinite(gradient).all())
    torch.testing.assert_close(said.logp, again.logp)
    with torch.no_grad():  # a policy of equal logits has the entropy of the legal values alone
        policy.networks.actor.weight.zero_(), policy.networks.actor.bias.zero_()
    expected = sum(math.log(size - 1) for size in sizes)
    assert policy.evaluate(obs, action).entropy.tolist() == pytest.approx([expected] * 20)


def test_the_policy_gradient_is_that_of_the_smaller_set_of_actions():
    """Actions 0 and 2 of 4 legal, against a policy of 2 actions with these rows: the same in every number."""
    large, small = spread(CategoricalPolicy(3 + 4, 4, masked=True, seed=0)), CategoricalPolicy(3, 2, seed=0)
    with torch.no_grad():
        small.networks.body.load_state_dict(large.networks.body.state_dict())
        small.networks.critic.load_state_dict(large.networks.critic.state_dict())
        small.networks.actor.weight.copy_(large.networks.actor.weight[[0, 2]])
        small.networks.actor.bias.copy_(large.networks.actor.bias[[0, 2]])
    obs = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    seen = torch.cat([obs, torch.tensor([1.0, 0.0, 1.0, 0.0]).expand(30, 4)], dim=1)
    chosen = torch.randint(2, (30,), generator=torch.Generator().manual_seed(0))
    slopes = []
    for policy, inputs, action in ((large, seen, 2 * chosen), (small, obs, chosen)):
        said = policy.evaluate(inputs, action)
        loss = (said.logp * torch.arange(30)).mean() + said.entropy.mean() + said.value.square().mean()
        loss.backward()
        body = policy.networks.body
        slopes.append((loss, body.weight0.grad, body.weight1.grad, policy.networks.actor.weight.grad))
    for mine, theirs in zip(slopes[0][:3], slopes[1][:3], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(slopes[0][3][[0, 2]], slopes[1][3], rtol=0, atol=1e-6)


def test_several_choices_by_hand():
    """Heads of 2 and 3 values with p = (1/4, 3/4) and (1/2, 1/4, 1/4): both log-probs and both entropies add up."""
    choices = Choices((2, 3))
    logits = torch.tensor([0.0, math.log(3.0), math.log(2.0), 0.0, 0.0])
    logp, entropy = choices.evaluate(logits, torch.tensor([1, 2]))
    assert logp.item() == pytest.approx(math.log(3 / 16))
    first = math.log(4) - 0.75 * math.log(3)
    assert entropy.item() == pytest.approx(first + 1.5 * math.log(2))


def test_draws_of_several_choices_have_the_probabilities_they_claim():
    choices = Choices((2, 3))
    logits = np.array([0.0, 1.0, 0.5, -1.0, 0.2], np.float32)
    draw = choices.draw(np.tile(logits, (60_000, 1)), np.random.default_rng(0))
    for pair in product(range(2), range(3)):
        mine = (draw.action == pair).all(axis=1)
        logp = choices.evaluate(torch.from_numpy(logits), torch.tensor(pair))[0].item()
        assert mine.mean() == pytest.approx(math.exp(logp), abs=0.009)  # four standard errors
        assert draw.logp[mine][0] == pytest.approx(logp, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_divergence_of_a_masked_actor_and_its_curvature(kind):
    """KL against the sum over all joint actions; the metric against the KL's own second derivative."""
    make, sizes = KINDS[kind]
    policy = spread(make(hidden=(4,)))
    actor, obs = FlatActor(policy), rows(6, sizes)
    start = actor.vector()
    other = start + 0.3 * torch.randn(start.shape, generator=torch.Generator().manual_seed(0))
    old, new = actor.forward(start, obs), actor.forward(other, obs)
    joint = list(product(*map(range, sizes)))
    divergence = torch.zeros(6)
    for each in joint:
        action = torch.tensor(each if kind == "several" else each[0]).expand(6, *[len(sizes)] * (kind == "several"))
        logp, logp_new = actor.family.logp(old.out, action), actor.family.logp(new.out, action)
        divergence += torch.where(logp > -1e20, logp.exp() * (logp - logp_new), 0.0)
    torch.testing.assert_close(actor.family.kl(old.out, new.out), divergence, rtol=1e-4, atol=1e-5)
    numbers = old.out.double()
    tangent = torch.randn(numbers.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def slope(out):
        return torch.func.grad(lambda x: actor.family.kl(numbers, x).sum())(out)

    curved = torch.func.jvp(slope, (numbers,), (tangent,))[1]
    torch.testing.assert_close(actor.family.metric(numbers, tangent), curved, rtol=1e-6, atol=1e-8)


def test_a_learner_of_masked_rows_keeps_kl_and_loss_finite():
    make, sizes = KINDS["several"]
    policy = spread(make())
    obs = rows(64, sizes)
    action, said = policy.act(obs)
    batch = PolicyBatch(obs[:, None], action[:, None], torch.ones(64, 1, dtype=torch.bool), said.logp[:, None],
                        torch.randn(64, 1, generator=torch.Generator().manual_seed(0)))  # fmt: skip
    learner = PolicyLearner(policy, PolicyLoss(reinforce, entropy_coef=0.1), optim=OptimConfig(lr=1e-2, name="adam"))
    metrics = [learner.step(batch) for _ in range(5)]
    assert all(math.isfinite(value) for each in metrics for value in each.values())
    assert metrics[0]["policy/kl_old"] == pytest.approx(0.0, abs=1e-6)
    assert metrics[-1]["policy/kl_old"] > 1e-5


@pytest.mark.parametrize("dueling", [False, True])
def test_q_of_legal_actions_is_that_of_the_smaller_set(dueling):
    """Actions 0 and 2 of 3, against Q of 2 actions with these columns: values, greatest value and target alike."""
    large = StackedQ((0, 1), 3 + 3, 3, (4,), dueling=dueling, masked=True)
    small = StackedQ((0, 1), 3, 2, (4,), dueling=dueling)
    last = "advantage" if dueling else "body"
    with torch.no_grad():
        for (name, mine), theirs in zip(large.named_parameters(), small.parameters(), strict=True):
            theirs.copy_(mine[..., [0, 2]] if name.startswith(last) and mine.shape[-1] == 3 else mine)
    obs = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    seen = torch.cat([obs, torch.tensor([1.0, 0.0, 1.0]).expand(2, 5, 3)], dim=-1)
    q, expected = large(seen), small(obs)
    torch.testing.assert_close(q[..., [0, 2]], expected)
    assert bool((q[..., 1] == float(LOWEST)).all())
    reward, discount = torch.ones(2, 5), torch.full((2, 5), 0.9)
    for double in (True, False):
        found = q_target(q, q, reward, discount, double=double)
        torch.testing.assert_close(found, q_target(expected, expected, reward, discount, double=double))
    seen[0, 0, 3:] = 0.0
    assert bool((q_target(large(seen), large(seen), reward, 0 * discount, double=True) == 1).all())
    greedy = epsilon_greedy(large.numpy_view()(seen[:, 1:].numpy()), 0.9, [np.random.default_rng(k) for k in range(2)])
    assert set(np.unique(greedy)) <= {0, 2}


def test_any_legal_action_is_drawn_as_often_as_the_others():
    drawn = any_legal(np.tile([True, False, True, True], (30_000, 1)), np.random.default_rng(0))
    assert np.abs(np.bincount(drawn, minlength=4) / 30_000 - np.array([1, 0, 1, 1]) / 3).max() < 0.011


def test_where_nothing_is_legal_everything_is():
    assert legal_of(torch.tensor([[7.0, 0.0, 0.0], [7.0, 0.0, 1.0]]), 2).tolist() == [[True, True], [False, True]]


def test_choices_that_cannot_be_are_refused():
    for sizes in ((), (3, 0)):
        with pytest.raises(ConfigError, match="each with at least one value"):
            MultiCategoricalPolicy(3, sizes)
