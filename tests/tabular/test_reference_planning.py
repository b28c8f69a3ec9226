"""Every exact number of the reference, to the digits it gives, from the planners and the registered worlds themselves.

tests/tabular/worlds has the same numbers from a dense oracle that shares no code with the planners. Where optimal
actions tie (gambler, taxi, mazes, lakes) values and Q are compared, never a policy.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.planning import backward_induction, evaluate, evaluate_average, plan, relative_value_iteration
from onepolicy.tabular.planning.policy_value import policy_chain, row_weights
from onepolicy.tabular.worlds import make
from onepolicy.tabular.worlds.games import NATURAL, blackjack_state

FOREST_10 = [
    26.8301859311444, 28.0723241686974, 29.5099841658652, 31.1739424959205, 33.0998201927438,
    35.3288453048078, 37.9087354808078, 40.8947194808078, 44.3507194808078, 48.3507194808078,
]  # fmt: skip
GRID_4 = [0, -1, -2, -3, -1, -2, -3, -2, -2, -3, -2, -1, -3, -2, -1, 0]
JACK = [421.41406339651166, 574.9483239852464, 636.9896068043678, 554.9477060361418, 567.7685087963158]
BETA = 0.92

OPTIMA = [
    ("forest", {}, 0.9, None, [26.244, 29.484, 33.484], 1e-10),
    ("forest", {}, 0.96, None, [74.6496, 78.1056, 82.1056], 1e-10),
    ("forest", {"states": 10}, 0.96, None, FOREST_10, 1e-12),
    ("small", {}, 0.9, None, [42.4418604651163, 36.0465116279070], 1e-12),
    ("small", {}, 0.96, None, [100.67873303167413, 94.45701357466055], 1e-12),
    ("small", {}, 0.99, None, [392.29910714, 386.16071429], 5e-9),
    ("puterman-two-state", {}, 0.95, None, [-60 / 7, -20], 1e-12),
    ("puterman-two-state", {}, BETA, None, [(5 - 5.5 * BETA) / ((1 - BETA / 2) * (1 - BETA)), -1 / (1 - BETA)], 1e-12),
    ("mushroom-grid", {}, 0.95, None, [0.93953176, 0.99447514, 0.99447514, 0], 5e-9),
    ("grid-4x4", {}, 1.0, None, GRID_4, 1e-12),
    ("grid-5x5", {}, 0.9, [0, 1, 2, 3, 4, 24], [21.9775, 24.4194, 21.9775, 19.4194, 17.4775, 11.6797], 5e-5),
    ("gambler", {}, 1.0, [1, 10, 25, 50, 51, 75, 99],
     [0.0020656248, 0.0434634975, 0.16, 0.4, 0.4030984372, 0.64, 0.9643329672], 5e-11),
    ("gambler", {"heads": 0.25}, 1.0, [25, 50, 75], [0.0625, 0.25, 0.4375], 1e-12),
    ("gambler", {"heads": 0.55}, 1.0, [1], [0.1818181822], 5e-11),
    ("jacks-car-rental", {}, 0.9, [0, 220, 440, 420, 20], JACK, 1e-11),
    ("blackjack", {}, 1.0, "start", -0.046555977066697, 5e-15),
    ("blackjack", {"rules": "sab"}, 1.0, "start", -0.043113105413477, 5e-15),
    ("blackjack", {"rules": "natural"}, 1.0, "start", -0.025729182789320, 5e-15),
    ("cliff", {}, 1.0, "start", -13, 1e-12),
    ("cliff", {"slippery": True}, 1.0, "start", -64.70917590996, 5e-12),
    ("windy", {}, 1.0, "start", -15, 1e-12),
    ("windy", {"king": True}, 1.0, "start", -7, 1e-12),
    ("windy", {"king": True, "stay": True}, 1.0, "start", -7, 1e-12),
    ("dyna-maze", {}, 0.95, "start", 0.95**13, 1e-12),
    ("blocking-maze", {}, 0.95, "start", 0.95**9, 1e-12),
    ("blocking-maze", {"after": True}, 0.95, "start", 0.95**15, 1e-12),
    ("shortcut-maze", {}, 0.95, "start", 0.95**15, 1e-12),
    ("shortcut-maze", {"after": True}, 0.95, "start", 0.95**9, 1e-12),
    ("frozenlake", {}, 1.0, "start", 14 / 17, 1e-12),
    ("frozenlake", {}, 0.99, "start", 0.5420259320, 5e-11),
    ("frozenlake", {}, 0.95, "start", 0.1804715784, 5e-11),
    ("frozenlake", {}, 0.9, "start", 0.0688909049, 5e-11),
    ("frozenlake-8x8", {}, 1.0, "start", 1, 1e-9),
    ("frozenlake-8x8", {}, 0.99, "start", 0.4146403618, 5e-11),
    ("taxi", {}, 1.0, "start", 7.93, 1e-12),
    ("taxi", {}, 0.99, "start", 6.3274643149, 5e-11),
    ("taxi", {}, 0.95, "start", 1.7299300168, 5e-11),
    ("taxi", {}, 0.9, "start", -1.2633230990, 5e-11),
]  # fmt: skip


def at(mdp, value, where):
    """The numbers that the reference prints: of some states, of all, or of the start."""
    return value @ mdp.start if where == "start" else value if where is None else value[where]


@pytest.mark.parametrize(("world", "options", "discount", "where", "expected", "digits"), OPTIMA)
def test_optimal_values(world, options, discount, where, expected, digits):
    """V* within certified bounds, and V of the planner's own policy, by the linear equations, to the digits given."""
    mdp = make(world, **options)
    found = plan(mdp, discount, tolerance=1e-9)
    assert found.converged
    low, high = at(mdp, found.lower, where), at(mdp, found.upper, where)
    assert (low - digits <= expected).all()
    assert (expected <= high + digits).all()
    earned = evaluate(mdp, found.policy, discount, tolerance=1e-10)
    np.testing.assert_allclose(at(mdp, earned.value, where), expected, rtol=0, atol=digits)


