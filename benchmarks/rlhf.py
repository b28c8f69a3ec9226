"""PPO-RLHF against a reward that is known: the reward gained, the KL paid for it, and what is forgotten on the way.

From the SFT model of each seed (letters_models.py) PPO runs against the formula of tasks/letters.py with several fixed
betas, with beta steered to a target, with pretraining text mixed in and without, and against a reward model trained on
5,000 rankings, beside which the formula is watched. Every ten rollouts: mean true reward and KL of answers to held-out
prompts, and the loss on held-out pretraining text. What is done already is kept in the JSON file, so that a killed run
goes on: python benchmarks/rlhf.py [--seeds 3] [--only "beta 0.3" …]. Writes results/rlhf.json, docs/figures/rlhf.png.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from common import FOLDER, RESULTS, Record, machine, table, write_json
from letters_models import floor, interval, judge, one_thread, prepare
from onepolicy.recipes import rlhf
from onepolicy.recipes.arena import arena_of, rescorer
from onepolicy.recipes.language import language_of
from onepolicy.recipes.mixing import Ptx
from onepolicy.recipes.options import ExamOptions, Machine, ProblemOptions, Update
from onepolicy.recipes.textual import Problems
from onepolicy.tasks.verdicts import verify_each

EVERY = 10
"""Rollouts between exams."""
FIGURE = FOLDER.parent / "docs" / "figures" / "rlhf.png"
WATCHED = ("score", "true_score", "kl", "text_nll", "win_rate", "length")


@dataclass(frozen=True)
class Row:
    """What a row's runs differ in."""

    beta: float = 0.05
    target: float | None = None
    mix: float = 0.0
    model: bool = False
    rollouts: int = 60


