"""REINFORCE: reward to go by hand, whole episodes only, one update each batch of them."""

import pytest
import torch

from onepolicy.acting.collect import Collector
from onepolicy.algos import reinforce
from onepolicy.envs.classic import CartPole
from onepolicy.errors import ConfigError
from onepolicy.nn.policies import CategoricalPolicy


def test_reward_to_go_by_hand(by_hand):
    """gamma 1/2: the truncated episode goes on in its last observation's value 10, the terminated one in nothing."""
    batch = reinforce.credit(by_hand, reinforce.Config(gamma=0.5))
    assert batch.value_target.tolist() == [[1 + (2 + 10 / 2) / 2, 2 + 10 / 2, 3.0, 4 + 20 / 2]]
    assert batch.advantage.tolist() == [[4.0, 6.0, 1.5, 12.0]]


def test_updates_are_of_whole_episodes_whitened(notebook):
    learner, seen = notebook(), []
    play = Collector(CartPole(4, 0), CategoricalPolicy(4, 2, seed=0), steps=7, seed=0)

    def after_step(steps, metrics):
        seen.append((steps, metrics))
        return len(seen) == 3

    reinforce.fit(learner, play, reinforce.Config(episodes=8), steps=10**6, seed=0, after_step=after_step)
    for batch, (_, metrics) in zip(learner.batches, seen, strict=True):
        assert len(batch) == round(8 * metrics["rollout/length"])  # every step of the eight episodes, and no other
        assert metrics["rollout/return"] == metrics["rollout/length"]  # CartPole pays 1 a step
        assert batch.advantage.mean().item() == pytest.approx(0.0, abs=1e-6)
        assert batch.advantage.std().item() == pytest.approx(1.0, abs=1e-5)
    # The last step of an episode that fell has nothing to go but its own reward.
    assert learner.batches[0].value_target.min().item() == pytest.approx(1.0)


def test_the_episodes_of_an_update_depend_on_the_seed_and_the_steps_alone(notebook):
    def first_batch(wasted):
        play = Collector(CartPole(2, 0), CategoricalPolicy(4, 2, seed=0), steps=7, seed=0)
        if wasted:
            play.env.step(torch.tensor([0, 1]))
        learner = notebook()
        reinforce.fit(learner, play, reinforce.Config(episodes=2), steps=1, seed=3, after_step=lambda *_: False)
        return learner.batches[0]

    assert torch.equal(first_batch(False).inputs, first_batch(True).inputs)


def test_choices_that_cannot_work_are_refused(notebook):
    with pytest.raises(ConfigError, match="gamma is -1"):
        reinforce.Config(gamma=-1.0)
    play = Collector(CartPole(4, 0), CategoricalPolicy(4, 2, seed=0), steps=7, seed=0)
    with pytest.raises(ConfigError, match="multiple of 4"):
        reinforce.fit(notebook(), play, reinforce.Config(episodes=6), steps=9, seed=0, after_step=lambda *_: False)
