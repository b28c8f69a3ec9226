"""Playing for a memory: what is kept, from whose draws, and what is refused."""

from collections import Counter

import numpy as np
import pytest
import torch

from onepolicy.acting.explore import Explorer, epsilon_greedy
from onepolicy.batch import EnvStep
from onepolicy.data.replay import Replay
from onepolicy.envs.vector import Box, Discrete, make
from onepolicy.errors import ConfigError, DataError


def explorer(seeds, *, env="CartPole-v1", worlds=2, random_steps=0, capacity=400):
    envs = [make(env, worlds, 100 * seed) for seed in seeds]
    actions = envs[0].actions
    width = actions.dim if isinstance(actions, Box) else None
    replay = Replay(seeds, capacity, worlds, envs[0].obs_dim, width, gamma=0.9)
    return Explorer(envs, replay, seeds, random_steps=random_steps)


def chooser(obs, rngs):
    """Right or left by the pole's angle, one in five at random."""
    wanted = np.stack([obs[..., 2], -obs[..., 2]], axis=-1)
    return epsilon_greedy(wanted, 0.2, rngs)


def test_each_learner_plays_its_own_worlds_as_if_alone():
    """Memory, returns and clocks of three learners together are those of each by itself, to the bit."""
    together = explorer((3, 4, 5), random_steps=30)
    for _ in range(150):
        together.step(chooser)
    assert together.steps == 300
    for k, seed in enumerate((3, 4, 5)):
        single = explorer((seed,), random_steps=30)
        for _ in range(150):
            single.step(chooser)
        for name in ("obs", "action", "reward", "next_obs", "terminated", "ended"):
            assert (getattr(together.replay, name)[k] == getattr(single.replay, name)[0]).all()
        assert together.windows[k] == single.windows[0]
        assert together.metrics()[k] == single.metrics()[0]


def test_what_is_kept_is_what_the_world_did():
    """Replayed by hand in a second world: final observations before resets, and returns that are the lengths."""
    one = explorer((7,))
    seen, again = [], make("CartPole-v1", 2, 700)
    totals, ended = np.zeros(2), []
    for t in range(120):
        before = one.obs.copy()
        one.step(lambda obs, rngs: seen.append(chooser(obs, rngs)) or seen[-1])
        step = again.step(torch.from_numpy(seen[-1][0]))
        at = slice(2 * t, 2 * t + 2)
        assert (one.replay.obs[0, at] == before[0]).all()
        assert (one.replay.next_obs[0, at] == step.final_obs.numpy()).all()
        assert (one.replay.action[0, at] == seen[-1][0]).all()
        assert (one.obs[0] == step.obs.numpy()).all()
        totals += step.reward.numpy()
        over = (step.terminated | step.truncated).numpy()
        assert (one.replay.ended[0, at] == over).all()
        ended += [(total, int(total)) for total in totals[over]]
        totals[over] = 0
    assert len(ended) > 3
    assert list(one.windows[0]) == ended
    assert one.metrics()[0]["rollout/return"] == pytest.approx(np.mean([total for total, _ in ended]))


def test_the_first_steps_are_random_and_ask_nobody():
    """600 of 1,000 actions before learning starts: each of three alike, within 4 standard errors; then the policy's."""
    one = explorer((1,), env="Acrobot-v1", worlds=4, random_steps=600, capacity=1000)
    for _ in range(250):
        one.step(lambda obs, _: np.full(obs.shape[:2], 2))
    counts = Counter(one.replay.action[0, :600].tolist())
    assert set(counts) == {0, 1, 2}
    assert max(abs(n - 200) for n in counts.values()) < 4 * np.sqrt(600 * 2 / 9)
    assert set(one.replay.action[0, 600:].tolist()) == {2}


def test_random_real_actions_fill_their_bounds():
    one = explorer((1,), env="Pendulum-v1", worlds=5, random_steps=10**6, capacity=1000)
    for _ in range(200):
        one.step(chooser)
    action = one.replay.action[0, :, 0]
    assert -2 <= action.min() < -1.95
    assert 1.95 < action.max() <= 2
    assert abs(action.mean()) < 4 * (4 / np.sqrt(12)) / np.sqrt(1000)


def test_epsilon_is_the_share_of_random_actions():
    """Of 30,000 choices of 3, epsilon 0.3 leaves 0.8 with the best one; at 0 all, at 1 a third, within 4 errors."""
    q = np.zeros((2, 15_000, 3), np.float32)
    q[..., 1] = 1.0
    rngs = [np.random.default_rng(seed) for seed in (0, 1)]
    for epsilon, best in ((0.0, 1.0), (0.3, 0.8), (1.0, 1 / 3)):
        share = (epsilon_greedy(q, epsilon, rngs) == 1).mean(axis=1)
        assert np.abs(share - best).max() <= 4 * np.sqrt(best * (1 - best) / 15_000)
    assert epsilon_greedy(np.zeros((1, 4, 3)), 0.0, rngs).tolist() == [[0] * 4]


def test_loaded_it_goes_on_as_it_would_have():
    one, two = explorer((3, 4), random_steps=30), explorer((3, 4), random_steps=30)
    for _ in range(60):
        one.step(chooser)
    two.load_state_dict(one.state_dict())
    for _ in range(60):
        one.step(chooser)
        two.step(chooser)
    assert one.metrics() == two.metrics()
    ours, theirs = one.replay.sample(20), two.replay.sample(20)
    assert (ours.row == theirs.row).all()
    assert torch.equal(ours.next_obs, theirs.next_obs)


def idle(obs, _):
    return np.zeros(obs.shape[:2], np.int64)


class Broken:
    """Two worlds that give a bad number at their third step."""

    env_id, obs_dim, num_envs, actions, layout = "Broken-v0", 1, 2, Discrete(2), None

    def __init__(self, what, value):
        self.what, self.value, self.steps, self.obs = what, value, 0, torch.zeros(2, 1)

    def step(self, action):
        self.steps += 1
        found = {"reward": torch.zeros(2), "obs": torch.zeros(2, 1), "final_obs": torch.zeros(2, 1)}
        if self.steps == 3:
            found[self.what][1] = self.value
        never = torch.zeros(2, dtype=torch.bool)
        return EnvStep(**found, terminated=never, truncated=never)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("what", "name"), [("reward", "reward"), ("obs", "observation"), ("final_obs", "observation")])
def test_a_number_that_is_not_finite_is_named_with_seed_world_and_step(what, name, value):
    envs = [Broken(what, 0.0), Broken(what, value)]
    one = Explorer(envs, Replay((8, 9), 20, 2, 1, None, gamma=0.9), (8, 9))
    words = rf"Broken-v0 gave the {name} \[?{value}\]? in world 1 of seed 9 at step 6; it must be finite"
    for _ in range(2):
        one.step(idle)
    with pytest.raises(DataError, match=words):
        one.step(idle)
    assert len(one.replay) == 4


def test_learners_and_worlds_must_fit():
    replay = Replay((1, 2), 10, 2, 4, None, gamma=0.9)
    envs = [make("CartPole-v1", 2, 0), make("CartPole-v1", 3, 0)]
    with pytest.raises(ConfigError, match=r"2 sets of \[2, 3\] worlds for 2 learners"):
        Explorer(envs, replay, (1, 2))
