"""Input that cannot work is refused with what was given, what is expected and what to do; one place for all kinds."""

from __future__ import annotations

import re

import numpy as np
import pytest

from onepolicy.errors import ConfigError, DataError
from onepolicy.tabular.bandits import DecayingEpsilonGreedy, EpsilonGreedy
from onepolicy.tabular.build import from_arrays, from_step
from onepolicy.tabular.control import Settings
from onepolicy.tabular.control.dataset import q_learning_from, value_iteration_from
from onepolicy.tabular.dataset import dataset
from onepolicy.tabular.estimation import covered
from onepolicy.tabular.layouts import with_layout
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.planning import METHODS, backward_induction, evaluate, plan
from onepolicy.tabular.worlds import make


def chain(p=(1.0, 1.0, 1.0), **named):
    """0 -> 1 -> 2 -> 2, one action each, no end."""
    return MDP.from_coo([0, 1, 2], [0, 0, 0], [1, 2, 2], p, -1.0, num_states=3, **named)


def log():
    """Three transitions of five states with two actions each; what was done in 0 and 1 is half of what could be."""
    return dataset([0, 0, 1], [0, 0, 1], [1.0, 1.0, 0.0], [1, 2, 3], [False, False, True], num_states=5, num_actions=2)


MODELS = {
    "sum": (
        lambda: chain((1.0, 0.9, 1.0)),
        "State 1, action 0: the probabilities sum to 0.9, not 1",
        "divide each row by its sum",
    ),
    "sum of a matrix": (
        lambda: from_arrays(np.array([np.eye(2), [[0.5, 0.6], [0, 1]]]), np.zeros((2, 2))),
        "State 0, action 1: the probabilities sum to 1.1, not 1",
        "Check the transitions",
    ),
    "sum of a step function": (
        lambda: from_step(lambda s, a: [(0.5, 1, 0.0)], lambda s: [0] if s == 0 else [], 0),
        "State '0', action 0: the probabilities sum to 0.5, not 1",
        "divide each row by its sum",
    ),
    "negative": (
        lambda: MDP.from_coo([0, 0], [0, 0], [0, 1], [1.5, -0.5], 0.0, num_states=2),
        "State 0, action 0 -> 1 has probability -0.5",
        "probabilities are at least 0",
    ),
    "actionless": (
        lambda: MDP.from_coo([0], [0], [1], [1.0], 0.0, num_states=3, terminal=[2]),
        "State 1 has no actions and is not terminal",
        "Give it an action, or name it in terminal",
    ),
    "unreachable": (
        lambda: MDP.from_coo([0, 1], [0, 0], [2, 2], [1.0, 1.0], 0.0, num_states=3, start=0).check_reachable(),
        "State 1 cannot be reached from the start",
        "give the start distribution some probability there",
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_models_that_are_none(kind):
    call, given, fix = MODELS[kind]
    with pytest.raises(DataError, match=re.escape(given)) as error:
        call()
    assert fix in str(error.value)


@pytest.mark.parametrize("method", METHODS)
def test_without_discount_what_never_ends_is_named(method):
    """States 0 and 1 lead to one another, 2 to them or to the end: nothing ends from 0 or 1, and they are said."""
    mdp = MDP.from_coo([0, 1, 2, 2], [0, 0, 0, 1], [1, 0, 0, 3], np.ones(4), -1.0, num_states=4)
    with pytest.raises(ConfigError, match=r"discount is 1 and no policy ends from states \{0, 1\}") as error:
        plan(mdp, 1.0, method)
    for fix in ("Give them a way to a terminal state", "discount by less than 1", "average reward"):
        assert fix in str(error.value)
    with pytest.raises(ConfigError, match=r"states \{0, 1\}"):
        evaluate(mdp, np.array([0, 0, 0, -1]), 1.0)
    assert plan(mdp, 0.5, method).value == pytest.approx([-2, -2, -1, 0], abs=1e-5)


def test_without_discount_a_loop_that_pays_is_named():
    paid = MDP.from_coo([0, 1, 1], [0, 0, 1], [1, 0, 2], np.ones(3), [0.0, 1.0, 0.0], num_states=3)
    with pytest.raises(ConfigError, match=r"stay in 2 states, such as 0, and earn at least 0\.5 a step for ever"):
        plan(paid, 1.0)


@pytest.mark.parametrize(
    ("call", "given"),
    [
        (lambda: chain(limit=100), "Sorting 3 transitions needs 360 bytes and there are 100 bytes"),
        (lambda: with_layout(chain(), "padded", limit=10), "A padded storage needs"),
        (lambda: backward_induction(chain(), 10**12), "A value for each of 3 states and 1,000,000,000,000 steps needs"),
        (lambda: make("open-grid", rows=10**6, cols=10**6), "A world of 1,000,000,000,000 states"),
        (lambda: make("open-grid", rows=10**5, cols=10**5, slip=0.0), "40,000,000,000 transitions takes 1192.09 GiB"),
        (lambda: make("garnet", states=10**10), "A world of 10,000,000,000 states"),
        (lambda: make("local", states=10**9), "20,000,000,000 transitions"),
        (lambda: make("walk-1000", states=10**9), "200,000,000,400 transitions"),
        (lambda: make("gambler", goal=10**6), "500,000,000,000 transitions"),
        (lambda: make("jacks-car-rental", cars=300), "A world of 90,601 states"),
        (lambda: make("access-control", servers=10**5), "A world of 400,004 states"),
        (lambda: make("forest", states=10**10), "A world of 10,000,000,000 states"),
    ],
)
def test_too_little_memory_is_said_before_anything_is_allocated(call, given):
    with pytest.raises(ConfigError, match=re.escape(given)) as error:
        call()
    assert "build.from_function" in str(error.value)


@pytest.mark.parametrize("epsilon", [1.5, -0.1, float("nan"), float("inf")])
def test_an_epsilon_that_is_no_share(epsilon):
    for call in (
        lambda: Settings(epsilon=epsilon),
        lambda: Settings(epsilon=[0.1, epsilon], episodes=2),
        lambda: EpsilonGreedy(epsilon),
    ):
        with pytest.raises(ConfigError, match=re.escape(f"epsilon is {epsilon}; ")) as error:
            call()
        assert "in [0, 1]. Set 0 <= epsilon <= 1." in str(error.value)
    if not epsilon > 1:
        with pytest.raises(ConfigError, match="scale is"):
            DecayingEpsilonGreedy(scale=epsilon)


@pytest.mark.parametrize(
    "solve", [value_iteration_from, lambda data, **named: q_learning_from(data, sweeps=1, **named)]
)
def test_a_data_set_with_unseen_actions(solve):
    """Refused by name when asked to be; without discount there is no least value for them, and the fix is said."""
    with pytest.raises(DataError, match="never tries action 1 of state 0, action 0 of state 1") as error:
        solve(log(), gamma=0.9, unseen="raise")
    assert "Collect those, or take unseen='exclude' or 'floor'" in str(error.value)
    with pytest.raises(ConfigError, match=r"gamma is 1, .*Give floor"):
        solve(log(), gamma=1.0, unseen="floor")
    found = solve(log(), gamma=0.9)
    assert "unseen: action 1 of state 0" in str(found.coverage)
    assert np.isnan(found.q[1])


def test_a_behaviour_that_leaves_out_what_the_target_does():
    with pytest.raises(
        DataError, match="takes action 1 in state 0 with probability 1 and behaviour never does"
    ) as error:
        covered(np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]]))
    assert "Give behaviour some probability there" in str(error.value)
