"""Planning in a model: plans are the best there are, worlds and seeds apart; as a policy it repeats itself."""

import numpy as np
import pytest
import torch

from onepolicy.acting.planning import PlanAhead, Planner, PlanningPolicy, look_ahead
from onepolicy.core.cem import Search
from onepolicy.envs.vector import make
from onepolicy.errors import ConfigError
from onepolicy.evaluation.returns import play
from onepolicy.nn.dynamics import Ahead, Dynamics

LOW, HIGH = torch.tensor([-2.0]), torch.tensor([2.0])


class Line:
    """A known model: s' = s + a / 10 + spread * noise, ends beyond 1. The reward is -s'^2, or s'."""

    obs_dim = 1

    def __init__(self, learners, elites, *, spread=0.0, linear=False):
        self.elites = torch.arange(elites).repeat(learners, 1)
        self.spread, self.linear = spread, linear

    def imagine(self, obs, action, noise):
        following = obs + action / 10 + self.spread * noise[..., :1]
        reward = following[..., 0] if self.linear else -following[..., 0].square()
        return Ahead(following, reward, following[..., 0] > 1)

    def means(self):
        return lambda obs, action: self.imagine(obs, action, torch.zeros_like(obs))


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def ahead(**changes):
    search = Search(population=200, elites=20, rounds=8)
    return PlanAhead(**{"horizon": 5, "search": search} | changes)


def test_a_plan_goes_where_the_reward_is_and_is_kept():
    """From 0.3 to 0 by at most 0.1 a step; the next search begins at what is left of the plan."""
    planner, obs = Planner((0, 1), 1, 1, ahead()), np.array([[[0.3]], [[-0.3]]], np.float32)
    action = planner.act(Line(2, 3), obs)
    assert action.shape == (2, 1, 1)
    assert action.flatten().tolist() == pytest.approx([-1.0, 1.0], abs=0.05)
    left = planner.plan[:, 0, :, 0]
    assert left[:, :2].tolist() == pytest.approx(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]).numpy(), abs=0.16)
    assert left[:, -1].tolist() == [0.0, 0.0]
    # -(0.2^2 + 0.1^2) and nothing after: what the plan is worth
    assert planner.metrics["plan/worth"].tolist() == pytest.approx([-0.05, -0.05], abs=0.01)
    assert (planner.metrics["plan/std"] < 0.1).all()


def test_planning_goes_on_where_it_was():
    planner, obs = Planner((0, 1), 1, 1, ahead()), np.array([[[0.3]], [[-0.3]]], np.float32)
    planner.act(Line(2, 3), obs)
    saved = planner.state_dict()
    following, after = planner.act(Line(2, 3), obs), planner.plan
    other = Planner((7, 8), 1, 1, ahead())
    other.load_state_dict(saved)
    np.testing.assert_array_equal(other.act(Line(2, 3), obs), following)
    assert torch.equal(other.plan, after)


def test_several_worlds_have_plans_of_their_own_and_forget_where_an_episode_ends():
    planner = Planner((0,), 3, 1, ahead())
    action = planner.act(Line(1, 2), np.array([[[0.4], [-0.4], [0.0]]], np.float32))
    assert action.flatten().tolist() == pytest.approx([-1.0, 1.0, 0.0], abs=0.1)
    before = planner.plan.clone()
    planner.forget(np.array([[True, False, False]]))
    assert (planner.plan[0, 0] == 0).all()
    assert torch.equal(planner.plan[:, 1:], before[:, 1:])


def test_a_seed_plans_as_it_would_alone():
    obs = np.array([[[0.4], [0.1]], [[-0.4], [0.2]]], np.float32)
    both, one = Planner((3, 5), 2, 1, ahead()), Planner((5,), 2, 1, ahead())
    np.testing.assert_array_equal(both.act(Line(2, 2), obs)[1], one.act(Line(1, 2), obs[1:])[0])


def test_without_carry_each_search_begins_at_nothing():
    planner = Planner((0,), 1, 1, ahead(carry=False))
    planner.act(Line(1, 2), np.array([[[0.3]]], np.float32))
    assert (planner.plan == 0).all()


