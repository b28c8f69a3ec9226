"""Control: learn to act without a model. Three targets for Q at the cliff, and what each learns to be afraid of.

    python examples/105_control.py
    python examples/105_control.py --runs 20

All act epsilon-greedily and move Q(S, A) by alpha (target - Q(S, A)):

    SARSA             R + gamma Q(S', A'),  A' the action taken next: learns the value of how it acts, slips included
    expected SARSA    R + gamma sum_a pi(a|S') Q(S', a):              the same without the chance in A'
    Q-learning        R + gamma max_a Q(S', a):                       learns the optimum, whatever it does meanwhile

A move costs 1, the cliff 100 and back to the start. The shortest way runs along the edge. The command that does the
same: onepolicy train q-learning --env cliff
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table

from onepolicy.tabular import control
from onepolicy.tabular.draw import curves_table, mean_curve, value_map, value_map_table
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.planning import plan
from onepolicy.tabular.worlds import grid_shape, make


def greedy_return(world: MDP, policy: np.ndarray) -> float:
    """The return from the start without exploring, at most 100 moves."""
    model, state, total = world.csr(), 36, 0.0
    for _ in range(100):
        transition = model.ptr[model.row_ptr[state] + policy[state]]
        total += model.transition_rewards[transition]
        state = model.successors[transition]
        if model.terminal[state]:
            break
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=200, help="independent runs")
    parser.add_argument("--episodes", type=int, default=500, help="episodes of a run")
    parser.add_argument("--epsilon", type=float, default=0.1, help="share of random actions")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    console, cliff = Console(), make("cliff")

    settings = control.Settings(
        episodes=given.episodes, alpha=0.5, epsilon=given.epsilon, gamma=1.0, runs=given.runs, seed=given.seed
    )
    learners = {
        "SARSA": control.sarsa,
        "expected SARSA": control.expected_sarsa,
        "Q-learning": control.q_learning,
    }
    found = {name: learn(cliff, settings) for name, learn in learners.items()}

    # While learning, the cautious earn more: an explorer at the edge falls.
    late = slice(max(given.episodes - 100, 0), None)
    table = Table("mean return", "first 100", "last 100", "then greedily", "steps a second")
    for name, result in found.items():
        early, last = result.returns[:, :100], result.returns[:, late].mean(axis=1)
        greedy = np.median([greedy_return(cliff, result.policy(run)) for run in range(given.runs)])
        numbers = (
            f"{early.mean():.1f}",
            f"{last.mean():.1f} ± {2 * last.std() / np.sqrt(given.runs):.1f}",
            f"{greedy:.0f}",
        )
        table.add_row(name, *numbers, f"{result.steps_per_second / 1e6:.0f} million")
    console.print(table)
    capped = [mean_curve(name, np.maximum(result.returns, -150)) for name, result in found.items()]
    console.print(curves_table(capped, title="return of each episode (no less than -150)", width=32))

    # Q, the mean over runs: the optimum beside what SARSA expects of an explorer.
    for name in ("Q-learning", "SARSA"):
        q = found[name].q.mean(axis=0)
        best = np.array(
            [q[a:b].max(initial=-np.inf) if b > a else 0.0 for a, b in zip(cliff.row_ptr, cliff.row_ptr[1:])]
        )
        console.print(value_map_table(value_map(cliff, best, grid_shape("cliff"), q), f"max_a Q by {name}"))
    print(f"planned with the model: the start is worth {plan(cliff, 1.0).value[36]:.0f}")


if __name__ == "__main__":
    main()