ROWS: dict[str, Row] = {
    "beta 0.05": Row(),
    "beta 0.05, text mixed in": Row(mix=2.0),
    "beta 0.3": Row(beta=0.3, rollouts=40),
    "beta 1": Row(beta=1.0, rollouts=40),
    "target 2 nats": Row(beta=0.3, target=2.0),
    "reward model, beta 0.05": Row(model=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--work", default="runs/letters", help="where models, data and runs go")
    parser.add_argument("--out", default=str(RESULTS / "rlhf.json"), help="where the JSON goes")
    parser.add_argument("--figure", default=str(FIGURE), help="where the figure goes")
    arguments = parser.parse_args()
    one_thread()
    out = Path(arguments.out)
    record: Record = json.loads(out.read_text()) if out.is_file() else {"machine": machine("torch"), "runs": {}}
    for seed in range(arguments.seeds):
        for name in arguments.only:
            key = f"{name} | {seed}"
            if key not in record["runs"]:
                record["runs"][key] = trained(name, seed, Path(arguments.work) / str(seed))
                record["text_floor"] = floor()
                write_json(out, record)
                print(key, record["runs"][key]["curve"][-1], flush=True)
    for seed in range(arguments.seeds):
        known = record.setdefault("optimum", {}).setdefault(str(seed), {})
        for beta in {ROWS[name].beta for name in arguments.only} & {1.0, 0.3} - {float(key) for key in known}:
            known[str(beta)] = optimum(Path(arguments.work) / str(seed), seed, beta)
            write_json(out, record)
    print(report(record["runs"]))
    for beta in sorted({key for known in record["optimum"].values() for key in known}):
        found = [known[beta] for known in record["optimum"].values() if beta in known]
        cells = (f"{name} {interval([one[name] for one in found])}" for name in ("reward", "kl", "effective"))
        print(f"the optimum under beta {beta}:", *cells)
    picture(
        record["runs"],
        Path(arguments.out).with_suffix(".png") if arguments.out != str(RESULTS / "rlhf.json") else FIGURE,
    )


def trained(name: str, seed: int, folder: Path) -> Record:
    """The curve of one run: a record at every exam."""
    prepare(folder, seed)
    row = ROWS[name]
    began, cpu = time.perf_counter(), time.process_time()
    out = folder / name.replace(" ", "-").replace(",", "")
    config = rlhf.Config(
        model=str(folder / "model"), reward_model=str(judge(folder, seed)) if row.model else "", tasks="letters",
        steps=row.rollouts, prompts=128, max_tokens=24, lr=3e-4, eval_every=EVERY, seed=seed, out=str(out),
        kl=rlhf.Kl(coef=row.beta, target=row.target, horizon=500),
        ptx=Ptx(data=str(folder / "text.txt") if row.mix else "", coef=row.mix, eval_data=str(folder / "held_out.txt")),
        update=Update(epochs=2, minibatches=2, warmup_steps=5), exam=ExamOptions(k=4), machine=Machine(threads=1),
    )  # fmt: skip
    rlhf.main(config, resume=out if out.exists() else None)
    curve: list[Record] = []
    coefficient = row.beta
    for line in (out / "metrics.jsonl").read_text().splitlines():
        found = json.loads(line)
        coefficient = found.get("rlhf/kl_coef", coefficient)
        if "eval/kl" in found:
            kept = {key: found[f"eval/{key}"] for key in WATCHED if f"eval/{key}" in found}
            curve.append({"rollout": found["step"], "coefficient": coefficient, **kept})
    seconds = {"seconds": round(time.perf_counter() - began, 1), "cpu": round(time.process_time() - cpu, 1)}
    return {"curve": curve, **seconds}


def optimum(folder: Path, seed: int, beta: float, n: int = 512) -> Record:
    """Reward and KL of the best policy under beta, pi_ref exp(r / beta) / Z, by weighing the SFT model's answers.

    Means over held-out prompts of n answers each; `effective` is the mean effective number of them, 1 / sum w^2: where
    it is small the estimate is biased towards the reference.
    """
    language = language_of(folder / "model")
    tasks = Problems(tasks="letters", level=None, data="", eval_data="", eval_size=512, seed=seed, instructed=False,
                     options=ProblemOptions(), given="").held_out()  # fmt: skip
    generator, keep = language.engine(slots=256, cache_tokens=None), rescorer(None, re_encode=False)
    arena = arena_of(
        tasks.tasks, language, generator, keep, verify_each, n=n, max_tokens=24, temperature=1.0, seed=seed
    )
    reward = np.array(arena.reference)
    weight = np.exp((reward - reward.max(-1, keepdims=True)) / beta)
    weight /= weight.sum(-1, keepdims=True)
    kl = (weight * np.log(np.maximum(weight * n, 1e-300))).sum(-1)
    effective = 1 / (weight**2).sum(-1)
    return {
        "reward": float((weight * reward).sum(-1).mean()),
        "kl": float(kl.mean()),
        "effective": float(effective.mean()),
    }


def true(exam: Record) -> float:
    """The formula's mean at an exam, whatever was the reward."""
    return float(exam.get("true_score", exam["score"]))


def of(runs: Record, name: str) -> list[list[Record]]:
    """The curves of a row, a seed each."""
    return [run["curve"] for key, run in runs.items() if key.rpartition(" | ")[0] == name]


def report(runs: Record) -> str:
    """The table: means over seeds, with Student's 95 % interval."""
    rows = []
    for name in ROWS:
        curves = of(runs, name)
        if curves:
            ends = [curve[-1] for curve in curves]
            forgot = [100 * (curve[-1]["text_nll"] / curve[0]["text_nll"] - 1) for curve in curves]
            rows.append((
                name, interval([true(curve[0]) for curve in curves]), interval([true(end) for end in ends]),
                interval([end["win_rate"] for end in ends]), interval([end["kl"] for end in ends]),
                interval([end["coefficient"] for end in ends]), interval(forgot), str(len(curves)),
            ))  # fmt: skip
    head = ("row", "true reward before", "after", "win rate", "KL, nats", "beta at the end", "text loss, %", "seeds")
    return table(head, rows)


PANELS: dict[str, Callable[[Record, Record], float]] = {
    "true reward, held-out prompts": lambda exam, first: true(exam),
    "KL to the SFT model, nats an answer": lambda exam, first: float(exam["kl"]),
    "held-out pretraining loss, % of its start": lambda exam, first: 100 * exam["text_nll"] / first["text_nll"],
}
"""Title and value of each panel, from an exam and the run's first."""


def picture(runs: Record, place: Path) -> None:
    """Reward, KL and text loss over rollouts: a line a row, the mean over seeds, each seed a faint one."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    panels: list[Any] = list(figure.subplots(1, len(PANELS)))
    for panel, (title, value) in zip(panels, PANELS.items(), strict=True):
        for number, name in enumerate(ROWS):
            lines = [[value(exam, curve[0]) for exam in curve] for curve in of(runs, name)]
            if not lines:
                continue
            at = [exam["rollout"] for exam in min(of(runs, name), key=len)]
            for line in lines:
                panel.plot(at, line, color=f"C{number}", alpha=0.2, linewidth=0.8)
            panel.plot(at, [mean(column) for column in zip(*lines, strict=True)], color=f"C{number}", label=name)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("rollouts of 128 answers")
        panel.grid(alpha=0.3)
    panels[-1].axhspan(98, 102, color="grey", alpha=0.2)
    panels[0].legend(fontsize=8)
    place.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(place, dpi=110)


if __name__ == "__main__":
    main()
