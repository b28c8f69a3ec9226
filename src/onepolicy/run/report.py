"""The end of a run: report.md and curves.png for people, and the `Report` a recipe returns to its caller."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onepolicy.run import doctor
from onepolicy.run.files import replace_text
from onepolicy.run.header import read_header
from onepolicy.run.metrics import Series, describe, read_series
from onepolicy.run.plots import curves
from onepolicy.types import Metrics

SHOWN_SAMPLES = 4
"""Transcripts of each kind in a report."""
HIDDEN = ("prompt", "completion", "text", "step", "exam", "mode", "sample", "group", "task")
"""Fields of a transcript that are shown otherwise, or say nothing to a reader of it."""


@dataclass(frozen=True)
class Report:
    """What a recipe's main() returns.

    run_dir: the run directory. metrics: the last of each. policy: what was trained, ready to act. text: a summary.
    """

    run_dir: Path
    metrics: Metrics
    policy: Any
    text: str


def write_report(
    directory: Path,
    summary: str,
    *,
    tables: Mapping[str, str] | None = None,
    before: Sequence[Mapping[str, Any]] = (),
    after: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """report.md and curves.png of a run, from its files; the path of report.md.

    summary: what came out, in words. tables: title -> preformatted text. before, after: transcripts, as records with
    prompt, completion (or text), score and what else; the first four of each are shown.
    """
    header = read_header(directory)
    series = read_series(directory / "metrics.jsonl")
    sections = [f"# {header['recipe']}: {directory.name}", summary.strip()]
    if series:
        curves([directory], directory / "curves.png")
        sections += ["![curves](curves.png)"]
    sections += [f"## {title}\n\n{_fenced(text)}" for title, text in (tables or {}).items()]
    sections += _evaluations(series)
    sections += _transcripts("before", before) + _transcripts("after", after)
    sections += [f"## Verdict\n\n{_fenced(doctor.format(doctor.diagnose(directory)))}"]
    sections += _final(series) + [_configuration(header)]
    replace_text(directory / "report.md", "\n\n".join(sections) + "\n")
    return directory / "report.md"


def _evaluations(series: Mapping[str, Series]) -> list[str]:
    """A table of the evaluations over the steps, with their intervals."""
    keys = [k for k in series if k.startswith("eval/") and not k.endswith(("_low", "_high"))]
    if not keys:
        return []
    tables = {key: dict(zip(found.steps, found.values)) for key, found in series.items()}
    rows = [["step", *keys]]
    for step in sorted({step for key in keys for step in series[key].steps}):
        rows.append([str(step), *(_with_interval(tables, key, step) for key in keys)])
    return ["## Evaluations\n\n" + _table(rows)]


def _with_interval(tables: Mapping[str, Mapping[int, float]], key: str, step: int) -> str:
    """A value as text with its interval where there is one; empty where there is none."""
    if step not in tables[key]:
        return ""
    low, high = (tables.get(key + end, {}).get(step) for end in ("_low", "_high"))
    interval = f" [{_number(low)}, {_number(high)}]" if low is not None and high is not None else ""
    return _number(tables[key][step]) + interval


def _final(series: Mapping[str, Series]) -> list[str]:
    """A table of every metric's first and last value with unit and meaning."""
    rows = [["metric", "unit", "first", "last", "meaning"]]
    for key in sorted(series):
        metric = describe(key)
        first, last = series[key].values[0], series[key].values[-1]
        unit, meaning = (metric.unit, metric.meaning) if metric else ("", "")
        rows.append([f"`{key}`", unit, _number(first), _number(last), meaning])
    return ["## Metrics\n\n" + _table(rows)] if len(rows) > 1 else []


def _transcripts(when: str, records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The first few transcripts as preformatted text."""
    if not records:
        return []
    parts = []
    for record in records[:SHOWN_SAMPLES]:
        rest = {k: v for k, v in record.items() if k not in HIDDEN and v is not None}
        said = record.get("completion", record.get("text", ""))
        words = ", ".join(f"{key}: {_number(value)}" for key, value in rest.items())
        parts.append(_fenced(f"{record.get('prompt', '')}\n---\n{said}") + (f"\n\n{words}" if words else ""))
    return [f"## Transcripts {when} training\n\n" + "\n\n".join(parts)]


def _configuration(header: Mapping[str, Any]) -> str:
    """The configuration and what it ran on."""
    rows = [["field", "value"], *([f"`{k}`", f"`{json.dumps(v)}`"] for k, v in header["config"].items())]
    versions = ", ".join(f"{name} {version}" for name, version in header.get("versions", {}).items() if version)
    lines = [f"Versions: {versions}.", f"Source: git {header.get('git') or 'unknown (installed package)'}."]
    lines += [f"Data {name}: `{fingerprint}`." for name, fingerprint in header.get("data", {}).items()]
    return f"## Configuration\n\n{_table(rows)}\n\n" + "\n".join(f"- {line}" for line in lines)


def _number(value: Any) -> str:
    """A number as short text; anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    clean = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in clean]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _fenced(text: str) -> str:
    """Text as a code block whose fence the text cannot close."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text.rstrip()}\n{fence}"
