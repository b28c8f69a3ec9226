"""The world with a known reward: its optimum by brute force, its preferences by their probabilities."""

from __future__ import annotations

from itertools import product
from math import exp

import numpy as np
import pytest

from onepolicy.tasks import letters
from onepolicy.tasks.base import load_task_set


def test_the_best_reward_is_the_highest_of_all_answers():
    """Wanted, unwanted and two other letters suffice: all others are alike. All strings of up to 7 letters."""
    for prompt in ("a-b4?", "a-b5?"):
        every = ("".join(p) for n in range(1, 8) for p in product("abcd", repeat=n))
        assert max(letters.reward(prompt, answer) for answer in every) == letters.best(prompt)
    for prompt in letters.prompts("train") + letters.prompts("test"):
        assert letters.reward(prompt, letters.gold(prompt)) == letters.best(prompt)


def test_splits_share_no_prompt_and_the_set_loads():
    train, test = letters.prompts("train"), letters.prompts("test")
    assert not set(train) & set(test)
    assert len(train) + len(test) == 8 * 7 * 6
    tasks = load_task_set("letters", "test")
    assert len(tasks) == len(test)
    score = tasks.tasks[0].verifier(tasks.tasks[0], "zz")
    assert score.parts["format"] == 0.0


def test_a_pair_is_drawn_with_bradley_and_terry_s_probability():
    """Ranks of 4,000 rankings: the mean of [i before j] - sigmoid(r_i - r_j) is 0 within 4 standard errors."""
    gaps, weights = [], []
    rows = list(letters.ranking_rows(4000, k=3, seed=5))
    for row in rows:
        r = [letters.reward(row["prompt"], answer) for answer in row["answers"]]
        assert sorted(row["ranks"]) == [1, 2, 3]
        p = 1.0 / (1.0 + exp(r[1] - r[0]))
        gaps.append((row["ranks"][0] < row["ranks"][1]) - p)
        weights.append(p * (1 - p))
    assert abs(np.mean(gaps)) < 4 * (np.mean(weights) / len(gaps)) ** 0.5
    right = [
        (letters.reward(row["prompt"], a) > letters.reward(row["prompt"], b)) == (i < j)
        for row in rows
        for (a, i), (b, j) in [tuple(zip(row["answers"][:2], row["ranks"][:2], strict=True))]
        if letters.reward(row["prompt"], a) != letters.reward(row["prompt"], b)
    ]
    assert np.mean(right) == pytest.approx(letters.best_accuracy(rows), abs=0.04)
    assert 0.7 < letters.best_accuracy(rows) < 0.95


def test_rows_are_seeded():
    assert list(letters.ranking_rows(3, seed=1)) == list(letters.ranking_rows(3, seed=1))
    assert list(letters.demonstration_rows(3, seed=1)) != list(letters.demonstration_rows(3, seed=2))
    for row in letters.demonstration_rows(50):
        assert letters.is_answer(row["completion"])
