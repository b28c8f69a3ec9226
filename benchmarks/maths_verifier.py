"""Verdicts on our own table of cases: ours, math-verify with its defaults, a plain string match; and the time of each.

The table (tests/tasks/cases/maths.tsv) is ours and ours is corrected until it passes, so its column only says that it
does; the other columns say what the cases cost those who do without. math-verify reads the gold in dollars and the
answer in a box, as its documentation shows, with its own time-outs. Prints a table, writes results/maths_verifier.json.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from statistics import mean, median
from typing import Any

from common import FOLDER, RESULTS, machine, table, write_json

TABLE = FOLDER.parent / "tests" / "tasks" / "cases" / "maths.tsv"
Judge = Callable[[str, str], bool]


def cases() -> list[tuple[bool, str, str]]:
    """(right, gold, answer) of each line."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return [(right == "1", gold, answer) for right, gold, answer in rows]


def ours() -> Judge:
    """The package's judge."""
    from onepolicy.tasks.math import judge

    return lambda gold, answer: judge(gold, answer).right is True


def math_verify() -> Judge:
    """math-verify as its documentation calls it."""
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    return lambda gold, answer: bool(verify(parse(f"${gold}$"), parse(f"\\boxed{{{answer}}}")))


def string_match() -> Judge:
    """Equality of the texts, blanks aside."""
    return lambda gold, answer: "".join(gold.split()) == "".join(answer.split())


def measured(judge: Judge, rows: list[tuple[bool, str, str]]) -> dict[str, Any]:
    """Counts of both false verdicts, and an answer's processor time in ms; loading the libraries is not timed."""
    for gold in ("x", "\\sum_{k=1}^{n} k"):
        judge(gold, f"{gold} + 0")
    false_right, false_wrong, times = [], [], []
    for right, gold, answer in rows:
        began = time.process_time()
        found = judge(gold, answer)
        times.append(1000 * (time.process_time() - began))
        if found != right:
            (false_right if found else false_wrong).append((gold, answer))
    times.sort()
    return {
        "false_positives": len(false_right),
        "false_negatives": len(false_wrong),
        "median_ms": round(median(times), 3),
        "mean_ms": round(mean(times), 2),
        "p99_ms": round(times[int(0.99 * len(times))], 1),
        "wrongly_right": false_right,
        "wrongly_wrong": false_wrong,
    }


def main() -> None:
    """Judge every case three ways."""
    rows, found = cases(), {}
    wrong = sum(not right for right, _, _ in rows)
    print(f"{len(rows)} cases: {len(rows) - wrong} right, {wrong} wrong", flush=True)
    for name, make in (("onepolicy", ours), ("math-verify, defaults", math_verify), ("string match", string_match)):
        found[name] = measured(make(), rows)
    columns = ("false_positives", "false_negatives", "median_ms", "mean_ms", "p99_ms")
    shown = [[name, *(str(side[column]) for column in columns)] for name, side in found.items()]
    print(table(["", *(column.replace("_", " ") for column in columns)], shown))
    write_json(
        RESULTS / "maths_verifier.json",
        {"cases": len(rows), "wrong": wrong, "sides": found, "machine": machine("math-verify", "sympy", "mpmath")},
    )


if __name__ == "__main__":
    main()
