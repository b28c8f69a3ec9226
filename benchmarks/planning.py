"""Planning against QuantEcon 0.11 and pymdptoolbox: seconds to a value within 1e-3, peak memory, sweeps.

Models of 4 actions, discount 0.99: 10^4, 10^5 and 10^6 states with 5 successors a row, anywhere (random) or within ten
numbers (local); a grid of 1000 x 1000 whose moves slip; a grid of 10^7 cells whose moves do not (table). All sides read
the same file, each run has a process of its own, two threads, and its compiled code warm; what compiling takes is said
apart. A peer promises or does not: its value is compared with ours, certified to 1e-6. A run that takes longer than
`--limit` is ended ("> limit"), and that method is left out on larger models of the kind, as it is after it ran out of
memory or failed. For onepolicy a limit is no failure: the bounds that it has by then are shown. Writes
results/planning.json.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from common import FOLDER, RESULTS, Record, machine, peer_python, run_side, table, write_json

METHODS = {
    "onepolicy": (
        "auto", "value-iteration", "modified-policy-iteration", "policy-iteration", "gauss-seidel",
        "prioritised-sweeping", "linear-program",
    ),
    "quantecon": ("value_iteration", "modified_policy_iteration", "policy_iteration", "linear_programming"),
    "mdptoolbox": ("ValueIteration", "PolicyIterationModified", "PolicyIteration", "ValueIterationGS"),
}  # fmt: skip
PROBLEMS = (
    "random-10000", "local-10000", "random-100000", "local-100000", "random-1000000", "local-1000000",
    "grid-1000000", "table-10000000",
)  # fmt: skip
QUICK = ("random-2000", "local-2000", "grid-2500", "table-10000")
ALIKE = (
    ("value iteration, 10^5 random states", "random-100000", "value-iteration", "value_iteration", 10.0),
    ("modified policy iteration, 10^5 random states", "random-100000", "modified-policy-iteration",
     "modified_policy_iteration", 1.0),
    ("policy iteration, 10^4 random states", "random-10000", "policy-iteration", "policy_iteration", 100.0),
)  # fmt: skip
"""What, where, our method, QuantEcon's, and how many times faster ours has to be."""
GRID, GRID_MOST, GRID_GOAL = "grid-1000000", 10.0, 5.0
"""Seconds within which the stochastic grid has to be certified, and the goal."""
PREPARE = 600.0
"""Seconds for making a problem and its reference."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small models, once, 10 s a run")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds a run may set up, and solve")
    parser.add_argument("--repeats", type=int, default=5, help="times a short run is repeated")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--problems", nargs="*", choices=PROBLEMS, default=PROBLEMS, help="some of the problems")
    parser.add_argument("--out", default=str(RESULTS / "planning.json"), help="where the JSON goes")
    arguments = parser.parse_args()
    if min(arguments.repeats, arguments.threads) < 1 or arguments.limit <= 0:
        parser.error("--repeats and --threads are at least 1, --limit is above 0")
    if arguments.quick:
        arguments.problems, arguments.limit, arguments.repeats = QUICK, 10.0, 1
    record: Record = {"machine": machine("numpy", "scipy", "numba"), "threads": arguments.threads}
    peers = peer_python("planning", FOLDER / "requirements-planning.txt")
    record |= {"limit": arguments.limit, "tolerance": 1e-3, "problems": {}, "compile": {}}
    given_up: set[tuple[str, str, str]] = set()
    for kind in ("random", "table"):
        record["compile"][kind] = ours("compile", "-", kind, 1, PREPARE, arguments.threads)
    for name in arguments.problems:
        with tempfile.TemporaryDirectory() as folder:
            problem = Path(folder) / name
            print(f"{name}: model and reference", file=sys.stderr, flush=True)
            about = ours("prepare", str(problem), name, 1, PREPARE, arguments.threads)
            if "gap" not in about:
                raise SystemExit(f"{name} has no reference: {about}")
            runs = solve_all(name, problem, peers, arguments, given_up)
        record["problems"][name] = about | {"runs": runs}
        print(report(name, record["problems"][name]), flush=True)
        write_json(arguments.out, record)
    record["targets"] = targets(record["problems"], arguments.limit)
    write_json(arguments.out, record)
    print(compiling(record["compile"]))
    print(verdicts(record["targets"]))


def ours(mode: str, problem: str, method: str, repeats: int, limit: float, threads: int) -> Record:
    """One run of onepolicy's side."""
    script = FOLDER / "planning_side_onepolicy.py"
    return run_side(sys.executable, script, mode, problem, method, str(repeats), str(limit), threads=threads)


