"""The memory for images against one that keeps every stack whole, and what it takes."""

import gzip

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.data import frames
from onepolicy.data.frames import FrameReplay
from onepolicy.errors import CheckpointError, ConfigError

WIDTH = 6


def played(replay, steps, seed=0):
    """Random episodes into a memory; the whole rows of each step: obs, action, reward, next_obs, terminated, ended."""
    rng = np.random.default_rng(seed)
    learners, worlds, stack, bits = len(replay.frame), replay.num_envs, replay.stack, replay.bits

    def image():
        return rng.integers(0, 256, (learners, worlds, WIDTH)).astype(np.uint8)

    def mask():
        return rng.integers(0, 2, (learners, worlds, bits)).astype(np.uint8)

    frames, legal, history = [image()] * stack, mask(), []
    for _ in range(steps):
        action, following, reset = rng.integers(0, 4, (learners, worlds)), image(), image()
        reward = rng.normal(size=(learners, worlds)).astype(np.float32)
        terminated, truncated = (rng.random((learners, worlds)) < 0.15 for _ in range(2))
        over = (terminated | truncated)[..., None]
        after, legal_after = [*frames[1:], following], mask()
        obs, next_obs = np.concatenate([*frames, legal], -1), np.concatenate([*after, legal_after], -1)
        replay.add(obs, action, reward, next_obs, terminated, truncated)
        history.append((obs, action, reward, next_obs, terminated, over[..., 0]))
        frames = [np.where(over, reset, frame) for frame in after]
        legal = np.where(over, mask(), legal_after)
    return history


def expected(history, t, gamma, n):
    """Obs, action, n-step reward, what followed and its discount, by a loop over the rows as they were seen."""
    obs, action, *_ = history[t]
    reward, discount, after = np.zeros_like(history[t][2]), np.ones_like(history[t][2]), history[t][3].copy()
    ongoing = np.ones(action.shape, bool)
    for k in range(t, min(t + n, len(history))):
        _, _, paid, following, terminated, over = history[k]
        reward = np.where(ongoing, reward + discount * paid, reward)
        after[ongoing] = following[ongoing]
        discount = np.where(ongoing, np.where(terminated, 0, discount * np.float32(gamma)), discount)
        ongoing = ongoing & ~over
    return obs, action, reward, after, discount


@given(
    worlds=st.integers(1, 3),
    rows=st.integers(5, 9),
    steps=st.integers(1, 25),
    stack=st.integers(1, 4),
    n=st.integers(1, 4),
    bits=st.integers(0, 2),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_stacks_are_rebuilt_as_they_were_seen(worlds, rows, steps, stack, n, bits, seed):
    """Every transition that can be drawn: the past of the same episode, final frames before resets, the newest row."""
    replay = FrameReplay(
        (1, 2), rows * worlds, worlds, stack * WIDTH + bits, gamma=0.9, stack=stack, n_step=n, bits=bits
    )
    history = played(replay, steps, seed)
    oldest = 0 if steps <= rows else steps - rows + stack - 1
    assert len(replay) == (steps - oldest) * worlds
    for t in range(oldest, steps):
        row = np.broadcast_to(t % rows * worlds + np.arange(worlds), (2, worlds))
        found = replay.at(row)
        obs, action, reward, after, discount = expected(history, t, 0.9, n)
        assert (found.obs.numpy() == obs).all()
        assert (found.next_obs.numpy() == after).all()
        assert (found.action.numpy() == action).all()
        np.testing.assert_allclose(found.reward.numpy(), reward, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(found.discount.numpy(), discount, rtol=1e-6)
    drawn = {row % (rows * worlds) // worlds for row in replay.sample(400).row.ravel()}
    assert drawn == {t % rows for t in range(oldest, steps)}


@pytest.mark.parametrize("steps", [7, 10, 11, 33])
def test_by_priority_the_same_steps_are_drawn_and_no_other(steps):
    """With equal errors each alike: 2 worlds, 10 rows, stacks of 3; a greater error is drawn as much more often."""
    replay = FrameReplay((1,), 20, 2, 3 * WIDTH, gamma=0.9, stack=3, priority=1.0)
    played(replay, steps)
    oldest = 0 if steps <= 10 else steps - 8
    drawable = {t % 10 * 2 + world for t in range(oldest, steps) for world in range(2)}
    batch = replay.sample(2000)
    assert set(batch.row.ravel().tolist()) == drawable
    assert batch.weight.min() == pytest.approx(1.0)
    chosen = batch.row[:, :1]
    replay.prioritise(np.array([sorted(drawable)]), torch.ones(1, len(drawable)))
    replay.prioritise(chosen, torch.full((1, 1), 3.0))
    share = (replay.sample(4000).row == chosen).mean()
    assert share == pytest.approx(3 / (len(drawable) + 2), abs=0.01)


def test_a_million_transitions_take_less_than_eight_gigabytes():
    """Bytes in proportion to the capacity: a thousandth of it takes a thousandth, 7056 for the frame and 15 besides."""
    replay = FrameReplay((0,), 1000, 1, 4 * 84 * 84, gamma=0.99)
    assert replay.nbytes == 1000 * (84 * 84 + 8 + 4 + 3)
    assert replay.nbytes * 1000 < 7.1e9


def test_final_frames_go_with_their_rows():
    """Whatever was played, there is one for each episode that ends in the memory, and no more."""
    replay = FrameReplay((1, 2), 20, 2, 4 * WIDTH, gamma=0.9)
    played(replay, 200)
    assert set(replay.final) == {(int(k), int(row)) for k, row in np.argwhere(replay.ended)}


@pytest.mark.parametrize("priority", [0.0, 0.6])
@pytest.mark.parametrize("steps", [3, 17])
def test_loaded_it_goes_on_as_it_would_have(steps, priority, tmp_path, monkeypatch):
    """Through a checkpoint's files, in blocks that do not divide it."""
    monkeypatch.setattr(frames, "BLOCK", 3)
    one, two = (FrameReplay((1, 2), 20, 2, 4 * WIDTH, gamma=0.9, priority=priority) for _ in range(2))
    played(one, steps)
    one.save_to(tmp_path)
    two.load_state_dict(one.state_dict())
    two.load_from(tmp_path)
    for _ in range(2):
        ours, theirs = one.sample(50), two.sample(50)
        assert (ours.row == theirs.row).all()
        assert torch.equal(ours.obs, theirs.obs)
        assert torch.equal(ours.next_obs, theirs.next_obs)
        played(one, 5, seed=3)
        played(two, 5, seed=3)


def test_a_checkpoint_of_another_memory_is_refused(tmp_path):
    one, two = (FrameReplay((1,), size, 2, 4 * WIDTH, gamma=0.9) for size in (20, 12))
    played(one, 8)
    one.save_to(tmp_path)
    with pytest.raises(CheckpointError, match=r"saved memory has shapes .*\(1, 16\).*\(1, 12\)"):
        two.load_state_dict(one.state_dict())
    (tmp_path / "frames.gz").write_bytes(gzip.compress(b"123"))
    with pytest.raises(CheckpointError, match="too few frames"):
        one.load_from(tmp_path)


def test_what_cannot_hold_a_stack_is_refused():
    with pytest.raises(ConfigError, match=r"capacity is 9 with 2 worlds and stacks of 4.*capacity >= 10"):
        FrameReplay((0,), 9, 2, 4 * WIDTH, gamma=0.9)
    with pytest.raises(ConfigError, match="the memory is empty"):
        FrameReplay((0,), 10, 2, 4 * WIDTH, gamma=0.9).sample(1)
