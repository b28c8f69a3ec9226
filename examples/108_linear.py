"""Linear values: a thousand states, ten weights. Where each method ends up, computed exactly and reached from samples.

    python examples/108_linear.py
    python examples/108_linear.py --episodes 500

    v_w(s) = w . x(s)
    gradient Monte Carlo   w += alpha (G_t - v_w(S_t)) x(S_t)                         -> E[x x^T]^-1 E[G x]
    semi-gradient TD(0)    w += alpha (R + gamma v_w(S') - v_w(S)) x(S)               -> E[x (x - gamma x')^T]^-1 E[R x]
    LSTD                   that last system, from the data, solved: no step size

A random walk over 1000 states that jumps up to 100 to either side, -1 at the left end, +1 at the right. Ten groups of
100 states share a weight each (Sutton and Barto 2018, examples 9.1 and 9.2).
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table

from onepolicy.tabular.features import aggregation, fourier, polynomial, state_values, tile_coding, unit_cube
from onepolicy.tabular.prediction import Problem, every_visit_mc, td0
from onepolicy.tabular.prediction.fixpoints import (
    chain_of,
    chain_values,
    mc_fixpoint,
    td_fixpoint,
    value_error,
    visit_distribution,
)
from onepolicy.tabular.prediction.least_squares import least_squares_mc, lstd
from onepolicy.tabular.simulate import sample_episodes, sampler
from onepolicy.tabular.worlds import make


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--episodes", type=int, default=10_000, help="episodes to learn from, of 83 steps on average")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    console = Console()

    walk = make("walk-1000")
    chain = chain_of(walk)
    truth, visits = chain_values(chain, 1.0), visit_distribution(chain)  # errors are weighted by visits
    groups = aggregation(np.concatenate([[-1], np.repeat(np.arange(10), 100), [-1]]))  # the two ends have no feature

    problem = Problem(sample_episodes(sampler(walk), given.episodes, seed=given.seed), groups, 1.0)
    found = {
        "fixpoint of MC": mc_fixpoint(chain, groups, visits, 1.0),
        "gradient MC": every_visit_mc(problem, step_size=0.01, decay=2e-3).weights[0],
        "least squares": least_squares_mc(problem).weights[0],
        "fixpoint of TD": td_fixpoint(chain, groups, visits, 1.0),
        "semi-gradient TD(0)": td0(problem, step_size=0.1, decay=1e-3).weights[0],
        "LSTD": lstd(problem).weights[0],
    }
    table = Table("", "weights 1 and 10", "error of v", "from the fixpoint")
    for name, w in found.items():
        exact = found["fixpoint of TD" if "TD" in name else "fixpoint of MC"]
        error = value_error(state_values(groups, w), truth, visits)
        table.add_row(name, "  ".join(f"{x:6.3f}" for x in w[[0, 9]]), f"{error:.6f}", f"{np.abs(w - exact).max():.3f}")
    console.print(table)
    print(
        "LSTD comes nearer to its fixpoint than least squares to its own: less variance. But it is a worse place, since"
    )
    print("TD bootstraps from values that ten weights cannot have right.\n")

    # What the features cannot say, no method can learn: the best error of each basis, and TD's.
    points = unit_cube(np.arange(1002.0))
    bases = {
        "10 groups": groups,
        "polynomial, order 5": polynomial(points, 5),
        "Fourier, order 5": fourier(points, 5),
        "tiles, 5 wide, 8 tilings": tile_coding(points, tiles=5, tilings=8),
    }
    table = Table("features", "weights", "best error", "TD's error")
    for name, x in bases.items():
        ends = (solve(chain, x, visits, 1.0, ridge=1e-9 * ("tiles" in name)) for solve in (mc_fixpoint, td_fixpoint))
        table.add_row(name, str(x.size), *(f"{value_error(state_values(x, w), truth, visits):.6f}" for w in ends))
    console.print(table)


if __name__ == "__main__":
    main()
