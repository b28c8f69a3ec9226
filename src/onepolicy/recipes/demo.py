"""The demonstration: a model made on the spot learns to reason, first from examples, then by reinforcement.

The examples have two habits: some work the problem out step by step, most answer at once. Imitation learns both;
the reward tells which one pays, and then how to do it right.
Beside it runs the control: the same model, after the same first examples, spends the same time on more supervised
fine-tuning with the same demonstrations. Each of the two has one core.
"""

from __future__ import annotations

import io
import multiprocessing
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib
from rich.console import Console
from rich.table import Table

from onepolicy.errors import TrainingError
from onepolicy.recipes import grpo, sft
from onepolicy.recipes.loop import run_directory
from onepolicy.recipes.options import ExamOptions, Machine, ProblemOptions, Tiny, Update
from onepolicy.run.files import replace_text
from onepolicy.run.journal import read_lines
from onepolicy.run.report import Report

MAX_TOKENS = 48
"""Longest completion."""


@dataclass(frozen=True)
class Config:
    """Supervised warm start, then reinforcement learning, with its control beside it; about five minutes on 2 cores."""

    level: int = 3
    """Difficulty of the arithmetic: at 3, products and brackets of four numbers, every result one digit."""
    model: str = "tiny-0.2m"
    """Tiny preset."""
    demonstrations: int | None = None
    """Worked solutions, for the warm start and the control alike; None for 8,000, or all where there are fewer."""
    warm_steps: int = 1500
    """Optimizer steps of the warm start."""
    rl_steps: int = 600
    """Rollouts of the reinforcement learning."""
    control_steps: int = 3600
    """Optimizer steps of the control after the warm start."""
    prompts: int = 64
    """Prompts a rollout."""
    group_size: int = 8
    """Completions a prompt."""
    lr: float = 2e-4
    """Peak learning rate of the reinforcement learning."""
    seed: int = 0
    """Seed of everything random."""
    exam_size: int = 512
    """Held-out problems."""
    out: str = ""
    """Directory; empty for the next free runs/demo-N."""
    tiny: Tiny = field(default_factory=Tiny)
    update: Update = field(default_factory=lambda: Update(zero_variance="drop", schedule="linear"))


def warm_config(config: Config, directory: Path) -> sft.Config:
    """The supervised warm start."""
    return sft.Config(
        model=config.model,
        level=config.level,
        demonstrations=config.demonstrations,
        steps=config.warm_steps,
        lr=3e-3,
        max_tokens=MAX_TOKENS,
        seed=config.seed,
        out=str(directory / "warm"),
        tiny=config.tiny,
        problems=ProblemOptions(style="mixed"),
        exam=ExamOptions(size=config.exam_size, k=4),
        machine=Machine(threads=1),
    )