def test_rewards_after_the_end_count_nothing():
    """Every reward is -s^2: at 0.99 the best is to end at once and pay little more than 1 once."""
    planner = Planner((0,), 1, 1, ahead(horizon=8))
    assert planner.act(Line(1, 2), np.array([[[0.99]]], np.float32)).item() > 0.1


def test_a_plan_s_worth_by_hand():
    """Two steps by +1 from 0 at discount 1/2: reward s', 0.1 + 0.2 / 2; no spread, so that all samples are the plan."""
    search = Search(population=4, elites=2, rounds=1, keep=0.0)
    config = PlanAhead(horizon=2, search=search, std=1e-9, gamma=0.5)
    begin, rngs = torch.ones(1, 1, 2, 1), generators(0)
    found = look_ahead(Line(1, 3, linear=True), torch.zeros(1, 1, 1), begin, config, rngs)
    assert found.worth.item() == pytest.approx(0.2)


def test_particles_meet_the_model_s_noise():
    """Beyond 1 it ends and pays -1 or less but once: with noise that is likely, by the means it never happens.

    From 0.9 with rewards -s'^2, no action and 8 steps: the means stay, 8 * 0.81; particles leave and pay less in sum.
    """
    search = Search(population=50, elites=50, rounds=1, keep=0.0)
    worth = []
    for particles in (0, 40):
        config = PlanAhead(horizon=8, search=search, std=1e-9, particles=particles)
        begin = torch.zeros(1, 1, 8, 1)
        model = Line(1, 2, spread=0.2)
        worth.append(look_ahead(model, torch.full((1, 1, 1), 0.9), begin, config, generators(0)).worth.item())
    assert worth[0] == pytest.approx(-8 * 0.81, rel=1e-5)
    rng, paid = np.random.default_rng(0), []
    for _ in range(20_000):
        at, total = 0.9, 0.0
        for _ in range(8):
            at += 0.2 * rng.standard_normal()
            total -= at * at
            if at > 1:
                break
        paid.append(total)
    assert worth[1] == pytest.approx(np.mean(paid), rel=0.03)


@pytest.fixture
def policy():
    torch.manual_seed(0)
    dynamics = Dynamics((4,), 3, 1, (8,), members=3, elites=2)
    config = PlanAhead(horizon=3, search=Search(population=20, elites=4, rounds=2))
    return PlanningPolicy(dynamics, config, LOW, HIGH, seed=1)


def test_a_policy_repeats_itself_and_remembers_its_plans(policy):
    """Equal calls in equal order give equal actions; a second call begins at the first's plan, or forgets it."""
    obs = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    first, second = policy.greedy(), policy.greedy()
    for _ in range(3):
        np.testing.assert_array_equal(first(obs), second(obs))
    assert first.memory.state.shape == (5, 3)
    assert (first.memory.state[:, :-1] != 0).any()
    assert np.abs(first(obs)).max() <= 2.0
    first.memory.forget(np.array([True, False, False, False, False]))
    assert (first.memory.state[0] == 0).all()


def test_measuring_a_policy_leaves_no_trace(policy):
    env = make("Pendulum-v1", 2, 0)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = [play(env, policy.greedy(), 2, 3).returns for _ in range(2)]
    assert found[0] == found[1]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_draw_is_a_search_from_the_given_generator(policy):
    obs = torch.randn(2, 4, 3)
    action, said = policy.act(obs, rng=generators(3)[0])
    assert action.shape == (2, 4, 1)
    assert torch.equal(action, policy.act(obs, rng=generators(3)[0])[0])
    assert not torch.equal(action, policy.act(obs, rng=generators(4)[0])[0])
    assert torch.isnan(said.logp).all()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"horizon": 0}, "horizon is 0"),
        ({"std": 0.0}, "std is 0.0"),
        ({"particles": -1}, "particles is -1"),
        ({"gamma": 2.0}, "gamma is 2"),
    ],
)
def test_bad_settings(fields, words):
    with pytest.raises(ConfigError, match=words):
        PlanAhead(**fields)
