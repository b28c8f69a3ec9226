"""Blackjack and the gambler: exact values, the three rule variants, gymnasium's own deals."""

import numpy as np
import pytest
from gymnasium.envs.toy_text.blackjack import BlackjackEnv

from onepolicy.errors import ConfigError
from onepolicy.tabular.worlds import make
from onepolicy.tabular.worlds.games import NATURAL, blackjack, blackjack_state

ENV = {"plain": {}, "sab": {"sab": True}, "natural": {"natural": True}}


def hits_below(total):
    """Local actions of the policy that sticks on `total` and more, [294]."""
    policy = np.zeros(294, dtype=np.int64)
    for dealer in range(1, 11):
        for mine in range(4, total):
            policy[blackjack_state(mine, dealer, False)] = 1
            if mine >= 12:
                policy[blackjack_state(mine, dealer, True)] = 1
    return policy


@pytest.mark.parametrize(
    ("rules", "value"),
    [("plain", -0.046555977066697), ("sab", -0.043113105413477), ("natural", -0.025729182789320)],
)
def test_blackjack_optimal_value(exact, rules, value):
    e = exact(blackjack(rules=rules))
    assert e.optimum(1.0)[0] @ e.start == pytest.approx(value, abs=5e-15)


def test_blackjack_stick_on_20(exact):
    e = exact(make("blackjack"))
    value = e.evaluate(hits_below(20), 1.0)
    assert value @ e.start == pytest.approx(-0.35355401774156, abs=1e-14)
    assert value[blackjack_state(13, 2, True)] == pytest.approx(-0.27720419182503, abs=5e-14)


def test_blackjack_hits_usable_18_against_an_ace(exact):
    e = exact(make("blackjack"))
    q = e.q(e.optimum(1.0)[0], 1.0)
    notch = e.first[blackjack_state(18, 1, True)]
    np.testing.assert_allclose(q[notch : notch + 2], [-0.37706, -0.33775], atol=5e-6)


def test_blackjack_optimal_policy_is_the_books(exact):
    """Figure 5.2: hard hands stick from 17, from 13 (against 2 and 3) or 12 (against 4 to 6) on; soft ones from 18,
    from 19 against 9, 10 and the ace."""
    best = exact(make("blackjack")).optimal_rows(1.0).reshape(-1, 2)
    for dealer in range(1, 11):
        hard = 17 if dealer in (1, 7, 8, 9, 10) else 13 if dealer in (2, 3) else 12
        soft = 19 if dealer in (1, 9, 10) else 18
        for total in range(12, 22):
            for usable, least in ((False, hard), (True, soft)):
                sticks = best[blackjack_state(total, dealer, usable)].tolist()
                assert sticks == [total >= least, total < least], (total, dealer, usable)


@pytest.mark.parametrize("rules", list(ENV))
def test_blackjack_is_what_gymnasium_deals(exact, rules):
    """4,000 hands of stick on 18, within 3 standard errors, and how often each reward comes."""
    e = exact(blackjack(rules=rules))
    env = BlackjackEnv(**ENV[rules])
    paid = []
    for hand in range(4000):
        (total, _, _), _ = env.reset(seed=0 if hand == 0 else None)
        ended = False
        while not ended:
            (total, _, _), reward, ended, _, _ = env.step(int(total < 18))
        paid.append(reward)
    value = e.evaluate(hits_below(18), 1.0) @ e.start
    assert np.mean(paid) == pytest.approx(value, abs=3 * np.std(paid) / 4000**0.5)


def test_blackjack_rules_differ_in_naturals_only(exact):
    """A natural against a 10: the dealer draws level with 1/13; else he has 21 with probability p, which is a draw in
    the plain rules and a win in those of Sutton and Barto."""
    q = {rules: exact(blackjack(rules=rules)).r for rules in ENV}
    e = exact(blackjack())
    natural = e.first[NATURAL + 9]
    assert q["sab"][natural] == pytest.approx(12 / 13)
    assert q["natural"][natural] == pytest.approx(1.5 * q["plain"][natural])
    assert q["plain"][natural] < q["sab"][natural]
    same = e.state < NATURAL
    np.testing.assert_array_equal(q["sab"][same], q["plain"][same])
    np.testing.assert_array_equal(q["natural"][same], q["plain"][same])


def test_blackjack_bad_input():
    with pytest.raises(ConfigError, match="Did you mean 'natural'"):
        blackjack(rules="naturals")
    for hand in ((3, 1, False), (11, 1, True), (22, 1, False), (12, 11, False)):
        with pytest.raises(ConfigError, match="is no hand"):
            blackjack_state(*hand)
    with pytest.raises(ConfigError, match="is no hand"):
        blackjack_state(20, 1, True, natural=True)


def test_gambler_values(exact):
    """The sum counts the goal's 1, which is a reward here and no value."""
    e = exact(make("gambler"))
    value, _, _ = e.optimum(1.0)
    expected = [0.0020656248, 0.0434634975, 0.16, 0.4, 0.4030984372, 0.64, 0.9643329672]
    np.testing.assert_allclose(value[[1, 10, 25, 50, 51, 75, 99]], expected, atol=5e-11)
    assert value.sum() + 1 == pytest.approx(40.50729590716588, abs=1e-11)


def test_gambler_in_place_sweeps_and_ties(exact):
    e = exact(make("gambler"))
    value, sweeps = np.zeros(101), 1
    while e.in_place(value, 1.0) >= 1e-15:
        sweeps += 1
    assert sweeps == 27
    np.testing.assert_allclose(value, e.optimum(1.0)[0], atol=1e-14)
    ties = np.bincount(e.state, e.optimal_rows(1.0))[1:]
    assert (ties.min(), ties.max()) == (1, 3)
    stakes = e.mdp.row_labels[e.optimal_rows(1.0) & (e.state == 51)].tolist()
    assert stakes == [1, 49]


def test_gambler_other_coins(exact):
    value, _, _ = exact(make("gambler", heads=0.25)).optimum(1.0)
    np.testing.assert_allclose(value[[25, 50, 75]], [0.0625, 0.25, 0.4375], atol=1e-12)
    e = exact(make("gambler", heads=0.55))
    assert e.optimum(1.0)[0][1] == pytest.approx(0.1818181822, abs=5e-11)
    bold = np.minimum(np.arange(101), 100 - np.arange(101)) - 1
    assert e.evaluate(bold, 1.0)[1] < 0.18
    with pytest.raises(ConfigError, match=r"heads is 1\.2"):
        make("gambler", heads=1.2)
