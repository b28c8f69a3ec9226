"""Atari's games against the console itself, frame by frame; without the games' package, the words that install it."""

import sys

import numpy as np
import pytest
import torch

from onepolicy.envs import atari
from onepolicy.envs.gym import GymEnv
from onepolicy.envs.vector import AtariOptions, WorldOptions, make
from onepolicy.errors import ConfigError

ale_py = pytest.importorskip("ale_py")
cv2 = pytest.importorskip("cv2")
PLAIN = AtariOptions(sticky=0.0, noop_max=0, fire_reset=False)


def console(game, seed):
    """The console as the package has it, seeded as gymnasium's world seeds it."""
    env = atari.game(game, PLAIN, training=False).unwrapped
    env.reset(seed=seed)
    return env


def test_what_is_seen_is_the_greater_of_the_last_two_frames_small_and_grey():
    env, raw = atari.game("ALE/Pong-v5", PLAIN, training=False), console("ALE/Pong-v5", 3)
    first, _ = env.reset(seed=3)
    assert np.array_equal(first, cv2.resize(raw.ale.getScreenGrayscale(), (84, 84), interpolation=cv2.INTER_AREA))
    for step in range(40):
        seen, reward, terminated, truncated, _ = env.step(step % 6)
        screens, paid = [], 0.0
        for _ in range(4):
            screen, part, *_ = raw.step(step % 6)
            screens.append(screen)
            paid += part
        expected = cv2.resize(np.maximum(*screens[-2:]), (84, 84), interpolation=cv2.INTER_AREA)
        assert np.array_equal(seen, expected)
        assert (reward, terminated, truncated) == (paid, False, False)


def lives_of(training, fire):
    """What one player of Breakout, who always goes right, sees of lives: rewards, ends and lives left, step by step."""
    options = AtariOptions(sticky=0.0, noop_max=5, fire_reset=fire)
    env, found = atari.game("ALE/Breakout-v5", options, training=training), []
    env.reset(seed=0)
    for _ in range(400):
        _, reward, terminated, truncated, _ = env.step(2)
        found.append((reward, terminated, env.ale.lives(), env.over))
        if terminated or truncated:
            env.reset()
    return found


def test_in_training_a_life_is_an_episode_and_the_game_goes_on():
    """Five lives: after a lost one the next begins with one less, and only the last ends the game."""
    steps = lives_of(training=True, fire=True)
    ends = [(lives, over) for _, terminated, lives, over in steps if terminated]
    assert ends[:6] == [(4, False), (3, False), (2, False), (1, False), (0, True), (4, False)]


def test_in_evaluation_only_the_game_ends_an_episode():
    """FIRE is pressed again after each life, or the ball would never come."""
    steps = lives_of(training=False, fire=True)
    ends = [(lives, over) for _, terminated, lives, over in steps if terminated]
    assert ends[0] == (0, True)
    assert {lives for _, _, lives, _ in steps[: [t for _, t, *_ in steps].index(True)]} == {5, 4, 3, 2, 1}
    assert not any(terminated for _, terminated, *_ in lives_of(training=False, fire=False))  # it waits for ever


def test_a_game_begins_with_up_to_so_many_steps_of_nothing():
    """Frame counters after resets: 1 to 30 frames, each of them as likely; none where none is asked for."""
    env, frames = atari.game("ALE/Pong-v5", AtariOptions(fire_reset=False), training=False), set()
    env.reset(seed=0)
    for _ in range(60):
        frames.add(env.ale.getEpisodeFrameNumber())
        env.reset()
    assert min(frames) >= 1
    assert max(frames) <= 30
    assert len(frames) > 15
    still = atari.game("ALE/Pong-v5", PLAIN, training=False)
    still.reset(seed=0)
    assert still.ale.getEpisodeFrameNumber() == 0


@pytest.mark.parametrize(("sticky", "same"), [(0.0, True), (0.25, False)])
def test_sticky_actions_make_the_console_uncertain(sticky, same):
    """Without them two games of different seeds, without idle steps, are the same game."""
    options = AtariOptions(sticky=sticky, noop_max=0, fire_reset=False)
    games = [atari.game("ALE/Breakout-v5", options, training=False) for _ in range(2)]
    for seed, env in enumerate(games):
        env.reset(seed=seed)
        for step in range(30):
            env.step((1, 2, 3)[step % 3])
    assert np.array_equal(*(env.ale.getRAM() for env in games)) == same


def test_training_pays_signs_and_keeps_what_was_paid():
    """Asterix pays 50 in the ninth of these random steps; an evaluation pays what the game does."""
    options = WorldOptions(frame_stack=4, atari=AtariOptions(sticky=0.0, noop_max=0, fire_reset=False))
    for training in (True, False):
        env, rng = make("ALE/Asterix-v5", 1, 0, options, training=training), np.random.default_rng(0)
        assert env.obs.shape == (1, 4 * 84 * 84)
        paid = [env.step(torch.from_numpy(rng.integers(0, env.actions.n, 1))) for _ in range(9)]
        assert [float(step.reward[0]) for step in paid] == [0.0] * 8 + [1.0 if training else 50.0]
        if training:
            assert [float(step.raw_reward[0]) for step in paid] == [0.0] * 8 + [50.0]
            assert torch.equal(paid[-1].raw_reward > 0, paid[-1].reward > 0)


@pytest.mark.parametrize("training", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_game_goes_on_as_if_never_stopped(training):
    """Sticky actions and the next idle steps included: the console's chips and generators are in the state."""
    first, second = (GymEnv("ALE/Breakout-v5", 1, seed, WorldOptions(), training=training) for seed in (0, 9))
    rng = np.random.default_rng(0)
    for _ in range(40):
        first.step(torch.from_numpy(rng.integers(0, 4, 1)))
    second.load_state_dict(first.state_dict())
    ends = 0
    for _ in range(300):
        action = torch.from_numpy(rng.integers(0, 4, 1))
        a, b = first.step(action), second.step(action)
        assert torch.equal(a.obs, b.obs)
        assert torch.equal(a.reward, b.reward)
        ends += int(a.terminated)
    assert ends > 0


def test_an_unknown_game_offers_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'ALE/Breakout-v5'"):
        make("ALE/Brakout-v5", 1, 0)


@pytest.mark.parametrize("package", ["ale_py", "cv2"])
def test_a_missing_package_says_how_to_install_it(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ConfigError, match=rf'needs {package}, which is not installed: pip install "onepolicy\[atari\]"'
    ):
        make("ALE/Pong-v5", 1, 0)
