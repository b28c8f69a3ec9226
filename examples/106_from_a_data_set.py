"""Control from a fixed data set: no world to try things in, only transitions that somebody logged.

    python examples/106_from_a_data_set.py
    python examples/106_from_a_data_set.py --logs 100 1000

    Q(s, a) <- 1/N(s, a) sum_{i: s_i = s, a_i = a} (r_i + gamma V(s'_i)),    V(s) <- max_a Q(s, a)

until nothing changes: value iteration on the counts. Q-learning on transitions drawn from the log ends there too. The
maximum believes whatever was lucky, so the value promised is too high where data are few. Pessimism takes
c / sqrt(N(s, a)) off every target, and gives pairs never tried the least value there is.
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table

from onepolicy.tabular.control.dataset import q_learning_from, value_iteration_from
from onepolicy.tabular.dataset import Dataset, from_episodes
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.planning import plan
from onepolicy.tabular.planning.policy_value import evaluate
from onepolicy.tabular.simulate import row_probabilities, sample_episodes, sampler
from onepolicy.tabular.worlds import make


def logged(world: MDP, acts: np.ndarray, episodes: int, seed: int) -> Dataset:
    """The transitions that somebody leaves behind who acts by these probabilities."""
    return from_episodes(world, sample_episodes(sampler(world, acts), episodes, seed=seed))


def earned(world: MDP, policy: np.ndarray, gamma: float) -> float:
    """What a policy is really worth at the start; where it has no opinion (-1) it takes the first action."""
    return float(world.start @ evaluate(world, np.maximum(policy, 0), gamma).value)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--logs", type=int, nargs="+", default=[30, 100, 300, 3000], help="episodes of a log")
    parser.add_argument("--repeats", type=int, default=20, help="logs of each size to average over")
    parser.add_argument("--penalty", type=float, default=0.1, help="c of the pessimistic answer")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()

    # The course's grid, eight episodes of somebody who walks at random: what do these say, and what not?
    grid = make("course-grid")
    log = logged(grid, row_probabilities(grid.csr(), None), 8, given.seed)
    solved = value_iteration_from(log, gamma=0.9)
    print(f"8 episodes on the course's grid, {len(log.row)} transitions: {log.coverage()}")
    words = grid.action_names or ()
    print("greedy: " + ", ".join(f"{grid.state_name(s)} {words[a]}" for s, a in enumerate(solved.policy) if a >= 0))
    learnt = q_learning_from(log, gamma=0.9, sweeps=2000, seed=given.seed)
    print(f"Q-learning on the same log, 2000 times over: Q differs by {np.nanmax(abs(learnt.q - solved.q)):.1e}\n")

    # A slippery lake, logs of growing size: what the answer promises, and what it is worth.
    lake, gamma = make("frozenlake"), 0.99
    best = plan(lake, gamma)
    anything = row_probabilities(lake.csr(), None)
    skilled = 0.9 * row_probabilities(lake.csr(), best.policy) + 0.1 * anything
    table = Table("log of", "episodes", "pairs seen", "promised", "earned", "wary promise", "earned")
    for name, acts in {"random": anything, "skilled": skilled}.items():
        for size in given.logs:
            rows = []
            for repeat in range(given.repeats):
                log = logged(lake, acts, size, 1000 * given.seed + repeat)
                plain = value_iteration_from(log, gamma=gamma)
                wary = value_iteration_from(log, gamma=gamma, unseen="floor", floor=0.0, penalty=given.penalty)
                worth = (x for answer in (plain, wary) for x in (answer.values[0], earned(lake, answer.policy, gamma)))
                rows.append(((log.counts() > 0).sum(), *worth))
            mean = np.mean(rows, axis=0)
            table.add_row(name, str(size), f"{mean[0]:.1f} of {lake.num_rows}", *(f"{x:.3f}" for x in mean[1:]))
        table.add_section()
    Console().print(table)
    own = evaluate(lake, skilled, gamma)
    print(f"the best there is: {best.value[0]:.4f}; the skilled one earns {own.value[0]:.4f}")
    print("a narrow log is where pessimism pays: what the skilled one hardly ever tried only looks good by luck")


if __name__ == "__main__":
    main()
