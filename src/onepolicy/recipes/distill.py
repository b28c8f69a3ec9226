"""On-policy distillation: a student learns from a teacher's opinion of what it writes itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from onepolicy.acting.episodes import Actor
from onepolicy.algos import distill
from onepolicy.batch import PolicyBatch
from onepolicy.data.packing import token_batch
from onepolicy.data.prompts import PromptStream
from onepolicy.errors import ConfigError, ModelError
from onepolicy.learning.learner import PolicyLearner, evaluate_in_parts
from onepolicy.nn.divergence import Divergence
from onepolicy.nn.language import TINY, add_lora, build_model
from onepolicy.nn.token_policy import TokenPolicy
from onepolicy.recipes.language import Language, language_of, load_language
from onepolicy.recipes.loop import Loop, open_run, require_count, require_positive
from onepolicy.recipes.options import ExamOptions, Machine, ProblemOptions, Tiny, Update, optim_of
from onepolicy.recipes.reference import weights_hash
from onepolicy.recipes.rollouts import Here, actor_of, make_act
from onepolicy.recipes.scoring import same_tokenizer
from onepolicy.recipes.textual import Exam, Problems, say_sizes, that_fit
from onepolicy.recipes.verifying import Judge
from onepolicy.run.progress import progress
from onepolicy.run.report import Report
from onepolicy.run.run import Run
from onepolicy.run.seeding import derive_seed
from onepolicy.types import Metrics, Task

RECIPE = "distill"
HELD_OUT = 64
"""Held-out prompts at most on which the student's divergence from the teacher is measured."""


@dataclass(frozen=True)
class Config:
    """On-policy distillation."""

    model: str = ""
    """Student: a run, a Hugging Face directory or hub id; a tiny preset is made anew over the teacher's tokenizer."""
    teacher: str = ""
    """Teacher, of the student's vocabulary: a run, a Hugging Face directory or hub id."""
    lora_rank: int = 0
    """Rank of the student's LoRA adapters, 0 trains all weights."""
    loss: Literal["sampled", "exact"] = "sampled"
    """The KL at each token from the token drawn, or over the whole vocabulary."""
    tasks: str = "arithmetic"
    """Task set whose prompts are answered."""
    task_options: str = ""
    """Further options of the task set, key=value,key=value (docs/tasks.md)."""
    level: int | None = None
    """Difficulty, for a task set that has levels; None for its own default."""
    data: str = ""
    """Training file of a task set that reads one."""
    eval_data: str = ""
    """Held-out file of a task set that reads one."""
    steps: int = 100
    """Rollouts; each is followed by update.minibatches optimizer steps."""
    prompts: int = 64
    """Prompts a rollout."""
    group_size: int = 4
    """Completions a prompt."""
    max_tokens: int = 64
    """Longest completion, tokens."""
    temperature: float = 1.0
    """Of the student's sampling and of its log-probabilities; the teacher's is 1."""
    lr: float = 1e-4
    """Peak learning rate."""
    eval_every: int = 20
    """Rollouts between held-out exams, 0 only before and after."""
    save_every: int = 50
    """Rollouts between checkpoints, 0 only at the end."""
    seed: int = 0
    """Seed of everything random."""
    out: str = ""
    """Run directory; empty for the next free runs/distill-N."""
    tiny: Tiny = field(default_factory=Tiny)
    problems: ProblemOptions = field(default_factory=ProblemOptions)
    update: Update = field(default_factory=Update)
    exam: ExamOptions = field(default_factory=ExamOptions)
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        require_positive(self, "steps", "prompts", "group_size", "max_tokens")
        require_count(self, "lora_rank", "eval_every", "save_every")
        if not self.temperature > 0:
            raise ConfigError(f"temperature is {self.temperature}; exploration needs it above 0. Use 1.0.")
        if self.update.epochs != 1:
            raise ConfigError(f"update.epochs is {self.update.epochs}; what the student wrote is learnt from once.")
        optim_of(self)


