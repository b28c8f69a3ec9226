"""DQN's formulas by hand, and its loop: when it plays, learns, copies and explores."""

import numpy as np
import pytest
import torch

from onepolicy.acting.explore import Explorer
from onepolicy.algos import dqn
from onepolicy.data.replay import Replay, Transitions
from onepolicy.envs.vector import make
from onepolicy.errors import ConfigError
from onepolicy.learning.optim import OptimConfig


def parts(seeds=(0,), *, priority=0.0, n_step=1, **fields):
    """Learner, explorer and configuration on CartPole."""
    config = dqn.Config(**{"batch_size": 8, "learning_starts": 20, "train_every": 4, "epsilon_steps": 100} | fields)
    envs = [make("CartPole-v1", 1, 100 * seed) for seed in seeds]
    learner = dqn.Learner(seeds, 4, 2, (16, 16), config, OptimConfig(lr=3e-3, name="adam", max_grad_norm=10.0))
    replay = Replay(seeds, 150, 1, 4, None, gamma=0.9, n_step=n_step, priority=priority)
    return learner, Explorer(envs, replay, seeds, random_steps=config.learning_starts), config


def test_targets_by_hand():
    """The online network prefers action 1, the target action 0; a terminated step is worth its reward."""
    online, ahead = torch.tensor([[1.0, 2.0]] * 2), torch.tensor([[5.0, 3.0]] * 2)
    reward, discount = torch.tensor([1.0, 1.0]), torch.tensor([0.5, 0.0])
    assert dqn.q_target(online, ahead, reward, discount, double=True).tolist() == [2.5, 1.0]
    assert dqn.q_target(online, ahead, reward, discount, double=False).tolist() == [3.5, 1.0]


def batch_of(seeds, weight=None):
    rng = torch.Generator().manual_seed(1)
    shape = (len(seeds), 8)
    return Transitions(
        obs=torch.randn(*shape, 4, generator=rng),
        action=torch.randint(0, 2, shape, generator=rng),
        reward=3 * torch.randn(shape, generator=rng),
        next_obs=torch.randn(*shape, 4, generator=rng),
        discount=torch.full(shape, 0.9),
        row=np.zeros(shape, np.int64),
        weight=weight,
    )


@pytest.mark.parametrize("double", [False, True])
def test_the_loss_is_hubers_at_each_error_weighted(double):
    """Element by element: half the square up to 1, then the line; weights multiply it; errors come back as sizes."""
    weight = torch.rand(2, 8, generator=torch.Generator().manual_seed(2))
    learner, _, _ = parts((3, 4), double=double)
    with torch.no_grad():
        for parameter in learner.target.parameters():
            parameter += 0.05
    batch = batch_of((3, 4), weight)
    q, ahead = learner.q(batch.obs).detach(), learner.target(batch.next_obs)
    chooser = learner.q(batch.next_obs) if double else ahead
    expected, sizes = torch.zeros(2), torch.zeros(2, 8)
    for k in range(2):
        for b in range(8):
            goal = batch.reward[k, b] + 0.9 * ahead[k, b, int(chooser[k, b].argmax())]
            error = abs(float(q[k, b, batch.action[k, b]] - goal))
            sizes[k, b] = error
            expected[k] += weight[k, b] * (error**2 / 2 if error < 1 else error - 0.5) / 8
    assert (sizes > 1).any()
    assert (sizes < 1).any()
    found = learner.update(batch, learner.look_ahead(batch))
    torch.testing.assert_close(found, sizes)
    torch.testing.assert_close(learner.metrics["learner/loss"], expected)
    torch.testing.assert_close(learner.metrics["value/q"], q.gather(-1, batch.action[..., None]).mean((1, 2)))


RAINBOW = {"dueling": True, "priority": 0.6, "n_step": 3}


@pytest.mark.parametrize("extra", [{}, {"double": False}, RAINBOW], ids=["double", "single", "rainbow"])
def test_a_seed_learns_beside_others_what_it_learns_alone(extra):
    """Over the first 50 updates: weights, loss and Q to 1e-5, the memory to the bit."""
    seeds, steps, found = (5, 6, 7), 20 + 4 * 50, {}
    for group in (seeds, *((seed,) for seed in seeds)):
        learner, explorer, config = parts(group, target_every=30, **extra)
        lines = []
        dqn.fit(
            learner, explorer, config, steps=steps, after_step=lambda *line, into=lines: into.append(line) and False
        )
        assert learner.optimizer.steps == 51
        found[group] = learner, explorer, lines[-1][1]
    together, playing, metrics = found[seeds]
    for k, seed in enumerate(seeds):
        learner, explorer, alone = found[seed,]
        assert (playing.replay.action[k] == explorer.replay.action[0]).all()
        for name, parameter in together.q.named_parameters():
            mine = learner.q.get_parameter(name)
            torch.testing.assert_close(parameter[k : k + 1], mine, rtol=1e-5, atol=1e-5)
        for name, values in metrics.items():
            assert values[k].item() == pytest.approx(alone[name].item(), rel=1e-4, abs=1e-5)


def test_the_loop_plays_learns_and_copies_when_it_should(monkeypatch):
    """Steps 20, 24, ... 60 each learn twice, on what was played so far; the target is copied at 25 and 50."""
    learner, explorer, config = parts(gradient_steps=2, target_every=25)
    learnt, copied = [], []
    update = dqn.Learner.update
    monkeypatch.setattr(
        dqn.Learner, "update", lambda self, *given: learnt.append(len(explorer.replay)) or update(self, *given)
    )
    monkeypatch.setattr(dqn, "follow", lambda *_: copied.append(explorer.steps))
    dqn.fit(learner, explorer, config, steps=60, after_step=lambda *_: False)
    assert learnt == [step for step in range(20, 61, 4) for _ in range(2)]
    assert copied == [25, 50]


def test_it_stops_when_told():
    learner, explorer, config = parts()
    dqn.fit(learner, explorer, config, steps=1000, after_step=lambda steps, _: steps == 33)
    assert explorer.steps == 33


def test_intervals_are_passed_once_by_many_worlds():
    """Eight worlds: of the steps 8, 16, ... those that pass a multiple of 20."""
    envs = [make("CartPole-v1", 8, 0)]
    explorer = Explorer(envs, Replay((0,), 80, 8, 4, None, gamma=0.9), (0,), random_steps=80)
    found = []
    while explorer.steps < 80:
        explorer.step(lambda obs, rngs: np.zeros((1, 8), np.int64))
        found += [explorer.steps] * explorer.passed(20)
    assert found == [24, 40, 64, 80]


def test_schedules_by_hand():
    config = dqn.Config(epsilon_end=0.2, epsilon_steps=100, beta=0.4, beta_steps=200)
    assert [config.epsilon(steps) for steps in (0, 50, 100, 900)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    assert [config.weight_exponent(steps) for steps in (0, 100, 200, 900)] == pytest.approx([0.4, 0.7, 1.0, 1.0])
    assert dqn.Config(epsilon_steps=0).epsilon(1) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"train_every": 0}, "train_every is 0"),
        ({"target_every": 0}, "target_every is 0"),
        ({"gradient_steps": -1}, "gradient_steps is -1"),
        ({"tau": 0.0}, r"tau is 0.0; it is a share, in \(0, 1\]"),
        ({"epsilon_end": 1.5}, "epsilon_end is 1.5"),
        ({"beta": -0.1}, "beta is -0.1"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, words):
    with pytest.raises(ConfigError, match=words):
        dqn.Config(**wrong)