def test_blackjack_under_stick_on_20_and_its_notch():
    """The book prints -0.27726 for the state of its figure 5.3, the mean of 100 million games, whose standard error is
    about 1e-4: the exact value is -0.27720419182503."""
    game = make("blackjack")
    policy = np.ones(game.num_states, dtype=np.int64)
    policy[NATURAL : NATURAL + 10] = 0
    policy[[blackjack_state(t, dealer, soft) for t in (20, 21) for dealer in range(1, 11) for soft in (0, 1)]] = 0
    found = evaluate(game, policy, 1.0, tolerance=1e-12)
    assert found.value @ game.start == pytest.approx(-0.35355401774156, abs=5e-15)
    assert found.value[blackjack_state(13, 2, True)] == pytest.approx(-0.27720419182503, abs=5e-14)
    notch = game.row_ptr[blackjack_state(18, 1, True)]
    np.testing.assert_allclose(plan(game, 1.0).q()[notch : notch + 2], [-0.37706, -0.33775], atol=5e-6)


@pytest.mark.parametrize(
    ("world", "where", "expected", "digits"),
    [
        ("grid-4x4", None, [0, -14, -20, -22, -14, -18, -20, -20, -20, -20, -18, -14, -22, -20, -14, 0], 1e-10),
        ("walk-5", slice(1, 6), np.arange(1, 6) / 6, 1e-12),
        ("walk-19", slice(1, 20), np.arange(-9, 10) / 10, 1e-12),
        ("walk-1000", [1, 100, 500, 1000], [-0.92196, -0.75418, -0.00094, 0.92196], 5e-6),
    ],
)
def test_the_random_policy(world, where, expected, digits):
    mdp = make(world)
    found = evaluate(mdp, random_policy(mdp), 1.0, tolerance=1e-9)
    np.testing.assert_allclose(at(mdp, found.value, where), expected, rtol=0, atol=digits)


def random_policy(mdp):
    """The same probability for all actions of a state, [K]."""
    counts = np.diff(mdp.row_ptr)
    return np.repeat(1 / np.maximum(counts, 1), counts)


def test_the_random_policy_on_the_5x5_grid():
    rows = """3.3090 8.7893 4.4276 5.3224 1.4922   1.5216 2.9923 2.2501 1.9076 .5474   .0508 .7382 .6731 .3582 -.4031
        -.9736 -.4355 -.3549 -.5856 -1.1831   -1.8577 -1.3452 -1.2293 -1.4229 -1.9752"""
    mdp = make("grid-5x5")
    found = evaluate(mdp, random_policy(mdp), 0.9).value
    np.testing.assert_allclose(found, np.array(rows.split(), float), atol=5.1e-5)


