"""One GRPO training step, ours against TRL's GRPOTrainer: same weights, prompts, reward, group size, threads, on a CPU.

A step is a rollout (generate, decode, reward), the advantages and one optimizer step, in float32 with beta 0 at
temperature 1; neither side uses vLLM or Liger kernels. Two works: completions whose lengths vary (64 of at most 256 new
tokens, mean about 56), and completions of one length (256 of 32). The lengths come from the weights themselves: the end
token's row of the tied embedding is tilted until the model ends its completions as wanted, so both sides draw from one
distribution. Runs are processes of their own and interleaved; the first steps of each are not counted. TRL's default of
bf16 is another precision and is not compared; its default of gradient checkpointing has a row of its own, the ratio
that counts is against TRL without it. CPU seconds are the whole process's: threads that wait for each other spin.
Writes results/grpo_vs_trl.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from common import FOLDER, RESULTS, Record, interleaved, machine, peer_python, ratios, run_side, table, write_json
from onepolicy.acting.engine import Engine
from onepolicy.data.chat_template import render
from onepolicy.data.tokenizer import char_tokenizer, encode
from onepolicy.nn.language import build_model, save_model
from onepolicy.recipes.language import PRINTABLE
from onepolicy.tasks.arithmetic import load
from onepolicy.types import Sampling

LEVELS = (1, 3, 5, 8)
"""Difficulty of the arithmetic problems asked, for prompts of different lengths."""
NEVER = -4.0
"""Tilt at which the end token is never drawn: about 20 nats down."""


@dataclass(frozen=True)
class Work:
    """One step's work. mean_length: what the end token is tilted for, tokens; None for completions that never end."""

    name: str
    prompts: int
    group_size: int
    max_tokens: int
    mean_length: float | None
    target: float


WORKS = (
    Work("varying", prompts=8, group_size=8, max_tokens=256, mean_length=56.0, target=5.0),
    Work("fixed", prompts=32, group_size=8, max_tokens=32, mean_length=None, target=1.5),
)

TRL: dict[str, dict[str, Any]] = {
    "trl": {},
    "trl, checkpointing as by default": {"gradient_checkpointing": True},
}
"""TRL's settings by name; the first is the one compared with. Its default of bf16 is another precision than ours."""


@torch.no_grad()
def tilted_model(tokenizer: Any, context: int) -> Any:
    """A tiny Qwen3-shaped model whose first dimension is a constant: logits are tilted by the embedding's column 0.

    Control tokens and tags are tilted down, so that completions are text.
    """
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = build_model("tiny-1m", len(tokenizer), context=context, seed=0, **ids)
    column = model.get_input_embeddings().weight[:, 0]
    column.fill_(1.0)
    column[: min(encode(tokenizer, PRINTABLE))] = 0.3
    return model


@torch.no_grad()
def tilt_end(model: Any, eos: int, prompts: list[list[int]], work: Work) -> None:
    """Sets the end token's tilt so that 64 samples of each prompt have the work's mean length, by bisection."""
    row = model.get_input_embeddings().weight[eos]
    row[0] = NEVER
    if work.mean_length is None:
        return
    engine = Engine(model, eos_token_ids=(eos,))
    low, high = 0.3, 2.0
    for _ in range(9):
        row[0] = (low + high) / 2
        engine.refresh(engine.version + 1)
        groups = engine.generate(prompts, 64, Sampling(work.max_tokens), list(range(len(prompts))))
        shorter = mean(len(done.tokens) for group in groups for done in group) < work.mean_length
        low, high = (low, float(row[0])) if shorter else (float(row[0]), high)


def prepare(work: Work, folder: Path, options: argparse.Namespace) -> tuple[Path, int]:
    """The work as a file for both sides, its model beside it; and the model's number of parameters."""
    tokenizer = char_tokenizer(PRINTABLE)
    prompts = [render(tokenizer, task.messages) for task in load("train", level=LEVELS, n=work.prompts)]
    model = tilted_model(tokenizer, context=max(map(len, prompts)) + work.max_tokens)
    tilt_end(model, int(tokenizer.eos_token_id), prompts, work)
    record = {
        "model": str(save_model(model, tokenizer, folder / work.name)),
        "prompts": prompts,
        "levels": LEVELS,
        "group_size": work.group_size,
        "max_tokens": work.max_tokens,
        "lr": 1e-6,
        "seed": 0,
        "threads": options.threads,
        "warmup": options.warmup,
        "steps": options.steps,
    }
    write_json(folder / f"{work.name}.json", record)
    return folder / f"{work.name}.json", sum(p.numel() for p in model.parameters())


