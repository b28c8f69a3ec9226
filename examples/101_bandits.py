"""Bandits: explore or exploit? Six rules on the 10-armed testbed, then regret against the least there can be.

    python examples/101_bandits.py
    python examples/101_bandits.py --runs 200 --steps 500

Q(a) is the mean reward of arm a so far, N(a) its pulls, t the step:

    greedy            argmax Q(a)
    epsilon-greedy    argmax Q(a) with probability 1 - eps, else any arm
    UCB               argmax Q(a) + c sqrt(log t / N(a))
    Thompson          argmax of one draw from what is believed of each arm

Regret is what always pulling the best arm would have earned more. The command that does the same:
onepolicy bandit --arms 0.3,0.5,0.6 --agents ucb,thompson
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table

from onepolicy.tabular import bandits
from onepolicy.tabular.draw import Curve, curves_table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000, help="independent runs; each has its own ten arms")
    parser.add_argument("--steps", type=int, default=1000, help="pulls in each run")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    console = Console()

    # Ten arms whose means are drawn from N(0, 1) for every run; a pull adds N(0, 1). All rules meet the same arms.
    rules = {
        "greedy": bandits.greedy(),
        "epsilon-greedy 0.1": bandits.EpsilonGreedy(0.1),
        "epsilon-greedy 0.01": bandits.EpsilonGreedy(0.01),
        "optimistic, Q = 5": bandits.optimistic(),
        "UCB, c = 2": bandits.UCB1(2.0),
        "Thompson": bandits.GaussianThompson(),
    }
    testbed = bandits.gaussian_testbed()
    found = {
        name: bandits.run(testbed, rule, given.steps, given.runs, given.seed, every=10) for name, rule in rules.items()
    }
    last = given.steps - 49, given.steps
    table = Table("rule", "reward", "best arm pulled", "regret so far", title=f"steps {last[0]} to {last[1]}")
    for name, curves in found.items():
        reward, best = curves.reward_between(*last), curves.optimal_between(*last)
        table.add_row(
            name,
            f"{reward.mean[0]:.3f} ± {2 * reward.error[0]:.3f}",
            f"{best.mean[0]:.1%} ± {2 * best.error[0]:.1%}",
            f"{curves.regret().mean[-1]:.1f}",
        )
    console.print(table)
    console.print(
        curves_table(
            [Curve(name, c.step * 1.0, c.optimal().mean) for name, c in found.items()],
            title="how often the best arm is pulled, step by step",
            width=32,
        )
    )

    # With known distributions there is a floor: no rule that is good everywhere has less regret than C log t in the
    # long run (Lai and Robbins). Thompson sampling reaches it, UCB1 pays a constant factor, greedy may never learn.
    coins = bandits.BernoulliArms([0.3, 0.5, 0.6])
    least = bandits.lai_robbins(coins)
    print(f"\nthree coins, 0.3, 0.5 and 0.6, {10 * given.steps} pulls; least regret in the long run {least:.2f} log t,")
    print(f"so {least * np.log(2):.1f} in the second half (a limit: at finite t a rule may still be below)")
    contenders = {"greedy": bandits.greedy(), "UCB1": bandits.UCB1(), "Thompson": bandits.BernoulliThompson()}
    for name, rule in contenders.items():
        curves = bandits.run(coins, rule, 10 * given.steps, max(given.runs // 10, 2), given.seed, every=given.steps)
        half, whole = curves.regret().mean[[4, 9]]
        print(f"{name:>9}: regret {whole:6.1f}, of which in the second half {whole - half:5.1f}")


if __name__ == "__main__":
    main()
