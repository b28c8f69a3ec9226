"""Replay against a naive list: what is kept, what n steps make of it, what is drawn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.data.replay import Replay
from onepolicy.errors import CheckpointError, ConfigError


def played(replay, steps, seed=0):
    """Fills a memory with random transitions; per step what was added, [S, N, ...] each."""
    rng = np.random.default_rng(seed)
    learners, worlds, dim = len(replay.obs), replay.num_envs, replay.obs.shape[-1]
    history = []
    for _ in range(steps):
        step = {
            "obs": rng.normal(size=(learners, worlds, dim)).astype(np.float32),
            "action": rng.integers(0, 5, (learners, worlds)),
            "reward": rng.normal(size=(learners, worlds)).astype(np.float32),
            "next_obs": rng.normal(size=(learners, worlds, dim)).astype(np.float32),
            "terminated": rng.random((learners, worlds)) < 0.2,
            "truncated": rng.random((learners, worlds)) < 0.2,
        }
        replay.add(*step.values())
        history.append(step)
    return history


@given(
    learners=st.integers(1, 3),
    worlds=st.integers(1, 3),
    spare=st.integers(0, 2),
    rows=st.integers(1, 6),
    steps=st.integers(1, 15),
    n=st.integers(1, 4),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_every_row_is_what_a_list_would_say(learners, worlds, spare, rows, steps, n, seed):
    """The last rows * worlds transitions are there, each with up to n rewards and the end they lead to."""
    capacity = rows * worlds + min(spare, worlds - 1)
    replay = Replay(range(learners), capacity, worlds, 2, None, gamma=0.9, n_step=n)
    history = played(replay, steps, seed)
    assert len(replay) == min(rows, steps) * worlds
    every = np.broadcast_to(np.arange(len(replay)), (learners, len(replay)))
    found = replay.at(every)
    seen = set()
    for row in range(len(replay)):
        begin = max(t for t in range(steps) if t % rows == row // worlds)
        world = row % worlds
        seen.add(begin)
        for k in range(learners):
            reward, count, t = 0.0, 0, begin
            while True:
                reward += 0.9**count * history[t]["reward"][k, world]
                count += 1
                over = history[t]["terminated"][k, world] or history[t]["truncated"][k, world]
                if over or count == n or t == steps - 1:
                    break
                t += 1
            last = history[t]
            assert found.reward[k, row].item() == pytest.approx(reward, abs=1e-5)
            assert found.discount[k, row].item() == pytest.approx(0.0 if last["terminated"][k, world] else 0.9**count)
            assert found.next_obs[k, row].tolist() == last["next_obs"][k, world].tolist()
            assert found.obs[k, row].tolist() == history[begin]["obs"][k, world].tolist()
            assert found.action[k, row] == history[begin]["action"][k, world]
    assert seen == set(range(max(0, steps - rows), steps))


ENDS = {
    # rewards 1, 2, 4 and gamma 1/2, an end after the second: what the first, second and third row are worth
    "none": ([False] * 3, [False] * 3, [1 + 2 / 2 + 4 / 4, 2 + 4 / 2, 4], [1 / 8, 1 / 4, 1 / 2], [3, 3, 3]),
    "terminated": ([False, True, False], [False] * 3, [1 + 2 / 2, 2, 4], [0, 0, 1 / 2], [2, 2, 3]),
    "truncated": ([False] * 3, [False, True, False], [1 + 2 / 2, 2, 4], [1 / 4, 1 / 2, 1 / 2], [2, 2, 3]),
    "both": ([False, True, False], [False, True, False], [1 + 2 / 2, 2, 4], [0, 0, 1 / 2], [2, 2, 3]),
}


@pytest.mark.parametrize("kind", ENDS)
def test_three_steps_by_hand(kind):
    """Sums stop at the newest row and at an end; only a termination takes the future's value away."""
    terminated, truncated, reward, discount, end = ENDS[kind]
    replay = Replay([0], 3, 1, 1, None, gamma=0.5, n_step=3)
    for t in range(3):
        flags = (np.array([[flag[t]]]) for flag in (terminated, truncated))
        replay.add(np.full((1, 1, 1), t), np.zeros((1, 1)), np.full((1, 1), 2.0**t), np.full((1, 1, 1), t + 1), *flags)
    found = replay.at(np.arange(3)[None])
    assert found.reward[0].tolist() == reward
    assert found.discount[0].tolist() == discount
    assert found.next_obs[0, :, 0].tolist() == end


def test_a_real_valued_action_is_kept_whole():
    replay = Replay([0, 1], 4, 1, 1, 3, gamma=0.9)
    zero, flag = np.zeros((2, 1, 1), np.float32), np.zeros((2, 1), bool)
    action = np.arange(6, dtype=np.float32).reshape(2, 1, 3)
    replay.add(zero, action, zero[..., 0], zero, flag, flag)
    assert replay.sample(1).action.tolist() == action.tolist()


