"""The deadly triad: bootstrapping, off-policy data and approximation; any two are safe, all three may diverge.

    python examples/109_deadly_triad.py
    python examples/109_deadly_triad.py --steps 3000

Baird's counterexample: seven states, no rewards, so every value is 0 and eight weights can say so exactly. The
behaviour visits all states alike, the target always goes to the seventh. On average, with D the visits of the states,

    semi-gradient TD   w += alpha E[delta x] = alpha (b - A w),  A = X^T D (I - gamma P) X        diverges
    TDC                w += alpha E[delta x - gamma x' (x . h)],  h -> E[x x^T]^-1 E[delta x]     goes down the PBE
    emphatic TD        as the first, each state weighted by its emphasis, D -> M                  converges
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table

from onepolicy.tabular.features import Features, from_matrix, one_hot, state_values
from onepolicy.tabular.prediction import Problem, expected, importance_ratios, td0
from onepolicy.tabular.prediction.fixpoints import chain_of, projected_bellman_error, value_error
from onepolicy.tabular.prediction.linear import tdc
from onepolicy.tabular.simulate import sample_episodes, sampler
from onepolicy.tabular.worlds import baird

GAMMA = baird.DISCOUNT
UNIFORM = np.ones(7) / 7
X = from_matrix(baird.features())
WORLD = baird.baird()
CHAIN = chain_of(WORLD, baird.target())


def errors(x: Features, w: np.ndarray) -> tuple[float, float]:
    """The distance of v_w from the true value 0, and the projected Bellman error, of one vector of weights."""
    return value_error(state_values(x, w), np.zeros(7), UNIFORM), projected_bellman_error(CHAIN, x, w, UNIFORM, GAMMA)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000, help="expected updates")
    given = parser.parse_args()
    console, steps = Console(), given.steps

    start = {"start": baird.initial_weights(), "steps": steps}  # the customary (1, 1, 1, 1, 1, 1, 10, 1)
    paths = {
        "semi-gradient TD": expected.semi_gradient(CHAIN, X, UNIFORM, GAMMA, step_size=0.01, **start),
        "TDC": expected.tdc(CHAIN, X, UNIFORM, GAMMA, step_size=0.005, second_step_size=0.05, **start),
        "emphatic TD": expected.emphatic(CHAIN, X, UNIFORM, GAMMA, step_size=0.03, **start),
    }
    table = Table("expected updates", "w1 ... w6", "w7", "w8", "error of v", "PBE", title=f"after {steps} updates")
    for name, path in paths.items():
        w = path[-1]
        table.add_row(name, *(f"{x:.3f}" for x in (w[0], w[6], w[7])), *(f"{x:.2g}" for x in errors(X, w)))
    console.print(table)

    # Take away one of the three and the same semi-gradient update is safe.
    own = np.eye(7)[6]  # where the target policy itself would be: always in the seventh state
    on_policy = expected.semi_gradient(CHAIN, X, own, GAMMA, step_size=0.5, **start)[-1]
    returns = expected.semi_gradient(CHAIN, X, UNIFORM, GAMMA, step_size=0.5, lam=1.0, **start)[-1]
    table_start = {"start": np.full(7, 10.0), "steps": steps}
    exact = expected.semi_gradient(CHAIN, one_hot(7), UNIFORM, GAMMA, step_size=5.0, **table_start)[-1]
    print("semi-gradient TD without one of the three, error of v:")
    print(f"  on-policy: {abs(state_values(X, on_policy)[6]):.1e} (in the seventh state, the only one it sees)")
    print(f"  without bootstrapping, lambda 1: {errors(X, returns)[0]:.1e}")
    print(f"  without approximation, a table: {errors(one_hot(7), exact)[0]:.1e}")

    # From samples: one long episode of the behaviour, corrected by its importance ratios. Emphatic TD is not shown: its
    # mean converges, but the product of ratios in its emphasis has a variance that hides it.
    episodes = sample_episodes(sampler(WORLD, baird.behaviour()), 1, runs=20, seed=0, max_steps=steps)
    ratio = importance_ratios(WORLD, baird.target(), baird.behaviour())
    problem = Problem(episodes, X, GAMMA, start=baird.initial_weights(), ratio=ratio)
    print(f"sampled, {steps} steps, the median of 20 runs, largest |w|:")
    for name, found in {
        "semi-gradient TD": td0(problem, step_size=0.01),
        "TDC": tdc(problem, step_size=0.005, second_step_size=0.05),
    }.items():
        print(f"  {name}: {np.median(np.abs(found.weights).max(axis=1)):.3g}")


if __name__ == "__main__":
    main()
