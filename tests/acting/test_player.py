"""A trained controller in its user's hands: raw observations in, what env.step takes out, anything else named."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from onepolicy.acting.normalised import NormalisedPolicy
from onepolicy.acting.player import Player
from onepolicy.envs.normalise import Moments
from onepolicy.envs.vector import make
from onepolicy.errors import DataError
from onepolicy.nn.actors import ActorPolicy, SquashedPolicy, StackedActor, StackedGaussian
from onepolicy.nn.greedy import GreedyPolicy
from onepolicy.nn.multi import MultiCategoricalPolicy
from onepolicy.nn.policies import CategoricalPolicy, GaussianPolicy
from onepolicy.nn.stacked import StackedQ

LOW, HIGH = torch.tensor([-2.0]), torch.tensor([2.0])


class Odd(gymnasium.Env):
    """Observes a Dict, acts by two choices of which the first starts at 5."""

    observation_space = spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(-1, 1, (2,))})
    action_space = spaces.MultiDiscrete([2, 3], start=np.array([5, 0]))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"a": 1, "b": np.zeros(2, np.float32)}, {}

    def step(self, action):
        return self.reset()[0], 0.0, False, False, {}


gymnasium.register("PlayerOdd-v0", Odd)


def cart(**chosen):
    return Player(CategoricalPolicy(4, 2, seed=1), make("CartPole-v1", 1, 0), **chosen)


@pytest.mark.parametrize(
    ("env_id", "policy"),
    [
        ("CartPole-v1", CategoricalPolicy(4, 2)),
        ("CartPole-v1", GreedyPolicy(StackedQ([0], 4, 2, (8,)), 4)),
        ("Pendulum-v1", GaussianPolicy(3, 1, log_std=2.0)),
        ("Pendulum-v1", ActorPolicy(StackedActor([0], 3, 1, (8,)), 3, LOW, HIGH)),
        ("Pendulum-v1", SquashedPolicy(StackedGaussian([0], 3, 1, (8,)), 3, LOW, HIGH)),
        ("PlayerOdd-v0", MultiCategoricalPolicy(5, (2, 3))),
    ],
)
@pytest.mark.parametrize("stochastic", [False, True])
def test_every_policy_plays_its_world_in_the_world_s_own_form(env_id, policy, stochastic):
    world = gymnasium.make(env_id)
    player = Player(policy, make(env_id, 1, 0))
    obs, _ = world.reset(seed=0)
    for _ in range(5):
        action = player.act(obs, stochastic=stochastic)
        assert world.action_space.contains(action)
        obs, *_ = world.step(action)


def test_several_observations_get_the_actions_each_gets_alone():
    player, obs = cart(), np.random.default_rng(0).normal(size=(6, 4))
    actions = player.act(obs)
    assert actions.shape == (6,)
    assert [player.act(each) for each in obs] == actions.tolist()
    assert type(player.act(obs[0])) is int
    assert player.act(torch.from_numpy(obs)).tolist() == player.act(obs.tolist()).tolist() == actions.tolist()


def test_the_best_action_is_the_most_probable_and_draws_have_the_policy_s_frequencies():
    player, obs = cart(), np.array([0.1, 2.0, -0.1, -2.0])
    logits, _ = player.inner.networks(torch.tensor(obs, dtype=torch.float32))
    assert player.act(obs) == int(logits.argmax())
    drawn = player.act(np.tile(obs, (4000, 1)), stochastic=True)
    p = float(torch.softmax(logits.detach(), -1)[1])
    assert drawn.mean() == pytest.approx(p, abs=4 * (p * (1 - p) / 4000) ** 0.5)


def test_draws_come_from_the_generator_that_is_given():
    player, obs = cart(), np.zeros((50, 4))
    one, two = (player.act(obs, stochastic=True, rng=torch.Generator().manual_seed(3)) for _ in range(2))
    assert (one == two).all()
    assert (player.act(obs, stochastic=True) != player.act(obs, stochastic=True)).any()


def test_observations_are_normalised_here_and_not_by_the_user():
    moments = Moments(4)
    moments.update(np.random.default_rng(0).normal(3.0, 5.0, size=(100, 4)))
    plain = CategoricalPolicy(4, 2, seed=1)
    behind = Player(NormalisedPolicy(plain, moments), make("CartPole-v1", 1, 0))
    obs = np.random.default_rng(1).normal(3.0, 5.0, size=(40, 4))
    assert (behind.act(obs) == plain.greedy()(moments.standardise(obs))).all()


def test_real_numbers_are_held_within_the_world_s_bounds():
    policy = GaussianPolicy(3, 1)
    with torch.no_grad():
        policy.networks.actor.bias.fill_(99.0)
    assert Player(policy, make("Pendulum-v1", 1, 0)).act(np.zeros(3)).tolist() == [2.0]


def test_several_choices_start_where_the_space_does():
    policy = MultiCategoricalPolicy(5, (2, 3))
    with torch.no_grad():
        policy.networks.actor.bias.copy_(torch.tensor([0.0, 9.0, 0.0, 0.0, 9.0]))
    obs = {"a": 2, "b": np.zeros(2, np.float32)}
    assert Player(policy, make("PlayerOdd-v0", 1, 0)).act(obs).tolist() == [6, 2]


@pytest.mark.parametrize(
    ("obs", "words"),
    [
        (np.zeros(3), r"the shape \(3,\); this policy learnt in CartPole-v1"),
        (np.zeros((2, 5, 4)), r"the shape \(2, 5, 4\)"),
        (np.zeros((0, 4)), "an array of none"),
        (0.0, r"the shape \(\)"),
        ("left", "str of <U4"),
        ({"a": 1}, "dict of object"),
        ([[1.0, 2.0], [3.0]], "a list of uneven parts"),
        (np.array([0.0, np.nan, 0.0, 0.0]), "is not finite"),
    ],
)
def test_what_is_no_observation_is_named(obs, words):
    with pytest.raises(DataError, match=words):
        cart().act(obs)


def test_a_dict_without_its_parts_is_named():
    player = Player(MultiCategoricalPolicy(5, (2, 3)), make("PlayerOdd-v0", 1, 0))
    with pytest.raises(DataError, match="which observes Dict"):
        player.act({"a": 1})