def soft(mdp, epsilon):
    """The model in which an action is replaced by a random one with probability epsilon: its optimum is the best
    epsilon-soft policy's."""
    csr = mdp.csr()
    state = np.repeat(np.arange(mdp.num_states), np.diff(csr.row_ptr))
    same = state[:, None] == state
    mix = (1 - epsilon) * np.eye(mdp.num_rows) + epsilon * same / same.sum(axis=1)
    p = sparse.csr_array((csr.probabilities, csr.successors, csr.ptr), shape=(mdp.num_rows, mdp.num_states))
    coo = sparse.coo_array(mix @ p.toarray())
    row, successor = coo.coords
    return MDP.from_coo(
        state[row], row - csr.row_ptr[state[row]], successor, coo.data, (mix @ csr.rewards)[row],
        num_states=mdp.num_states, terminal=mdp.terminal, start=mdp.start,
    )  # fmt: skip


def test_the_cliff_acted_with_a_tenth_of_random_moves():
    """The limits of the learners' curves: Q-learning's edge policy and the best soft one, which goes up one row more
    than it must and takes 15 steps. Off the edge many policies are optimal; -51.8132 is that of the one that goes down
    before it goes right, others are worth up to -45.8033."""
    world = make("cliff")
    best = plan(soft(world, 0.1), 1.0)
    assert best.value[36] == pytest.approx(-20.7077, abs=5e-5)
    csr, path = world.csr(), [36]
    while path[-1] != 47:
        path.append(int(csr.successors[csr.ptr[csr.row_ptr[path[-1]] + best.policy[path[-1]]]]))
    assert len(path) - 1 == 15
    q = plan(world, 1.0, tolerance=1e-9).q()
    acting = np.flatnonzero(~world.terminal)
    ties = np.isclose(q.reshape(-1, 4), q.reshape(-1, 4).max(axis=1, keepdims=True), atol=1e-6)
    for order, expected in (([2, 0, 1, 3], -51.8132), ([1, 0, 2, 3], -45.8033)):
        policy = np.full(48, -1)
        policy[acting] = np.array(order)[ties[:, order].argmax(axis=1)]
        assert evaluate(soft(world, 0.1), policy, 1.0).value[36] == pytest.approx(expected, abs=5e-5)


def test_the_short_corridor():
    world = make("short-corridor")
    for p, expected, digits in ((2 - 2**0.5, -11.656854, 5e-7), (0.05, -82.105, 5e-4), (0.95, -44.2105, 5e-5)):
        value = evaluate(world, np.tile([1 - p, p], 3), 1.0, tolerance=1e-9).value
        assert value @ world.start == pytest.approx(expected, abs=digits)


def test_average_rewards():
    """Small's gain is 35/9 = 3.888...: the reference has pymdptoolbox' 3.88523524641183, the lower bound of a relative
    value iteration stopped at a span of 0.01, and that our bounds exclude."""
    for world, options, gain, digits in (
        ("forest", {}, 3.24, 1e-9),
        ("forest", {"states": 10}, 1.549681956, 1.5e-9),
        ("small", {}, 35 / 9, 1e-9),
        ("access-control", {}, 2.7476419505725, 1e-9),
    ):
        mdp = make(world, **options)
        found = relative_value_iteration(mdp, tolerance=1e-9)
        assert found.gain == pytest.approx(gain, abs=digits)
        assert found.lower[0] - digits <= gain <= found.upper[0] + digits
        policy = evaluate_average(mdp, found.policy, tolerance=1e-11)
        assert policy.gain == pytest.approx(gain, abs=5e-10 if options else 5e-13)
    assert relative_value_iteration(make("small"), tolerance=1e-9).lower[0] > 3.88523524641183


def test_access_control_policies():
    queue = make("access-control")
    best = relative_value_iteration(soft(queue, 0.1), tolerance=1e-9)
    gain = evaluate_average(soft(queue, 0.1), best.policy, tolerance=1e-11).gain
    assert gain == pytest.approx(2.6468943683104, abs=5e-13)
    everyone = np.repeat([0] + [1] * 10, 4)
    assert evaluate_average(queue, everyone, tolerance=1e-11).gain == pytest.approx(2.1814127197083, abs=5e-13)
    by_coin = evaluate_average(queue, random_policy(queue), tolerance=1e-11)
    assert by_coin.gain == pytest.approx(1.6982423583807, abs=5e-13)
    accepts = relative_value_iteration(queue, tolerance=1e-9).policy.reshape(11, 4).astype(bool)
    free = np.arange(11)[:, None]
    assert accepts.tolist() == ((free >= [11, 4, 1, 1]) & (free > 0)).tolist()


