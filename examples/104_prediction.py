"""Prediction: what states are worth, learnt from episodes. Wait for the return, or bootstrap from the next value?

    python examples/104_prediction.py
    python examples/104_prediction.py --runs 20

    Monte Carlo    v(S_t) += alpha (G_t - v(S_t))
    TD(0)          v(S_t) += alpha (R_{t+1} + gamma v(S_{t+1}) - v(S_t))
    n-step TD      v(S_t) += alpha (R_{t+1} + ... + gamma^n v(S_{t+n}) - v(S_t))
    TD(lambda)     the mean of all n-step targets, weighted by (1 - lambda) lambda^(n-1); here in its true online form

A random walk over 19 states, -1 at its left end and +1 at its right; true values -0.9, -0.8, ..., 0.9. The error is
the root mean square over the states, averaged over the first 10 episodes (Sutton and Barto 2018, figures 7.2, 12.8).
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from onepolicy.tabular import prediction
from onepolicy.tabular.draw import curves_table, mean_curve
from onepolicy.tabular.features import one_hot
from onepolicy.tabular.simulate import sample_episodes, sampler
from onepolicy.tabular.worlds import make

STEP_SIZES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=200, help="independent runs, each of 10 episodes")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    console = Console()

    walk = make("walk-19")
    truth = np.concatenate([[0.0], np.arange(-9, 10) / 10, [0.0]])  # the two ends have no value of their own
    episodes = sample_episodes(sampler(walk), 10, runs=given.runs, seed=given.seed)
    problem = prediction.Problem(episodes, one_hot(21), 1.0, truth=truth, weighting=~walk.terminal)

    learners = {"TD(0)": lambda alpha: prediction.td0(problem, step_size=alpha)}
    for n in (2, 4, 8, 16):
        learners[f"{n}-step TD"] = lambda alpha, n=n: prediction.n_step_td(problem, n=n, step_size=alpha)
    for lam in (0.4, 0.8, 0.9):
        learners[f"TD({lam})"] = lambda alpha, lam=lam: prediction.true_online_td(problem, lam=lam, step_size=alpha)
    learners["Monte Carlo"] = lambda alpha: prediction.every_visit_mc(problem, step_size=alpha)

    table = Table("step size", *map(str, STEP_SIZES), title="error over the first 10 episodes; the best in bold")
    curves, best = [], {}
    for name, learn in learners.items():
        errors = [learn(alpha).errors for alpha in STEP_SIZES]  # [runs, episodes] each
        means = [found.mean() for found in errors]
        least = int(np.nanargmin(means))
        cells = [f"{m:.3f}" if m < 1 else "-" for m in means]
        table.add_row(name, *(Text(cell, "bold green" if i == least else "") for i, cell in enumerate(cells)))
        curves.append(mean_curve(name, errors[least]))
        best[name] = means[least], 2 * errors[least].mean(axis=1).std() / np.sqrt(given.runs)
    console.print(table)
    console.print(curves_table(curves, title="error after each episode, at the best step size"))

    for name in ("TD(0)", "4-step TD", "TD(0.8)", "Monte Carlo"):
        print(f"{name}: best error {best[name][0]:.4f} ± {best[name][1]:.4f}")
    print("neither end wins: a few steps of reality, then what is already known")


if __name__ == "__main__":
    main()