def control_config(config: Config, directory: Path) -> sft.Config:
    """More of the same: the warm model, the same demonstrations, until the reinforcement learning's time is up."""
    return replace(
        warm_config(config, directory),
        model=str(directory / "warm" / "model"),
        steps=config.control_steps,
        lr=1e-3,
        eval_every=max(1, config.control_steps // 10),
        out=str(directory / "control"),
        machine=Machine(threads=1),
    )


def rl_config(config: Config, directory: Path) -> grpo.Config:
    """The reinforcement learning, from the warm model."""
    return grpo.Config(
        model=str(directory / "warm" / "model"),
        level=config.level,
        steps=config.rl_steps,
        prompts=config.prompts,
        group_size=config.group_size,
        max_tokens=MAX_TOKENS,
        lr=config.lr,
        eval_every=max(1, config.rl_steps // 12),
        save_every=max(1, config.rl_steps // 4),
        seed=config.seed,
        out=str(directory / "rl"),
        problems=ProblemOptions(style="mixed"),
        update=config.update,
        exam=ExamOptions(size=config.exam_size, k=4),
        machine=Machine(threads=1, slots=512),
    )


def main(config: Config) -> Report:
    """Run the demonstration; its report compares the three models on problems none has seen.

    Raises: TrainingError when the control's process fails.
    """
    started = time.perf_counter()
    directory = run_directory(config.out, "demo")
    directory.mkdir(parents=True, exist_ok=True)
    sft.main(warm_config(config, directory))
    control = multiprocessing.get_context("spawn").Process(target=_run_control, args=(config, directory))
    control.start()
    try:
        learned = grpo.main(rl_config(config, directory))
        control.join()
    finally:
        if control.is_alive():
            control.terminate()
    if control.exitcode != 0:
        raise TrainingError(f"the control's process ended with code {control.exitcode}; see {directory / 'control'}.")
    return _report(directory, learned, time.perf_counter() - started)


def _run_control(config: Config, directory: Path) -> None:
    sft.main(control_config(config, directory))


@dataclass(frozen=True)
class Sitting:
    """One held-out exam: step and seconds of training when it was sat, greedy accuracy and its 95 % interval."""

    step: int
    seconds: float
    accuracy: float
    low: float
    high: float


def sittings(run: Path) -> list[Sitting]:
    """The exams of a run, with the training time that led to each."""
    seconds, clock = 0.0, {0: 0.0}
    for line in read_lines(run / "timing.jsonl"):
        seconds += line.get("time/step_seconds", 0.0)
        clock[line["step"]] = seconds
    return [
        Sitting(
            line["step"],
            clock[line["step"]],
            line["eval/accuracy"],
            line["eval/accuracy_low"],
            line["eval/accuracy_high"],
        )
        for line in read_lines(run / "metrics.jsonl")
        if "eval/accuracy" in line
    ]


def _report(directory: Path, learned: Report, seconds: float) -> Report:
    """The table, the curve, the transcripts, and where everything is."""
    warm, rl, control = (sittings(directory / name) for name in ("warm", "rl", "control"))
    _draw(directory / "curves.png", rl, control, warm[-1])
    rows = [
        ("after the warm start", warm[-1]),
        ("control: more supervised fine-tuning", control[-1]),
        ("reinforcement learning", rl[-1]),
    ]
    table = Table("model", "held-out accuracy", "95 % interval", "training time")
    for name, found in rows:
        table.add_row(name, f"{found.accuracy:.1%}", f"[{found.low:.1%}, {found.high:.1%}]", f"{found.seconds:.0f} s")
    page = io.StringIO()
    Console(width=100, file=page).print(table)
    text = "\n".join([page.getvalue(), *_transcripts(directory), *_pointers(directory, seconds)])
    replace_text(directory / "report.md", f"# Demonstration\n\n![curves](curves.png)\n\n```text\n{text}\n```\n")
    metrics = {f"demo/{name}": found[-1].accuracy for name, found in (("warm", warm), ("control", control), ("rl", rl))}
    return Report(directory, {**metrics, "demo/seconds": seconds}, learned.policy, text)


def _pointers(directory: Path, seconds: float) -> list[str]:
    return [
        f"Everything took {seconds:.0f} s. Curve: {directory / 'curves.png'}; report: {directory / 'report.md'}",
        f"Talk to it:         onepolicy chat {directory / 'rl'}    (try 3-8+5-9+2=)",
        f"Ask the doctor:     onepolicy doctor {directory / 'rl'}",
        "The whole pipeline: onepolicy train r1 --preset tiny   (docs/algorithms/r1.md)",
        "On your own model:  onepolicy train grpo --model DIR_OR_HUB_ID --tasks gsm8k --data train.jsonl",
    ]


def _transcripts(directory: Path) -> list[str]:
    """The first two problems that were wrong before and are right after, with both answers."""
    exams: dict[str, list[dict[str, Any]]] = {}
    for line in read_lines(directory / "rl" / "samples.jsonl"):
        if line.get("exam") and line["mode"] == "greedy":
            exams.setdefault(line["task"], []).append(line)
    turned = [both for both in exams.values() if len(both) == 2 and not both[0]["correct"] and both[1]["correct"]]
    lines = []
    for before, after in turned[:2]:
        lines += [f"{before['prompt']}{before['gold']}", f"  before: {before['text']}", f"  after:  {after['text']}"]
    return [*lines, ""]


def _draw(path: Path, rl: list[Sitting], control: list[Sitting], warm: Sitting) -> None:
    """Held-out accuracy against seconds of training after the warm start, with intervals."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2))
    start = Sitting(0, 0.0, warm.accuracy, warm.low, warm.high)
    for label, found, color in (
        ("reinforcement learning", rl, "#0b6e4f"),
        ("control: more supervised fine-tuning", [start, *control], "#b5651d"),
    ):
        x = [one.seconds for one in found]
        axes.plot(x, [one.accuracy for one in found], label=label, color=color)
        axes.fill_between(x, [one.low for one in found], [one.high for one in found], color=color, alpha=0.2)
    axes.set(xlabel="seconds of training after the warm start", ylabel="held-out accuracy, greedy", ylim=(0, 1))
    axes.legend(loc="lower right")
    axes.set_title("Problems never seen; bands are 95 % intervals over problems")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
