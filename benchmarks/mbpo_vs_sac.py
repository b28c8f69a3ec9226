"""MBPO against SAC on Pendulum-v1: environment steps until the return is there, seeds side by side in one process each.

Both are ours; MBPO has its preset, and SAC is the learner inside it, alone: its preset with MBPO's layers of 64, one
update a step (MBPO has ten). A seed is there at its first evaluation (20 greedy episodes, every EVERY steps) whose
mean return is at least a level; the steps of both have interquartile means with 95 % bootstrap intervals over seeds. A
seed that never gets there counts with the steps it played, which makes SAC look better than it is, and is counted.
Each algorithm's run is kept when it ends, and what is there is not run again. Writes results/mbpo_vs_sac.json and
docs/figures/mbpo_vs_sac.png.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

import onepolicy as op
from common import FOLDER, RESULTS, Record, machine, table, write_json
from onepolicy.evaluation.stats import bootstrap_interval, iqm
from onepolicy.run.journal import read_lines

STEPS = {"mbpo": 1500, "sac": 8000}
OWN: dict[str, dict[str, Any]] = {"mbpo": {}, "sac": {"hidden": (64, 64)}}
EVERY = {"mbpo": 100, "sac": 250}
LEVELS = (-300.0, -200.0)
KEPT = RESULTS / "mbpo_vs_sac"
FIGURE = FOLDER.parent / "docs" / "figures" / "mbpo_vs_sac.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    seeds = parser.parse_args().seeds
    about = machine("torch", "numpy", "gymnasium")
    found = {algo: kept(algo, seeds) for algo in STEPS}
    reached = {f"{level:g}": {algo: summary(curve, level) for algo, curve in found.items()} for level in LEVELS}
    record = {"machine": about, "seeds": seeds, "asked": STEPS, "curves": found, "steps_to": reached}
    write_json(RESULTS / "mbpo_vs_sac.json", record)
    draw(found)
    lines = [
        [level, *(f"{s['iqm']:,.0f} [{s['low']:,.0f}, {s['high']:,.0f}] ({s['missed']} never)" for s in each.values())]
        for level, each in reached.items()
    ]
    print(table(["return", "MBPO: steps", "SAC: steps"], lines))


def kept(algo: str, seeds: int) -> Record:
    """The evaluations of an algorithm, from a file where it was run with as many steps and seeds before."""
    place = KEPT / f"{algo}.json"
    asked = {
        "steps": STEPS[algo],
        "every": EVERY[algo],
        "seeds": seeds,
        "own": {k: list(v) for k, v in OWN[algo].items()},
    }
    found: Record = json.loads(place.read_text()) if place.is_file() else {}
    if found.get("asked") != asked:
        found = {"asked": asked, "curve": played(algo, seeds)}
        write_json(place, found)
    return dict(found["curve"])


def played(algo: str, seeds: int) -> Record:
    """The evaluations of all seeds: the steps they stand at, and each seed's mean returns there."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        op.train(
            algo, env="Pendulum-v1", steps=STEPS[algo], seeds=seeds, eval_every=EVERY[algo], eval_episodes=20,
            save_every=0, out=str(run), **OWN[algo],
        )  # fmt: skip
        lines = [line for line in read_lines(run / "metrics.jsonl") if line.get("seed0/eval/return") is not None]
    returns = [[line[f"seed{seed}/eval/return"] for line in lines] for seed in range(seeds)]
    return {"steps": [line["step"] for line in lines], "returns": returns}


def summary(curve: Record, level: float) -> Record:
    """Steps until the return is at least `level`."""
    first = [
        next((step for step, value in zip(curve["steps"], seed, strict=True) if value >= level), None)
        for seed in curve["returns"]
    ]
    steps = [curve["steps"][-1] if step is None else step for step in first]
    interval = bootstrap_interval([float(step) for step in steps], iqm)
    return {
        "iqm": interval.value, "low": interval.low, "high": interval.high, "each": steps, "missed": first.count(None),
    }  # fmt: skip


def draw(found: dict[str, Record]) -> None:
    """Each algorithm's interquartile mean with its interval, over environment steps."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for algo, curve in found.items():
        rows = np.asarray(curve["returns"]).T
        band = [bootstrap_interval(row.tolist(), iqm) for row in rows]
        (line,) = axis.plot(curve["steps"], [b.value for b in band], label=algo.upper())
        axis.fill_between(
            curve["steps"], [b.low for b in band], [b.high for b in band], color=line.get_color(), alpha=0.2
        )
    axis.axhline(-200, color="gray", linewidth=0.8, linestyle=":")
    axis.set(xlabel="environment steps", ylabel="return of 20 greedy episodes", title="Pendulum-v1")
    axis.legend()
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=120)


if __name__ == "__main__":
    main()
