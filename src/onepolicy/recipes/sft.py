"""Supervised fine-tuning of a language model, on a task's demonstrations or on a JSONL file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from onepolicy.algos import sft
from onepolicy.data.demonstrations import DemonstrationStream, Example, conversation, example, read_jsonl
from onepolicy.errors import ConfigError
from onepolicy.learning.learner import PolicyLearner
from onepolicy.learning.optim import OptimConfig
from onepolicy.nn.language import TINY
from onepolicy.recipes.language import PRINTABLE, Language, characters_of, load_language, open_language
from onepolicy.recipes.loop import Loop, open_run, require_count, require_positive
from onepolicy.recipes.options import ExamOptions, Machine, ProblemOptions, Tiny
from onepolicy.recipes.textual import Exam, Problems, say_sizes, starting_config, that_fit, worked_examples
from onepolicy.recipes.verifying import Judge
from onepolicy.run.progress import progress
from onepolicy.run.report import Report
from onepolicy.run.run import Run
from onepolicy.tasks.base import task_options
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
    level: int | None = None
    """Difficulty, for a task set that has levels; None for its own default."""
    task_options: str = ""
    """Further options of the task set, key=value,key=value (docs/tasks.md)."""
    data: str = ""
    """JSONL file: rows with messages, or prompt and completion; or the task set's own training file."""
    eval_data: str = ""
    """The task set's held-out file; beside conversations of your own, held-out ones, whose eval/nll is measured."""
    demonstrations: int | None = None
    """The task set's worked solutions to learn; None for 8,000, or all where there are fewer."""
    steps: int = 500
    """Optimizer steps."""
    epochs: float | None = None
    """Passes over the demonstrations, instead of steps."""
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
        require_count(self, "lora_rank", "eval_every", "save_every")
        if self.epochs is not None and not 0.0 < self.epochs < math.inf:
            raise ConfigError(f"epochs is {self.epochs}; passes over the demonstrations are above 0.")
        optim_of(self)


def optim_of(config: Config) -> OptimConfig:
    """The optimizer's settings. Raises: ConfigError for those that cannot work."""
    return OptimConfig(
        lr=config.lr,
        weight_decay=config.weight_decay,
        warmup_steps=config.warmup_steps,
        schedule=config.schedule,
        total_steps=0 if config.schedule == "constant" else max(config.steps, config.warmup_steps + 1),
        precision=config.machine.precision,
    )


def main(config: Config, resume: Path | None = None) -> Report:
    """Run (or, given a run directory, continue) supervised fine-tuning."""
    torch.set_num_threads(config.machine.threads)
    problems = Problems.of(config)
    sets = [problems.held_out()] if own_file(config) else [problems.held_out(), problems.train()]
    language = open_language(
        config.model,
        tiny=config.tiny,
        tasks=sets[0],
        characters=characters_of(*sets) + written_characters(config),
        seed=config.seed,
        lora_rank=config.lora_rank,
        device=config.machine.device,
        layout=config.machine.layout,
    )
    held_out = that_fit(sets[0], language, config.problems.bad_rows)
    if own_file(config):
        examples, dropped = own_examples(config, language, config.data)
    else:
        examples, dropped = worked_examples(sets[1], config.demonstrations, config.seed, language), ""
    unseen = own_examples(config, language, config.eval_data)[0] if own_file(config) and config.eval_data else []
    data = DemonstrationStream(examples, batch_size=config.batch_size, seed=config.seed)
    run = open_run(RECIPE, config, resume, problems.fingerprints())
    config = replace(config, steps=steps_of(config, len(examples)))
    learner = make_learner(config, language.policy, run.directory / "bad")
    generator = language.engine(slots=config.machine.slots, cache_tokens=config.machine.cache_tokens or None)
    judge = Judge(config.machine, held_out)
    exam = Exam(run, held_out, language, generator, config.max_tokens, config.seed, config.exam.k, judge.verify)
    parts = {**language.parts(), "learner": learner, "data": data}

    def sit(step: int) -> Metrics:
        generator.load(language.state(), step)
        metrics = exam.sit(step, final=step == config.steps)
        if unseen:
            nats, tokens = sft.nats(language.policy, unseen, pad_id=language.pad_id, budget=config.machine.micro_tokens)
            metrics["eval/nll"] = nats / tokens
        return metrics

    with run, judge:
        say_sizes(run, held_out, *sets[1:])
        if dropped:
            run.say(dropped)
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
                shown={"sft/nll": "nll", "eval/nll": "held-out nll", "eval/accuracy": "held-out"},
            )
            sft.fit(learner, data, pad_id=language.pad_id, start=start, steps=config.steps, after_step=loop.after_step)
        loop.stop_if_interrupted()
        return exam.report(config.steps)


