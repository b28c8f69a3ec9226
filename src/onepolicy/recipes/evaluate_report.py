"""What an evaluation found, for people and programs: text, report.json, report.md, problems.jsonl, a figure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onepolicy.evaluation.accuracy import AccuracyReport, proportion
from onepolicy.evaluation.contamination import Contamination
from onepolicy.evaluation.paired import Paired, compare, holm
from onepolicy.evaluation.stats import Interval
from onepolicy.run.files import replace_object, replace_text
from onepolicy.types import Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LISTED = 60
"""Problems up to which a set's table of problems stands in report.md; problems.jsonl has all."""

FOLLOWED = {
    "prompt loose": "prompt_loose",
    "instruction strict": "instruction_strict",
    "instruction loose": "instruction_loose",
}
"""Columns of a set of instructions, whose accuracy is the fourth: by prompt, strict."""


@dataclass(frozen=True)
class Result:
    """One benchmark's result.

    report: of generated answers, None where only likelihoods were asked for. choice: accuracy by likelihood, by norm.
    picks: by problem, whether each norm's pick was right. overlap: what the training file has of it. how: its prompt.
    """

    name: str
    problems: int
    how: Mapping[str, Any]
    report: AccuracyReport | None = None
    choice: Mapping[str, Interval] = field(default_factory=dict)
    picks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    overlap: Contamination | None = None
    dropped: Sequence[str] = ()

    def metrics(self) -> Metrics:
        """Numbers by `set/name`."""
        found = dict(self.report.metrics()) if self.report else {}
        found |= {f"eval/{norm}": interval.value for norm, interval in self.choice.items()}
        if self.overlap is not None:
            found["eval/contaminated"] = float(len(self.overlap.flagged))
            for name, interval in self.clean().items():
                found[f"eval/{name}_clean"] = interval.value
        return {f"{self.name}/{key.removeprefix('eval/')}": value for key, value in found.items()}

    def scores(self) -> dict[str, dict[str, float]]:
        """By measure, each problem's score: what is compared in pairs and kept in problems.jsonl."""
        found: dict[str, dict[str, float]] = {}
        if self.report:
            found["accuracy"] = {one.task: one.greedy for one in self.report.outcomes}
            if self.report.k:
                found[f"avg@{self.report.k}"] = {one.task: one.average for one in self.report.outcomes}
        return found | {norm: dict(picks) for norm, picks in self.picks.items()}

    def clean(self) -> dict[str, Interval]:
        """Every measure over the problems that the training file does not have."""
        flagged = self.overlap.ids if self.overlap else frozenset()
        kept = {name: [v for task, v in by.items() if task not in flagged] for name, by in self.scores().items()}
        return {name: proportion(np.array(values)) for name, values in kept.items() if values}

    def text(self) -> str:
        """The result as a table, a line for each number."""
        lines = [self.name]
        lines += [self.report.table()] if self.report else []
        lines += [f"{norm} by likelihood, {self.problems} problems  {v.percent()}" for norm, v in self.choice.items()]
        if self.overlap is not None:
            lines += [self.overlap.text()]
            lines += [f"{name} without them  {interval.percent()}" for name, interval in self.clean().items()]
        return "\n".join(lines)


