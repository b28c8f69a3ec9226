"""onepolicy's side of planning.py: run as MODE PROBLEM METHOD REPEATS LIMIT OUT.

MODE solve: `plan` to a certified 1e-3. MODE prepare: the problem NAME is made and solved to 1e-6, into the directory
PROBLEM; METHOD is its name. MODE compile: seconds of the first calls of METHOD without and with numba's cache on disk.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from common import Record, write_json
from planning_side import REFERENCE, TOLERANCE, discount_of, guarded, measured

DISCOUNT = 0.99


def make(name: str):
    """A model by its kind and size, such as random-10000: `random`, `local`, `grid` (0.8/0.1/0.1), `table`."""
    from onepolicy.tabular.worlds.garnet import garnet, local
    from onepolicy.tabular.worlds.gridworlds import open_grid

    kind, size = name.split("-")
    states = int(size)
    if kind in ("random", "local"):
        return {"random": garnet, "local": local}[kind](states, actions=4, branching=5, seed=0)
    rows = int(states**0.5)
    return open_grid(rows=rows, cols=-(-states // rows), slip=0.2 if kind == "grid" else 0.0)


def prepare(problem: Path, name: str) -> Record:
    """The files of a problem; the reference is certified, or this fails."""
    from onepolicy.tabular import layouts
    from onepolicy.tabular.planning import plan

    problem.mkdir(parents=True, exist_ok=True)
    mdp = make(name)
    layouts.save(mdp, problem / "model.npz")
    layouts.save(make(f"{name.split('-')[0]}-400"), problem / "small.npz")
    (problem / "discount.json").write_text(json.dumps(DISCOUNT))
    found = plan(mdp, DISCOUNT, tolerance=REFERENCE)
    if not found.converged:
        raise ValueError(f"the reference of {name} is not certified: {found}")
    np.save(problem / "reference.npy", found.value)
    return {"states": mdp.num_states, "rows": mdp.num_rows, "discount": DISCOUNT, "gap": found.gap}


def solve(problem: Path, method: str, repeats: int, limit: float) -> Record:
    """The measures of one method."""
    from onepolicy.tabular import layouts
    from onepolicy.tabular.planning import plan

    started = time.perf_counter()
    plan(layouts.load(problem / "small.npz"), DISCOUNT, method, tolerance=TOLERANCE)
    warm = time.perf_counter() - started
    discount = discount_of(problem)

    def run(mdp) -> Record:
        found = plan(mdp, discount, method, tolerance=TOLERANCE, time_limit=limit)
        return {
            "value": found.value, "converged": found.converged, "reason": found.reason, "method": found.method,
            "sweeps": found.sweeps, "certified": found.gap / 2,
        }  # fmt: skip

    load = partial(layouts.load, problem / "model.npz")
    return measured(problem, load, run, repeats, 2 * limit) | {"first_call": warm}


def compiled(kind: str) -> Record:
    """Seconds of the first plan of each method on a kind of model: compiled, and loaded in the next process."""
    from onepolicy.tabular.planning import METHODS, plan

    seconds = {}
    for method in METHODS:
        mdp = make(f"{kind}-400")
        started = time.perf_counter()
        plan(mdp, DISCOUNT, method, tolerance=TOLERANCE)
        seconds[method] = time.perf_counter() - started
    return {"seconds": seconds, "total": sum(seconds.values())}


def main(mode: str, problem: str, method: str, repeats: str, limit: str, out: str) -> None:
    where, seconds = Path(problem), float(limit)
    if mode == "compile":
        with tempfile.TemporaryDirectory() as folder:
            os.environ["NUMBA_CACHE_DIR"] = folder
            guarded(partial(compiled, method), seconds, out)
            cold = json.loads(Path(out).read_text())
            guarded(partial(compiled, method), seconds, out)
            write_json(out, {"cold": cold, "cached": json.loads(Path(out).read_text())})
        return
    work = (
        partial(prepare, where, method) if mode == "prepare" else partial(solve, where, method, int(repeats), seconds)
    )
    guarded(work, seconds, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
