"""Models and planners refuse what is wrong by name, and no planner calls a value certified that is not."""

from __future__ import annotations

import re
from fractions import Fraction

import numba
import numpy as np
import pytest
from tests.tabular.conftest import as_mdp, forest, four_by_four, random_rational, true_optimum

from onepolicy.errors import ConfigError, DataError
from onepolicy.tabular.build import from_arrays, from_function, from_grid, from_step
from onepolicy.tabular.layouts import with_layout
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.planning import (
    METHODS,
    backward_induction,
    evaluate,
    evaluate_average,
    plan,
    relative_value_iteration,
    soft_value_iteration,
)
from onepolicy.tabular.worlds.garnet import garnet

TWO = {"num_states": 2, "terminal": [1]}


def chain(p: list[float], **settings) -> MDP:
    """State 0 with one action to states 0 and 1 with the probabilities p."""
    return MDP.from_coo([0, 0], [0, 0], [0, 1], p, 0.0, **{**TWO, **settings})


def test_rows_that_do_not_sum_to_one_name_state_action_and_sum():
    """The third of four rows, (1, 0), is the one that lacks 0.1; with names, its name."""
    rows = ([0, 0, 1, 1, 1], [0, 1, 0, 0, 1], [1, 2, 0, 2, 2], [1.0, 1.0, 0.5, 0.4, 1.0], 0.0)
    words = "State 1, action 0: the probabilities sum to 0.9, not 1 (1 such rows of 4)"
    with pytest.raises(DataError, match=re.escape(words)):
        MDP.from_coo(*rows, num_states=3)
    with pytest.raises(DataError, match=r"State 'hall', action 0: the probabilities sum to 0\.9, not 1"):
        MDP.from_coo(*rows, num_states=3, state_names=["door", "hall", "street"])
    with pytest.raises(DataError, match=r"State 0, action 0: the probabilities sum to 1\.2, not 1"):
        chain([0.7, 0.5])
    with pytest.raises(DataError, match=r"State 0, action 0: the probabilities sum to 0\.75, not 1"):
        from_arrays(np.array([[[0.5, 0.25], [0.0, 1.0]]]), np.zeros((2, 1)))
    with pytest.raises(DataError, match="State 1, action 0: the probabilities sum to 0, not 1"):
        from_arrays(np.array([[[0.5, 0.5], [0.0, 0.0]], [[0.5, 0.5], [0.0, 1.0]]]), np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"State 'a', action 0: the probabilities sum to 0\.9"):
        from_step(lambda s, a: [(0.9, "b", 1.0)], lambda s: [0] if s == "a" else [], "a")


def test_nearly_one_is_made_one():
    """A sum within 1e-6 of 1 is divided by; the bounds are those of the model as stored."""
    mdp = chain([0.5 + 4e-7, 0.5])
    assert mdp.csr().probabilities.sum() == pytest.approx(1, abs=1e-15)
    with pytest.raises(DataError, match=r"sum to 1\.000002"):
        chain([0.5 + 2e-6, 0.5])


@pytest.mark.parametrize(
    ("p", "words"),
    [
        ([1.5, -0.5], "State 0, action 0 -> 1 has probability -0.5"),
        ([np.nan, 1.0], "State 0, action 0 -> 0 has probability nan"),
        ([0.0, np.inf], "State 0, action 0 -> 1 has probability inf"),
    ],
)
def test_negative_and_infinite_probabilities_are_named(p, words):
    with pytest.raises(DataError, match=re.escape(words)):
        chain(p)


def test_a_compiled_function_is_checked_row_by_row():
    @numba.njit
    def short(s, a, k):
        return s, 0.9 if s == 2 and a == 1 else 1.0, 0.0

    @numba.njit
    def negative(s, a, k):
        return (s, 1.5, 0.0) if k == 0 else (s, -0.5, 0.0)

    with pytest.raises(DataError, match=r"State 2, action 1: .* sum to 0\.9, not 1"):
        from_function(short, num_states=4, num_actions=2, num_outcomes=1)
    with pytest.raises(DataError, match=r"State 0, action 0: .* or one is negative"):
        from_function(negative, num_states=2, num_actions=1, num_outcomes=2)
    with pytest.raises(DataError, match="State 1 has no actions and is not terminal"):
        from_function(short, num_states=3, num_actions=[1, 0, 1], num_outcomes=1, terminal=[2])
    with pytest.raises(ConfigError, match=r"is no compiled function; decorate it with numba\.njit"):
        from_function(lambda s, a, k: (s, 1.0, 0.0), num_states=2, num_actions=1, num_outcomes=1)