def test_all_rows_are_drawn_alike_and_only_those_that_are_there():
    """20,000 draws of 5 rows: 4,000 each, within 4 standard errors of sqrt(20000 * 0.2 * 0.8)."""
    replay = Replay([3], 50, 1, 1, None, gamma=0.9)
    played(replay, 5)
    counts = np.bincount(replay.sample(20_000).row[0], minlength=50)
    assert counts[5:].sum() == 0
    assert np.abs(counts[:5] - 4000).max() < 4 * np.sqrt(20_000 * 0.2 * 0.8)


@pytest.mark.parametrize("priority", [0.0, 0.6])
def test_what_a_learner_draws_does_not_depend_on_the_others(priority):
    def rows(seeds):
        replay = Replay(seeds, 40, 1, 1, None, gamma=0.9, priority=priority)
        played(replay, 30)
        found = []
        for step in range(3):
            batch = replay.sample(8)
            found.append(batch.row)
            errors = np.sin(batch.row + 10.0 * np.array(seeds)[:, None] + step)
            replay.prioritise(batch.row, torch.from_numpy(errors))
        return np.stack(found, axis=1)

    together = rows([5, 6, 7])
    assert len({tuple(mine.ravel()) for mine in together}) == 3
    for k, seed in enumerate((5, 6, 7)):
        assert (together[k] == rows([seed])[0]).all()


def test_weights_undo_the_priorities_up_to_the_greatest():
    """Priorities 1, 2, 3: drawn with probability 1/6, 1/3, 1/2, so weighted 1, 1/2, 1/3 at beta 1, roots at 1/2."""
    replay = Replay([0], 3, 1, 1, None, gamma=0.9, priority=1.0)
    played(replay, 3)
    replay.prioritise(np.array([[0, 1, 2]]), torch.tensor([[1.0, -2.0, 3.0]]))
    for beta in (1.0, 0.5, 0.0):
        batch = replay.sample(60, beta=beta)
        assert np.bincount(batch.row[0]).tolist() == [10, 20, 30]
        expected = (1.0 / (1 + batch.row[0])) ** beta
        torch.testing.assert_close(batch.weight[0].double(), torch.from_numpy(expected), rtol=1e-5, atol=0)


@pytest.mark.parametrize("priority", [0.0, 0.6])
def test_draws_in_parts_are_the_draws(priority):
    replay = Replay([0, 1], 30, 1, 2, None, gamma=0.9, priority=priority)
    played(replay, 30)
    whole = replay.sample(12)
    parts = whole.split(4)
    assert len(parts) == 3
    assert (np.concatenate([part.row for part in parts], axis=1) == whole.row).all()
    for name in ("obs", "action", "reward", "next_obs", "discount", "weight"):
        values = [getattr(part, name) for part in parts]
        if priority or name != "weight":
            assert torch.equal(torch.cat(values, dim=1), getattr(whole, name))
        else:
            assert values == [None] * 3


def test_a_memory_without_priorities_has_no_weights_and_hears_of_none():
    replay = Replay([0], 3, 1, 1, None, gamma=0.9)
    played(replay, 3)
    replay.prioritise(np.array([[0]]), torch.tensor([[1.0]]))
    assert replay.sample(4).weight is None


@pytest.mark.parametrize("priority", [0.0, 0.6])
@pytest.mark.parametrize("steps", [3, 11])
def test_loaded_it_goes_on_as_it_would_have(priority, steps):
    def fresh():
        return Replay([1, 2], 14, 2, 2, None, gamma=0.9, n_step=2, priority=priority)

    one, two = fresh(), fresh()
    played(one, steps)
    one.prioritise(one.sample(4).row, torch.rand(2, 4, generator=torch.Generator().manual_seed(0)))
    two.load_state_dict(one.state_dict())
    for _ in range(3):
        ours, theirs = one.sample(6), two.sample(6)
        assert (ours.row == theirs.row).all()
        for name in ("obs", "action", "reward", "next_obs", "discount", "weight"):
            left, right = getattr(ours, name), getattr(theirs, name)
            assert left is right is None or torch.equal(left, right)
        played(one, 2, seed=9)
        played(two, 2, seed=9)


def test_a_memory_of_another_shape_is_refused():
    saved = Replay([1], 14, 2, 2, None, gamma=0.9)
    played(saved, 9)
    with pytest.raises(CheckpointError, match=r"obs has shape \(1, 14, 2\), this one takes \(1, 12, 2\)"):
        Replay([1], 12, 2, 2, None, gamma=0.9).load_state_dict(saved.state_dict())
    with pytest.raises(CheckpointError, match="no priorities"):
        Replay([1], 14, 2, 2, None, gamma=0.9, priority=0.5).load_state_dict(saved.state_dict())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"capacity": 1}, "capacity is 1 with 2 worlds"),
        ({"gamma": 1.5}, "gamma is 1.5"),
        ({"n_step": 0}, "n_step is 0"),
        ({"priority": 2.0}, "priority is 2.0"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, words):
    settings = {"capacity": 10, "gamma": 0.9, "n_step": 1, "priority": 0.0} | wrong
    with pytest.raises(ConfigError, match=words):
        Replay([0], settings.pop("capacity"), 2, 3, None, **settings)


def test_nothing_can_be_drawn_from_an_empty_memory():
    with pytest.raises(ConfigError, match="the memory is empty"):
        Replay([0], 10, 1, 1, None, gamma=0.9).sample(1)
