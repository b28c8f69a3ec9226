"""PPO: credit by hand, its updates counted, its clip range on schedule, its gradient on-policy that of A2C."""

import pytest
import torch

from onepolicy.acting.collect import Collector
from onepolicy.algos import a2c, ppo
from onepolicy.data.rollout import flatten
from onepolicy.envs.classic import CartPole
from onepolicy.errors import ConfigError
from onepolicy.learning.learner import PolicyLearner
from onepolicy.learning.optim import OptimConfig
from onepolicy.nn.policies import CategoricalPolicy


def test_credit_by_hand(by_hand):
    """gamma = lam = 1/2, so a step back carries a quarter.

    delta = (1 + 0.5 * 1 - 0.5, 2 + 0.5 * 10 - 1, 3 - 1.5, 4 + 0.5 * 20 - 2) = (1, 6, 1.5, 12). The first step gets a
    quarter of the second; nothing crosses the truncation or the termination.
    """
    batch = ppo.credit(by_hand, ppo.Config(gamma=0.5, lam=0.5))
    assert batch.advantage.tolist() == [[1 + 6 / 4, 6.0, 1.5, 12.0]]
    assert batch.value_target.tolist() == [[3.0, 7.0, 3.0, 14.0]]
    assert torch.equal(batch.logp_behaviour, by_hand.logp)
    assert torch.equal(batch.value_old, by_hand.value)


def test_advantages_are_normalised_with_the_unbiased_deviation(by_hand):
    """(1, 3): mean 2, deviation sqrt(2) when divided by n - 1 = 1, so -+ 1 / sqrt(2)."""
    batch = flatten(by_hand.batch(torch.tensor([[1.0, 3.0, 0.0, 0.0]]))).rows(slice(0, 2))
    assert ppo.normalised(batch).advantage.flatten().tolist() == pytest.approx([-(0.5**0.5), 0.5**0.5])
    assert ppo.normalised(batch.rows(slice(0, 1))).advantage.tolist() == [[1.0]]  # one step has no deviation


def collector(n_steps=6, num_envs=2):
    return Collector(CartPole(num_envs, 0), CategoricalPolicy(4, 2, seed=0), steps=n_steps, seed=0)


def stop_after(count, seen):
    def after_step(steps, metrics):
        seen.append((steps, metrics))
        return len(seen) == count

    return after_step


def test_every_epoch_goes_through_every_step_once_in_an_order_of_its_own(notebook):
    learner, seen = notebook(), []
    config = ppo.Config(epochs=3, batch_size=5)
    ppo.fit(learner, collector(), config, steps=100, seed=0, after_step=stop_after(1, seen))
    assert [len(b) for b in learner.batches] == [5, 5, 2] * 3
    epochs = [torch.cat([b.inputs[:, 0] for b in learner.batches[k : k + 3]]) for k in (0, 3, 6)]
    as_sets = [sorted(map(tuple, e.tolist())) for e in epochs]
    assert as_sets[0] == as_sets[1] == as_sets[2]
    assert not torch.equal(epochs[0], epochs[1])
    assert seen[0][0] == 12
    assert seen[0][1]["learner/logp_gap"] == pytest.approx(5.0)  # the mean of 1 to 9
    assert seen[0][1]["rollout/logp_gap"] == 1.0  # the first update's: sampler against trainer


def test_training_ends_with_the_rollout_that_reaches_the_steps(notebook):
    seen = []
    config = ppo.Config(epochs=1, batch_size=12)
    ppo.fit(notebook(), collector(), config, steps=30, seed=0, after_step=stop_after(99, seen))
    assert [steps for steps, _ in seen] == [12, 24, 36]


def test_the_clip_range_goes_to_zero_on_a_linear_schedule(notebook):
    for schedule, expected in (("constant", [0.2] * 4), ("linear", [0.2, 0.15, 0.1, 0.05])):
        learner = notebook()
        config = ppo.Config(epochs=1, batch_size=12, clip=0.2, schedule=schedule)
        ppo.fit(learner, collector(), config, steps=48, seed=0, after_step=stop_after(99, []))
        assert [loss.surrogate.keywords["low"] for loss in learner.losses] == pytest.approx(expected)
        assert [loss.surrogate.keywords["high"] for loss in learner.losses] == pytest.approx(expected)


def test_a_rollouts_updates_end_at_the_target_kl(notebook):
    """KL 0.01, 0.02, 0.031 with a target of 0.02: the third is over 1.5 times the target, so it is the last."""
    learner = notebook([0.01, 0.02, 0.031, 0.0, 0.0])
    config = ppo.Config(epochs=5, batch_size=12, target_kl=0.02)
    ppo.fit(learner, collector(), config, steps=12, seed=0, after_step=stop_after(99, []))
    assert len(learner.batches) == 3


def test_the_first_gradient_is_a2cs():
    """At ratio 1 the clipped surrogate's gradient is the policy gradient: one step of each gives the same weights."""
    weights = []
    for loss in (ppo.loss(ppo.Config(), 1.0), a2c.loss(a2c.Config())):
        play = collector()
        play.policy.double()
        learner = PolicyLearner(play.policy, loss, optim=OptimConfig(lr=0.1, name="sgd", max_grad_norm=0.0))
        batch = flatten(ppo.credit(play.collect(), ppo.Config()))
        batch = batch.map(lambda x: x.double() if x.is_floating_point() else x)
        learner.step(batch)
        weights.append(torch.cat([p.detach().flatten() for p in play.policy.parameters()]))
    assert torch.allclose(weights[0], weights[1], atol=1e-7)


def test_clipping_stops_what_goes_too_far():
    """Ten epochs at a large step: with a narrow clip the policy ends nearer to where it was."""
    kl = {}
    for clip in (0.02, 10.0):
        play, seen = collector(64), []
        learner = PolicyLearner(play.policy, ppo.loss(ppo.Config(), 1.0), optim=OptimConfig(lr=1e-2, name="adam"))
        config = ppo.Config(clip=clip, epochs=10, batch_size=128, value_coef=0.0)
        ppo.fit(learner, play, config, steps=128, seed=0, after_step=stop_after(1, seen))
        kl[clip] = seen[0][1]["policy/kl_old"]
    assert kl[0.02] < 0.2 * kl[10.0]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"gamma": 1.5}, "gamma is 1.5"),
        ({"lam": -0.1}, "lam is -0.1"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"clip": 0.0}, "clip is 0.0"),
        ({"target_kl": -1.0}, "target_kl is -1.0"),
    ],
)
def test_choices_that_cannot_work_are_refused(wrong, words):
    with pytest.raises(ConfigError, match=words):
        ppo.Config(**wrong)
