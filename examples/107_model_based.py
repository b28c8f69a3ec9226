"""Dyna-Q: learn a model while acting, and think with it between two steps.

    python examples/107_model_based.py
    python examples/107_model_based.py --runs 5 --planning 0 10

After each real step, Q-learning on it, and then `planning` more updates on pairs remembered from before:

    Q(S, A) += alpha (R + gamma max_a Q(S', a) - Q(S, A)),    (R, S') as the model remembers them

A maze of 6 x 9 cells, reward 1 at the goal and nothing before; the shortest way has 14 steps. Experience is dear and
thinking is cheap: how many steps does the second episode take?
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table

from onepolicy.tabular import control
from onepolicy.tabular.draw import value_map, value_map_table
from onepolicy.tabular.planning import plan
from onepolicy.tabular.worlds import grid_shape, make

SHOWN = (1, 2, 3, 5, 10, 25, 50)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=200, help="independent runs")
    parser.add_argument("--planning", type=int, nargs="+", default=[0, 5, 50], help="updates in thought for each step")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    console, maze = Console(), make("dyna-maze")

    def settings(episodes: int) -> control.Settings:
        return control.Settings(episodes=episodes, alpha=0.1, epsilon=0.1, gamma=0.95, runs=given.runs, seed=given.seed)

    table = Table("planning", *(f"{episode}" for episode in SHOWN), title="steps of episode ...")
    second = []
    for thoughts in given.planning:
        mean, error = control.dyna_q(maze, settings(max(SHOWN)), planning=thoughts).mean_lengths()
        table.add_row(str(thoughts), *(f"{mean[episode - 1]:.1f}" for episode in SHOWN))
        second.append(f"{mean[1]:.1f} ± {2 * error[1]:.1f} with planning {thoughts}")
    console.print(table)
    print(f"steps of the second episode: {', '.join(second)}")

    # Q of one run after two episodes: cells with all four arrows have learnt nothing yet.
    for thoughts in (min(given.planning), max(given.planning)):
        early = control.dyna_q(maze, settings(2), planning=thoughts)
        picture = value_map(maze, early.values(), grid_shape("dyna-maze"), early.q[0])
        known = np.count_nonzero(early.values())
        console.print(value_map_table(picture, f"2 episodes, planning {thoughts}: {known} cells know a way"))

    # With the model given there is nothing to learn.
    found = plan(maze, 0.95)
    start = int(np.argmax(maze.start))
    print(f"planned: v(start) = {found.value[start]:.6f} = 0.95^13, {found}")


if __name__ == "__main__":
    main()
