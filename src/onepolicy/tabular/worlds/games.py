"""Games of chance against the house: blackjack with an infinite deck, and the gambler who bets on a coin."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Literal

import numpy as np

from onepolicy.errors import ConfigError, nearest
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.storage import Floats
from onepolicy.tabular.worlds.tables import at, at_least, chance, from_outcomes, require_room

CARDS = np.array([1.0] * 9 + [4.0]) / 13
"""Probability of the cards 1 (ace) to 10."""
RULES = ("plain", "sab", "natural")
NATURAL = 280
"""First of the ten states of a natural, one for each card of the dealer."""
LOSE, DRAW, WIN, BONUS = 290, 291, 292, 293
"""The ends of `blackjack`."""


def blackjack(*, rules: Literal["plain", "sab", "natural"] = "plain") -> MDP:
    """Blackjack with an infinite deck, 294 states, actions stick and hit, +1, 0 or -1 at the end.

    `blackjack_state` numbers the hands; a natural (ace and ten as dealt) has states of its own from NATURAL on. The
    dealer sticks on 17 and more, soft or not. rules: "plain": a natural is a 21 like any other; "sab" (of Sutton and
    Barto): a natural wins against everything but a natural; "natural": a win with it pays 1.5. These are gymnasium's
    `BlackjackEnv()`, `sab=True` (what `make("Blackjack-v1")` sets) and `natural=True`. Start: as dealt.
    Raises: ConfigError for other rules.
    Source: Sutton and Barto 2018, example 5.1; gymnasium `blackjack.py`.
    """
    if rules not in RULES:
        raise ConfigError(f"rules is {rules!r}; blackjack has three variants. {nearest(rules, RULES)}")
    outcome = np.zeros((294, 2, 10), dtype=np.int64)
    probability = np.zeros((294, 2, 10))
    start = np.zeros(294)
    for dealer in range(1, 11):
        for total in range(4, 22):
            for usable in (False, True) if total >= 12 else (False,):
                state = blackjack_state(total, dealer, usable)
                outcome[state, 1] = [_hit(total, dealer, usable, card) for card in range(1, 11)]
                probability[state, 0, :3] = _stick(total, dealer)
        natural, soft = blackjack_state(21, dealer, True, natural=True), blackjack_state(21, dealer, True)
        outcome[natural, 1], probability[natural, 0, :3] = outcome[soft, 1], probability[soft, 0, :3]
        if rules == "sab":
            both = CARDS[9] * (dealer == 1) + CARDS[0] * (dealer == 10)
            probability[natural, 0, :3] = 0.0, both, 1.0 - both
        start += CARDS[dealer - 1] * _deal(dealer)
    outcome[:, 0, :3] = LOSE, DRAW, WIN
    outcome[NATURAL:, 0, 2] = BONUS
    probability[:, 1] = CARDS
    gain = np.zeros(294)
    gain[[LOSE, WIN, BONUS]] = -1.0, 1.0, 1.5 if rules == "natural" else 1.0
    return from_outcomes(
        outcome,
        probability,
        gain[outcome],
        terminal=at(294, LOSE, DRAW, WIN, BONUS),
        start=start,
        state_names=_names(),
        action_names=("stick", "hit"),
    )


def blackjack_state(total: int, dealer: int, usable: bool, *, natural: bool = False) -> int:
    """The state of a hand: its total (4 to 21, 12 to 21 with a usable ace), the dealer's card (1 to 10).

    Raises: ConfigError for hands that do not exist.
    """
    if not 4 + 8 * usable <= total <= 21 or not 1 <= dealer <= 10 or (natural and not (usable and total == 21)):
        raise ConfigError(
            f"total {total}, dealer {dealer}, usable {usable}, natural {natural} is no hand; totals are 4 to 21, with "
            "a usable ace 12 to 21, the dealer's card 1 to 10, a natural is a usable 21. Give such a hand."
        )
    return NATURAL + dealer - 1 if natural else (total - 4 + 10 * usable) * 10 + dealer - 1


def gambler(*, heads: float = 0.4, goal: int = 100) -> MDP:
    """The gambler: capital 0 .. goal, stake 1 .. min(capital, goal - capital) on a coin; +1 on reaching the goal.

    heads: the probability of winning a stake. `row_labels` are the stakes; every capital has its own number of
    actions. Many stakes are optimal: compare values, not stakes. Start: uniform over 1 .. goal - 1. Undiscounted.
    Source: Sutton and Barto 2018, example 4.3.
    """
    require_room(goal + 1, at_least("goal", goal, 2) ** 2 // 2)
    capital = np.arange(1, goal)
    stakes = np.minimum(capital, goal - capital)
    state = np.repeat(capital, stakes)
    action = np.arange(stakes.sum()) - np.repeat(np.cumsum(stakes) - stakes, stakes)
    to = np.concatenate([state - action - 1, state + action + 1])
    win = chance("heads", heads)
    mdp = MDP.from_coo(
        np.tile(state, 2),
        np.tile(action, 2),
        to,
        np.repeat([1.0 - win, win], len(state)),
        (to == goal).astype(np.float64),
        num_states=goal + 1,
        terminal=[0, goal],
    )
    return replace(mdp, row_labels=(action + 1).astype(np.int32))


def _hit(total: int, dealer: int, usable: bool, card: int) -> int:
    """The state after one more card."""
    if not usable and card == 1 and total <= 10:
        return blackjack_state(total + 11, dealer, True)
    if total + card <= 21:
        return blackjack_state(total + card, dealer, usable)
    return blackjack_state(total + card - 10, dealer, False) if usable else LOSE


def _stick(total: int, dealer: int) -> list[float]:
    """Probabilities of losing, drawing and winning with `total` against the dealer's card."""
    ends = _dealer(dealer, dealer == 1)
    drawn = float(ends[total - 17]) if total >= 17 else 0.0
    lost = float(ends[max(total - 16, 0) : 5].sum())
    return [lost, drawn, 1.0 - lost - drawn]


@cache
def _dealer(hard: int, ace: bool) -> Floats:
    """Probabilities that the dealer ends on 17, 18, 19, 20, 21 or bust, [6]; hard: the total with aces as 1."""
    total = hard + 10 if ace and hard <= 11 else hard
    if total >= 17:
        return np.eye(6)[min(total - 17, 5)]
    cards = (_dealer(hard + card, ace or card == 1) * CARDS[card - 1] for card in range(1, 11))
    return np.sum(list(cards), axis=0)


def _deal(dealer: int) -> Floats:
    """The distribution of the player's first two cards, [294]."""
    dealt = np.zeros(294)
    for one in range(1, 11):
        for two in range(1, 11):
            ace = 1 in (one, two)
            natural = ace and 10 in (one, two)
            state = blackjack_state(one + two + 10 * ace, dealer, ace, natural=natural)
            dealt[state] += CARDS[one - 1] * CARDS[two - 1]
    return dealt


def _names() -> tuple[str, ...]:
    hands = [f"hard {total}" for total in range(4, 22)] + [f"soft {total}" for total in range(12, 22)] + ["natural"]
    return (*(f"{hand}, dealer {card}" for hand in hands for card in range(1, 11)), "lose", "draw", "win", "bonus")
