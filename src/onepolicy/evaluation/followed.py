"""IFEval's four accuracies of attempts, with intervals: by prompt and by instruction, strict and loose.

A prompt is followed when all of its instructions are; instruction-level accuracy is a sum over a sum, so that a prompt
with three instructions weighs three times as much. Prompts are resampled in both.
Source: Zhou et al. 2023 (arXiv 2311.07911), section 2.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onepolicy.evaluation.attempts import Attempt
from onepolicy.evaluation.stats import Array, Interval, bootstrap_interval, wilson_interval
from onepolicy.tasks.ifeval import accuracies
from onepolicy.types import Score

COUNTS = ("constraints", "followed_strict", "followed_loose")
"""The parts by which a verifier of instructions is known."""

PARTS = (*COUNTS, "prompt_strict", "prompt_loose", "instruction_strict", "instruction_loose")
"""The parts that `followed` makes its numbers of; their means over prompts say nothing else."""


def followed(rows: Sequence[Sequence[Attempt]]) -> dict[str, Interval]:
    """prompt_strict, instruction_strict, prompt_loose, instruction_loose; {} where replies have no instructions.

    rows: the attempts at each prompt. Those that were not judged are left out. A share of 0 or 1 has Wilson's interval,
    of as many trials as there are prompts or instructions.
    """
    judged = [kept for row in rows if (kept := [a for a in row if a.state == "judged"])]
    if not judged or not all(name in a.parts for row in judged for a in row for name in COUNTS):
        return {}
    means = accuracies(Score(a.value, a.parts) for row in judged for a in row)
    asked = {"prompt": _sums(judged, ""), "instruction": _sums(judged, "constraints")}
    found = {}
    for name, value in means.items():
        level, _, how = name.partition("_")
        over = _sums(judged, name if level == "prompt" else f"followed_{how}")
        found[name] = _interval(over, asked[level], value)
    return found


def _sums(rows: Sequence[Sequence[Attempt]], part: str) -> Array:
    """[P] a part summed over each prompt's attempts; of "" how many there are."""
    return np.array([sum(a.part(part) if part else 1.0 for a in row) for row in rows])


def _interval(over: Array, under: Array, value: float) -> Interval:
    if value in (0.0, 1.0):
        return wilson_interval(int(over.sum()), int(under.sum()))
    drawn = bootstrap_interval(
        np.arange(len(over)),
        lambda which: over[which.astype(int)].sum(axis=-1) / under[which.astype(int)].sum(axis=-1),
    )
    return Interval(value, drawn.low, drawn.high)
