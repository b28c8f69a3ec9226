"""The classical examples, 101 to 110: each runs, and what it prints is what theory or the reference says."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def play(monkeypatch, capsys):
    """What an example prints when it runs as a script with these arguments."""

    def run(name, *arguments):
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def row(said, label):
    """The numbers of the first line that begins with the label, in a table or not."""
    line = re.search(rf"^[│ ]*{re.escape(label)}[ :│](.*)", said, re.MULTILINE)
    assert line, f"no line begins with {label!r}"
    return [float(number) for number in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]\d+)?", line[1])]


def test_101_bandits(play):
    """The testbed's shares of optimal pulls from 20,000 runs of the reference, the printed margin being two errors; the
    constant of Lai and Robbins, by hand 0.1 / kl(0.5, 0.6) + 0.3 / kl(0.3, 0.6); greedy's regret never slows down."""
    said = play("101_bandits.py", "--runs", "400")
    for rule, best, reward in (
        ("greedy", 35.9, 1.033),
        ("epsilon-greedy 0.1", 79.9, 1.366),
        ("UCB, c = 2", 85.7, 1.493),
    ):
        found = row(said, rule)
        assert found[0] == pytest.approx(reward, abs=1.5 * found[1])
        assert found[2] == pytest.approx(best, abs=1.5 * found[3])
    constant = sum((0.6 - p) / (p * np.log(p / 0.6) + (1 - p) * np.log((1 - p) / 0.4)) for p in (0.3, 0.5))
    assert f"least regret in the long run {constant:.2f} log t" in said
    coins = said[said.index("three coins") :]
    greedy, ucb, thompson = (row(coins, name) for name in ("greedy", "UCB1", "Thompson"))
    assert greedy[1] == pytest.approx(greedy[0] / 2, rel=0.05)
    assert thompson[0] < ucb[0] < greedy[0]
    assert thompson[1] < 10 < 20 < ucb[1]


def test_102_monte_carlo(play):
    """The die's 1/2 with variances 1/4 and 1/12 of a throw; blackjack's exact -0.27720419182503 in three errors."""
    said = play("102_monte_carlo.py", "--samples", "20000", "--episodes", "10000")
    fair, loaded = row(said, "thrown fair"), row(said, "thrown loaded")
    for found, variance in ((fair, 1 / 4), (loaded, 1 / 12)):
        error = (found[2] - found[1]) / 2 / 1.96
        assert error == pytest.approx(np.sqrt(variance / 20_000), rel=0.05)
        assert found[0] == pytest.approx(0.5, abs=3 * error)
    assert "exact value: -0.27720419" in said
    assert row(said, "direct")[0] == -0.0772
    for name in ("ordinary", "weighted", "per decision", "weighted per decision", "doubly robust"):
        found = row(said, name)
        assert found[0] == pytest.approx(-0.27720419182503, abs=1.5 * (found[2] - found[1]) / 2)


def test_103_planning(play):
    """s0 is three moves from Success: -1 - 0.9 - 0.81 + 0.729 10 = 4.58; the sweep that says so has met bounds."""
    said = play("103_planning.py", "--rows", "12")
    assert row(said, "policy 2")[0] == pytest.approx(-1 - 0.9 - 0.81 + 0.729 * 10, abs=5e-4)
    bounds = np.array(re.findall(r"^ +(\d) +(-?[\d.]+) +(-?[\d.]+) +(-?[\d.]+)$", said, re.MULTILINE), dtype=float)
    assert np.all(bounds[:, 1] <= 4.58)
    assert np.all(bounds[:, 3] >= 4.58)
    assert bounds[-1].tolist() == [6, 4.58, 4.58, 4.58]
    assert float(re.search(r"differ by (\S+)", said)[1]) < 1e-12
    answers = [row(said, method)[:2] for method in (
        "value-iteration", "gauss-seidel", "prioritised-sweeping", "policy-iteration", "modified-policy-iteration",
        "linear-program",
    )]  # fmt: skip
    assert np.ptp([value for value, _ in answers]) < 2e-6
    assert max(gap for _, gap in answers) <= 2.1e-6


def test_104_prediction(play):
    """The reference's errors over the first ten episodes at the best step size, 2,000 runs."""
    said = play("104_prediction.py", "--runs", "100")
    for name, expected in (("TD(0)", 0.3459), ("4-step TD", 0.2658), ("TD(0.8)", 0.2555)):
        best, margin = map(
            float, re.search(rf"^{re.escape(name)}: best error (\S+) ± (\S+)$", said, re.MULTILINE).groups()
        )
        assert best == pytest.approx(expected, abs=1.5 * margin)
        assert margin < 0.02


