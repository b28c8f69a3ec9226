"""The peers' sides of planning.py, run in their own environment as PEER PROBLEM METHOD REPEATS LIMIT OUT.

PEER quantecon: `DiscreteDP` over state-action pairs with a sparse Q, `solve` by METHOD; epsilon is 2e-3, because it
promises a value within half of it. PEER mdptoolbox: the class METHOD on a sparse matrix for each action, epsilon 1e-3.
What building the peer's own object takes is the set-up.
"""

from __future__ import annotations

import inspect
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from common import Record
from planning_side import TOLERANCE, discount_of, guarded, measured, rows_of

MOST = 10**6
"""Iterations, instead of the few hundred that stop the peers before their tolerance."""


def quantecon(problem: Path, method: str, repeats: int, limit: float) -> Record:
    """The measures of a method of `DiscreteDP.solve`."""
    import quantecon as qe

    started = time.perf_counter()
    pair = sparse.csr_matrix(np.array([[0.5, 0.5], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]))
    small = qe.markov.DiscreteDP(np.arange(4.0), pair, 0.9, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    if method != "linear_programming":
        small.solve(method)
    warm = time.perf_counter() - started

    def build() -> Any:
        state, action, rewards, ptr, successors, probabilities = rows_of(problem)
        q = sparse.csr_matrix((probabilities, successors, ptr), shape=(len(state), int(state[-1]) + 1))
        return qe.markov.DiscreteDP(rewards, q, discount_of(problem), state, action)

    def solve(model: Any) -> Record:
        found = model.solve(method, epsilon=2 * TOLERANCE, max_iter=MOST)
        return {"value": found.v, "sweeps": int(found.num_iter)}

    return measured(problem, build, solve, repeats, limit) | {"first_call": warm}


def mdptoolbox(problem: Path, method: str, repeats: int, limit: float) -> Record:
    """The measures of a class of pymdptoolbox."""
    from mdptoolbox import mdp

    kind = getattr(mdp, method)
    settings = {"epsilon": TOLERANCE, "max_iter": MOST}
    known = inspect.signature(kind.__init__).parameters
    chosen = {name: value for name, value in settings.items() if name in known}

    def build() -> Any:
        state, action, rewards, ptr, successors, probabilities = rows_of(problem)
        states, actions = int(state[-1]) + 1, int(action.max()) + 1
        q = sparse.csr_matrix((probabilities, successors, ptr), shape=(len(state), states))
        moves = [q[a::actions] for a in range(actions)]
        for move in moves:  # its check allows 10 units of rounding
            move.data /= np.repeat(move.sum(axis=1).A1, np.diff(move.indptr))
        return kind(moves, rewards.reshape(states, actions), discount_of(problem), **chosen)

    def solve(model: Any) -> Record:
        model.run()
        return {"value": model.V, "sweeps": int(model.iter)}

    return measured(problem, build, solve, 1, limit)


def main(peer: str, problem: str, method: str, repeats: str, limit: str, out: str) -> None:
    side = {"quantecon": quantecon, "mdptoolbox": mdptoolbox}[peer]
    guarded(partial(side, Path(problem), method, int(repeats), float(limit)), float(limit), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
