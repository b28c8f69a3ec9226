"""What each of R1's stages can do: one exam for all, and one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onepolicy.evaluation.accuracy import AccuracyReport, evaluate_tasks
from onepolicy.evaluation.stats import Interval, bootstrap_interval
from onepolicy.recipes.language import Language, language_of
from onepolicy.recipes.r1_config import Config
from onepolicy.recipes.r1_stages import mixture, problems_of
from onepolicy.recipes.textual import that_fit
from onepolicy.recipes.verifying import Judge
from onepolicy.run.files import read_object, replace_object
from onepolicy.run.journal import read_lines
from onepolicy.run.seeding import derive_seed
from onepolicy.types import Metrics, Sampling


@dataclass(frozen=True)
class Sitting:
    """A stage's model on held-out prompts, greedy; each measure with its 95 % interval, (value, low, high).

    accuracy, language: of reasoning, right answers and words in the target language where there are words; None where
    nothing measures it. format: share in format. length: tokens. general: mean of the general tasks' true reward, or
    their accuracy. seconds: of training.
    """

    stage: str
    accuracy: tuple[float, float, float]
    language: tuple[float, float, float] | None
    format: float
    length: float
    general: tuple[float, float, float] | None
    seconds: float

    def metrics(self) -> Metrics:
        """Numbers to log."""
        found: Metrics = {"eval/format": self.format, "eval/length": self.length}
        named = {"eval/accuracy": self.accuracy, "eval/part_language": self.language, "eval/part_general": self.general}
        for name, measure in named.items():
            if measure is not None:
                found |= dict(zip((name, f"{name}_low", f"{name}_high"), measure, strict=True))
        return found


def sit(config: Config, directory: Path, stage: str, model: str) -> Sitting:
    """The sitting of a stage's model; the one on file, if it was sat before."""
    place = directory / "scores" / f"{stage}.json"
    if place.is_file():
        return _read(read_object(place))
    language = language_of(model, layout=config.machine.layout)
    language.model.to(config.machine.device)
    reasoning = examine(config, language, config.tasks)
    general = examine(config, language, config.general) if config.general else None
    found = Sitting(
        stage,
        _three(reasoning.greedy),
        _part(reasoning, "language"),
        reasoning.greedy_rates.format,
        reasoning.greedy_rates.length,
        None if general is None else _part(general, "reward") or _three(general.greedy),
        sum(line.get("time/step_seconds", 0.0) for line in read_lines(directory / stage / "timing.jsonl")),
    )
    place.parent.mkdir(exist_ok=True)
    replace_object(place, asdict(found))
    return found


def table(sittings: Sequence[Sitting], notes: Mapping[str, str]) -> str:
    """The table of stages; notes: a line for each stage that leaves no model."""
    rows = [f"{'stage':<8} {'held-out accuracy':<22} {'target language':<22} {'format':>7} {'tokens':>7}  general"]
    for s in sittings:
        general = f"{s.general[0]:.2f} [{s.general[1]:.2f}, {s.general[2]:.2f}]" if s.general else "-"
        rows.append(
            f"{s.stage:<8} {_percent(s.accuracy):<22} {_percent(s.language):<22} {s.format:>7.1%} {s.length:>7.1f}  "
            f"{general}  {s.seconds:.0f} s"
        )
    return "\n".join([*rows, *(f"{stage:<8} {words}" for stage, words in notes.items())])


def notes(directory: Path, stages: Sequence[str]) -> dict[str, str]:
    """What the stages that leave no model came to."""
    found = {}
    for stage, name in (("reject", "reasoning"), ("reject", "general")):
        place = directory / "reject" / f"{name}.jsonl.report.json"
        if stage in stages and place.is_file():
            report = read_object(place)
            causes = ", ".join(f"{count:,} {cause}" for cause, count in report["causes"].items())
            kept = f"{report['rows']:,} of {report['answers']:,} {name} answers kept"
            found[f"{stage} ({name})"] = f"{kept}; not: {causes}"
    lines = list(read_lines(directory / "reward" / "metrics.jsonl")) if "reward" in stages else []
    right = [line["eval/pair_accuracy"] for line in lines if "eval/pair_accuracy" in line]
    return found | ({"reward": f"{right[-1]:.1%} of held-out pairs right"} if right else {})


def examine(config: Config, language: Language, tasks: str) -> AccuracyReport:
    """The greedy exam of a model on one task set's held-out prompts, the same for every seed; samples has them all."""
    held_out = that_fit(problems_of(config, mixture(config, tasks)).held_out(), language, config.problems.bad_rows)
    generator = language.engine(slots=config.machine.slots, cache_tokens=config.machine.cache_tokens or None)
    with Judge(config.machine, held_out) as judge:
        return evaluate_tasks(
            generator,
            held_out.tasks,
            language.render,
            language.decode,
            sampling=Sampling(config.max_tokens),
            seed=derive_seed(config.seed, "r1"),
            keep=len(held_out),
            scorer=judge.verify,
        )


def _part(report: AccuracyReport, name: str) -> tuple[float, float, float] | None:
    """The mean of a part of the greedy scores, by bootstrap over prompts; None where no score has it."""
    values = [sample["parts"].get(name) for sample in report.samples]
    known = np.array([v for v in values if v is not None], dtype=np.float64)
    return _three(bootstrap_interval(known)) if known.size else None


def _three(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def _percent(measure: tuple[float, float, float] | None) -> str:
    return "-" if measure is None else f"{measure[0]:.1%} [{measure[1]:.1%}, {measure[2]:.1%}]"


def _read(record: Mapping[str, Any]) -> Sitting:
    """A sitting from its file, whose intervals are lists."""
    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in record.items()}
    return Sitting(**fields)
