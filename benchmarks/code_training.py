"""Reinforcement learning with the sandbox in the loop: the preset `code`, with what its programs cost to judge.

python benchmarks/code_training.py [--seeds 0 1 2] [--steps N] [--folder DIR] [--out FILE]

For each seed: the held-out pass rate before and after, the pass rate of the first and last five rollouts, sandbox runs
and what share of completions needed none, processor time with all that ran in sandboxes (where a control group can
count it), and whether a process or a control group is left when all is over.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from common import RESULTS, Record, machine, run_side, table, write_json


def train(seed: int, steps: int, folder: str, out: str) -> None:
    """One seed, in a process of its own."""
    from onepolicy.recipes import grpo
    from onepolicy.recipes.verifying import Judge
    from onepolicy.run.journal import read_lines
    from onepolicy.tasks.sandbox import default_sandbox

    judged: list[tuple[int, int, float]] = []
    score = Judge.score

    def counted(judge: Judge, pairs: Any) -> Any:
        before, began = default_sandbox().runs, time.perf_counter()
        found = score(judge, pairs)
        judged.append((len(pairs), default_sandbox().runs - before, time.perf_counter() - began))
        return found

    Judge.score = counted  # type: ignore[method-assign]
    config = grpo.PRESETS["code"]
    config = replace(config, seed=seed, out=folder, steps=steps or config.steps)
    count = counted_group()
    began, used = time.perf_counter(), time.process_time()
    grpo.main(config)
    whole = count()
    took, used = time.perf_counter() - began, time.process_time() - used
    lines = [line for line in read_lines(Path(folder) / "metrics.jsonl") if line["step"]]
    exams = [line for line in read_lines(Path(folder) / "metrics.jsonl") if "eval/accuracy" in line]
    slots = list(default_sandbox().backend._free.queue)  # type: ignore[attr-defined]
    children = Path("/proc/self/task").glob("*/children")
    write_json(
        out,
        {
            "pid": os.getpid(),
            "seconds": took,
            "cpu_seconds_without_sandbox": used,
            "cpu_seconds": whole,
            "exams": [[line[f"eval/accuracy{end}"] for end in ("", "_low", "_high")] for line in exams],
            "passed": [line["rollout/correct"] for line in lines if "rollout/correct" in line],
            "invalid": sum(line.get("rollout/score_invalid", 0.0) for line in lines),
            "judged": judged,
            "left": sum(len(slot.group.members()) for slot in slots if slot.group),
            "children": sum(len(file.read_text().split()) for file in children),
        },
    )


def counted_group() -> Callable[[], float | None]:
    """The processor seconds from now on of this process and all that it starts; None where no group can count them."""
    for root, file, unit in (("/sys/fs/cgroup/cpuacct", "cpuacct.usage", 1e-9), ("/sys/fs/cgroup", "cpu.stat", 1e-6)):
        group = Path(root) / f"onepolicy-benchmark-{os.getpid()}"
        try:
            group.mkdir()
            (group / "cgroup.procs").write_text(str(os.getpid()))
        except OSError:
            continue
        return partial(seconds_of, group / file, unit)
    return lambda: None


def seconds_of(file: Path, unit: float) -> float:
    """What a control group has used, from version 1's `N` or version 2's `usage_usec N ...`."""
    words = file.read_text().split()
    return unit * int(words[0] if len(words) == 1 else words[1])


def groups_of(pid: int) -> int:
    """Control groups of sandboxes that a process which is gone has left; the one that counted its time goes."""
    for counted in Path("/sys/fs/cgroup").rglob(f"onepolicy-benchmark-{pid}"):
        counted.rmdir()
    return sum(1 for _ in Path("/sys/fs/cgroup").rglob(f"onepolicy-sandbox-{pid}-*"))


def row(seed: int, found: Record) -> list[str]:
    """A seed's figures as shown."""
    first, last = found["exams"][0], found["exams"][-1]
    passed, judged = found["passed"], found["judged"]
    runs, seconds = sum(one[1] for one in judged), sum(one[2] for one in judged)
    late = judged[-10:]
    return [
        str(seed),
        *(f"{100 * one[0]:.1f} [{100 * one[1]:.1f}, {100 * one[2]:.1f}]" for one in (first, last)),
        f"{100 * mean(passed[:5]):.1f}",
        f"{100 * mean(passed[-5:]):.1f}",
        f"{runs:,} of {sum(one[0] for one in judged):,}",
        f"{100 - 100 * sum(one[1] for one in late) / sum(one[0] for one in late):.0f}",
        f"{runs / seconds:.1f}",
        f"{found['seconds']:.0f}",
        "" if found["cpu_seconds"] is None else f"{found['cpu_seconds']:.0f}",
        f"{found['cpu_seconds_without_sandbox']:.0f}",
        f"{found['left']}, {found['children']}, {found['groups']}",
    ]


HEADS = (
    "seed",
    "held out before, %",
    "after, %",
    "first 5 rollouts, %",
    "last 5, %",
    "runs of completions",
    "not run, last 10, %",
    "runs/s",
    "s",
    "processor s",
    "without sandboxes",
    "left: in groups, children, groups",
)


def main() -> None:
    """Train, show, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=0, help="rollouts, 0 for the preset's")
    parser.add_argument("--folder", default="", help="where run directories are made; empty for a temporary one")
    parser.add_argument("--out", default=str(RESULTS / "code_training.json"))
    parser.add_argument("--side", nargs=4, metavar=("SEED", "STEPS", "FOLDER", "OUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        train(int(given.side[0]), int(given.side[1]), given.side[2], given.side[3])
        return
    record: Record = {"machine": machine(), "seeds": {}}
    with tempfile.TemporaryDirectory() as temporary:
        for seed in given.seeds:
            folder = Path(given.folder or temporary) / f"seed-{seed}"
            started = os.getloadavg()[0]
            found = run_side(
                sys.executable, Path(__file__), "--side", str(seed), str(given.steps), str(folder), threads=1
            )
            record["seeds"][str(seed)] = found | {"groups": groups_of(found["pid"]), "load_before": started}
            write_json(given.out, record)
            print(table(HEADS, [row(int(name), one) for name, one in record["seeds"].items()]), flush=True)


if __name__ == "__main__":
    main()
