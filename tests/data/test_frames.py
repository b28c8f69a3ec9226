"""The memory for images against one that keeps every stack whole, and what it takes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.data.frames import FrameReplay
from onepolicy.errors import ConfigError

SHAPE = (3, 2)


def played(replay, steps, seed=0):
    """Random episodes into a memory; the whole stacks of each step: obs, action, reward, next_obs, terminated."""
    rng = np.random.default_rng(seed)
    learners, worlds, stack = len(replay.frame), replay.num_envs, replay.stack

    def image():
        return rng.integers(0, 256, (learners, worlds, *SHAPE)).astype(np.uint8)

    frame, history = image(), []
    seen = np.repeat(frame[:, :, None], stack, axis=2)
    for _ in range(steps):
        action, following, reset = rng.integers(0, 4, (learners, worlds)), image(), image()
        reward = rng.normal(size=(learners, worlds)).astype(np.float32)
        terminated, truncated = (rng.random((learners, worlds)) < 0.15 for _ in range(2))
        replay.add(seen[:, :, -1], action, reward, following, terminated, truncated)
        after = np.concatenate([seen[:, :, 1:], following[:, :, None]], axis=2)
        history.append((seen, action, reward, after, terminated))
        over = (terminated | truncated)[:, :, None, None, None]
        seen = np.where(over, np.repeat(reset[:, :, None], stack, axis=2), after)
    return history


@given(
    worlds=st.integers(1, 3),
    rows=st.integers(5, 9),
    steps=st.integers(1, 25),
    stack=st.integers(1, 4),
    seed=st.integers(0, 99),
)
@settings(max_examples=50, deadline=None)
def test_stacks_are_rebuilt_as_they_were_seen(worlds, rows, steps, stack, seed):
    """Every transition that can be drawn: the past of the same episode, final frames before resets, the newest row."""
    replay = FrameReplay((1, 2), rows * worlds, worlds, SHAPE, gamma=0.9, stack=stack)
    history = played(replay, steps, seed)
    oldest = 0 if steps <= rows else steps - rows + stack - 1
    assert len(replay) == (steps - oldest) * worlds
    for t in range(oldest, steps):
        row = np.broadcast_to(t % rows * worlds + np.arange(worlds), (2, worlds))
        found = replay.at(row)
        obs, action, reward, after, terminated = history[t]
        assert (found.obs.numpy() == obs).all()
        assert (found.next_obs.numpy() == after).all()
        assert (found.action.numpy() == action).all()
        assert (found.reward.numpy() == reward).all()
        assert (found.discount.numpy() == np.where(terminated, 0, np.float32(0.9))).all()
    drawn = {row % (rows * worlds) // worlds for row in replay.sample(400).row.ravel()}
    assert drawn == {t % rows for t in range(oldest, steps)}


def test_a_million_transitions_take_less_than_eight_gigabytes():
    """Bytes in proportion to the capacity: a thousandth of it takes a thousandth, 7056 for the frame and 15 besides."""
    replay = FrameReplay((0,), 1000, 1, (84, 84), gamma=0.99)
    assert replay.nbytes == 1000 * (84 * 84 + 8 + 4 + 3)
    assert replay.nbytes * 1000 < 7.1e9


def test_final_frames_go_with_their_rows():
    """Whatever was played, there is one for each episode that ends in the memory, and no more."""
    replay = FrameReplay((1, 2), 20, 2, SHAPE, gamma=0.9)
    played(replay, 200)
    assert set(replay.final) == {(int(k), int(row)) for k, row in np.argwhere(replay.ended)}


def test_loaded_it_goes_on_as_it_would_have():
    one, two = (FrameReplay((1, 2), 20, 2, SHAPE, gamma=0.9) for _ in range(2))
    played(one, 17)
    two.load_state_dict(one.state_dict())
    for _ in range(2):
        ours, theirs = one.sample(50), two.sample(50)
        assert (ours.row == theirs.row).all()
        assert torch.equal(ours.obs, theirs.obs)
        assert torch.equal(ours.next_obs, theirs.next_obs)
        played(one, 5, seed=3)
        played(two, 5, seed=3)


def test_what_cannot_hold_a_stack_is_refused():
    with pytest.raises(ConfigError, match=r"capacity is 9 with 2 worlds and stacks of 4.*capacity >= 10"):
        FrameReplay((0,), 9, 2, SHAPE, gamma=0.9)
    with pytest.raises(ConfigError, match="the memory is empty"):
        FrameReplay((0,), 10, 2, SHAPE, gamma=0.9).sample(1)
