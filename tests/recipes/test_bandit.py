"""The command `bandit`: what its words mean, the numbers of the reference, the files it leaves, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from onepolicy.errors import ConfigError
from onepolicy.recipes import bandit
from onepolicy.tabular.bandits import KLUCB, UCB1, BernoulliArms, EpsilonGreedy, GaussianArms, GaussianThompson


@pytest.fixture
def played(tmp_path):
    """played(fields): the report of a comparison in a fresh directory."""
    return lambda **fields: bandit.main(bandit.Config(out=str(tmp_path / "bandit"), **fields))


def test_words_and_what_they_mean():
    found = bandit.agents_of("ucb:2, kl-ucb,epsilon-greedy:0.01,gaussian-thompson:0.5,greedy:5")
    assert found == {
        "ucb:2": UCB1(2.0),
        "kl-ucb": KLUCB(),
        "epsilon-greedy:0.01": EpsilonGreedy(0.01),
        "gaussian-thompson:0.5": GaussianThompson(noise=0.5),
        "greedy:5": EpsilonGreedy(0.0, initial=5.0),
    }
    bernoulli, gaussian = (bandit.arms_of(bandit.Config(arms=text)) for text in ("0.3,0.5", "gaussian:-1,0,2.5"))
    assert isinstance(bernoulli, BernoulliArms)
    assert np.array_equal(bernoulli.means, [0.3, 0.5])
    assert isinstance(gaussian, GaussianArms)
    assert np.array_equal(gaussian.means, [-1.0, 0.0, 2.5])


def test_the_testbed_and_its_files(played):
    """Regret over 1,000 steps, from the reference's mean rewards: 1,000 (1.53875 - mean), within 4 standard errors."""
    report = played(agents="epsilon-greedy:0.1,ucb:2", runs=1500)
    for name, mean in (("epsilon-greedy:0.1", 1.3040), ("ucb:2", 1.3917)):
        assert report.metrics[f"bandit/{name}/regret"] == pytest.approx(1000 * (1.53875 - mean), abs=12.0)
    names = {"report.md", "curves.npz", "reward.png", "optimal.png", "regret.png"}
    assert {path.name for path in report.run_dir.iterdir()} == names
    with np.load(report.run_dir / "curves.npz") as saved:
        assert saved["step"][-1] == 1000
        assert saved["ucb:2/regret"][-1] == report.metrics["bandit/ucb:2/regret"]


def test_the_same_seed_is_the_same_play(tmp_path):
    first, again, other = (
        bandit.main(
            bandit.Config(arms="0.4,0.6", agents="thompson", runs=20, steps=50, seed=seed, out=str(tmp_path / n))
        )
        for n, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first.metrics == again.metrics != other.metrics


def test_the_lower_bound_is_drawn_where_there_is_one(played):
    """KL(0.4 || 0.6) = 0.2 log(1.5) = 0.0811: C = 0.2 / 0.0811 = 2.466, times log 100."""
    text = played(arms="0.4,0.6", agents="ucb", runs=20, steps=100).text
    assert "Lai-Robbins" in text
    assert f"{0.2 / (0.2 * np.log(1.5)) * np.log(100):.4g}" in text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"agents": "ucb1"}, "'ucb1' is not a bandit agent. Did you mean 'ucb'"),
        ({"agents": ""}, "name at least one"),
        ({"agents": "ucb:many"}, "the c of ucb is 'many'; expected a number"),
        ({"agents": "epsilon-greedy:1.5"}, "epsilon is 1.5"),
        ({"arms": "three"}, "arms is 'three'; give testbed"),
        ({"arms": "0.5"}, "arms"),
        ({"arms": "0.5,1.5"}, "1.5"),
        ({"arms": "gaussian:0,x"}, "a mean is 'x'"),
        ({"agents": "thompson"}, r"needs rewards in \[0, 1\]"),
        ({"runs": 0}, "runs is 0"),
    ],
)
def test_what_cannot_be_played(fields, words, played):
    with pytest.raises(ConfigError, match=words):
        played(**fields)
