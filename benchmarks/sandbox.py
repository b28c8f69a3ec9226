"""What a sandboxed run costs: milliseconds a run by kind of test, and runs a second with several slots at once.

python benchmarks/sandbox.py [--runs 40] [--out benchmarks/results/sandbox.json]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from common import RESULTS, Record, machine, table, write_json
from onepolicy.tasks.sandbox import Call, Sandbox, Stdin, default_sandbox

SQUARE = "def f(x): return x * x"
ECHO = "print(int(input()) ** 2)"
C = '#include <stdio.h>\nint main() { int x; scanf("%d", &x); printf("%d", x * x); }'


def kinds(box: Sandbox) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    return {
        "python alone, no sandbox": lambda: subprocess.run(["/usr/bin/python3", "-I", "-c", "pass"], check=True),
        "1 call": lambda: box.run_tests(SQUARE, [Call("f", (2,))]),
        "10 calls": lambda: box.run_tests(SQUARE, [Call("f", (i,)) for i in range(10)]),
        "1 program with input": lambda: box.run_tests(ECHO, [Stdin("2")]),
        "10 programs with input": lambda: box.run_tests(ECHO, [Stdin(str(i)) for i in range(10)]),
        "C, compiled, 10 inputs": lambda: box.run_tests(C, [Stdin(str(i)) for i in range(10)], "c"),
    }


def timed(run: Callable[[], object], runs: int) -> list[float]:
    """Milliseconds of each run."""
    found = []
    for _ in range(runs):
        started = time.perf_counter()
        run()
        found.append(1000 * (time.perf_counter() - started))
    return found


def at_once(box: Sandbox, threads: int, runs: int) -> float:
    """Runs of one call a second with so many threads."""
    with ThreadPoolExecutor(threads) as pool:
        started = time.perf_counter()
        list(pool.map(lambda i: box.run_tests(SQUARE, [Call("f", (i,))]), range(runs)))
        return runs / (time.perf_counter() - started)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--out", default=str(RESULTS / "sandbox.json"))
    given = parser.parse_args()
    where = machine()
    started = time.perf_counter()
    box = default_sandbox()
    opened = time.perf_counter() - started
    rows: dict[str, Record] = {}
    for name, run in kinds(box).items():
        run()
        each = timed(run, given.runs)
        rows[name] = {"median_ms": median(each), "min_ms": min(each), "max_ms": max(each)}
    rates = {str(threads): at_once(box, threads, 4 * given.runs) for threads in (1, 2, 4)}
    record: Record = {"machine": where, "layers": list(box.backend.layers), "self_test_seconds": opened, "kinds": rows}
    write_json(given.out, record | {"runs_per_second": rates, "load_average_at_end": round(os.getloadavg()[0], 2)})
    shown = [(name, *(f"{row[key]:.0f}" for key in ("median_ms", "min_ms", "max_ms"))) for name, row in rows.items()]
    print(table(("", "median ms", "least", "most"), shown))
    said = ", ".join(f"{rate:.0f}" for rate in rates.values())
    print(f"self-test {opened:.1f} s; runs a second with 1, 2, 4 threads: {said}")


if __name__ == "__main__":
    main()
