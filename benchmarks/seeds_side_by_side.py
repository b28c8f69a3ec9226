"""What several seeds cost beside one: processor and wall-clock time of one seed, and of S in the same number of steps.

    python benchmarks/seeds_side_by_side.py [--seeds 8] [--rows ppo/CartPole-v1 …] [--repeats 3]

One seed has one thread; S seeds are measured with one and with a thread for each core. Each training is a process of
its own; its time begins after the imports, which one seed and many pay alike. Processor time is of the process and its
children; beside other work it is the fairer of the two. Of the repeats the least counts. Results:
benchmarks/results/seeds_side_by_side.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import RESULTS, machine, run_side, write_json

ROWS: dict[str, dict[str, Any]] = {
    "ppo/CartPole-v1": {"steps": 50_000},
    "a2c/CartPole-v1": {"steps": 50_000},
    "ppo/Acrobot-v1": {"steps": 40_960},
    "ppo/Pendulum-v1": {"steps": 20_480, "sde__use": False},
    "dqn/CartPole-v1": {"steps": 20_000, "hidden": (64, 64)},
    "sac/Pendulum-v1": {"steps": 2_000},
}
RESULT = RESULTS / "seeds_side_by_side.json"


def train(row: str, seeds: int, threads: int) -> dict[str, float]:
    """Seconds that `seeds` seeds of a row take in this process: wall clock, and processor time with its children."""
    import matplotlib.figure
    import torch._dynamo  # noqa: F401

    import onepolicy as op

    del matplotlib
    algorithm, env = row.split("/")
    few = {"eval_every": 0, "save_every": 0, "eval_episodes": 1, "threads": threads}
    with tempfile.TemporaryDirectory() as place:
        op.train(algorithm, env=env, seeds=seeds, out=f"{place}/warm", **{**few, **ROWS[row], "steps": 600})
        before, started = os.times(), time.perf_counter()
        op.train(algorithm, env=env, seeds=seeds, out=f"{place}/run", **{**few, **ROWS[row]})
        wall, after = time.perf_counter() - started, os.times()
    return {"wall": wall, "processor": sum(after[:4]) - sum(before[:4])}


def measured(row: str, seeds: int, repeats: int, threads: int = 1) -> dict[str, float]:
    """The least times over some repeats, each in a new process."""
    asked = ("--worker", row, "--seeds", str(seeds), "--threads", str(threads), "--out")
    found = [run_side(sys.executable, Path(__file__), *asked, threads=threads) for _ in range(repeats)]
    return {name: round(min(each[name] for each in found), 2) for name in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    parser.add_argument("--out", default="", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of several seeds; default: the cores")
    given = parser.parse_args()
    if given.worker:
        write_json(given.out, train(given.worker, given.seeds, given.threads))
        return
    about = machine("torch", "numpy")
    results: dict[str, Any] = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else {}
    for row in given.rows:
        one, many = measured(row, 1, given.repeats), measured(row, given.seeds, given.repeats)
        wide = measured(row, given.seeds, given.repeats, given.threads)
        ratios = {
            "processor_ratio": round(many["processor"] / one["processor"], 2),
            "wall_ratio": round(many["wall"] / one["wall"], 2),
            f"wall_ratio_{given.threads}_threads": round(wide["wall"] / one["wall"], 2),
        }
        results[row] = {"seeds": given.seeds, **ROWS[row], "one": one, "many": many, "many_threads": wide, **ratios}
        print(f"{row:<18} one {one}  {given.seeds} {many}  {ratios}", flush=True)
        write_json(RESULT, {"machine": about, "rows": results})


if __name__ == "__main__":
    main()