def test_105_control(play):
    """The reference's returns of episodes 401 to 500; the shortest way has 13 moves."""
    said = play("105_control.py", "--runs", "40")
    for name, expected in (("SARSA", -27.1), ("expected SARSA", -20.9), ("Q-learning", -50.1)):
        _, late, margin, greedy, _ = row(said, name)
        assert late == pytest.approx(expected, abs=2 * margin)
    assert greedy == -13
    assert "planned with the model: the start is worth -13\n" in said


def test_106_from_a_data_set(play):
    """Both methods on one log have one answer; few data promise more than they keep, pessimism less than that."""
    said = play("106_from_a_data_set.py", "--logs", "100", "--repeats", "5")
    seen, everything = map(int, re.search(r"(\d+) of (\d+) \(state, action\) pairs seen", said).groups())
    assert everything == 28
    assert said.split("unseen: ")[1].split("\n")[0].count("action") == everything - seen
    assert float(re.search(r"Q differs by (\S+)", said)[1]) < 1e-9
    assert "the best there is: 0.5420" in said
    for log in ("random", "skilled"):
        _, _, _, promised, earned, wary, kept = row(said, log)
        assert promised > earned
        assert wary < promised
        assert max(earned, kept) <= 0.542
    assert kept > earned


def test_107_model_based(play):
    """The reference's second episode, 686 and 39.9 steps; the goal is 14 steps away, so the start is worth 0.95^13."""
    said = play("107_model_based.py", "--runs", "60", "--planning", "0", "50")
    second = re.findall(r"([\d.]+) ± ([\d.]+) with planning (\d+)", said)
    for (mean, margin, _), expected in zip(second, (686, 39.9), strict=True):
        assert float(mean) == pytest.approx(expected, abs=1.5 * float(margin))
    few, many = (int(number) for number in re.findall(r"(\d+) cells know a way", said))
    assert few <= 4 < 10 < many
    assert f"v(start) = {0.95**13:.6f}" in said


def test_108_linear(play):
    """The reference's exact fixpoints, and what is learnt from 1,000 episodes near them."""
    said = play("108_linear.py", "--episodes", "1000")
    assert row(said, "fixpoint of MC") == [-0.830, 0.830, 0.054377, 0.0]
    assert row(said, "fixpoint of TD") == [-0.693, 0.731, 0.116735, 0.0]
    for name in ("gradient MC", "least squares", "semi-gradient TD(0)", "LSTD"):
        assert row(said, name)[3] < 0.12
    assert row(said, "LSTD")[3] < 0.06
    for basis in ("polynomial, order 5", "Fourier, order 5", "tiles, 5 wide, 8 tilings"):
        _, best, td = row(said, basis)
        assert best < td < 0.05


def test_109_deadly_triad(play):
    """The reference's weights after 1,000 expected updates, 335 and growing; any two of the three are safe."""
    said = play("109_deadly_triad.py")
    assert row(said, "semi-gradient TD")[-5:-2] == [114.434, 6.850, 335.001]
    assert row(said, "TDC") == [2.135, 6.628, -2.338, 1.9, 0.0074]
    assert row(said, "emphatic TD")[:3] == [1.692, 6.769, -3.385]
    assert row(said, "emphatic TD")[3] < 1e-12
    assert row(said, "on-policy")[0] < 1e-6
    assert row(said, "without bootstrapping, lambda 1")[0] < 1e-12
    assert row(said, "without approximation, a table")[0] < 0.01
    sampled = said[said.index("sampled") :]
    assert row(sampled, "TDC")[0] < 10 < 100 < row(sampled, "semi-gradient TD")[0]


def test_110_actor_critic(play):
    """By hand: a coin in s2 is worth v = 0.45 (1 + 0.9 v) = 0.45 / 0.595 there, 0.9 v in s1 and s4, 1 in s3; always
    right 0.9 in the first s2, 0.81 in s1, 1 in s3 and nothing from the other side."""
    said = play("110_actor_critic.py", "--runs", "4", "--episodes", "1500")
    coin = 0.45 / 0.595
    assert row(said, "a coin in s2, else the best")[0] == pytest.approx((2 * coin + 1.8 * coin + 1) / 5, abs=5e-4)
    assert row(said, "knowing which s2 it is")[0] == pytest.approx((1 + 1.8 + 1.62) / 5, abs=5e-4)
    assert row(said, "argmax of SARSA's Q")[0] == pytest.approx((0.9 + 0.81 + 1) / 5, abs=5e-4)
    worth, left, right = row(said, "actor-critic")
    assert 0.70 < worth < 0.775
    assert left == pytest.approx(0.5, abs=0.15)
    assert left + right == pytest.approx(1.0, abs=0.05)
    assert float(re.search(r"last 100 episodes: (\S+)", said)[1]) > -27
