"""Off-policy evaluation of a policy from a sampled log: laid out as a loop would, and near the exact value."""

from __future__ import annotations

import numpy as np
import pytest

from onepolicy.errors import DataError
from onepolicy.tabular.estimation.episodes import laid_out, logged, off_policy_evaluation
from onepolicy.tabular.planning import evaluate, plan
from onepolicy.tabular.prediction import importance_ratios
from onepolicy.tabular.simulate import row_probabilities, sample_episodes, sampler
from onepolicy.tabular.worlds import make

GAMMA = 0.95


@pytest.fixture(scope="module")
def lake():
    """FrozenLake, half the time as is best and half at random: (model, that policy [K], random games)."""
    mdp = make("frozenlake")
    best = row_probabilities(mdp.csr(), np.asarray(plan(mdp, GAMMA).policy))
    target = 0.5 * best + 0.5 * row_probabilities(mdp.csr(), None)
    return mdp, target, sample_episodes(sampler(mdp), 20_000, max_steps=100, seed=2)


def test_a_log_laid_out_is_the_log_step_by_step(lake):
    mdp, target, episodes = lake
    ratio = importance_ratios(mdp, target, None)
    log = logged(episodes, ratio, discount=GAMMA)
    assert log.discount == GAMMA
    for i in (0, 7, 19_999):
        steps = slice(episodes.ptr[i], episodes.ptr[i + 1])
        length = steps.stop - steps.start
        assert log.mask[i].tolist() == [True] * length + [False] * (log.mask.shape[1] - length)
        assert log.reward[i, :length].tolist() == episodes.reward[steps].tolist()
        assert log.log_weights()[i, -1] == pytest.approx(np.log(ratio[episodes.row[steps]]).sum())
    assert np.diff(episodes.ptr).max() == log.mask.shape[1]


def test_every_estimator_is_near_the_exact_value(lake):
    """With the exact model as help doubly robust is more precise; what is left is the ice, weighed by the ratios."""
    mdp, target, episodes = lake
    exact = evaluate(mdp, target, GAMMA, tolerance=1e-9)
    log = logged(episodes, importance_ratios(mdp, target, None), discount=GAMMA)
    q, v = laid_out(episodes, exact.q()[episodes.row]), laid_out(episodes, exact.value[episodes.state])
    found = off_policy_evaluation(log, q, v)
    error = {name: (each.high - each.low) / (2 * 1.96) for name, each in found.items()}
    for name, each in found.items():
        assert abs(each.value - exact.value[0]) <= 3 * error[name] + 1e-12, name
    assert error["direct"] == pytest.approx(0.0, abs=1e-12)
    assert error["doubly_robust"] < error["per_decision"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda log: logged(log, np.ones(3)), r"ratio has shape \(3,\) and the log has row 43"),
        (lambda log: logged(log, -np.ones(44)), "ratio is -1"),
        (lambda log: laid_out(log, np.ones(5)), r"there are \(5,\) numbers for \d+ steps; give one a step"),
    ],
)
def test_what_does_not_fit_the_log_is_refused(lake, call, words):
    with pytest.raises(DataError, match=words):
        call(lake[2])
