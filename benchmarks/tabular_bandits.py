"""The 10-armed testbed, 2,000 runs x 1,000 steps, by six algorithms: seconds in all, and pulls a second of each.

`measure()` is what benchmarks/tabular.py calls. The clock runs over whole calls of `run`, arms drawn and curves stored,
after each algorithm has been called once: compiling is not in it, and is measured apart, in a process of its own with
an empty cache. Two yardsticks, both the epsilon-greedy agent in NumPy: one run after the other, as the book's own code
and most bandit libraries do (20 runs of the 2,000, scaled up), and all runs advanced together by array operations, the
fastest way without a compiler, for agents that can be written so. Seconds are the median of interleaved repeats; CPU
seconds are given too, which other work on the machine disturbs less.
Prints a table and writes results/tabular_bandits.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from statistics import median

import numpy as np

from common import RESULTS, Record, interleaved, machine, table, write_json
from onepolicy.tabular.bandits import (
    UCB1,
    Agent,
    EpsilonGreedy,
    GaussianThompson,
    GradientBandit,
    gaussian_testbed,
    greedy,
    optimistic,
    run,
)

RUNS, STEPS, ARMS, LIMIT = 2000, 1000, 10, 3.0
FEW = 20
"""Runs of the slow yardstick."""
TOGETHER, IN_TURN = "NumPy, runs together", "NumPy, run by run"
AGENTS: dict[str, Agent] = {
    "greedy": greedy(),
    "epsilon-greedy 0.1": EpsilonGreedy(0.1),
    "optimistic 5": optimistic(),
    "UCB c=2": UCB1(2.0),
    "Thompson, Gaussian": GaussianThompson(),
    "gradient 0.1": GradientBandit(0.1),
}
COMPILE = """
import time
from onepolicy.tabular.bandits import EpsilonGreedy, gaussian_testbed, run
start = time.perf_counter()
run(gaussian_testbed(), EpsilonGreedy(0.1), steps=2, runs=2, seed=0)
print(time.perf_counter() - start)
"""


def ours(agent: Agent) -> Record:
    """One call of `run`: wall and CPU seconds, and the share of optimal pulls at its end."""
    wall, cpu = time.perf_counter(), time.process_time()
    curves = run(gaussian_testbed(ARMS), agent, STEPS, RUNS, seed=0)
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "optimal": float(curves.optimal_between(951, 1000).mean[0]),
    }


def numpy_together() -> Record:
    """Epsilon-greedy 0.1 with sample means in NumPy, all runs in step, ties to the first arm."""
    wall, cpu = time.perf_counter(), time.process_time()
    rng, rows = np.random.default_rng(0), np.arange(RUNS)
    mean, value, count = rng.normal(size=(RUNS, ARMS)), np.zeros((RUNS, ARMS)), np.zeros((RUNS, ARMS))
    best, optimal = mean.argmax(axis=1), np.zeros((STEPS, RUNS))
    for t in range(STEPS):
        arm = np.where(rng.random(RUNS) < 0.1, rng.integers(ARMS, size=RUNS), value.argmax(axis=1))
        reward = mean[rows, arm] + rng.normal(size=RUNS)
        count[rows, arm] += 1
        value[rows, arm] += (reward - value[rows, arm]) / count[rows, arm]
        optimal[t] = arm == best
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "optimal": float(optimal[950:].mean())}


def numpy_in_turn() -> Record:
    """Epsilon-greedy 0.1 with sample means in NumPy, run after run, pull after pull; seconds scaled from FEW runs."""
    wall, cpu, rng, hits = time.perf_counter(), time.process_time(), np.random.default_rng(0), 0
    for _ in range(FEW):
        mean, value, count = rng.normal(size=ARMS), np.zeros(ARMS), np.zeros(ARMS)
        best = mean.argmax()
        for t in range(STEPS):
            arm = rng.integers(ARMS) if rng.random() < 0.1 else value.argmax()
            reward = mean[arm] + rng.normal()
            count[arm] += 1
            value[arm] += (reward - value[arm]) / count[arm]
            hits += t >= 950 and arm == best
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    scale = RUNS / FEW
    return {"seconds": scale * seconds, "cpu_seconds": scale * cpu_seconds, "optimal": float(hits) / (50 * FEW)}


def compile_seconds() -> float:
    """The first call of `run` in a new process whose cache is empty."""
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"NUMBA_CACHE_DIR": folder}
        done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, check=True, env=env)
    return float(done.stdout)


def measure(repeats: int = 5) -> Record:
    """Median seconds of each algorithm and of all six, pulls a second, seconds to compile, NumPy beside them."""
    where = machine("numpy", "numba")
    sides = {name: lambda agent=agent: ours(agent) for name, agent in AGENTS.items()}
    sides |= {TOGETHER: numpy_together, IN_TURN: numpy_in_turn}
    for side in sides.values():
        side()
    runs = interleaved(sides, repeats, "bandits:")
    seconds = {name: median(r["seconds"] for r in records) for name, records in runs.items()}
    cpu = {name: median(r["cpu_seconds"] for r in records) for name, records in runs.items()}
    total = sum(seconds[name] for name in AGENTS)
    return {
        "machine": where,
        "work": {"runs": RUNS, "steps": STEPS, "arms": ARMS, "repeats": repeats},
        "seconds": seconds,
        "cpu_seconds": cpu,
        "pulls_per_second": {name: RUNS * STEPS / each for name, each in seconds.items()},
        "pulls_per_cpu_second": {name: RUNS * STEPS / each for name, each in cpu.items()},
        "optimal": {name: records[0]["optimal"] for name, records in runs.items()},
        "total_seconds": total,
        "total_cpu_seconds": sum(cpu[name] for name in AGENTS),
        "limit_seconds": LIMIT,
        "within_limit": total <= LIMIT,
        "ratios": {name: seconds[name] / seconds["epsilon-greedy 0.1"] for name in (TOGETHER, IN_TURN)},
        "cpu_ratios": {name: cpu[name] / cpu["epsilon-greedy 0.1"] for name in (TOGETHER, IN_TURN)},
        "compile_seconds": compile_seconds(),
    }


def report(found: Record) -> str:
    """The table."""
    rows = [
        (name, f"{seconds:.3f}", f"{found['cpu_seconds'][name]:.3f}", f"{found['pulls_per_second'][name] / 1e6:.1f}")
        + (f"{found['pulls_per_cpu_second'][name] / 1e6:.1f}", f"{100 * found['optimal'][name]:.1f}")
        for name, seconds in found["seconds"].items()
    ]
    head = ("2,000 runs x 1,000 steps", "s", "CPU s", "M pulls/s", "M pulls/CPU s", "% optimal at the end")
    beside = "; ".join(
        f"{name} takes {ratio:.1f} times as long ({found['cpu_ratios'][name]:.1f} in CPU time)"
        for name, ratio in found["ratios"].items()
    )
    return (
        f"{table(head, rows)}\nsix algorithms: {found['total_seconds']:.2f} s (limit {LIMIT:.0f} s), "
        f"{found['total_cpu_seconds']:.2f} CPU s; compiled once in {found['compile_seconds']:.1f} s, not counted\n"
        f"epsilon-greedy: {beside}"
    )


def main() -> int:
    """0 within the limit, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each algorithm")
    parser.add_argument("--out", default=str(RESULTS / "tabular_bandits.json"), help="where the JSON goes")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error("--repeats is at least 1")
    found = measure(arguments.repeats)
    write_json(arguments.out, found)
    print(report(found))
    return 0 if found["within_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
