"""Preference optimisation held against a judge with known truth: the win rate of each objective over the SFT model.

The world is tasks/letters.py: pairs of answers whose better one was drawn by Bradley and Terry's model from a reward
that is a formula. Each objective starts from the same SFT model of its seed and sees the same 9,000 pairs once; online
DPO sees none of them but pairs its own answers by the formula. Its answers to held-out prompts, 16 each, are then
worth what the formula says, against as many of the SFT model. What is done already is kept in the JSON file, so that a
killed run goes on: python benchmarks/preferences.py [--seeds 4] [--only dpo ipo …]. Writes results/preferences.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import mean

from common import RESULTS, Record, machine, table, write_json
from letters_models import interval, one_thread, prepare
from onepolicy.algos.dpo import Objective
from onepolicy.recipes import dpo
from onepolicy.recipes.options import ExamOptions, Machine

BATCH = 64
METHODS: dict[str, tuple[Objective, float]] = {
    "dpo": (Objective("sigmoid", beta=0.1), 5e-4),
    "ipo": (Objective("ipo", beta=1.0, per_token=True), 5e-4),
    "simpo": (Objective("simpo", beta=2.5, margin=1.375), 5e-4),
    "orpo": (Objective("orpo", beta=1.0), 5e-4),
    "kto": (Objective("kto", beta=0.1), 5e-4),
    "online dpo": (Objective("sigmoid", beta=0.1), 3e-4),
}
"""Objective and learning rate of each row."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--only", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--work", default="runs/letters", help="where models, data and runs go")
    parser.add_argument("--out", default=str(RESULTS / "preferences.json"), help="where the JSON goes")
    arguments = parser.parse_args()
    one_thread()
    out = Path(arguments.out)
    record: Record = json.loads(out.read_text()) if out.is_file() else {"machine": machine("torch"), "runs": {}}
    for seed in range(arguments.seeds):
        for name in arguments.only:
            key = f"{name} {seed}"
            if key not in record["runs"]:
                record["runs"][key] = trained(name, seed, Path(arguments.work) / str(seed))
                record["summary"] = summary(record["runs"])
                write_json(out, record)
                print(key, record["runs"][key], flush=True)
    print(report(record["summary"]))


def trained(name: str, seed: int, folder: Path) -> Record:
    """The held-out measures of one run, before and after."""
    prepare(folder, seed)
    objective, lr = METHODS[name]
    online = dpo.Online(rounds=40, prompts=128, samples=4) if name == "online dpo" else dpo.Online()
    began, cpu = time.perf_counter(), time.process_time()
    out = folder / name.replace(" ", "-")
    config = dpo.Config(
        model=str(folder / "model"), data="" if online.rounds else str(folder / "pairs.jsonl"), tasks="letters",
        objective=objective, online=online, lr=lr, batch_size=2 * BATCH if name == "kto" else BATCH,
        steps=0, warmup_steps=10, max_tokens=24, exam=ExamOptions(k=16), seed=seed,
        out=str(out), machine=Machine(threads=1),
    )  # fmt: skip
    after = dpo.main(config, resume=out if out.exists() else None).metrics
    before = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])
    kept = ("win_rate", "win_rate_low", "win_rate_high", "score", "preference_accuracy", "chosen_drift", "length")
    found = {name: after[f"eval/{name}"] for name in kept if f"eval/{name}" in after}
    return found | {
        "score_before": before["eval/score"],
        "seconds": round(time.perf_counter() - began, 1),
        "cpu": round(time.process_time() - cpu, 1),
    }


def summary(runs: Record) -> Record:
    """Mean over seeds of each measure, by method, and Student's interval of the win rate."""
    found: Record = {}
    for name in METHODS:
        rows = [row for key, row in runs.items() if key.rpartition(" ")[0] == name]
        if rows:
            measures = set.intersection(*(set(row) for row in rows))
            found[name] = {measure: mean(row[measure] for row in rows) for measure in sorted(measures)}
            found[name] |= {"seeds": len(rows), "shown": interval([row["win_rate"] for row in rows])}
    return found


def report(found: Record) -> str:
    """The table."""
    rows = []
    for name, row in found.items():
        right = f"{row['preference_accuracy']:.3f}" if "preference_accuracy" in row else "-"
        score = f"{row['score_before']:.2f} to {row['score']:.2f}"
        rows.append((name, row["shown"], score, right, str(row["seeds"]), f"{row['cpu']:.0f}"))
    return table(("objective", "win rate", "true reward", "held-out pairs right", "seeds", "CPU s"), rows)


if __name__ == "__main__":
    main()