def test_states_without_actions_or_with_gaps_are_named():
    with pytest.raises(DataError, match=r"State 1 has no actions and is not terminal \(2 such states\)"):
        MDP.from_coo([0], [0], [1], [1.0], 0.0, num_states=4, terminal=[3])
    with pytest.raises(DataError, match="State 0 has an action 2 but no action 1"):
        MDP.from_coo([0, 0], [0, 2], [1, 1], [1.0, 1.0], 0.0, num_states=2)
    with pytest.raises(DataError, match="Terminal state 1 has action 0 to state 0 with reward 3"):
        MDP.from_coo([0, 1], [0, 0], [1, 0], [1.0, 1.0], [0.0, 3.0], num_states=2, terminal=[1])


def test_unreachable_states_are_named():
    """Nothing leads to state 1 (of 0 -> 2, 1 -> 2) when episodes begin in 0."""
    rows = ([0, 1], [0, 0], [2, 2], [1.0, 1.0], 0.0)
    mdp = MDP.from_coo(*rows, num_states=3, start=0)
    assert mdp.reachable().tolist() == [True, False, True]
    with pytest.raises(DataError, match=r"State 1 cannot be reached from the start \(1 such states\)"):
        mdp.check_reachable()
    MDP.from_coo(*rows, num_states=3).check_reachable()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (([0], [0], [2], [1.0]), "Transition 0 (0, 0) -> 2 has a successor outside 0 .. 1"),
        (([-1], [0], [1], [1.0]), "Transition 0 (-1, 0) -> 1 has a state outside 0 .. 1"),
        (([0], [-1], [1], [1.0]), "State 0, action -1"),
        (([0.0], [0], [1], [1.0]), "state has dtype float64; indices are integers"),
        (([0], [0, 1], [1], [1.0]), "give 1-D arrays of one length"),
    ],
)
def test_transitions_outside_the_model_are_named(entries, words):
    with pytest.raises(DataError, match=re.escape(words)):
        MDP.from_coo(*map(np.array, entries), 0.0, num_states=2)


@pytest.mark.parametrize("method", ["auto", *METHODS])
def test_no_discount_and_no_way_to_end_names_the_recurrent_class(method):
    """States 1 and 2 lead to each other; 0 can go there or end in 3; 4 leads only to 1 and is not recurrent."""
    mdp = MDP.from_coo(
        [0, 0, 1, 2, 4], [0, 1, 0, 0, 0], [3, 1, 2, 1, 1], [1.0] * 5, [-1.0] * 5, num_states=5,
        state_names=["start", "left", "right", "exit", "porch"],
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"no policy ends from states \{left, right\}.*3 of 5 states cannot") as error:
        plan(mdp, 1.0, method)
    assert "a way to a terminal state, discount by less than 1, or take the average reward" in str(error.value)
    found = plan(mdp, 0.5, method)
    np.testing.assert_allclose(found.value, [-1, -2, -2, 0, -2], atol=1.1e-6)


def test_a_policy_that_stays_and_an_average_that_ends_are_refused():
    """State 0 may stay and earn 1, or end."""
    mdp = MDP.from_coo([0, 0], [0, 1], [0, 1], [1.0, 1.0], [1.0, 5.0], num_states=2)
    with pytest.raises(ConfigError, match="no policy ends"):
        evaluate(mdp, np.array([0, -1]), 1.0)
    with pytest.raises(ConfigError, match=r"State 1 is terminal .1 such states."):
        relative_value_iteration(mdp)


