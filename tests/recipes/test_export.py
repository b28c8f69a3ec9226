"""ONNX files act as the policy does, in the world's own units, on raw observations, for any number of rows."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from onepolicy.acting.joint import JointPolicy
from onepolicy.acting.normalised import NormalisedPolicy
from onepolicy.acting.player import Player
from onepolicy.envs.normalise import Moments
from onepolicy.envs.vector import make
from onepolicy.errors import ConfigError, ModelError
from onepolicy.nn.actors import ActorPolicy, SquashedPolicy, StackedActor, StackedGaussian
from onepolicy.nn.discrete import SoftmaxPolicy, StackedSoftmax
from onepolicy.nn.greedy import GreedyPolicy
from onepolicy.nn.mlp import NetworkOptions
from onepolicy.nn.multi import MultiCategoricalPolicy
from onepolicy.nn.policies import CategoricalPolicy, GaussianPolicy
from onepolicy.nn.stacked import StackedQ
from onepolicy.nn.state_noise import StackedStateNoise, StateNoisePolicy
from onepolicy.recipes.export import TOLERANCE, difference, export, model_of

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
LOW, HIGH = torch.tensor([-2.0]), torch.tensor([2.0])


class Several(gymnasium.Env):
    """Two choices, the first of which starts at 5."""

    observation_space = spaces.Box(-1, 1, (4,))
    action_space = spaces.MultiDiscrete([2, 3], start=np.array([5, 0]))

    def reset(self, *, seed=None, options=None):
        return np.zeros(4, np.float32), {}


gymnasium.register("ExportSeveral-v0", Several)


def lively(policy):
    """Weights large enough that actions differ from state to state."""
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    return policy


def normalised(policy, dim):
    moments = Moments(dim)
    moments.update(np.random.default_rng(0).normal(2.0, 3.0, size=(50, dim)))
    return NormalisedPolicy(policy, moments)


def softmax(actions):
    return SoftmaxPolicy(lively(StackedSoftmax([0], 4, actions, (8,))), 4)


PLAYERS = {
    "ppo": lambda: ("CartPole-v1", lively(CategoricalPolicy(4, 2))),
    "relu": lambda: ("CartPole-v1", lively(CategoricalPolicy(4, 2, options=NetworkOptions(activation="relu")))),
    "normalised": lambda: ("CartPole-v1", normalised(lively(CategoricalPolicy(4, 2)), 4)),
    "gaussian": lambda: ("Pendulum-v1", normalised(lively(GaussianPolicy(3, 1)), 3)),
    "dqn": lambda: ("CartPole-v1", GreedyPolicy(lively(StackedQ([0], 4, 2, (8, 8))), 4)),
    "dueling": lambda: ("CartPole-v1", GreedyPolicy(lively(StackedQ([0], 4, 2, (8, 8), dueling=True)), 4)),
    "td3": lambda: ("Pendulum-v1", ActorPolicy(lively(StackedActor([0], 3, 1, (8,))), 3, LOW, HIGH)),
    "sac": lambda: ("Pendulum-v1", SquashedPolicy(lively(StackedGaussian([0], 3, 1, (8,))), 3, LOW, HIGH)),
    "state noise": lambda: ("Pendulum-v1", normalised(lively(StateNoisePolicy(3, 1)), 3)),
    "by state": lambda: ("Pendulum-v1", SquashedPolicy(lively(StackedStateNoise([0], 3, 1, (8,))), 3, LOW, HIGH)),
    "discrete sac": lambda: ("CartPole-v1", softmax(2)),
    "several": lambda: ("ExportSeveral-v0", lively(MultiCategoricalPolicy(4, (2, 3)))),
    "joint": lambda: ("ExportSeveral-v0", JointPolicy(softmax(6), (2, 3), masked=False)),
}  # fmt: skip


@pytest.fixture
def exported(tmp_path):
    def make_one(kind):
        env_id, policy = PLAYERS[kind]()
        player = Player(policy, make(env_id, 1, 0))
        found = export(player, tmp_path / "deep" / "policy.onnx", source="runs/here")
        return player, found, runtime.InferenceSession(str(found.path), providers=["CPUExecutionProvider"])

    return make_one


@pytest.mark.parametrize("kind", PLAYERS)
def test_the_file_acts_as_the_policy_on_raw_observations(kind, exported):
    player, _, session = exported(kind)
    obs = np.random.default_rng(3).normal(1.0, 4.0, size=(100, player.obs_dim)).astype(np.float32)
    names = [each.name for each in session.get_outputs()]
    found = dict(zip(names, session.run(None, {"obs": obs}), strict=True))
    expected = player.act(obs)
    assert found["action"].shape == expected.shape
    assert len(np.unique(expected, axis=0)) > 1
    np.testing.assert_allclose(found["action"], expected, rtol=TOLERANCE, atol=TOLERANCE)
    assert player.action_space.contains(found["action"][0].astype(player.action_space.dtype))
    one = session.run(None, {"obs": obs[:1]})[0]
    np.testing.assert_allclose(one, expected[:1], rtol=TOLERANCE, atol=TOLERANCE)


def test_what_the_policy_says_is_there_too(exported):
    """Logits and value of PPO, Q of DQN, mean and std of SAC, against torch."""
    obs = np.random.default_rng(3).normal(1.0, 2.0, size=(20, 4)).astype(np.float32)
    player, found, session = exported("ppo")
    assert found.outputs == ("action", "logits", "value")
    with torch.no_grad():
        logits, value = player.inner.networks(torch.from_numpy(obs))
    _, mine, worth = session.run(None, {"obs": obs})
    np.testing.assert_allclose(mine, logits, atol=1e-5)
    np.testing.assert_allclose(worth, value, atol=1e-5)
    player, found, session = exported("dueling")
    assert found.outputs == ("action", "q")
    with torch.no_grad():
        np.testing.assert_allclose(
            session.run(["q"], {"obs": obs})[0], player.inner.q(torch.from_numpy(obs)[None])[0], atol=1e-5
        )
    player, found, session = exported("sac")
    with torch.no_grad():
        mean, log_std = player.inner.actor(torch.from_numpy(obs[None, :, :3]))
    np.testing.assert_allclose(session.run(["mean"], {"obs": obs[:, :3]})[0], mean[0], atol=1e-5)
    np.testing.assert_allclose(session.run(["std"], {"obs": obs[:, :3]})[0], log_std[0].exp(), rtol=1e-5)


def test_masks_are_inside():
    """The last two numbers say that only action 0, or only action 1, is legal."""
    player = Player(lively(CategoricalPolicy(6, 2, masked=True)), make("CartPole-v1", 1, 0))
    player.obs_dim = 6
    session = runtime.InferenceSession(model_of(player)[0].SerializeToString())
    rows = np.random.default_rng(0).normal(size=(50, 4))
    for legal in ((1, 0), (0, 1)):
        obs = np.concatenate([rows, np.tile(legal, (50, 1))], axis=1).astype(np.float32)
        assert (session.run(["action"], {"obs": obs})[0] == legal.index(1)).all()


def test_the_file_says_what_it_is(exported):
    import onnx

    _, found, _ = exported("gaussian")
    about = {each.key: each.value for each in onnx.load(found.path).metadata_props}
    assert about["env"] == "Pendulum-v1"
    assert about["observation_space"].startswith("Box(")
    assert (about["low"], about["high"], about["run"]) == ("[-2.0]", "[2.0]", "runs/here")


def test_a_file_that_disagrees_is_found_out(exported):
    player, _, session = exported("gaussian")
    with torch.no_grad():
        player.inner.policy.networks.actor.bias.add_(0.01)
    with pytest.raises(ModelError, match="disagrees with the policy"):
        difference(Player(player.inner, make("Pendulum-v1", 1, 0)), session)
    player, _, session = exported("ppo")
    with torch.no_grad():
        player.inner.networks.actor.weight.neg_()
    with pytest.raises(ModelError, match="disagrees"):
        difference(Player(player.inner, make("CartPole-v1", 1, 0)), session)


def test_what_cannot_be_exported_is_named(tmp_path):
    recurrent = Player(CategoricalPolicy(4, 2, recurrent="gru"), make("CartPole-v1", 1, 0))
    with pytest.raises(ModelError, match="it remembers, or sees images"):
        export(recurrent, tmp_path / "policy.onnx")
    (tmp_path / "place").mkdir()
    with pytest.raises(ConfigError, match="cannot be written"):
        export(Player(CategoricalPolicy(4, 2), make("CartPole-v1", 1, 0)), tmp_path / "place")
