"""The verifier pool: answers a minute, answers built to hang, and what judging costs a step of GRPO.

Run: .venv/bin/python benchmarks/verifier_pool.py. Prints three tables and writes benchmarks/results/verifier_pool.json.
Nothing is compared with a peer; the targets are 10,000 short maths answers a minute on two cores, others not delayed by
64 hanging answers beyond their time-out, and under 5 % of a GRPO step on the demonstration's settings.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common import RESULTS, Record, machine, table, write_json
from onepolicy.tasks import base
from onepolicy.tasks.arithmetic import load as load_arithmetic
from onepolicy.tasks.base import TaskSet, conversation
from onepolicy.tasks.math import MathVerifier
from onepolicy.tasks.pool import VerifierPool
from onepolicy.tasks.rewards import TAGGED
from onepolicy.tasks.verdicts import verify_each
from onepolicy.types import Score, Task

MODULES = ("sympy", "math_verify")
HANGING = 64
ANSWERS = [
    (r"\frac{1}{2}", "0.5"),
    (r"\frac{3}{4}", r"\frac{6}{8}"),
    ("x^2-1", "(x-1)(x+1)"),
    (r"\sqrt{2}/2", r"\frac{1}{\sqrt{2}}"),
    ("12", "12"),
    ("1,000", "1000"),
    (r"\{1,2,3\}", r"\{3,2,1\}"),
    ("(1,2]", "(1,2]"),
    (r"\pi/4", r"\frac{\pi}{4}"),
    ("2^{10}", "1024"),
    ("7", "8"),
    ("x+y", "y+x+1"),
]
"""(gold, answer): short ones of every kind."""
_pairs = list[tuple[Task, str]]


@dataclass(frozen=True)
class Hangs:
    """A verifier that never comes back: in an endless loop, or asleep."""

    asleep: bool = False

    def __call__(self, task: Task, text: str) -> Score:
        while True:
            if self.asleep:
                time.sleep(3600)


def maths(count: int) -> _pairs:
    """Short maths answers, no two the same."""
    verifier = MathVerifier()
    found = []
    for i in range(count):
        gold, answer = ANSWERS[i % len(ANSWERS)]
        task = Task(f"maths/{i}", conversation("?"), gold, verifier)
        found.append((task, f"Step {i}: so the answer is \\boxed{{{answer}}}."))
    return found


def throughput(count: int) -> list[Record]:
    """Short maths answers in this process and in pools of one and two workers, their start not counted."""
    pairs = maths(count)
    verify_each(pairs[: len(ANSWERS)])
    began = time.perf_counter()
    expected = verify_each(pairs)
    found = [{"where": "this process", "answers": count, "seconds": time.perf_counter() - began}]
    for workers in (1, 2):
        with VerifierPool(workers, modules=MODULES) as pool:
            pool.score(pairs[: 4 * len(ANSWERS)])
            began = time.perf_counter()
            same = pool.score(pairs) == expected
            seconds = time.perf_counter() - began
            found.append({"where": f"pool, {workers}", "answers": count, "seconds": seconds, "same_scores": same})
    return found


def hanging(timeout: float) -> list[Record]:
    """200 honest answers brought just behind 64 that hang: when each are through, in seconds."""
    found = []
    for what, verifier in (("endless loops", Hangs()), ("asleep", Hangs(asleep=True))):
        bad: _pairs = [(Task(f"bad/{i}", conversation("?"), "", verifier), "") for i in range(HANGING)]
        with VerifierPool(2, timeout=timeout, modules=MODULES) as pool:
            pool.score(maths(48))
            times: dict[str, float] = {}
            began = time.perf_counter()

            def judge(
                name: str, pairs: _pairs, pool: VerifierPool = pool, began: float = began, t: Any = times
            ) -> None:
                pool.score(pairs)
                t[name] = time.perf_counter() - began

            threads = [threading.Thread(target=judge, args=work) for work in (("hanging", bad), ("honest", maths(200)))]
            for thread in threads:
                thread.start()
                time.sleep(0.01)
            for thread in threads:
                thread.join()
            found.append({"what": what, "timeout": timeout, **times, "timeouts": pool.stats().timeouts})
    return found


def in_pool(split: str = "train", *, verifier: str, **options: Any) -> TaskSet:
    """Arithmetic whose answers are judged in worker processes, by its own verifier or by the one for mathematics."""
    tasks = load_arithmetic(split, **options)
    kept = tasks.tasks
    if verifier == "maths":
        kept = tuple(replace(task, verifier=MathVerifier(form=TAGGED)) for task in kept)
    return replace(tasks, tasks=kept, isolated=verifier != "here", modules=MODULES)


def here(split: str = "train", *, level: int = 3, n: int = 100, at_most: bool = False, seed: int = 0) -> TaskSet:
    """In this process."""
    return in_pool(split, verifier="here", level=level, n=n, at_most=at_most, seed=seed)


def own(split: str = "train", *, level: int = 3, n: int = 100, at_most: bool = False, seed: int = 0) -> TaskSet:
    """In the pool, by its own verifier."""
    return in_pool(split, verifier="own", level=level, n=n, at_most=at_most, seed=seed)


def by_maths(split: str = "train", *, level: int = 3, n: int = 100, at_most: bool = False, seed: int = 0) -> TaskSet:
    """In the pool, by the verifier for mathematics."""
    return in_pool(split, verifier="maths", level=level, n=n, at_most=at_most, seed=seed)


def grpo_steps(steps: int) -> list[Record]:
    """Seconds of a step and of its judging, medians over `steps` of the demonstration's settings (64 x 8 completions).

    The model has learnt the format for a moment first, so that answers are read.
    """
    from onepolicy.recipes import grpo
    from onepolicy.recipes.options import ExamOptions, Machine, ProblemOptions, WarmStart
    from onepolicy.run.journal import read_lines

    found = []
    for loader in (here, own, by_maths):
        base.TASKS[loader.__name__] = f"{__name__}:{loader.__name__}"
        with tempfile.TemporaryDirectory() as folder:
            config = replace(
                grpo.PRESETS["arithmetic"],
                tasks=loader.__name__,
                steps=steps,
                eval_every=0,
                save_every=0,
                out=str(Path(folder) / "run"),
                exam=ExamOptions(size=8),
                warm=WarmStart(),
                model=warm_model(Path(folder)),
                problems=ProblemOptions(instructions=False, train_size=2000),
                machine=Machine(threads=1, slots=512, verifier_workers=1),
            )
            run = grpo.main(config).run_dir
            lines = [line for line in read_lines(run / "timing.jsonl") if line["step"] > 1]
        seconds = {
            name: statistics.median(line[f"time/{name}_seconds"] for line in lines) for name in ("verify", "step")
        }
        found.append({"judged": loader.__doc__, **seconds, "share": seconds["verify"] / seconds["step"]})
    return found


def warm_model(folder: Path) -> str:
    """A model that has seen some demonstrations."""
    from onepolicy.recipes import sft
    from onepolicy.recipes.options import ExamOptions

    config = replace(sft.PRESETS["arithmetic"], steps=100, demonstrations=1000, exam=ExamOptions(size=8))
    sft.main(replace(config, out=str(folder / "warm")))
    return str(folder / "warm" / "model")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=6000)
    parser.add_argument("--timeout", type=float, default=5.0)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--out", type=Path, default=RESULTS / "verifier_pool.json")
    options = parser.parse_args(argv)
    record: Record = {"machine": machine("math-verify", "sympy", "torch")}
    record["throughput"] = throughput(options.answers)
    rows = [
        [r["where"], f"{r['answers']:,}", f"{r['seconds']:.1f}", f"{60 * r['answers'] / r['seconds']:,.0f}"]
        for r in record["throughput"]
    ]
    print(table(["Short maths answers", "answers", "seconds", "a minute"], rows), flush=True)
    record["hanging"] = hanging(options.timeout)
    rows = [
        [r["what"], f"{r['timeout']:g}", f"{r['honest']:.1f}", f"{r['hanging']:.1f}", str(r["timeouts"])]
        for r in record["hanging"]
    ]
    print(table(["64 that hang", "time-out, s", "200 honest, s", "all 64, s", "timed out"], rows), flush=True)
    record["grpo"] = grpo_steps(options.steps)
    rows = [
        [r["judged"], f"{r['verify'] * 1e3:.1f}", f"{r['step'] * 1e3:.0f}", f"{r['share']:.1%}"] for r in record["grpo"]
    ]
    print(table(["Arithmetic, 64 x 8, judged", "judging, ms", "step, ms", "share"], rows))
    write_json(options.out, record)


if __name__ == "__main__":
    import verifier_pool  # under its own name, by which the workers find what it defines

    verifier_pool.main()
