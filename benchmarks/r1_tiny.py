"""R1's tiny pipeline on several seeds: the table of stages, and the differences between stages in pairs.

    python benchmarks/r1_tiny.py --seeds 3                 # runs in runs/benchmark-r1/SEED; finished stages stay

Every stage's model answers the same held-out problems, so what separates two stages is taken problem by problem: a
bootstrap over problems for one seed, Student's t over seeds for their mean. `control` is the pipeline as far as RL with
nothing paid for the language (--language-weight 0), from the same cold start.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from common import RESULTS, machine, table, write_json
from letters_models import margin
from onepolicy.evaluation.stats import paired_difference
from onepolicy.recipes import r1
from onepolicy.recipes.language import language_of
from onepolicy.recipes.loop import open_run
from onepolicy.recipes.r1_config import Config
from onepolicy.recipes.r1_report import examine

STAGES = ("base", "cold", "rl", "sft", "rl2")
STEPS = (("rl", "cold"), ("sft", "rl"), ("rl2", "rl"), ("rl2", "cold"), ("rl2", "sft"))
"""Which stage is compared with which."""


def main() -> None:
    """Run what is missing, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", default="runs/benchmark-r1")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--control", action="store_true", help="also RL without the language's reward")
    given = parser.parse_args()
    work = Path(given.work)
    runs = [pipeline(work / str(seed), seed) for seed in range(given.seeds)]
    record: dict[str, Any] = {"machine": machine("torch", "transformers"), "runs": runs, "steps": differences(runs)}
    print(table(["stage", *(f"seed {i}" for i in range(len(runs))), "mean", "language", "general"], rows(runs)))
    for name, step in record["steps"].items():
        print(name, step)
    if given.control:
        record["control"] = [control(work, seed) for seed in range(given.seeds)]
        print("control:", [(one["accuracy"], one["language"]) for one in record["control"]])
    for run in runs:
        del run["right"]
    write_json(RESULTS / "r1_tiny.json", record)


def pipeline(out: Path, seed: int) -> dict[str, Any]:
    """A seed's table, its answers problem by problem, and the seconds of the processor that its stages took."""
    config = replace(r1.PRESETS["tiny"], seed=seed, out=str(out))
    started = time.process_time()
    if not (out / "report.md").is_file():
        r1.main(config, resume=out if (out / "config.json").is_file() else None)
        note(out, time.process_time() - started)
    scores = {stage: json.loads((out / "scores" / f"{stage}.json").read_text()) for stage in STAGES}
    right = {stage: answers(config, out / stage / "model") for stage in STAGES}
    return {"seed": seed, "scores": scores, "right": right, "processor_seconds": float((out / "processor").read_text())}


def note(out: Path, seconds: float) -> None:
    """Seconds of the processor added to those of earlier calls."""
    place = out / "processor"
    before = float(place.read_text()) if place.is_file() else 0.0
    place.write_text(f"{before + seconds:.1f}")


def answers(config: Config, model: Path) -> list[float]:
    """1 for each held-out problem that a model answers right, greedily."""
    report = examine(config, language_of(str(model)), config.tasks)
    return [float(sample["parts"]["correct"]) for sample in report.samples]


def control(work: Path, seed: int) -> dict[str, Any]:
    """RL from the same cold start without the language's reward: the scores of that stage."""
    out = work / f"{seed}-control"
    config = replace(r1.PRESETS["tiny"], seed=seed, out=str(out), stages="cold,rl", language_weight=0.0)
    if not (out / "config.json").is_file():
        open_run("r1", config, None, {})
        for stage in ("base", "cold"):
            shutil.copytree(work / str(seed) / stage, out / stage)
    if not (out / "report.md").is_file():
        r1.main(config, resume=out)
    return dict(json.loads((out / "scores" / "rl.json").read_text()))


def differences(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy of one stage less that of another: each seed's with its interval over problems, and over seeds."""
    found = {}
    for later, earlier in STEPS:
        each = [paired_difference(run["right"][later], run["right"][earlier]) for run in runs]
        values = [one.value for one in each]
        half = margin(values) if len(values) > 1 else float("nan")
        found[f"{later} - {earlier}"] = {
            "seeds": [[one.value, one.low, one.high] for one in each],
            "mean": mean(values),
            "half": half,
        }
    return found


def rows(runs: list[dict[str, Any]]) -> list[list[str]]:
    """Cells of the table, per cent."""
    found = []
    for stage in STAGES:
        scores = [run["scores"][stage] for run in runs]
        accuracy = [100 * score["accuracy"][0] for score in scores]
        cells = [
            f"{100 * s['accuracy'][0]:.1f} [{100 * s['accuracy'][1]:.1f}, {100 * s['accuracy'][2]:.1f}]" for s in scores
        ]
        language = ", ".join("-" if s["language"] is None else f"{100 * s['language'][0]:.0f}" for s in scores)
        general = ", ".join("-" if s["general"] is None else f"{s['general'][0]:.1f}" for s in scores)
        found.append([stage, *cells, f"{mean(accuracy):.1f}", language, general])
    return found


if __name__ == "__main__":
    main()
