"""Planning: a known world solved exactly, by a linear solve, by policy iteration and by value iteration with bounds.

    python examples/103_planning.py
    python examples/103_planning.py --rows 300

The Bellman equations of a policy and of the optimum, in vectors and state by state:

    v = r_pi + gamma P_pi v,    so    v = (I - gamma P_pi)^-1 r_pi
    v*(s) = max_a [ r(s, a) + gamma sum_s' p(s'|s, a) v*(s') ]

Value iteration repeats the second; after every sweep the greatest and the least change bound v* from both sides. The
command that does the same for any world: onepolicy plan frozenlake
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table

from onepolicy.tabular.draw import value_map, value_map_table
from onepolicy.tabular.planning import METHODS, plan
from onepolicy.tabular.planning.policy_value import evaluate
from onepolicy.tabular.prediction.fixpoints import chain_of
from onepolicy.tabular.simulate import row_probabilities
from onepolicy.tabular.worlds import make


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=60, help="rows and columns of the large grid at the end")
    given = parser.parse_args()
    console, gamma = Console(), 0.9

    # The course's grid: Success +10, Fail -10, any other move -1; moves off the grid stay.
    grid = make("course-grid")
    anything = row_probabilities(grid.csr(), None)  # a policy: every move as likely
    chain = chain_of(grid, anything)
    by_hand = np.linalg.solve(np.eye(9) - gamma * chain.transitions.toarray(), chain.rewards)
    walked = evaluate(grid, anything, gamma)
    console.print(value_map_table(value_map(grid, by_hand, (3, 3), walked.q()), "a random walk"))
    print("arrows: the best move there, if the walk at random goes on after it")
    print(f"the linear solve and evaluate() differ by {np.abs(by_hand - walked.value).max():.1e}")

    # Policy iteration: evaluate, be greedy, again, until nothing changes.
    policy = np.zeros(9, dtype=np.int64)  # always up
    for step in range(10):
        found = evaluate(grid, policy, gamma)
        q = found.q()
        greedy = np.array([np.argmax(q[a:b]) if b > a else -1 for a, b in zip(grid.row_ptr, grid.row_ptr[1:])])
        print(f"policy {step}: worth {found.value[0]:.3f} in s0, {found.value.sum() / 7:.3f} on average")
        if np.array_equal(greedy, policy):
            break
        policy = greedy

    # Value iteration, stopped after k sweeps: the bounds are right from the first one on.
    print("\nsweeps  lower  v(s0)  upper")
    for sweeps in range(1, 7):
        found = plan(grid, gamma, "value-iteration", max_sweeps=sweeps)
        print(f"{sweeps:6}  {found.lower[0]:5.2f}  {found.value[0]:5.2f}  {found.upper[0]:5.2f}")
    best = plan(grid, gamma, "policy-iteration")
    console.print(value_map_table(value_map(grid, best.value, (3, 3), best.q()), "the optimum"))

    # A larger world, where moves slip: every method certifies the same answer, in its own time.
    large = make("open-grid", rows=given.rows, cols=given.rows)
    table = Table(
        "method", "v(start)", "bounds apart", "sweeps", "seconds", title=f"{large.num_states} states, discount 0.99"
    )
    for method in METHODS:
        if method != "linear-program" or large.num_states <= 1000:
            found = plan(large, 0.99, method, tolerance=1e-6)
            numbers = f"{found.value[0]:.6f}", f"{found.gap:.1e}", f"{found.sweeps:.0f}", f"{found.seconds:.2f}"
            table.add_row(method, *numbers)
    console.print(table)


if __name__ == "__main__":
    main()