def test_too_little_memory_is_said_before_anything_is_allocated():
    """Ten transitions at 120 bytes, 1,000 states at 21: a byte less is too little."""
    entries = (np.zeros(10, np.int64), np.arange(10), np.ones(10, np.int64), np.ones(10), 0.0)
    with pytest.raises(ConfigError, match=r"Sorting 10 transitions needs 1,200 bytes and there are 1,000 bytes"):
        MDP.from_coo(*entries, num_states=2, limit=1000)
    MDP.from_coo(*entries, num_states=2, limit=1200)
    with pytest.raises(ConfigError, match=r"A padded storage needs .* and there are 64 bytes.*float32"):
        with_layout(four_by_four(), "padded", limit=64)

    @numba.njit
    def stay(s, a, k):
        return s, 1.0, 0.0

    with pytest.raises(ConfigError, match=r"A model of 1,000 states needs 21,000 bytes"):
        from_function(stay, num_states=1000, num_actions=1, num_outcomes=1, limit=20_999)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: plan(m, 0.9, "value-iterations"), "Did you mean 'value-iteration'"),
        (lambda m: plan(m, 1.5), "discount is 1.5; it is from 0 to 1"),
        (lambda m: plan(m, -0.1), "discount is -0.1"),
        (lambda m: plan(m, 0.9, tolerance=0), "tolerance is 0; ask for a distance above 0"),
        (lambda m: plan(m, 0.9, max_sweeps=0), "max_sweeps is 0"),
        (lambda m: plan(m, 0.9, time_limit=-1), "time_limit is -1"),
        (lambda m: plan(m, 0.9, threads=0), "threads is 0"),
        (lambda m: plan(m, 0.9, initial=[0.0]), "initial has shape (1,)"),
        (lambda m: plan(m, 0.9, initial=[0.0, np.nan, 0.0]), "give a finite value for each of 3 states"),
        (lambda m: evaluate(m, np.array([0, 2, 0]), 0.9), "takes action 2 in state 1, which has 2"),
        (lambda m: evaluate(m, np.full(6, 0.4), 0.9), "in state 0 are [0.4 0.4]"),
        (lambda m: evaluate(m, np.zeros(3), 0.9), "shape (3,) and dtype float64"),
        (lambda m: evaluate(m, np.zeros(3, int), 0.9, "exactly"), "method is 'exactly'"),
        (lambda m: soft_value_iteration(m, 0.9, 0.0), "temperature is 0.0; it is above 0"),
        (lambda m: soft_value_iteration(m, 1.0, 1.0), "discount is 1.0; it is from 0 to below 1"),
        (lambda m: backward_induction(m, 0), "horizon is 0"),
        (lambda m: backward_induction(m, 2, final=[1.0]), "final has shape (1,)"),
        (lambda m: with_layout(m, "table"), "State 0, action 0 has 2 successors"),
        (lambda m: with_layout(m, "pad"), "layout is 'pad'. Did you mean 'padded'"),
    ],
)  # fmt: skip
def test_planners_name_the_setting_that_is_wrong(call, words):
    with pytest.raises((ConfigError, DataError), match=re.escape(words)):
        call(forest())


@pytest.mark.parametrize("method", ["auto", *METHODS])
@pytest.mark.parametrize("discount", [Fraction(99, 100), Fraction(1)])
@pytest.mark.parametrize("limits", [{"max_sweeps": 1}, {"time_limit": 1e-9}])
def test_a_limit_never_gives_a_value_that_looks_certified(method, discount, limits):
    """Not converged, said in `reason` and in print; the bounds still hold the rational truth."""
    model = random_rational(3, 6, 2, ending=discount == 1)
    truth, _ = true_optimum(model, 6, discount)
    found = plan(as_mdp(model, 6), float(discount), method, tolerance=1e-9, **limits)
    reason = "sweeps" if "max_sweeps" in limits else "time"
    assert (found.converged, found.reason) == (False, reason)
    assert f"not converged ({reason})" in str(found)
    assert found.gap > 2e-9
    assert all(Fraction(float(x)) <= y for x, y in zip(found.lower, truth) if np.isfinite(x))
    assert all(Fraction(float(x)) >= y for x, y in zip(found.upper, truth) if np.isfinite(x))


def test_limits_of_the_other_planners_are_said_too():
    mdp = forest(20)
    soft = soft_value_iteration(mdp, 0.99, 1.0, tolerance=1e-9, max_sweeps=1)
    gain = relative_value_iteration(mdp, tolerance=1e-9, max_sweeps=1)
    chosen = np.zeros(20, dtype=np.int64)
    worth = evaluate(mdp, chosen, 0.99, "iterative", tolerance=1e-9, max_sweeps=1)
    for found in (soft, gain, worth):
        assert (found.converged, found.reason) == (False, "sweeps")
        assert "not converged (sweeps)" in str(found)
    assert (worth.lower <= evaluate(mdp, chosen, 0.99).upper).all()
    assert gain.lower[0] <= evaluate_average(mdp, chosen).upper[0]
    assert gain.upper[0] >= relative_value_iteration(mdp, tolerance=1e-9).lower[0]


def test_a_converged_answer_is_one_within_the_tolerance():
    """`converged` is the bounds' width, not the method's opinion, at every tolerance."""
    for mdp, discount in ((forest(50), 0.999), (from_grid("S..\n.X.\n..G", slip=0.2), 1.0)):
        for method in METHODS:
            for tolerance in (1.0, 1e-3, 1e-8):
                found = plan(mdp, discount, method, tolerance=tolerance)
                assert found.converged, (method, tolerance, found)
                assert found.gap <= 2.001 * tolerance


@pytest.mark.parametrize("method", ["value-iteration", "modified-policy-iteration"])
def test_threads_change_nothing(method):
    """From 100,000 rows a pass is shared; each state's sum is the same one, so the answer is to the last bit."""
    mdp = garnet(100_000, actions=1, branching=2)
    one, three = (plan(mdp, 0.9, method, tolerance=1e-6, threads=n) for n in (1, 3))
    assert one.converged
    assert one.sweeps == three.sweeps
    for name in ("value", "lower", "upper", "policy"):
        np.testing.assert_array_equal(getattr(one, name), getattr(three, name))
