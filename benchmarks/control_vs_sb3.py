"""Control against stable-baselines3 (and sb3-contrib's TRPO): scores, row by row, with the zoo's hyperparameters.

Each run is a process of one thread and is kept as results/control_vs_sb3/<side>-<algorithm>-<world>-<seed>.json as soon
as it ends: the benchmark can be stopped at any time and goes on where it was. Both sides train for the same environment
steps and are then examined by the same code in gymnasium's own worlds (control_rows.py). A row has the interquartile
mean of the seeds' mean returns with its 95 % bootstrap interval. Scores do not depend on what else the machine does;
speeds do, and are control_speed_vs_sb3.py's.
Writes results/control_vs_sb3.json.
"""

from __future__ import annotations

import argparse
import json
import sys

from common import FOLDER, RESULTS, Record, machine, peer_python, run_side, table, write_json
from control_rows import ROWS
from onepolicy.evaluation.stats import bootstrap_interval, iqm

KEPT = RESULTS / "control_vs_sb3"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", help="only these, as algorithm/world; default: all")
    parser.add_argument("--report", action="store_true", help="run nothing; the table of what is there")
    arguments = parser.parse_args()
    names = [f"{algo}/{world}" for algo, world, _, _ in ROWS]
    unknown = set(arguments.rows or []) - set(names)
    if unknown:
        parser.error(f"{sorted(unknown)[0]!r} is not a row; there are {', '.join(names)}")
    rows = [row for row, name in zip(ROWS, names, strict=True) if name in (arguments.rows or names)]
    sides = {"onepolicy": (sys.executable, "control_side_onepolicy.py")}
    if not arguments.report:
        sides["sb3"] = (str(peer_python("sb3", FOLDER / "requirements-sb3.txt")), "control_side_sb3.py")
        KEPT.mkdir(parents=True, exist_ok=True)
        for algo, world, steps, seeds in rows:
            for seed in range(seeds):
                for side, (python, script) in sides.items():
                    play(side, python, script, algo, world, steps, seed)
    found = {
        f"{algo}/{world}": {side: kept(side, algo, world, steps, seeds) for side in ("onepolicy", "sb3")}
        for algo, world, steps, seeds in rows
    }
    whole = {name: each for name, each in found.items() if all(each.values())}
    record = {
        "machine": machine("torch", "numpy", "gymnasium"),
        "rows": {n: summary(each) for n, each in whole.items()},
    }
    write_json(RESULTS / "control_vs_sb3.json", record)
    print(report(record["rows"]))
    for name in found.keys() - whole.keys():
        print(f"{name}: not yet run")


def play(side: str, python: str, script: str, algo: str, world: str, steps: int, seed: int) -> None:
    """One run, unless it is there already."""
    place = KEPT / f"{side}-{algo}-{world}-{seed}.json"
    if place.is_file() and json.loads(place.read_text())["asked"] == steps:
        return
    print(f"{side} {algo}/{world}, seed {seed}", flush=True)
    run = run_side(python, FOLDER / script, algo, world, str(steps), str(seed), threads=1)
    write_json(place, run | {"asked": steps})


def kept(side: str, algo: str, world: str, steps: int, seeds: int) -> list[Record]:
    """The runs of one side of a row; none unless all seeds are there."""
    places = [KEPT / f"{side}-{algo}-{world}-{seed}.json" for seed in range(seeds)]
    runs = [json.loads(place.read_text()) for place in places if place.is_file()]
    return runs if len(runs) == seeds and all(run["asked"] == steps for run in runs) else []


def summary(row: dict[str, list[Record]]) -> Record:
    """Score with its interval of both sides."""
    out: Record = {"steps": row["sb3"][0]["asked"], "seeds": len(row["sb3"])}
    for side, runs in row.items():
        means = [sum(run["returns"]) / len(run["returns"]) for run in runs]
        score = bootstrap_interval(means, iqm)
        out[side] = {"iqm": score.value, "low": score.low, "high": score.high, "means": means}
    out["not_below"] = out["onepolicy"]["high"] >= out["sb3"]["low"]
    return out


def report(rows: dict[str, Record]) -> str:
    """The table."""
    head = ["", "steps", "seeds", "onepolicy: IQM", "stable-baselines3: IQM", "overlaps or above"]
    lines = []
    for name, row in rows.items():
        scores = [f"{s['iqm']:.1f} [{s['low']:.1f}, {s['high']:.1f}]" for s in (row["onepolicy"], row["sb3"])]
        overlaps = "yes" if row["not_below"] else "NO"
        lines.append([name, f"{row['steps']:,}", str(row["seeds"]), *scores, overlaps])
    return table(head, lines)


if __name__ == "__main__":
    main()