def summary(runs: list[Record]) -> Record:
    """Median seconds of a step and its parts, by run and over all, and the lengths seen."""
    steps = [step for run in runs for step in run["steps"]]
    lengths = [length for step in steps for length in step["lengths"]]
    return {
        "step_seconds": median(step["seconds"] for step in steps),
        "generate_seconds": median(step["generate"] for step in steps),
        "train_seconds": median(step["train"] for step in steps),
        "cpu_seconds": median(step["cpu"] for step in steps),
        "step_seconds_by_run": [median(step["seconds"] for step in run["steps"]) for run in runs],
        "cpu_seconds_by_run": [median(step["cpu"] for step in run["steps"]) for run in runs],
        "mean_length": mean(lengths),
        "mean_longest": mean(max(step["lengths"]) for step in steps),
        "max_length": max(lengths),
        "steps": len(steps),
        **{key: value for key, value in runs[0].items() if key != "steps"},
    }


def compare(work: Work, folder: Path, python: Path, options: argparse.Namespace) -> Record:
    """Both sides on one work, interleaved."""
    path, parameters = prepare(work, folder, options)
    run = partial(run_side, threads=options.threads)
    sides = {"onepolicy": partial(run, sys.executable, FOLDER / "grpo_step_ours.py", str(path))}
    for name, settings in TRL.items():
        sides[name] = partial(run, python, FOLDER / "grpo_step_trl.py", str(path), json.dumps(settings))
    runs = interleaved(sides, options.repeats, work.name)
    found = {name: summary(each) for name, each in runs.items()}
    for name in TRL:
        for ratio, key in (("ratio", "step_seconds_by_run"), ("cpu_ratio", "cpu_seconds_by_run")):
            found[name][ratio] = ratios(found[name][key], found["onepolicy"][key])
    return {"work": vars(work), "parameters": parameters, "sides": found}


def report(results: list[Record]) -> str:
    """The results as a table, and whether the targets are met."""
    rows, verdicts = [], []
    for result in results:
        work = result["work"]
        for name, side in result["sides"].items():
            cells = [side[key] for key in ("step_seconds", "generate_seconds", "train_seconds", "cpu_seconds")]
            lengths = f"{side['mean_length']:.0f} / {side['mean_longest']:.0f}"
            times = [f"{r['median']:.1f} ({r['min']:.1f} to {r['max']:.1f})" for r in times_of(side)] or ["", ""]
            rows.append([f"{work['name']}: {name}", *(f"{cell:.3f}" for cell in cells), lengths, *times])
        ratio = result["sides"]["trl"]["ratio"]["median"]
        verdict = "met" if ratio >= work["target"] else "missed"
        verdicts.append(f"{work['name']}: {ratio:.1f} times, target {work['target']:g}: {verdict}")
    head = ["work: side", "step s", "generate s", "train s", "CPU s", "length mean / longest", "ratio", "CPU ratio"]
    return "\n".join([table(head, rows), "", *verdicts])


def times_of(side: Record) -> list[Record]:
    """A peer's two ratios to ours, none for ourselves."""
    return [side[name] for name in ("ratio", "cpu_ratio") if name in side]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="interleaved runs of each side")
    parser.add_argument("--steps", type=int, default=5, help="measured steps a run")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them, not measured")
    parser.add_argument("--threads", type=int, default=2, help="of each side")
    parser.add_argument("--out", default=str(RESULTS / "grpo_vs_trl.json"), help="where the JSON goes")
    arguments = parser.parse_args()
    where = machine("torch", "transformers", "numba")
    python = peer_python("bench-trl", FOLDER / "requirements-trl.txt")
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        results = [compare(work, Path(folder), python, arguments) for work in WORKS]
    where["load_average_at_end"] = round(os.getloadavg()[0], 2)
    settings = {key: value for key, value in vars(arguments).items() if key != "out"}
    write_json(arguments.out, {"machine": where, "settings": settings, "results": results})
    print(f"One GRPO step, {results[0]['parameters']:,} parameters, float32, {arguments.threads} threads, medians\n")
    print(report(results))


if __name__ == "__main__":
    main()
