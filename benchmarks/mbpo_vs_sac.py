"""MBPO and planning against SAC on Pendulum-v1: environment steps until the return is there, seeds side by side.

All are ours, with networks of two layers of 64. MBPO has its preset: twenty updates of the agent for each step, from
imagined transitions. SAC is the agent inside it, alone, with one update a step as its preset has, and with twenty, so
that it is seen what the model adds beside the updates. PETS plans in MBPO's model and learns no policy; its evaluations
plan too, and are half as many of half as many episodes. A seed is there at its first evaluation (every EVERY steps, 20
episodes) whose mean return is at least a level; the steps of each have interquartile means with 95 % bootstrap
intervals over seeds. A seed that never gets there counts with the steps it played, which makes its side look better
than it is, and is counted. Each run is kept when it ends, and what is there is not run again. Writes
results/mbpo_vs_sac.json and docs/figures/mbpo_vs_sac.png.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

import onepolicy as op
from common import FOLDER, RESULTS, Record, machine, table, write_json
from onepolicy.evaluation.stats import bootstrap_interval, iqm
from onepolicy.run.journal import read_lines

SMALL = (64, 64)
RUNS: dict[str, dict[str, Any]] = {
    "MBPO": {"algo": "mbpo", "steps": 1000},
    "PETS": {"algo": "mbpo", "steps": 600, "plan__use": True, "eval_every": 200, "eval_episodes": 10},
    "SAC, 1 update": {"algo": "sac", "steps": 8000, "hidden": SMALL},
    "SAC, 20 updates": {"algo": "sac", "steps": 1500, "hidden": SMALL, "gradient_steps": 20},
}
FIRST = "MBPO"
EVERY = 100
LEVELS = (-300.0, -200.0)
KEPT = RESULTS / "mbpo_vs_sac"
FIGURE = FOLDER.parent / "docs" / "figures" / "mbpo_vs_sac.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    seeds = parser.parse_args().seeds
    about = machine("torch", "numpy", "gymnasium")
    found = {name: kept(name, seeds) for name in RUNS}
    reached = {f"{level:g}": {name: summary(run, level) for name, run in found.items()} for level in LEVELS}
    for each in reached.values():
        for name, own in each.items():
            own["times_first"] = times(own["each"], each[FIRST]["each"]) if name != FIRST else None
    write_json(RESULTS / "mbpo_vs_sac.json", {"machine": about, "seeds": seeds, "runs": found, "steps_to": reached})
    draw(found)
    print(
        table(["", *(f"steps to {level}" for level in reached), "return at the end", "minutes"], lines(found, reached))
    )


def lines(found: dict[str, Record], reached: dict[str, Record]) -> list[list[str]]:
    """A row for each run: steps to each level, how many times those of the first run, and how long it took."""
    rows = []
    for name, run in found.items():
        cells = [name]
        for each in reached.values():
            own, more = each[name], each[name]["times_first"]
            never = f", {own['missed']} never" if own["missed"] else ""
            words = f"{own['iqm']:,.0f} [{own['low']:,.0f}, {own['high']:,.0f}]{never}"
            cells.append(words + (f"; {more[0]:.1f} x [{more[1]:.1f}, {more[2]:.1f}]" if more else ""))
        last = bootstrap_interval([seed[-1] for seed in run["returns"]], iqm)
        end = f"{last.value:.0f} [{last.low:.0f}, {last.high:.0f}] after {run['steps'][-1]:,}"
        rows.append([*cells, end, f"{run['seconds'] / 60:.1f}"])
    return rows


def kept(name: str, seeds: int) -> Record:
    """A run's evaluations, from a file where it was run with the same fields before."""
    place = KEPT / f"{name.lower().replace(',', '').replace(' ', '-')}.json"
    asked = json.loads(json.dumps({**RUNS[name], "every": EVERY, "seeds": seeds}))
    found: Record = json.loads(place.read_text()) if place.is_file() else {}
    if found.get("asked") != asked:
        found = {"asked": asked, **played(name, seeds)}
        write_json(place, found)
    return found


def played(name: str, seeds: int) -> Record:
    """The evaluations of all seeds: the steps they stand at, each seed's mean returns there, and the seconds of all."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "run"
        fields = {"eval_every": EVERY, "eval_episodes": 20, **RUNS[name]}
        op.train(fields.pop("algo"), env="Pendulum-v1", seeds=seeds, save_every=0, out=str(place), **fields)
        logged = [line for line in read_lines(place / "metrics.jsonl") if line.get("seed0/eval/return") is not None]
    returns = [[line[f"seed{seed}/eval/return"] for line in logged] for seed in range(seeds)]
    return {
        "steps": [line["step"] for line in logged], "returns": returns, "seconds": time.perf_counter() - started,
    }  # fmt: skip


def summary(run: Record, level: float) -> Record:
    """Steps until the return is at least `level`."""
    first = [
        next((step for step, value in zip(run["steps"], seed, strict=True) if value >= level), None)
        for seed in run["returns"]
    ]
    steps = [run["steps"][-1] if step is None else step for step in first]
    interval = bootstrap_interval([float(step) for step in steps], iqm)
    return {
        "iqm": interval.value, "low": interval.low, "high": interval.high, "each": steps, "missed": first.count(None),
    }  # fmt: skip


def times(steps: list[int], first: list[int]) -> tuple[float, float, float]:
    """How many times the first run's steps these are: the ratio of the interquartile means, with its 95 % bootstrap
    interval, the seeds of both resampled."""
    rng = np.random.default_rng(0)
    drawn = [iqm(rng.choice(np.asarray(each, float), (2000, len(each)))) for each in (steps, first)]
    low, high = np.quantile(drawn[0] / drawn[1], (0.025, 0.975))
    value = float(iqm(np.asarray(steps, float)) / iqm(np.asarray(first, float)))
    return value, float(low), float(high)


def draw(found: dict[str, Record]) -> None:
    """Each run's interquartile mean with its interval, over environment steps."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    seeds = len(next(iter(found.values()))["returns"])
    for name, run in found.items():
        band = [bootstrap_interval(row.tolist(), iqm) for row in np.asarray(run["returns"]).T]
        (line,) = axis.plot(run["steps"], [b.value for b in band], label=name)
        axis.fill_between(
            run["steps"], [b.low for b in band], [b.high for b in band], color=line.get_color(), alpha=0.2
        )
    for level in LEVELS:
        axis.axhline(level, color="gray", linewidth=0.8, linestyle=":")
    axis.set(xlabel="environment steps", ylabel="return of greedy episodes", title=f"Pendulum-v1, {seeds} seeds")
    axis.legend()
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=120)


if __name__ == "__main__":
    main()
