"""Evaluation of a language model on task sets: one table, one JSON file, samples kept."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from onepolicy.data.chat_template import check_stable
from onepolicy.errors import ConfigError
from onepolicy.evaluation.accuracy import AccuracyReport, evaluate_tasks
from onepolicy.recipes.language import Language, is_run, language_of
from onepolicy.recipes.loop import require_count, require_positive
from onepolicy.recipes.options import Machine, ProblemOptions
from onepolicy.recipes.textual import Problems, instructed, that_fit
from onepolicy.run.files import replace_object
from onepolicy.run.progress import progress
from onepolicy.run.report import Report
from onepolicy.run.run import Run
from onepolicy.types import Metrics, Sampling


@dataclass(frozen=True)
class Config:
    """Held-out accuracy of a language model, greedy and sampled."""

    model: str = ""
    """Run directory, Hugging Face directory, or hub id."""
    tasks: str = "arithmetic"
    """Task sets, separated by commas."""
    level: int | None = None
    """Difficulty of a task set that makes its own problems; None for that which the run was trained on, or 4."""
    data: str = ""
    """gsm8k-steps: training file, whose problems are taken out of the held-out set."""
    eval_data: str = ""
    """Held-out file of a task set that reads one."""
    k: int = 0
    """Sampled completions a problem, for avg@k, pass@k and maj@k; 0 is greedy only."""
    size: int = 512
    """Problems of each set at most."""
    max_tokens: int = 256
    """Longest completion, tokens."""
    temperature: float = 1.0
    """Of the sampled completions."""
    seed: int = 0
    """Seed of the sampled completions."""
    out: str = ""
    """Directory for report.json and samples.jsonl; empty writes none."""
    problems: ProblemOptions = field(default_factory=ProblemOptions)
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        require_positive(self, "size", "max_tokens")
        require_count(self, "k")


def main(config: Config) -> Report:
    """Evaluate on every task set in turn.

    Raises: ConfigError for no model or an unknown task set.
    """
    if not config.model:
        raise ConfigError("no model was named; give a run directory, a Hugging Face directory or a hub id.")
    names = [name.strip() for name in config.tasks.split(",") if name.strip()]
    if not names:
        raise ConfigError(f"tasks is {config.tasks!r}; give at least one task set, see: onepolicy list.")
    torch.set_num_threads(config.machine.threads)
    language = language_of(config.model)
    language.model.to(config.machine.device)
    reports: dict[str, AccuracyReport] = {}
    with progress(len(names), "evaluation") as bar:
        for name in names:
            reports[name] = _one(config, name, language)
            bar.advance(1)
    text = "\n\n".join(f"{name}\n{report.table()}" for name, report in reports.items())
    metrics: Metrics = {}
    for name, report in reports.items():
        metrics |= {f"{name}/{key.removeprefix('eval/')}": value for key, value in report.metrics().items()}
    if config.out:
        _write(Path(config.out), config, reports, metrics)
    return Report(Path(config.out), metrics, language, text)


def tasks_of(config: Config, name: str) -> Problems:
    """The problems of one task set that a configuration asks for."""
    return Problems(
        tasks=name,
        level=_level(config, name),
        data=config.data,
        eval_data=config.eval_data,
        eval_size=config.size,
        seed=config.seed,
        instructed=_instructed(config),
        options=config.problems,
    )


def _one(config: Config, name: str, language: Language) -> AccuracyReport:
    tasks = that_fit(tasks_of(config, name).held_out(), language, config.problems.bad_rows)
    first = tasks.tasks[0]
    check_stable(language.tokenizer, 1, question=first.messages[-1].content, answers=(first.answer,))
    return evaluate_tasks(
        language.engine(slots=config.machine.slots, cache_tokens=config.machine.cache_tokens or None),
        tasks.tasks,
        language.render,
        language.decode,
        k=config.k,
        sampling=Sampling(config.max_tokens, config.temperature),
        seed=config.seed,
    )


def _trained(config: Config) -> dict[str, Any] | None:
    """The configuration of the run that is named; None when a model is named."""
    place = Path(config.model)
    return Run.open(place).config if is_run(place) else None


def _level(config: Config, name: str) -> int:
    """The level asked for, or that of the run where it trained on this task set, or the recipes' default."""
    trained = _trained(config)
    if config.level is None and trained and trained["tasks"] == name:
        return int(trained["level"])
    return 4 if config.level is None else config.level


def _instructed(config: Config) -> bool:
    """Whether the model is told the answer format: as asked, or as the run that trained it decided."""
    asked, trained = config.problems.instructions, _trained(config)
    if asked is None and trained:
        return instructed(trained["model"], trained["problems"].get("instructions"))
    return instructed(config.model, asked)


def _write(directory: Path, config: Config, reports: dict[str, AccuracyReport], metrics: Metrics) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    known = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    result: dict[str, Any] = {"model": config.model, "k": config.k, "seed": config.seed, "metrics": known}
    replace_object(directory / "report.json", result)
    lines = [json.dumps({"tasks": name, **record}) for name, report in reports.items() for record in report.samples]
    (directory / "samples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
