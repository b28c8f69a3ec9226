"""DeepSeek-R1's pipeline: a `for` over stages, each another recipe's run with an earlier stage's model.

`onepolicy train r1 --preset tiny` makes a base on the spot and takes it through all of them in minutes; every stage's
directory is a run as any other, so `onepolicy chat RUN/rl`, `onepolicy doctor RUN/rl2` work, and its `model` loads
alone.
Source: DeepSeek-AI 2025 (DeepSeek-R1, arXiv 2501.12948), sections 2 and 3; figure 2 of the Nature version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from onepolicy.data.demonstrations import fingerprint
from onepolicy.errors import CheckpointError
from onepolicy.recipes import r1_estimate
from onepolicy.recipes.language import language_of
from onepolicy.recipes.loop import open_run
from onepolicy.recipes.options import ExamOptions, Machine, ProblemOptions, Tiny
from onepolicy.recipes.r1_config import Config, Reinforced, Rewarded, Sampled, Supervised
from onepolicy.recipes.r1_report import notes, sit, table
from onepolicy.recipes.r1_stages import RUN, model_of, plan
from onepolicy.recipes.rejection import Keep
from onepolicy.run.config import EXIT_INTERRUPTED
from onepolicy.run.report import Report
from onepolicy.run.run import Run

RECIPE = "r1"
WITHOUT_MODEL = ("reward", "reject")
"""Stages that leave something else than a language model."""

__all__ = ["PRESETS", "Config", "load", "main", "starting_point"]


def main(config: Config, resume: Path | None = None) -> Report:
    """Run (or, given its directory, go on with) the pipeline; the report has the table of stages.

    A stage that has ended is left as it is, one that was begun goes on at its newest checkpoint.
    Raises: ConfigError for a stage without its input.
    """
    stages = plan(config)
    if config.dry_run:
        return Report(Path(config.out or "."), {}, None, r1_estimate.text(config, stages))
    torch.set_num_threads(config.machine.threads)
    files = {"base": config.base.data, "cold": config.cold.data, "sft": config.sft.data, "reward": config.reward.data}
    run = open_run(RECIPE, config, resume, {name: fingerprint(path) for name, path in files.items() if path})
    with run:
        run.resume()
        sittings = []
        shown = stages if stages[0] == "base" else ["base", *stages]
        for number, stage in enumerate(shown):
            if stage in stages:
                run.say(f"stage {stage}, {stages.index(stage) + 1} of {len(stages)}")
                _carry_out(config, run, stage)
            if stage not in WITHOUT_MODEL:
                found = sit(config, run.directory, stage, model_of(config, run.directory, stage))
                run.log(number, found.metrics())
                sittings.append(found)
            if run.interrupted:
                _leave(run)
        words = table(sittings, notes(run.directory, stages))
        last = model_of(config, run.directory, sittings[-1].stage)
        summary = f"{len(stages)} stages. The last model is {last}; talk to it: onepolicy chat {run.directory}"
        run.finish(summary, tables={"Stages": words})
    return Report(run.directory, sittings[-1].metrics(), language_of(last), f"{words}\n{summary}")


def _carry_out(config: Config, run: Run, stage: str) -> None:
    """A stage, begun or gone on with. A signal that stopped its run stops this one."""
    try:
        RUN[stage](config, run.directory)
    except SystemExit:
        run.interrupted = True
        _leave(run)


def _leave(run: Run) -> None:
    print(f"The pipeline goes on with: onepolicy resume {run.directory}")
    raise SystemExit(EXIT_INTERRUPTED)


def tiny() -> Config:
    """The whole pipeline on a model made on the spot, in minutes."""
    rl = Reinforced(
        steps=100, prompts=32, group_size=8, lr=2e-4, minibatches=1, reference_every=0, zero_variance="drop"
    )  # fmt: skip
    return Config(
        base=Supervised(demonstrations=6000, general=2000, style="rough", steps=1200, lr=3e-3),
        cold=Supervised(demonstrations=500, style="half", steps=100, lr=1e-3),
        rl=rl,
        reward=Rewarded(rows=1500, lr=1e-3),
        reject=Sampled(prompts=3000, n=4, general_prompts=200, keep=Keep(most=2, language_share=1.0)),
        sft=Supervised(steps=450, lr=2e-3),
        rl2=rl,
        tiny=Tiny(context=96),
        problems=ProblemOptions(instructions=False),
        exam=ExamOptions(size=2000),
        machine=Machine(threads=1, slots=512),
        flops=5e10,
    )


def seven_billion() -> Config:
    """DeepSeek-R1's values on a base of 7 billion parameters.

    A rollout is 8,192 outputs to 512 questions, learnt from in 16 steps of 512; so 10,400 steps are 650 rollouts, and
    the reference is replaced every 25 of them, 400 steps.
    """
    rl = Reinforced(
        steps=650, prompts=512, group_size=16, lr=3e-6, minibatches=16, kl_coef=0.001, reference_every=25
    )  # fmt: skip
    return Config(
        model="Qwen/Qwen2.5-7B",
        tasks="maths",
        general="",
        options="maths.train.path=train.jsonl;maths.test.path=test.jsonl",
        language="en",
        language_weight=1.0,
        max_tokens=32_768,
        cold=Supervised(data="cold.jsonl", steps=800, lr=1e-5),
        rl=rl,
        reject=Sampled(prompts=150_000, n=16, keep=Keep(most=4, language_share=0.9)),
        sft=Supervised(steps=12_500, lr=1e-5),
        rl2=replace(rl, steps=106),
        exam=ExamOptions(size=500),
        machine=Machine(device="cuda", precision="bf16", slots=64, cache_tokens=1 << 20),
        flops=8 * 4e14,
    )


PRESETS: dict[str, Config] = {"tiny": tiny(), "r1-7b": seven_billion()}


def starting_point(algorithm: str, fields: Mapping[str, Any]) -> Config:
    """The configuration to override when no preset is named: the tiny one for a model made on the spot."""
    from onepolicy.nn.language import TINY

    return PRESETS["tiny"] if fields.get("model", Config.model) in TINY else Config()


def load(run: Run) -> Report:
    """The newest model of a pipeline, ready to talk to. Raises: CheckpointError when no stage has one yet."""
    from onepolicy.run.config import from_json

    config = from_json(Config, run.config)
    for stage in reversed([name for name in plan(config) if name not in WITHOUT_MODEL]):
        place = model_of(config, run.directory, stage)
        if Path(place).is_dir():
            return Report(run.directory, {}, language_of(place), f"{stage} of {run.directory}")
    raise CheckpointError(f"{run.directory} has no model yet; go on with it: onepolicy resume {run.directory}")