@pytest.mark.parametrize(
    ("world", "steps", "best", "stationary"),
    [
        ("frozenlake", 100, 0.7441902878, {0.99: 0.7401648978, 0.95: 0.7297660174, 0.9: 0.7297660174}),
        ("frozenlake-8x8", 200, 0.9132201502, {1 - 1e-6: 0.8856539193, 0.99: 0.8629553800}),
        ("frozenlake-8x8", 100, 0.6407192703, {0.99: 0.6317380010}),
    ],
)
def test_success_on_the_lake_within_a_time_limit(world, steps, best, stationary):
    lake = make(world)
    assert backward_induction(lake, steps).value[0] @ lake.start == pytest.approx(best, abs=5e-11)
    for discount, success in stationary.items():
        policy = plan(lake, discount, "policy-iteration", tolerance=1e-9).policy
        chain = policy_chain(lake, row_weights(lake, policy))
        assert backward_induction(chain, steps).value[0] @ lake.start == pytest.approx(success, abs=5e-11)


def test_random_steps_on_the_lake_and_in_the_taxi():
    for world, steps, expected, digits in (("frozenlake", 100, 0.0139397960, 5e-11), ("taxi", 200, -771.09, 5e-3)):
        mdp = make(world)
        chain = policy_chain(mdp, random_policy(mdp))
        assert backward_induction(chain, steps).value[0] @ mdp.start == pytest.approx(expected, abs=digits)


def test_taxi_starts():
    taxi = make("taxi")
    starts = plan(taxi, 1.0, tolerance=1e-9).value[taxi.start > 0]
    assert (len(starts), round(starts.min(), 9), round(starts.max(), 9)) == (300, 3, 15)


def test_finite_horizons():
    """Forest at 0.9 over 3 steps, and Puterman's inventory: there the actions do not tie, and are compared."""
    forest = backward_induction(make("forest"), 3, discount=0.9)
    np.testing.assert_allclose(
        forest.value.T, [[2.6973, 0.81, 0, 0], [5.9373, 3.24, 1, 0], [9.9373, 7.24, 4, 0]], atol=1e-12
    )
    assert forest.policy.T[1:].tolist() == [[0, 0, 1], [0, 0, 0]]
    stock = backward_induction(make("puterman-inventory"), 3)
    sixteenths = [[67, 129, 194, 227], [32, 100, 160, 168], [0, 80, 96, 80], [0, 0, 0, 0]]
    np.testing.assert_allclose(16 * stock.value, sixteenths, atol=1e-11)
    assert stock.policy.tolist() == [[3, 0, 0, 0], [2, 0, 0, 0], [0, 0, 0, 0]]


def test_action_values_and_a_policy_of_the_forest():
    forest = make("forest")
    q = [26.244, 23.6196, 29.484, 24.6196, 33.484, 25.6196]
    np.testing.assert_allclose(plan(forest, 0.9, tolerance=1e-10).q(), q, atol=1e-9)
    at_once = np.maximum.reduceat(forest.csr().rewards, forest.row_ptr[:3])
    first = np.array([np.argmax(forest.csr().rewards[2 * s : 2 * s + 2] == at_once[s]) for s in range(3)])
    assert first.tolist() == [0, 1, 0]
    value = evaluate(forest, first, 0.9, tolerance=1e-11).value
    np.testing.assert_allclose(value, [4.47513812154696, 5.02762430939227, 23.17243384704857], rtol=0, atol=5e-14)


def test_the_gamblers_sum_and_ties():
    """The reference's sum counts the goal's own 1; our goal is an end of value 0, and 1 the reward of reaching it. One
    to three stakes are best in each state: Q tells them, a policy would be one of very many."""
    game = make("gambler")
    found = plan(game, 1.0, tolerance=1e-12)
    assert found.value.sum() + 1 == pytest.approx(40.50729590716588, abs=1e-12)
    q, state = found.q(), np.repeat(np.arange(101), np.diff(game.row_ptr))
    ties = np.bincount(state, np.isclose(q, found.value[state], rtol=0, atol=1e-12))[1:]
    assert (ties.min(), ties.max()) == (1, 3)


def test_jacks_five_evaluations():
    """From the policy that moves no car: five evaluations, four of which are improved upon, as in the book's figure."""
    jack = make("jacks-car-rental")
    none = np.minimum(np.arange(441) % 21, 5)
    assert not jack.row_labels[jack.row_ptr[:-1] + none].any()
    seen = [none]
    while len(seen) < 3 or not np.array_equal(seen[-1], seen[-2]):
        value = evaluate(jack, seen[-1], 0.9, tolerance=1e-8)
        q = value.q().copy()
        q[jack.row_ptr[:-1] + seen[-1]] += 1e-6  # what ties with the present action is no improvement
        seen.append(np.array([np.argmax(q[a:b]) for a, b in zip(jack.row_ptr, jack.row_ptr[1:])]))
    assert len(seen) - 1 == 5