def against(ours: Sequence[Result], theirs: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[Paired]:
    """Each measure of each set that both have, compared in pairs. theirs: set -> measure -> problem -> score."""
    found = []
    for result in ours:
        other = theirs.get(result.name, {})
        for measure, scores in result.scores().items():
            if measure in other:
                found.append(compare(f"{result.name} {measure}", scores, other[measure]))
    return found


def comparison_text(pairs: Sequence[Paired], other: str) -> str:
    """The comparisons, and what is left of them when their number is taken into account."""
    lines = [f"against {other}, problem by problem", *(pair.text() for pair in pairs)]
    if len(pairs) > 1:
        corrected = ", ".join(f"{pair.name} {p:.3g}" for pair, p in zip(pairs, holm([pair.p for pair in pairs])))
        lines.append(f"corrected for {len(pairs)} comparisons (Holm): {corrected}")
    return "\n".join(lines)


def scores_of(problems: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, dict[str, float]]]:
    """The scores in the records of problems.jsonl: set -> measure -> problem -> score."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, records in problems.items():
        for task, record in records.items():
            for measure, value in record["scores"].items():
                number = float("nan") if value is None else float(value)
                found.setdefault(name, {}).setdefault(measure, {})[task] = number
    return found


def write(
    directory: Path,
    model: str,
    settings: Mapping[str, Any],
    results: Sequence[Result],
    pairs: Sequence[Paired],
    other: str,
) -> None:
    """report.json, problems.jsonl, report.md and report.png in `directory`."""
    metrics: Metrics = {}
    for result in results:
        metrics |= result.metrics()
    body: dict[str, Any] = {
        "model": model,
        "k": settings["k"],
        "seed": settings["seed"],
        "metrics": {name: value if math.isfinite(value) else None for name, value in metrics.items()},
        "intervals": {one.name: _intervals(one) for one in results},
        "invalid": {one.name: _causes(one) for one in results},
        "settings": dict(settings),
    }
    if any(one.overlap for one in results):
        body["contamination"] = {one.name: asdict(one.overlap) for one in results if one.overlap}
    if pairs:
        body["against"] = {"other": other, "comparisons": [asdict(pair) for pair in pairs]}
    replace_object(directory / "report.json", _finite(body))
    replace_text(directory / "problems.jsonl", "".join(json.dumps(_finite(r)) + "\n" for r in _problems(results)))
    replace_text(directory / "report.md", markdown(model, settings, results, pairs, other))
    draw(results, directory / "report.png")


def markdown(
    model: str, settings: Mapping[str, Any], results: Sequence[Result], pairs: Sequence[Paired], other: str
) -> str:
    """The report as a page."""
    rows = _summary(results, settings["k"])
    lines = [f"# Evaluation of {model}", "", "Shares with 95 % intervals over problems.", ""]
    lines += _table(rows)
    lines += ["", "![figure](report.png)", "", "## How it was measured", ""]
    lines += [f"- {name}: {json.dumps(value)}" for name, value in settings.items() if name != "tasks"]
    lines += [f"- {name}: {json.dumps(value, ensure_ascii=False)}" for name, value in settings["tasks"].items()]
    if pairs:
        lines += ["", "## Comparison", "", *(f"- {line}" for line in comparison_text(pairs, other).splitlines())]
    for result in results:
        lines += ["", f"## {result.name}", "", "```", result.text(), "```"]
        if result.dropped:
            lines += ["", f"{len(result.dropped)} rows left out; the first: {result.dropped[0]}"]
        if result.overlap and result.overlap.flagged:
            lines += ["", *_table([["problem", "share of n-grams", "row", "words"], *_overlaps(result.overlap)])]
        if result.report and len(result.report.outcomes) <= LISTED:
            lines += ["", *_table([["problem", "greedy", "right", "judged", "majority", "agreement"], *_rows(result)])]
    return "\n".join(lines) + "\n"


def summary(results: Sequence[Result], k: int) -> str:
    """The main numbers of all benchmarks as columns of text."""
    rows = _summary(results, k)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths)).rstrip() for row in rows)


def draw(results: Sequence[Result], path: Path) -> None:
    """A panel for each benchmark: pass@j and maj@j against j with their intervals, greedy as a line; or bars."""
    from matplotlib.figure import Figure

    columns = min(3, len(results))
    rows = math.ceil(len(results) / columns)
    figure = Figure(figsize=(4.2 * columns, 0.4 + 3.0 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, result in zip(axes, results):
        _panel(axis, result)
    for axis in axes[len(results) :]:
        axis.set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _panel(axis: Axes, result: Result) -> None:
    axis.set_title(f"{result.name}, {result.problems} problems", fontsize=10)
    axis.grid(alpha=0.3)
    report = result.report
    if report is None or report.average is None:
        bars = ({"greedy": report.greedy} if report else {}) | dict(result.choice)
        for place, interval in enumerate(bars.values()):
            _point(axis, place, interval)
        axis.set_xticks(range(len(bars)), list(bars))
    else:
        _curves(axis, report)
    axis.set_ylim(0, min(1.0, max(0.05, axis.get_ylim()[1])))


def _curves(axis: Axes, report: AccuracyReport) -> None:
    """pass@j, maj@j and pass^j against j on a scale of powers of two."""
    named = (("pass@j", report.passed), ("maj@j", report.majority), ("pass^j", report.always))
    for color, (name, found) in enumerate(named):
        j = list(found)
        axis.plot(j, [v.value for v in found.values()], marker="o", ms=3, color=f"C{color}", label=name)
        low, high = [v.low for v in found.values()], [v.high for v in found.values()]
        axis.fill_between(j, low, high, color=f"C{color}", alpha=0.15)
    axis.axhline(report.greedy.value, color="k", lw=1, ls="--", label="greedy")
    axis.set_xscale("log", base=2)
    axis.set_xticks(list(report.passed), [str(j) for j in report.passed])
    axis.minorticks_off()
    axis.set_xlabel("samples j", fontsize=9)
    axis.legend(fontsize=8, loc="upper left")


def _point(axis: Axes, place: int, interval: Interval) -> None:
    error = [[interval.value - interval.low], [interval.high - interval.value]]
    axis.errorbar([place], [interval.value], yerr=np.maximum(error, 0), fmt="o", capsize=4)


def _intervals(result: Result) -> dict[str, Any]:
    found: dict[str, Interval] = dict(result.choice)
    if report := result.report:
        found["greedy"] = report.greedy
        found |= {f"level {name}": value for name, value in report.levels.items()} | dict(report.subjects)
        if report.average is not None:
            found[f"avg@{report.k}"] = report.average
        found |= report.followed
        for name, by in (("pass@", report.passed), ("pass^", report.always), ("maj@", report.majority)):
            found |= {f"{name}{j}": value for j, value in by.items()}
    found |= {f"{name} without flagged": value for name, value in (result.clean() if result.overlap else {}).items()}
    return {name: [value.value, value.low, value.high] for name, value in found.items()}


def _causes(result: Result) -> dict[str, int]:
    rates = [r for r in (result.report.greedy_rates, result.report.sampled_rates) if r] if result.report else []
    names = sorted({cause for r in rates for cause in r.causes})
    return {cause: sum(r.causes.get(cause, 0) for r in rates) for cause in names}


def _problems(results: Sequence[Result]) -> list[dict[str, Any]]:
    records = []
    for result in results:
        measures = result.scores()
        outcomes = {one.task: asdict(one) for one in result.report.outcomes} if result.report else {}
        for task in dict.fromkeys(task for by in measures.values() for task in by):
            scores = {name: by[task] for name, by in measures.items()}
            flagged = result.overlap is not None and task in result.overlap.ids
            record = {"tasks": result.name, "task": task, "scores": scores, "contaminated": flagged}
            records.append({**record, **{k: v for k, v in outcomes.get(task, {}).items() if k != "task"}})
    return records


def _summary(results: Sequence[Result], k: int) -> list[list[str]]:
    """A heading and a row for each benchmark, without the columns that none fills."""
    head = ["benchmark", "problems", "greedy", f"avg@{k}", f"pass@{k}", f"maj@{k}", "acc_norm", *FOLLOWED]
    head += ["truncated", "invalid"]
    rows = [_row(result, k) for result in results]
    used = [i for i in range(len(head)) if any(row[i] for row in rows)]
    return [[row[i] for i in used] for row in (head, *rows)]


def _row(result: Result, k: int) -> list[str]:
    report = result.report
    cells = [result.name, str(result.problems)]
    sampled = report is not None and report.average is not None
    cells.append(report.greedy.percent() if report else "")
    cells.append(report.average.percent() if report and report.average else "")
    cells.append(report.passed[k].percent() if report and sampled and k in report.passed else "")
    cells.append(report.majority[k].percent() if report and sampled and k in report.majority else "")
    cells.append(result.choice["acc_norm"].percent() if result.choice else "")
    cells += [report.followed[name].percent() if report and report.followed else "" for name in FOLLOWED.values()]
    cells.append(f"{100 * report.greedy_rates.truncated:.1f} %" if report else "")
    invalid = sum(r.invalid for r in (report.greedy_rates, report.sampled_rates) if r) if report else 0
    return [*cells, str(invalid) if report else ""]


def _rows(result: Result) -> list[list[str]]:
    assert result.report is not None
    return [
        [
            one.task,
            f"{one.greedy:g}",
            str(one.right),
            str(one.judged),
            str(one.majority or "")[:40],
            f"{one.agreement:.2f}",
        ]
        for one in result.report.outcomes
    ]


def _overlaps(found: Contamination) -> list[list[str]]:
    return [[one.problem, f"{one.share:.2f}", str(one.row), one.words] for one in found.flagged]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def _finite(value: Any) -> Any:
    """The value with None where a number is not finite, sets as lists."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value