def solve_all(
    name: str, problem: Path, peers: Path, arguments: argparse.Namespace, given_up: set[tuple[str, str, str]]
) -> list[Record]:
    """Every method of every side on one problem; those that are given up are named, not run."""
    kind, records = name.split("-")[0], []
    for side, methods in METHODS.items():
        for method in methods:
            key = (side, method, kind)
            if key in given_up:
                records.append({"side": side, "method": method, "ended": "left out"})
                continue
            print(f"{name}: {side} {method}", file=sys.stderr, flush=True)
            if side == "onepolicy":
                found = ours("solve", str(problem), method, arguments.repeats, arguments.limit, arguments.threads)
            else:
                words = (side, str(problem), method, str(arguments.repeats), str(arguments.limit))
                found = run_side(peers, FOLDER / "planning_side_peers.py", *words, threads=arguments.threads)
            if found["ended"] != "done" or not found.get("converged", True):
                given_up.add(key)
            name_used = f"{method} ({found['method']})" if method == "auto" and "method" in found else method
            records.append(found | {"side": side, "method": method, "name": name_used})
    return records


def report(name: str, about: Record) -> str:
    """The table of one problem."""
    rows = []
    for run in about["runs"]:
        label = f"{run['side']} {run.get('name', run['method'])}"
        if run["ended"] != "done":
            why = run.get("error", {"limit": f"> {run.get('limit', 0):g} s"}.get(run["ended"], run["ended"]))
            rows.append((label, why[:40], "", "", "", "", ""))
            continue
        certified = f"{run['certified']:.1e}" if "certified" in run else "no"
        stopped = "" if run.get("converged", True) else f" ({run['reason']})"
        rows.append(
            (
                label, f"{run['seconds']:.3g}{stopped}", f"{run['setup']:.2g}", f"{run['sweeps']:,.0f}",
                certified, f"{run['true_error']:.1e}", f"{run['peak_bytes'] / 2**30:.2f}",
            )
        )  # fmt: skip
    head = (name, "seconds", "set-up, s", "sweeps", "certified", "true error", "peak, GiB")
    return f"\n{table(head, rows)}"


def targets(problems: Record, limit: float) -> list[Record]:
    """What has to be reached, where the problems were run: a peer that is over the limit took at least that long."""
    found = []
    for what, name, mine, theirs, least in ALIKE:
        runs = {(run["side"], run["method"]): run for run in problems.get(name, {}).get("runs", [])}
        us, them = runs.get(("onepolicy", mine)), runs.get(("quantecon", theirs))
        if us is None or them is None or not us.get("converged"):
            continue
        done = them["ended"] == "done"
        seconds = them["seconds"] if done else limit if them["ended"] == "limit" else float("nan")
        ratio = seconds / us["seconds"]
        found.append({"what": what, "ratio": ratio, "at_least": not done, "needed": least, "reached": ratio >= least})
    for run in problems.get(GRID, {}).get("runs", []):
        if run["method"] == "auto" and run["ended"] == "done":
            reached = run["converged"] and run["seconds"] <= GRID_MOST
            found.append({"what": "stochastic grid certified", "seconds": run["seconds"], "reached": reached})
    return found


def verdicts(found: list[Record]) -> str:
    """The targets in words."""
    lines = []
    for one in found:
        if "ratio" in one:
            more = "at least " if one["at_least"] else ""
            text = f"{one['what']}: {more}{one['ratio']:,.1f} times QuantEcon's speed, needed {one['needed']:g}"
        else:
            text = f"{one['what']} in {one['seconds']:.2f} s, needed {GRID_MOST:g}, goal {GRID_GOAL:g}"
        lines.append(f"{text}: {'reached' if one['reached'] else 'NOT reached'}.")
    return "\n".join(lines)


def compiling(found: Record) -> str:
    """What the first calls take."""
    lines = []
    for kind, each in found.items():
        cold, cached = each["cold"].get("total"), each["cached"].get("total")
        if cold is not None and cached is not None:
            storage = "rows" if kind == "random" else "table"
            lines.append(
                f"First calls of all methods on {storage}: {cold:.1f} s compiling, once; {cached:.1f} s from disk."
            )
    return "\n" + "\n".join(lines)


if __name__ == "__main__":
    main()
