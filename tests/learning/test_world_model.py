"""The world model: it learns what replay holds, holds a tenth out, is each learner's own, and goes on where it was."""

import numpy as np
import pytest
import torch

from onepolicy.data.replay import Replay
from onepolicy.errors import ConfigError
from onepolicy.learning.world_model import Config, WorldModel

SMALL = Config(members=3, elites=2, hidden=(32, 32), batch_size=64, lr=3e-3)


def remembered(seeds, count=400, **options):
    """A pendulum without gravity: angle and speed, pushed; the reward is minus the angle squared; the end beyond 1."""
    replay = Replay(seeds, 1000, 1, 2, 1, gamma=0.99, **options)
    rngs = [np.random.default_rng(seed) for seed in seeds]
    for _ in range(count):
        obs = np.stack([rng.uniform(-1.2, 1.2, (1, 2)) for rng in rngs]).astype(np.float32)
        action = np.stack([rng.uniform(-1, 1, (1, 1)) for rng in rngs]).astype(np.float32)
        following = obs + np.stack([0.1 * obs[..., 1], 0.2 * action[..., 0]], -1)
        end = following[..., 0] > 1
        replay.add(obs, action, -np.square(obs[..., 0]), following, end, np.zeros_like(end))
    return replay


def test_it_learns_what_is_remembered():
    replay, model = remembered((0, 1)), WorldModel((0, 1), 2, 1, SMALL)
    first = model.train(replay, 1)
    last = model.train(replay, 600)
    assert (first["model/error"] > 0.3).all()
    assert (last["model/error"] < 0.01).all()
    assert (last["model/loss"] < first["model/loss"] - 5).all()
    found = replay.at(np.tile(np.arange(0, 400, 10), (2, 1)))
    obs, action = (x.unsqueeze(1).expand(2, 2, *x.shape[1:]) for x in (found.obs, found.action))
    ahead = model.dynamics.imagine(obs, action, torch.zeros(2, 2, 40, 3))
    assert (ahead.next_obs - found.next_obs.unsqueeze(1)).abs().mean() < 0.02
    assert ((found.discount == 0).unsqueeze(1) == ahead.terminated).float().mean() > 0.95


def test_what_is_held_out_is_never_learnt_from():
    """A tenth that says something else is not believed, and shows in the error."""
    replay = remembered((0,))
    replay.reward[:, :400:10] += 100.0
    model = WorldModel((0,), 2, 1, SMALL)
    metrics = model.train(replay, 300)
    assert metrics["model/error"].item() > 1000
    found = replay.at(np.arange(0, 400, 10)[None])
    obs, action = (x.unsqueeze(1).expand(1, 2, *x.shape[1:]) for x in (found.obs, found.action))
    ahead = model.dynamics.imagine(obs, action, torch.zeros(1, 2, 40, 3))
    assert ahead.reward.max() < 5


def test_a_learner_s_model_is_the_same_alone():
    """To rounding: products of more networks at once may be added up in another order."""
    both, one = WorldModel((3, 4), 2, 1, SMALL), WorldModel((4,), 2, 1, SMALL)
    together, alone = both.train(remembered((3, 4)), 30), one.train(remembered((4,)), 30)
    assert together["model/error"][1].item() == pytest.approx(alone["model/error"].item(), rel=1e-4)
    assert both.dynamics.elites[1].tolist() == one.dynamics.elites[0].tolist()
    for name, mine in one.dynamics.named_parameters():
        theirs = dict(both.dynamics.named_parameters())[name].detach()
        torch.testing.assert_close(theirs[len(theirs) // 2 :], mine.detach(), rtol=1e-4, atol=1e-6)


def test_it_goes_on_where_it_was():
    replay, whole, first = remembered((0,)), WorldModel((0,), 2, 1, SMALL), WorldModel((0,), 2, 1, SMALL)
    whole.train(replay, 5)
    first.train(replay, 5)
    second = WorldModel((9,), 2, 1, SMALL)
    second.load_state_dict(first.state_dict())
    for model in (whole, second):
        model.train(replay, 5)
    for name, value in whole.dynamics.state_dict().items():
        assert torch.equal(value, second.dynamics.state_dict()[name]), name


def test_n_step_transitions_are_refused():
    with pytest.raises(ConfigError, match="n_step 3; a model needs two of one step"):
        WorldModel((0,), 2, 1, SMALL).train(remembered((0,), 5, n_step=3), 1)