def main(config: Config, resume: Path | None = None) -> Report:
    """Distil (or, given a run directory, go on distilling) a teacher into a student."""
    torch.set_num_threads(config.machine.threads)
    language, teacher = pair_of(config)
    problems = Problems.of(config)
    train, held_out = (that_fit(s, language, config.problems.bad_rows) for s in (problems.train(), problems.held_out()))
    known = {**problems.fingerprints(), "teacher": weights_hash(teacher)}
    run = open_run(RECIPE, config, resume, known)
    generator = language.engine(slots=config.machine.slots, cache_tokens=config.machine.cache_tokens or None)
    learner = make_learner(config, language.policy, teacher, run.directory / "bad")
    with run, Judge(config.machine, train, held_out) as judge:
        say_sizes(run, train, held_out)
        actor = actor_of(
            language, generator, judge.score,
            max_tokens=config.max_tokens, temperature=config.temperature, seed=config.seed,
        )  # fmt: skip
        source = Here(PromptStream(train.tasks, config.prompts, config.seed), generator, actor, config.group_size)
        exam = Exam(run, held_out, language, generator, config.max_tokens, config.seed, config.exam.k, judge.verify)
        parts: dict[str, Any] = {**language.parts(), "learner": learner, "prompts": source.prompts}

        def sit(step: int) -> Metrics:
            apart = distance(config, language, teacher, actor, held_out.tasks[:HELD_OUT])
            return {**exam.sit(step, final=step in (0, config.steps)), **apart}

        start = run.resume(**parts)
        source.begin(language.state(), start)
        if start == 0:
            run.log(0, sit(0))
        with progress(config.steps, "distil", done=start) as bar:
            loop = Loop(
                run=run,
                bar=bar,
                steps=config.steps,
                eval_every=config.eval_every,
                save_every=config.save_every,
                evaluate=sit,
                parts=parts,
                shown={"distill/kl": "KL", "eval/accuracy": "held-out"},
                timing=judge.timing,
            )
            distill.fit(
                learner,
                source,
                act=make_act(run, source.play, lambda: source.version),
                teacher=lambda batch: evaluate_in_parts(teacher, batch, config.machine.micro_tokens).logp,
                publish=lambda version: source.publish(language.state(), version),
                exact=config.loss == "exact",
                parts=config.update.minibatches,
                pad_id=language.pad_id,
                seed=config.seed,
                start=start,
                steps=config.steps,
                after_step=loop.after_step,
            )
        loop.stop_if_interrupted()
        return exam.report(config.steps)


def pair_of(config: Config) -> tuple[Language, TokenPolicy]:
    """The student, and the teacher frozen.

    Raises: ConfigError for one that is not named; ModelError for a teacher with another vocabulary.
    """
    for name in ("model", "teacher"):
        if not getattr(config, name):
            raise ConfigError(f"{name} is empty; name the student and its teacher: --model STUDENT --teacher RUN.")
    layout = config.machine.layout
    teacher = language_of(config.teacher, layout=layout)
    if config.model in TINY:
        student = _made_for(config, teacher)
    else:
        student = language_of(config.model, lora_rank=config.lora_rank, layout=layout, temperature=config.temperature)
    if not same_tokenizer(student.tokenizer, teacher.tokenizer) or _width(student) != _width(teacher):
        raise ModelError(
            f"the teacher {config.teacher} has another vocabulary than the student {config.model}: it cannot say how "
            "probable the student's tokens are. Take a teacher of the same family, or train the student on the "
            "teacher's texts: onepolicy data sample TEACHER, then onepolicy train sft --model STUDENT."
        )
    for side in (student, teacher):
        side.model.to(config.machine.device)
    return student, teacher.frozen_policy()


def _made_for(config: Config, teacher: Language) -> Language:
    """A tiny preset made on the spot that reads and writes what the teacher does."""
    known = teacher.tokenizer
    ends = {"pad_token_id": known.pad_token_id, "eos_token_id": known.eos_token_id}
    tiny = config.tiny
    model: Any = build_model(
        config.model, _width(teacher), context=tiny.context, arch=tiny.arch, seed=config.seed, **ends
    )
    model = add_lora(model, config.lora_rank) if config.lora_rank else model
    policy = TokenPolicy(model, temperature=config.temperature, layout=config.machine.layout)
    return Language(model, known, policy, bool(config.lora_rank))


def _width(language: Language) -> int:
    """The tokens that a model gives logits to."""
    return int(language.model.get_output_embeddings().weight.shape[0])


def make_learner(config: Config, student: TokenPolicy, teacher: TokenPolicy, dump_dir: Path) -> PolicyLearner:
    """The learner of the student: token mean, by the token drawn or over the vocabulary."""
    return PolicyLearner(
        Divergence(student, teacher) if config.loss == "exact" else student,
        distill.LOSS,
        optim=optim_of(config),
        micro_tokens=config.machine.micro_tokens,
        dump_dir=dump_dir,
    )


def distance(config: Config, language: Language, teacher: TokenPolicy, actor: Actor, tasks: Sequence[Task]) -> Metrics:
    """`eval/teacher_kl`: KL(student || teacher) over the vocabulary at each token of answers to held-out prompts."""
    there = replace(actor, seed=derive_seed(config.seed, "distance"))
    batch: PolicyBatch = token_batch(there.play(tasks, 1, 0), [0.0] * len(tasks), language.pad_id)
    found = evaluate_in_parts(Divergence(language.policy, teacher), batch, config.machine.micro_tokens)
    return {"eval/teacher_kl": -float(found.logp[batch.mask].mean())}


PRESETS: dict[str, Config] = {}


def starting_point(algorithm: str, fields: Mapping[str, Any]) -> Config:
    """The configuration to override when no preset is named."""
    return Config()


def load(run: Run) -> Report:
    """The newest checkpoint of a run, ready to talk to."""
    return load_language(run)
