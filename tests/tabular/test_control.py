"""Control against known numbers: the book's curves, the course's grid by hand, Q*, and input that cannot work.

The curves' targets are means of many runs (classical reference, section 2b); ours must be within three standard errors
of the difference, where the targets' own errors are those of as many runs as ours.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from onepolicy.errors import ConfigError
from onepolicy.tabular import control
from onepolicy.tabular.control import Settings
from onepolicy.tabular.control.step import (
    EXPECTED_SARSA,
    Q_LEARNING,
    SARSA,
    best,
    bootstrap,
    choose,
    expected,
    step_size,
    update,
)
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.worlds.gridworlds import cliff, course_grid, windy
from onepolicy.tabular.worlds.mazes import maze

BOOK = {"alpha": 0.5, "epsilon": 0.1, "seed": 0}


def near(samples, target, digits=0.0):
    """Mean of one number a run within 3 standard errors of a target that has as large an error, and its rounding."""
    samples = np.asarray(samples, dtype=np.float64)
    error = samples.std(ddof=1) / np.sqrt(len(samples))
    assert abs(samples.mean() - target) <= 3 * np.sqrt(2) * error + digits, (samples.mean(), target, error)


@pytest.mark.parametrize(
    ("learner", "early", "late"),
    [
        (control.sarsa, -71.5, -27.1),
        (control.q_learning, -80.5, -50.1),
        (control.expected_sarsa, -56.1, -20.9),
    ],
)
def test_cliff_curves(learner, early, late):
    """Mean return of episodes 1 to 100 and 401 to 500: on-policy methods keep off the edge, Q-learning does not."""
    found = learner(cliff(), Settings(**BOOK, runs=1000)).returns
    near(found[:, :100].mean(axis=1), early, 0.05)
    near(found[:, 400:].mean(axis=1), late, 0.05)


def test_windy_sarsa():
    """About 160 episodes in 8000 steps; episodes 400 to 500 take 20.3 steps."""
    found = control.sarsa(windy(), Settings(**BOOK, runs=1000)).lengths
    near((found.cumsum(axis=1) <= 8000).sum(axis=1), 160, 0.5)
    near(found[:, 400:].mean(axis=1), 20.3, 0.05)


def bias_world(arms=10):
    """Sutton and Barto, example 6.7: A has left to B (0) and right to the end; each of B's arms pays N(-0.1, 1)."""
    state, action = [0, 0] + [1] * arms, [0, 1, *range(arms)]
    mdp = MDP.from_coo(
        state, action, [1, 2] + [2] * arms, np.ones(arms + 2), [0.0, 0.0] + [-0.1] * arms, num_states=3, start=0
    )
    return mdp, [0.0, 0.0] + [1.0] * arms


@pytest.mark.parametrize(
    ("learner", "peak", "shares"),
    [
        (control.q_learning, 93.9, {18: 93.9, 100: 45.6, 300: 11.9}),
        (control.double_q_learning, 50.0, {1: 50.0, 100: 9.2, 300: 6.8}),
    ],
)
def test_maximisation_bias(learner, peak, shares):
    """Share of episodes that go left, in per cent, by the episode's number; 5 is the best there is at epsilon 0.1."""
    mdp, std = bias_world()
    runs = 10_000
    found = learner(mdp, Settings(episodes=300, alpha=0.1, epsilon=0.1, runs=runs, reward_std=std, seed=1))
    left = 100.0 * (found.lengths == 2).mean(axis=0)
    for episode, share in shares.items():
        error = np.sqrt(share * (100 - share) * (1 / runs + 1 / 50_000))
        assert abs(left[episode - 1] - share) <= 3 * error + 0.05
    assert left.max() == pytest.approx(peak, abs=1.5)


@pytest.mark.parametrize(
    ("planning", "runs", "steps"),
    [
        (0, 1000, {1: 892, 2: 686, 3: 502, 5: 267, 10: 130, 25: 25.5, 50: 17.9}),
        (5, 2000, {1: 867, 2: 156, 3: 61.5, 5: 22.9, 10: 17.0, 25: 16.8}),
        (50, 1000, {1: 888, 2: 39.9, 3: 17.5, 5: 17.1}),
    ],
)
def test_dyna_maze(planning, runs, steps):
    """Mean steps of an episode by its number, alpha 0.1, epsilon 0.1, gamma 0.95."""
    settings = Settings(episodes=50, alpha=0.1, epsilon=0.1, gamma=0.95, runs=runs, seed=2)
    found = control.dyna_q(maze(), settings, planning=planning).lengths
    for episode, target in steps.items():
        near(found[:, episode - 1], target, 0.5 if target >= 100 else 0.05)


