"""Supervised fine-tuning of a language model, on a task's demonstrations or on a JSONL file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from onepolicy.algos import sft
from onepolicy.data.demonstrations import DemonstrationStream, load_examples
from onepolicy.learning.learner import PolicyLearner
from onepolicy.learning.optim import OptimConfig
from onepolicy.nn.language import TINY
from onepolicy.recipes.language import Language, load_language, open_language
from onepolicy.recipes.loop import Loop, require_positive, run_directory
from onepolicy.recipes.options import ExamOptions, Machine, ProblemOptions, Tiny
from onepolicy.recipes.textual import MADE, Exam, Problems, worked_examples
from onepolicy.run.config import to_json
from onepolicy.run.progress import progress
from onepolicy.run.report import Report
from onepolicy.run.run import Run
from onepolicy.types import Metrics

RECIPE = "sft"


@dataclass(frozen=True)
class Config:
    """Supervised fine-tuning."""

    model: str = "tiny-0.2m"
    """Tiny preset (made on the spot), directory of a Hugging Face model, or hub id."""
    lora_rank: int = 0
    """Rank of LoRA adapters, 0 trains all weights."""
    tasks: str = "arithmetic"
    """Task set that gives demonstrations and the held-out exam."""
    level: int = 4
    """Difficulty of a procedural task set."""
    data: str = ""
    """JSONL file: rows with messages, or prompt and completion; or the task set's own training file."""
    eval_data: str = ""
    """The task set's held-out file."""
    demonstrations: int = 2000
    """Demonstrations made by the task set when it makes its own."""
    steps: int = 500
    """Optimizer steps."""
    batch_size: int = 64
    """Sequences a step."""
    lr: float = 1e-3
    """Peak learning rate."""
    warmup_steps: int = 20
    """Linear warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Decay after the warm-up."""
    weight_decay: float = 0.01
    """AdamW's weight decay."""
    max_tokens: int = 64
    """Longest completion in an evaluation."""
    eval_every: int = 0
    """Steps between held-out evaluations, 0 only at the end."""
    save_every: int = 0
    """Steps between checkpoints, 0 only at the end."""
    seed: int = 0
    """Seed of everything random."""
    out: str = ""
    """Run directory; empty for the next free runs/sft-N."""
    tiny: Tiny = field(default_factory=Tiny)
    problems: ProblemOptions = field(default_factory=ProblemOptions)
    exam: ExamOptions = field(default_factory=ExamOptions)
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        require_positive(self, "demonstrations", "steps", "batch_size", "max_tokens")


PRESETS: dict[str, Config] = {
    "arithmetic": Config(),
    "gsm8k-steps": Config(tasks="gsm8k-steps", demonstrations=4000, steps=800),
}


def examples_of(config: Config, problems: Problems, language: Language) -> list[tuple[list[int], list[bool]]]:
    """The (tokens, is_action) pairs to learn from: a file of conversations, or the task set's worked solutions."""
    if config.data and config.tasks in MADE:
        policy = config.problems.bad_rows
        return load_examples(config.data, language.tokenizer, context=language.context, policy=policy)
    return worked_examples(problems.train(), config.demonstrations, config.seed, language)


def main(config: Config, resume: Path | None = None) -> Report:
    """Run (or, given a run directory, continue) supervised fine-tuning."""
    torch.set_num_threads(config.machine.threads)
    problems = Problems.of(config)
    held_out = problems.held_out()
    language = open_language(
        config.model,
        tiny=config.tiny,
        tasks=held_out,
        seed=config.seed,
        lora_rank=config.lora_rank,
        device=config.machine.device,
    )
    data = DemonstrationStream(examples_of(config, problems, language), batch_size=config.batch_size, seed=config.seed)
    if resume:
        run = Run.open(resume)
    else:
        run = Run.create(run_directory(config.out, RECIPE), recipe=RECIPE, config=to_json(config))
    learner = make_learner(config, language.policy, run.directory / "bad")
    generator = language.engine(slots=config.machine.slots, cache_tokens=config.machine.cache_tokens or None)
    exam = Exam(run, held_out, language, generator, config.max_tokens, config.seed, config.exam.k)
    parts = {**language.parts(), "learner": learner, "data": data}

    def sit(step: int) -> Metrics:
        generator.load(language.state(), step)
        return exam.sit(step, final=step == config.steps)

    with run:
        start = run.resume(**parts)
        with progress(config.steps, "sft", done=start) as bar:
            loop = Loop(
                run=run,
                bar=bar,
                steps=config.steps,
                eval_every=config.eval_every,
                save_every=config.save_every,
                evaluate=sit,
                parts=parts,
                shown={"sft/nll": "nll", "eval/accuracy": "held-out"},
            )
            sft.fit(learner, data, pad_id=language.pad_id, start=start, steps=config.steps, after_step=loop.after_step)
        loop.stop_if_interrupted()
        return exam.report(config.steps, language, loop.last)


def make_learner(config: Any, policy: Any, dump_dir: Path) -> PolicyLearner:
    """The learner of an SFT run: mean negative log-likelihood over the step's assistant tokens."""
    total = 0 if config.schedule == "constant" else max(config.steps, config.warmup_steps + 1)
    return PolicyLearner(
        policy,
        sft.LOSS,
        optim=OptimConfig(
            lr=config.lr,
            weight_decay=config.weight_decay,
            warmup_steps=config.warmup_steps,
            schedule=config.schedule,
            total_steps=total,
            precision=config.machine.precision,
        ),
        micro_tokens=config.machine.micro_tokens,
        dump_dir=dump_dir,
    )


def starting_point(algorithm: str, fields: Mapping[str, Any]) -> Config:
    """The configuration to override when no preset is named; `fields` are those the user gave."""
    return PRESETS["arithmetic"] if fields.get("model", Config.model) in TINY else Config()


def load(run: Run) -> Report:
    """The newest checkpoint of a run, ready to talk to."""
    return load_language(run)
