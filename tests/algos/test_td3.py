"""TD3 and DDPG: the target, its noise, the delay, and that a seed learns beside others what it learns alone."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from onepolicy.acting.explore import Explorer
from onepolicy.algos import td3
from onepolicy.algos.td3 import Config, Learner, critic_loss, drift, fit, least_target, smoothed
from onepolicy.data.replay import Replay, Transitions
from onepolicy.envs.scaled import Scaled
from onepolicy.envs.vector import make
from onepolicy.errors import ConfigError
from onepolicy.learning.optim import OptimConfig
from onepolicy.nn.stacked import alone

OPTIM = OptimConfig(lr=1e-2, name="adam", max_grad_norm=0.0)
DDPG = Config(critics=1, delay=1, target_noise=0.0, batch_size=8)


def learner(seeds=(3,), config=DDPG, hidden=(8, 8)):
    return Learner(seeds, 2, 1, hidden, config, OPTIM)


def batch(rng, learners=1, rows=8):
    def draw(*shape):
        return torch.from_numpy(rng.standard_normal((learners, rows, *shape), dtype=np.float32))

    return Transitions(
        obs=draw(2),
        action=draw(1).clamp(-1, 1),
        reward=draw(),
        next_obs=draw(2),
        discount=torch.where(draw() > 1, 0.0, 0.9),
        row=np.zeros((learners, rows), np.int64),
    )


def states(part):
    return {name: value.clone() for name, value in part.state_dict().items()}


def test_the_target_by_hand():
    """1 + 0.9 min(4, 3); where the episode terminated, the reward alone."""
    q = torch.tensor([[[4.0, 4.0], [3.0, 9.0]]])
    found = least_target(q, torch.tensor([[1.0, 2.0]]), torch.tensor([[0.9, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([[3.7, 2.0]]))
    assert critic_loss(q, torch.tensor([[3.0, 4.0]])).tolist() == [0.5 * (1 + 0) / 2 + 0.5 * (0 + 25) / 2]


def test_the_target_s_noise_is_clipped_and_so_is_the_action():
    """Noise of 0.2 times 1, 5 (to the clip 0.5) and -5 on 0, 0, 0.9; then 0.9 + 0.5 to 1."""
    found = smoothed(torch.tensor([0.0, 0.0, 0.0, 0.9]), torch.tensor([1.0, 5.0, -5.0, 5.0]), 0.2, 0.5)
    torch.testing.assert_close(found, torch.tensor([0.2, 0.5, -0.5, 1.0]))


def test_the_drift_is_as_wide_and_as_slow_as_the_process():
    """Variance std^2 dt / (1 - (1 - theta dt)^2), and the correlation 1 - theta dt between steps."""
    rng = np.random.default_rng(0)
    x, seen = np.zeros((1, 4000, 1), np.float32), []
    for _ in range(3000):
        x = drift(x, rng.standard_normal(x.shape, dtype=np.float32), 0.5)
        seen.append(x.copy())
    assert seen[-1].var() == pytest.approx(0.25 * 0.01 / (1 - 0.9985**2), rel=0.1)
    assert (seen[-1] * seen[-2]).mean() / (seen[-2] ** 2).mean() == pytest.approx(0.9985, abs=1e-3)


@pytest.mark.parametrize("config", [DDPG, Config(batch_size=8)], ids=["ddpg", "td3"])
def test_an_update_by_plain_torch(config):
    """One seed, three updates: losses, targets, delay and polyak written out with autograd over everything."""
    mine, plain = learner(config=config), learner(config=config)
    rng = np.random.default_rng(0)
    adam = [torch.optim.Adam(net.parameters(), lr=1e-2) for net in (plain.actor, plain.critic)]
    noises = learner(config=config).rngs[0]
    for count in range(1, 4):
        data = batch(rng)
        mine.update(data)
        ahead = plain.target_actor(data.next_obs).detach()
        if config.target_noise:
            noise = torch.from_numpy(noises.standard_normal((8, 1), dtype=np.float32))
            ahead = (ahead + (0.2 * noise).clamp(-0.5, 0.5)).clamp(-1, 1)
        worth = plain.target_critic(data.next_obs, ahead).detach().min(dim=1).values
        goal = data.reward + data.discount * worth
        q = plain.critic(data.obs, data.action)
        adam[1].zero_grad()
        sum(0.5 * ((q[:, k] - goal) ** 2).mean() for k in range(config.critics)).backward()
        adam[1].step()
        if count % config.delay == 0:
            adam[0].zero_grad()
            (-plain.critic(data.obs, plain.actor(data.obs))[:, 0].mean()).backward()
            adam[0].step()
            with torch.no_grad():
                for target, net in ((plain.target_actor, plain.actor), (plain.target_critic, plain.critic)):
                    for t, p in zip(target.parameters(), net.parameters(), strict=True):
                        t.copy_(0.995 * t + 0.005 * p)
    for name in ("actor", "critic", "target_actor", "target_critic"):
        for key, value in states(getattr(mine, name)).items():
            torch.testing.assert_close(value, getattr(plain, name).state_dict()[key], rtol=1e-4, atol=1e-5)


def test_actor_and_targets_wait_for_their_turn():
    part = learner(config=Config(delay=3, batch_size=8))
    before = {name: states(getattr(part, name)) for name in ("actor", "target_actor", "target_critic")}
    rng = np.random.default_rng(0)
    for count in range(1, 4):
        part.update(batch(rng))
        for name, old in before.items():
            same = all(torch.equal(value, old[key]) for key, value in states(getattr(part, name)).items())
            assert same == (count < 3), (name, count)


def test_a_seed_learns_beside_others_what_it_learns_alone():
    """Seed 5 of (2, 5, 9), on its own data and noise: parameters to 1e-5 after six updates, actions too."""
    config = Config(batch_size=8)
    together, single = learner((2, 5, 9), config), learner((5,), config)
    rng = np.random.default_rng(0)
    for _ in range(6):
        three = batch(rng, learners=3)
        together.update(three)
        parts = (three.obs, three.action, three.reward, three.next_obs, three.discount)
        single.update(Transitions(*(part[1:2] for part in parts), row=three.row[1:2]))
    for name in ("actor", "critic", "target_actor", "target_critic"):
        taken = alone(getattr(together, name), 1)
        for key, value in states(taken).items():
            torch.testing.assert_close(value, getattr(single, name).state_dict()[key], rtol=1e-5, atol=1e-5)
    obs = np.ones((3, 4, 2), np.float32)
    rngs = [np.random.default_rng(k) for k in range(3)]
    found = together.explore(0)(obs, rngs)[1]
    expected = single.explore(0)(obs[1:2], [np.random.default_rng(1)])[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("drifting", [False, True])
def test_exploration_is_the_actor_with_noise_within_bounds(drifting):
    part = learner(config=Config(noise=0.3, drifting=drifting))
    obs = np.zeros((1, 20_000, 2), np.float32)
    choose, rngs = part.explore(0), [np.random.default_rng(0)]
    best = part.greedy(obs)
    off = choose(obs, rngs) - best
    assert np.abs(choose(obs, rngs)).max() <= 1.0
    assert off.std() == pytest.approx(0.03 if drifting else 0.3, rel=0.05)
    assert abs(off.mean()) < 3 * off.std() / 20_000**0.5


def test_loaded_it_goes_on_as_it_would_have():
    config = Config(batch_size=8, drifting=True)
    first, second = learner((1, 2), config), learner((7, 8), config)
    rng = np.random.default_rng(0)
    first.update(batch(rng, 2))
    obs = np.ones((2, 3, 2), np.float32)
    first.explore(0)(obs, [np.random.default_rng(0)] * 2)
    second.load_state_dict(deepcopy(first.state_dict()))
    data = batch(rng, 2)
    first.update(data), second.update(data)
    for name in ("actor", "critic", "target_actor", "target_critic"):
        for key, value in states(getattr(first, name)).items():
            assert torch.equal(value, getattr(second, name).state_dict()[key])
    acts = [part.explore(0)(obs, [np.random.default_rng(0)] * 2) for part in (first, second)]
    np.testing.assert_array_equal(*acts)


def test_the_loop_learns_after_the_random_steps_and_as_often_as_told(monkeypatch):
    """10 steps, learning after 4, every 2 steps 3 updates: after steps 6, 8 and 10."""
    config = Config(learning_starts=4, train_every=2, gradient_steps=3, batch_size=4)
    env = Scaled(make("Pendulum-v1", 1, 0))
    part = Learner((0,), 3, 1, (4,), config, OPTIM)
    replay = Replay((0,), 100, 1, 3, 1, gamma=0.9)
    found = []
    monkeypatch.setattr(td3.Learner, "update", lambda self, data: found.append(explorer.steps))
    explorer = Explorer([env], replay, (0,), random_steps=4)
    fit(part, explorer, config, steps=10, after_step=lambda *_: False)
    assert found == [6] * 3 + [8] * 3 + [10] * 3
    assert np.abs(replay.action).max() <= 1.0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"delay": 0}, "delay is 0"),
        ({"critics": 0}, "critics is 0"),
        ({"noise": -0.1}, "noise is -0.1"),
        ({"target_clip": -1.0}, "target_clip is -1.0"),
        ({"tau": 0.0}, "tau is 0.0"),
        ({"tau": 1.5}, "tau is 1.5"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, words):
    with pytest.raises(ConfigError, match=words):
        Config(**wrong)