def test_q_by_hand_on_the_course_grid():
    """The course's two updates from Q(s6, up) = Q(s6, right) = 0.5 at gamma 0.9, alpha 1.

    s6 up to s3 with max Q(s3, .) = 0.5: delta = -1 + 0.9 * 0.5 - 0.5 = -1.05, Q = -0.55. s6 right to Success: delta =
    10 + 0 - 0.5 = 9.5, Q = 10.
    """
    mdp = course_grid()
    csr, names = mdp.csr(), mdp.action_names
    s6, up, right = mdp.state_names.index("s6"), names.index("up"), names.index("right")
    first = csr.row_ptr[s6]
    q, visits = np.full(mdp.num_rows, 0.5), np.zeros(mdp.num_rows, dtype=np.int64)

    def target(row):
        j = csr.ptr[row]
        s, reward = csr.successors[j], csr.transition_rewards[j]
        ahead = 0.0 if csr.terminal[s] else best(q, csr.row_ptr[s], csr.row_ptr[s + 1])
        return reward + 0.9 * ahead

    assert update(q, visits, first + up, target(first + up), 1.0, 0.0) == pytest.approx(-1.05)
    assert q[first + up] == pytest.approx(-0.55)
    assert update(q, visits, first + right, target(first + right), 1.0, 0.0) == pytest.approx(9.5)
    assert q[first + right] == 10.0
    assert visits.sum() == 2


def optimal_q(mdp, gamma, epsilon=0.0, sweeps=2000):
    """Q of the best policy that takes each action with probability eps/|A| at least, by the plain definition."""
    csr = mdp.csr()
    v = np.zeros(mdp.num_states)
    acting = np.diff(csr.row_ptr) > 0
    begins, actions = csr.row_ptr[:-1][acting], np.diff(csr.row_ptr)[acting]
    for _ in range(sweeps):
        ahead = csr.probabilities * (csr.transition_rewards + gamma * v[csr.successors])
        q = np.add.reduceat(ahead, csr.ptr[:-1])
        v[acting] = (1 - epsilon) * np.maximum.reduceat(q, begins) + epsilon * np.add.reduceat(q, begins) / actions
    return q


def small_world():
    rng = np.random.default_rng(0)
    rows = []
    for s in range(5):
        for a in range(2 + s % 2):
            for t, p in zip(rng.permutation(6)[:3], rng.dirichlet(np.ones(3))):
                rows.append((s, a, int(t), p, rng.normal()))
    return MDP.from_coo(*map(list, zip(*rows)), num_states=6, terminal=[5])


@pytest.mark.parametrize(
    ("learner", "options", "soft", "within"),
    [
        (control.q_learning, {}, 0.0, 0.06),
        (control.double_q_learning, {}, 0.0, 0.06),
        (control.r_max, {"known": 5000, "reward_bound": 3.0}, 0.0, 0.1),
        (control.sarsa, {}, 0.5, 0.05),
        (control.expected_sarsa, {}, 0.5, 0.05),
        (control.n_step_sarsa, {"n": 3}, 0.5, 0.05),
        (control.mc_control, {}, 0.5, 0.05),
    ],
)
def test_the_limit_is_q_star(learner, options, soft, within):
    """Q itself, not policies, which tie: of the best policy, or (on-policy) of the best that acts at random half the
    time. Both are one fixpoint each, and over 0.2 apart."""
    mdp, gamma = small_world(), 0.8
    settings = Settings(episodes=60_000, alpha=1.0, alpha_power=0.8, epsilon=0.5, gamma=gamma, max_steps=100)
    found = learner(mdp, settings, **options)
    gap = np.abs(found.q[0] - optimal_q(mdp, gamma, soft))
    if learner is control.r_max:
        gap = gap[found.visits[0] >= 5000]  # it never tries the rest again, being sure they are worse
    assert gap.max() <= within
    assert np.abs(found.q[0] - optimal_q(mdp, gamma, 0.5 - soft)).max() > 0.2


def test_a_constant_step_does_not_converge_in_a_noisy_world():
    mdp = small_world()
    found = control.q_learning(mdp, Settings(episodes=60_000, alpha=0.5, epsilon=0.5, gamma=0.8, max_steps=100))
    assert np.abs(found.q[0] - optimal_q(mdp, 0.8)).max() > 0.2


def test_glie_monte_carlo_finds_the_optimal_values():
    """Epsilon 1/episode and the sample mean, the course's scheme; only the rows it ends with are precise."""
    mdp = small_world()
    settings = {"episodes": 40_000, "alpha": 1.0, "alpha_power": 1.0, "gamma": 0.8, "max_steps": 100}
    found = control.mc_control(mdp, Settings(**settings, epsilon=control.one_over_episode(40_000)))
    best_values = np.maximum.reduceat(optimal_q(mdp, 0.8), mdp.csr().row_ptr[:5])
    np.testing.assert_allclose(found.values()[:5], best_values, atol=0.03)


def test_expected_sarsa_learns_the_best_soft_policy_of_the_cliff():
    """With a small step its greedy policy, acted epsilon-greedily, is near the best there is at epsilon 0.1, -20.71."""
    found = control.expected_sarsa(cliff(), Settings(episodes=3000, alpha=0.1, epsilon=0.1, runs=20))
    near(found.returns[:, 2000:].mean(axis=1), -20.7077, 0.15)
    assert found.values().max() == 0.0  # the goal, which has no actions
    assert found.policy()[36] == 0  # up, away from the edge