def steps_of(config: Config, examples: int) -> int:
    """Optimizer steps: as asked, or as many as the epochs over so many examples take, rounded up.

    >>> steps_of(Config(epochs=2.0, batch_size=8), 10), steps_of(Config(steps=7), 10)
    (3, 7)
    """
    return config.steps if config.epochs is None else math.ceil(config.epochs * examples / config.batch_size)


def own_file(config: Config) -> bool:
    """Whether the demonstrations are conversations in the user's own file, not the task set's worked solutions."""
    return bool(config.data) and "path" not in task_options(config.tasks)


def written_characters(config: Config) -> str:
    """The characters of the user's own conversations, and all of ASCII; none without a file, or for a real model."""
    if not own_file(config) or config.model not in TINY:
        return ""
    files = [path for path in (config.data, config.eval_data) if path]
    talks = [talk for path in files for talk in read_jsonl(path, conversation, config.problems.bad_rows).rows]
    return "".join(sorted({c for talk in talks for turn in talk for c in turn["content"]} | set(PRINTABLE)))


def own_examples(config: Config, language: Language, path: str) -> tuple[list[Example], str]:
    """The conversations of a user's own file as (tokens, is_action), and how many rows were dropped and why, in words.

    Raises: DataError for a file without a good row, and for a broken or too long row where those are to stop.
    """
    tokenizer, context = language.tokenizer, language.context
    rows = read_jsonl(path, lambda row: example(tokenizer, conversation(row), context), config.problems.bad_rows)
    reasons = ", ".join(f"{count} x {reason}" for reason, count in rows.dropped.items())
    said = f"{path}: {sum(rows.dropped.values())} rows dropped, {len(rows.rows)} kept: {reasons}"
    return list(rows.rows), said if rows.dropped else ""


def make_learner(config: Config, policy: Any, dump_dir: Path) -> PolicyLearner:
    """The learner of an SFT run: mean negative log-likelihood over the step's assistant tokens."""
    micro_tokens = config.machine.micro_tokens
    return PolicyLearner(policy, sft.LOSS, optim=optim_of(config), micro_tokens=micro_tokens, dump_dir=dump_dir)


PRESETS: dict[str, Config] = {
    "arithmetic": Config(
        level=3,
        steps=1500,
        lr=3e-3,
        max_tokens=48,
        problems=ProblemOptions(style="mixed"),
        machine=Machine(threads=1),
    ),
    "gsm8k-steps": Config(
        tasks="gsm8k-steps",
        demonstrations=4000,
        steps=1500,
        lr=3e-3,
        max_tokens=112,
        tiny=Tiny(context=160),
        problems=ProblemOptions(style="worked", digits=3, length=8, decimals=0),
        exam=ExamOptions(size=1000),
        machine=Machine(threads=1),
    ),
}


def starting_point(algorithm: str, fields: Mapping[str, Any]) -> Config:
    """The configuration to override when no preset is named; `fields` are those the user gave."""
    return starting_config(PRESETS, Config(), fields)


def load(run: Run) -> Report:
    """The newest checkpoint of a run, ready to talk to."""
    return load_language(run)
