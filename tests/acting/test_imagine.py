"""Imagining in a model: steps follow it from remembered states, elites share them."""

import numpy as np
import pytest
import torch

from onepolicy.acting.imagine import Imagination
from onepolicy.data.replay import Replay
from onepolicy.errors import ConfigError
from onepolicy.nn.dynamics import Ahead


class Line:
    """A known model: s' = s + a / 10 + noise, ends beyond 1. The reward is the elite's number, or -s'^2."""

    obs_dim = 1

    def __init__(self, learners, elites, *, numbered=False):
        self.elites = torch.arange(elites).repeat(learners, 1)
        self.numbered = numbered

    def imagine(self, obs, action, noise):
        following = obs + action / 10 + noise[..., :1]
        number = torch.arange(obs.shape[1]).view(1, -1, 1).expand(obs.shape[:3])
        reward = number.float() if self.numbered else -following[..., 0].square()
        return Ahead(following, reward, following[..., 0] > 1)


class Quiet(Line):
    def imagine(self, obs, action, noise):
        return super().imagine(obs, action, torch.zeros_like(noise))


def remembered(seeds, values):
    replay = Replay(seeds, 100, 1, 1, 1, gamma=0.9)
    for value in values:
        obs = np.full((len(seeds), 1, 1), value, np.float32)
        nothing = np.zeros((len(seeds), 1), bool)
        replay.add(obs, obs, obs[..., 0], obs, nothing, nothing)
    return replay


def push(obs, rngs):
    return np.ones_like(obs)


def test_imagined_steps_follow_the_model_and_begin_anew_where_it_ends():
    """From 0 or 0.95 by 0.1: those of 0.95 end at once, and the next step begins at 0 or 0.95 again."""
    found = Imagination((0, 1), 1, 1, capacity=400, width=40, gamma=0.9)
    metrics = found.play(Quiet(2, 4), push, remembered((0, 1), [0.0, 0.95]), 3)
    memory = found.replay
    assert len(memory) == 120
    obs, following = memory.obs[:, :120, 0], memory.next_obs[:, :120, 0]
    np.testing.assert_allclose(following, obs + 0.1, atol=1e-6)
    np.testing.assert_array_equal(memory.terminated[:, :120], following > 1)
    np.testing.assert_allclose(memory.reward[:, :120], -np.square(following), atol=1e-6)
    first, second = obs[:, :40], obs[:, 40:80]
    assert set(np.unique(first.astype(float).round(2))) == {0.0, 0.95}
    np.testing.assert_allclose(second[first < 0.5], 0.1, atol=1e-6)
    assert set(np.unique(second[first > 0.5].astype(float).round(2))) == {0.0, 0.95}
    assert memory.ended[:, 80:120].all()  # cut there: no transition goes on in the next imagination
    np.testing.assert_allclose(metrics["model/imagined_ends"].numpy(), (following > 1).mean(1))
    np.testing.assert_allclose(metrics["model/imagined_reward"].numpy(), memory.reward[:, :120].mean(1), rtol=1e-5)


def test_every_step_is_shared_alike_by_elites_drawn_anew():
    found = Imagination((0,), 1, 1, capacity=400, width=40, gamma=0.9)
    found.play(Line(1, 4, numbered=True), push, remembered((0,), [-3.0]), 5)
    by_step = found.replay.reward[0, :200].reshape(5, 40)
    assert [np.bincount(row.astype(int)).tolist() for row in by_step] == [[10] * 4] * 5
    assert len(np.unique(by_step, axis=0)) == 5
    spread = (found.replay.next_obs - found.replay.obs)[0, :200, 0]
    assert spread.std() == pytest.approx(1.0, abs=0.2)  # the model's own noise, standard here


def test_imagining_goes_on_where_it_was_and_is_the_same_alone():
    def begin(*seeds):
        return Imagination(seeds, 1, 1, capacity=40, width=8, gamma=0.9)

    both, one = begin(3, 5), begin(5)
    both.play(Line(2, 2), push, remembered((3, 5), [0.0, 0.5]), 2)
    one.play(Line(1, 2), push, remembered((5,), [0.0, 0.5]), 2)
    np.testing.assert_array_equal(both.replay.next_obs[1], one.replay.next_obs[0])
    other = begin(9)
    other.load_state_dict(one.state_dict())
    for each in (one, other):
        each.play(Line(1, 2), push, remembered((5,), [0.0, 0.5]), 2)
    np.testing.assert_array_equal(one.replay.next_obs, other.replay.next_obs)


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="width is 10 with 4 elites"):
        Imagination((0,), 1, 1, capacity=40, width=10, gamma=0.9).play(Line(1, 4), push, remembered((0,), [0.0]), 1)
    with pytest.raises(ConfigError, match="nothing is remembered"):
        Imagination((0,), 1, 1, capacity=40, width=8, gamma=0.9).play(Line(1, 4), push, remembered((0,), []), 1)