def test_a_time_limit_is_no_end():
    """Reward 1 a step, forever: V = 1 / (1 - 0.9) = 10 whether or not episodes are cut; as an end it would be 1."""
    forever = MDP.from_coo([0], [0], [0], [1.0], [1.0], num_states=1)
    for learner, options in (
        (control.sarsa, {}),
        (control.q_learning, {}),
        (control.expected_sarsa, {}),
        (control.double_q_learning, {}),
        (control.mc_control, {}),
        (control.n_step_sarsa, {"n": 3}),
        (control.dyna_q, {"planning": 2}),
        (control.sarsa_lambda, {"lam": 0.5}),
    ):
        found = learner(forever, Settings(episodes=2000, alpha=0.2, gamma=0.9, max_steps=1), **options)
        assert found.truncated.all()
        assert found.q[0, 0] == pytest.approx(10.0, abs=1e-6)


def test_a_choice_is_epsilon_greedy_with_ties_at_random():
    q, n = np.array([9.0, 1.0, 3.0, 3.0, 9.0]), 100_000
    counts = np.bincount([choose(q, 1, 4, 0.3, u) for u in (np.arange(n) + 0.5) / n], minlength=5) / n
    np.testing.assert_allclose(counts, [0, 0.1, 0.45, 0.45, 0], atol=1e-4)  # 0.3/3; 0.7/2 + 0.3/3
    assert expected(q, 1, 4, 0.3) == pytest.approx(counts @ q, abs=1e-3)
    assert bootstrap(SARSA, q, 1, 4, 2, 0.3) == 3.0
    assert bootstrap(Q_LEARNING, q, 1, 4, 1, 0.3) == 3.0
    assert bootstrap(EXPECTED_SARSA, q, 1, 4, 1, 0.3) == expected(q, 1, 4, 0.3)
    assert [step_size(0.5, power, 4) for power in (0.0, 0.5, 1.0)] == [0.5, 0.25, 0.125]


def test_schedules():
    assert control.one_over_episode(4).tolist() == [1.0, 1 / 2, 1 / 3, 1 / 4]
    np.testing.assert_allclose(control.decaying(5, 0.8, 0.05), 0.8 * 0.5 ** np.arange(5))
    with pytest.raises(ConfigError, match="end 0"):
        control.decaying(5, 0.8, 0.0)


def test_initial_values_explore():
    """Optimistic zeros in a maze of reward only at the goal would not; 1 everywhere tries every action of a state."""
    settings = {"episodes": 1, "alpha": 0.1, "epsilon": 0.0, "gamma": 0.95, "max_steps": 300}
    found = control.q_learning(maze(), Settings(**settings, initial_q=1.0))
    csr = maze().csr()
    often = np.add.reduceat(found.visits[0], csr.row_ptr[:-1][np.diff(csr.row_ptr) > 0])
    least = np.minimum.reduceat(found.visits[0], csr.row_ptr[:-1][np.diff(csr.row_ptr) > 0])
    assert (least[often >= 12] >= 1).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epsilon": 1.5}, "epsilon is 1.5; a share of random actions is in [0, 1]"),
        ({"epsilon": [0.1, -0.2], "episodes": 2}, "epsilon is -0.2"),
        ({"epsilon": [0.1, 0.2]}, "epsilon has shape (2,); it needs a number, or one for each of 500"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
        ({"alpha": 0.0}, "alpha is 0.0; a step size is in (0, 1]"),
        ({"alpha": -1.0}, "alpha is -1.0"),
        ({"alpha_power": 2.0}, "alpha_power is 2.0"),
        ({"gamma": 1.01}, "gamma is 1.01; it is in [0, 1]"),
        ({"episodes": 0}, "episodes is 0"),
        ({"runs": 0}, "runs is 0"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_out_of_range_are_refused(changes, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        Settings(**changes)


@pytest.mark.parametrize(
    ("learner", "options", "changes", "words"),
    [
        (control.sarsa, {}, {"reward_std": -1.0}, "a standard deviation is at least 0"),
        (control.sarsa, {}, {"reward_std": [1.0, 1.0]}, "reward_std has shape (2,)"),
        (control.sarsa, {}, {"initial_q": [1.0, 1.0]}, "initial_q has shape (2,)"),
        (control.sarsa, {}, {"initial_q": np.nan}, "finite"),
        (control.n_step_sarsa, {"n": 0}, {}, "n is 0"),
        (control.dyna_q, {"planning": -1}, {}, "planning is -1"),
        (control.r_max, {"known": 0, "reward_bound": 1.0}, {"gamma": 0.9}, "known is 0"),
        (control.r_max, {"known": 1, "reward_bound": 1.0}, {}, "gamma is 1"),
        (control.r_max, {"known": 1, "reward_bound": np.inf}, {"gamma": 0.9}, "reward_bound is inf"),
    ],
)
def test_options_that_cannot_work_are_refused(learner, options, changes, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        learner(cliff(), Settings(**changes), **options)


def test_a_start_that_is_over_already_is_refused():
    mdp = MDP.from_coo([0], [0], [1], [1.0], [0.0], num_states=2, start=[0.5, 0.5])
    with pytest.raises(ConfigError, match="begin in state 1, which is terminal"):
        control.sarsa(mdp, Settings())
