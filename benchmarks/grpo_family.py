"""The GRPO family on one task at equal samples, and generation that lags behind, plain and decoupled.

The task is `letters` (a true reward by formula), the start one model taught by demonstrations. Each run is kept as
results/grpo_family/NAME-SEED.json as soon as it ends, so the benchmark can be stopped and goes on where it was. A
row is the interquartile mean over seeds of the true reward of sampled answers to held-out prompts at the end, with its
95 % bootstrap interval. Writes results/grpo_family.json and docs/figures/grpo_family.png.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from common import FOLDER, RESULTS, Record, machine, table, write_json
from onepolicy.acting.episodes import Actor
from onepolicy.evaluation.stats import bootstrap_interval, iqm
from onepolicy.recipes import grpo, sft
from onepolicy.recipes.language import language_of
from onepolicy.recipes.options import Asynchronous, ExamOptions, Machine, ProblemOptions, Tiny, Update
from onepolicy.recipes.textual import Problems
from onepolicy.run.journal import read_lines
from onepolicy.tasks import letters
from onepolicy.types import Sampling

KEPT = RESULTS / "grpo_family"
STEPS, PROMPTS, GROUP, LR = 60, 32, 8, 5e-4
METHODS: dict[str, dict[str, Any]] = {
    "GRPO": {"convention": "grpo"},
    "Dr. GRPO": {"convention": "dr-grpo"},
    "DAPO": {"convention": "dapo", "update": {"zero_variance": "drop", "resample": 3, "overlong_cache": 8}},
    "GSPO": {"convention": "gspo"},
    "CISPO": {"convention": "cispo"},
    "RLOO": {"convention": "rloo"},
    "REINFORCE++": {"convention": "reinforce++"},
    "REINFORCE++ baseline": {"convention": "reinforce++-baseline"},
    "REINFORCE, moving baseline": {"convention": "reinforce"},
}
"""Equal samples, two minibatches a rollout; no KL, so that the estimators are compared and not their penalties."""
LAGS = [0, 1, 4, 8]


def rows() -> dict[str, dict[str, Any]]:
    """Every row by name: what of the configuration it sets."""
    found = dict(METHODS)
    for lag in LAGS:
        for kind in ("plain", "decoupled"):
            correction = "token_truncate" if kind == "decoupled" else "none"
            found[f"staleness {lag}, {kind}"] = {
                "convention": "grpo",
                "update": {"epochs": 2, "correction": correction},
                "asynchronous": Asynchronous(staleness=lag, decoupled=kind == "decoupled"),
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--report", action="store_true", help="run nothing; the tables of what is there")
    parser.add_argument("--rows", nargs="*", default=list(rows()))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.report:
        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            start = first_model(Path(folder))
            for seed in range(arguments.seeds):
                for name in arguments.rows:
                    play(name, seed, start, Path(folder))
    record = summary(arguments.seeds)
    write_json(RESULTS / "grpo_family.json", record)
    draw(FOLDER.parent / "docs" / "figures" / "grpo_family.png", arguments.seeds)
    print(report(record))


def first_model(folder: Path) -> str:
    """The model that every run starts from: 400 steps on demonstrations of an indifferent writer."""
    data = folder / "demonstrations.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in letters.demonstration_rows(8000)))
    config = sft.Config(
        tasks="letters", data=str(data), steps=400, lr=2e-3, max_tokens=24, out=str(folder / "sft"),
        tiny=Tiny(context=64), exam=ExamOptions(size=2), machine=Machine(threads=1),
    )  # fmt: skip
    sft.main(config)
    return str(folder / "sft" / "model")


def play(name: str, seed: int, start: str, folder: Path) -> None:
    """One run, unless it is there already."""
    place = KEPT / f"{name.replace(' ', '_').replace(',', '').replace('.', '')}-{seed}.json"
    if place.is_file():
        return
    print(f"{name}, seed {seed}", flush=True)
    changes = dict(rows()[name])
    update = Update(**{"minibatches": 2, "warmup_steps": 5, "kl_coef": 0.0, **changes.pop("update", {})})
    out = folder / f"run-{place.stem}"
    config = grpo.Config(
        model=start, tasks="letters", steps=STEPS, prompts=PROMPTS, group_size=GROUP, max_tokens=24, lr=LR, seed=seed,
        eval_every=0, save_every=0, out=str(out), update=update,
        problems=ProblemOptions(instructions=False), exam=ExamOptions(size=2, probe=False),
        machine=Machine(threads=1),
    )  # fmt: skip
    grpo.main(replace(config, **changes))
    lines = [line for line in read_lines(out / "metrics.jsonl") if "rollout/score" in line]
    curve = [line.get("rollout/reward", line["rollout/score"]) for line in lines]
    write_json(place, {"name": name, "seed": seed, "final": examined(out), "curve": curve})


def examined(run: Path) -> float:
    """The mean true reward of 8 sampled answers to each held-out prompt."""
    language = language_of(run)
    tasks = Problems.of(grpo.Config(tasks="letters", exam=ExamOptions(size=512))).held_out().tasks
    actor = Actor(
        language.engine(slots=256, cache_tokens=None), language.render, language.decode, Sampling(24), 0,
        language.context,
    )  # fmt: skip
    return fmean(e.score.value or 0.0 for e in actor.play(tasks, 8, 0))


def found_runs(seeds: int) -> dict[str, list[Record]]:
    """What is there, by row."""
    every = [json.loads(path.read_text()) for path in sorted(KEPT.glob("*.json"))]
    return {name: [r for r in every if r["name"] == name and r["seed"] < seeds] for name in rows()}


def summary(seeds: int) -> Record:
    """Every row's score and interval."""
    out: Record = {"machine": machine("torch"), "rollouts": STEPS, "samples": STEPS * PROMPTS * GROUP, "rows": {}}
    for name, runs in found_runs(seeds).items():
        if runs:
            score = bootstrap_interval([run["final"] for run in runs], iqm)
            out["rows"][name] = {"seeds": len(runs), "iqm": score.value, "low": score.low, "high": score.high}
    return out


def report(record: Record) -> str:
    """The table."""
    lines = [
        [name, str(row["seeds"]), f"{row['iqm']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"]
        for name, row in record["rows"].items()
    ]
    return table(["", "seeds", "true reward, IQM"], lines)


def draw(path: Path, seeds: int) -> None:
    """Learning curves: the mean over seeds of the rollouts' true reward, for the methods."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for name, runs in found_runs(seeds).items():
        if runs and name in METHODS:
            axes.plot([fmean(values) for values in zip(*(run["curve"] for run in runs))], label=name)
    axes.set(xlabel="rollout of 256 samples", ylabel="true reward of the rollout, mean over seeds")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
