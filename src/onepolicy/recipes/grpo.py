"""GRPO and its kin on a language model: sample groups, verify, learn, repeat.

`convention` chooses the variant (core.conventions); `warm` puts supervised fine-tuning on the task's own demonstrations
in front, which a model made on the spot needs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onepolicy.acting.episodes import Actor, invalid_causes, rollout_metrics
from onepolicy.algos import grpo
from onepolicy.batch import PolicyBatch
from onepolicy.core.conventions import CONVENTIONS, ESTIMATORS, convention, policy_loss_of
from onepolicy.data.prompts import PromptStream
from onepolicy.errors import ConfigError
from onepolicy.learning.learner import PolicyLearner
from onepolicy.learning.optim import OptimConfig
from onepolicy.learning.weights import publish
from onepolicy.recipes import sft as sft_recipe
from onepolicy.recipes.anchor import Reference, proximal_of
from onepolicy.recipes.language import Language, characters_of, load_language, open_language
from onepolicy.recipes.loop import Loop, open_run, require_count, require_positive
from onepolicy.recipes.options import ExamOptions, Machine, ProblemOptions, Tiny, Update, WarmStart
from onepolicy.recipes.textual import Exam, Problems, say_sizes, starting_config, that_fit
from onepolicy.recipes.verifying import Judge, scorer_of
from onepolicy.run.progress import progress
from onepolicy.run.report import Report
from onepolicy.run.run import Run
from onepolicy.tasks.base import TaskSet
from onepolicy.types import Episode, Metrics, Sampling, Task

RECIPE = "grpo"
SAMPLES_KEPT = 8
"""Completions written to samples.jsonl each step."""


@dataclass(frozen=True)
class Config:
    """Reinforcement learning of a language model with verifiable rewards, by GRPO or a kin of it."""

    model: str = "tiny-0.2m"
    """Tiny preset (made on the spot), directory of a Hugging Face model, or hub id."""
    lora_rank: int = 0
    """Rank of LoRA adapters, 0 trains all weights."""
    tasks: str = "arithmetic"
    """Task set (onepolicy list)."""
    task_options: str = ""
    """Further options of the task set, key=value,key=value (docs/tasks.md)."""
    level: int | None = None
    """Difficulty, for a task set that has levels; None for its own default."""
    data: str = ""
    """Training file of a task set that reads one."""
    eval_data: str = ""
    """Held-out file of a task set that reads one."""
    reward: str = ""
    """Own reward f(prompts, completions, **columns) as module:f or path/to/file.py:f; empty for the task's verifier."""
    convention: str = "dapo"
    """Whose choices of advantage, ratio, surrogate, reduction and KL (onepolicy conventions)."""
    steps: int = 200
    """Rollouts; each is followed by update.epochs * update.minibatches optimizer steps."""
    prompts: int = 64
    """Prompts a rollout."""
    group_size: int = 8
    """Completions a prompt."""
    max_tokens: int = 48
    """Longest completion, tokens."""
    temperature: float = 1.0
    """Of sampling and of the trained log-probabilities alike."""
    lr: float = 1e-4
    """Peak learning rate."""
    eval_every: int = 20
    """Rollouts between held-out exams, 0 only before and after."""
    save_every: int = 50
    """Rollouts between checkpoints, 0 only at the end."""
    seed: int = 0
    """Seed of everything random."""
    out: str = ""
    """Run directory; empty for the next free runs/grpo-N."""
    tiny: Tiny = field(default_factory=Tiny)
    warm: WarmStart = field(default_factory=WarmStart)
    problems: ProblemOptions = field(default_factory=ProblemOptions)
    update: Update = field(default_factory=Update)
    exam: ExamOptions = field(default_factory=ExamOptions)
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        require_positive(self, "steps", "prompts", "group_size", "max_tokens")
        require_count(self, "lora_rank", "eval_every", "save_every")
        if not self.temperature > 0:
            raise ConfigError(f"temperature is {self.temperature}; exploration needs it above 0. Use 1.0.")
        credit_of(self)
        optim_of(self)


def kl_coef_of(config: Config, place: str) -> float:
    """The coefficient of the KL where the configuration puts it, "loss" or "reward"; 0 at the other place.

    A coefficient given to a convention without a KL goes into the loss, unless its place is given.
    """
    chosen, update = convention(config.convention), config.update
    coef = chosen.kl_coef if update.kl_coef is None else update.kl_coef
    own = "reward" if chosen.kl_place == "reward" else "loss"
    return coef if place == (update.kl_place or own) else 0.0


def credit_of(config: Config) -> grpo.Credit:
    """How scores become advantages under the configuration's convention.

    Raises: ConfigError for a convention whose advantage comes from a critic.
    """
    chosen, update = convention(config.convention), config.update
    if chosen.credit != "group":
        raise ConfigError(
            f"convention {chosen.name!r} takes its advantage from a critic, which GRPO has not. Use one with groups: "
            f"{', '.join(name for name, each in CONVENTIONS.items() if each.credit == 'group')}."
        )
    return grpo.Credit(
        group_size=config.group_size,
        center=chosen.center,
        scale=chosen.scale,
        eps=chosen.eps,
        zero_variance=update.zero_variance,
        truncated=update.truncated,
        kl_coef=kl_coef_of(config, "reward"),
        kl=ESTIMATORS[update.kl or chosen.kl_estimator],
        whiten=chosen.whiten,
        resample=update.resample,
        overlong=(config.max_tokens, update.overlong_cache) if update.overlong_cache else None,
    )


def baseline_of(config: Config) -> grpo.MovingBaseline | None:
    """The moving mean that the convention subtracts, None for the others."""
    moving = convention(config.convention).baseline == "moving"
    return grpo.MovingBaseline(config.update.baseline_decay) if moving else None


def optim_of(config: Config) -> OptimConfig:
    """The optimizer's settings. Raises: ConfigError for those that cannot work."""
    update = config.update
    total = max(config.steps * update.epochs * update.minibatches, update.warmup_steps + 1)
    return OptimConfig(
        lr=config.lr,
        warmup_steps=update.warmup_steps,
        schedule=update.schedule,
        total_steps=0 if update.schedule == "constant" else total,
        max_grad_norm=update.max_grad_norm,
        precision=config.machine.precision,
    )


def make_learner(config: Config, policy: Any, dump_dir: Path) -> PolicyLearner:
    """The learner with the convention's loss and reduction."""
    chosen = convention(config.convention)
    return PolicyLearner(
        policy,
        replace(
            policy_loss_of(chosen),
            kl_coef=kl_coef_of(config, "loss"),
            kl=ESTIMATORS[config.update.kl or chosen.kl_estimator],
        ),
        optim=optim_of(config),
        reduction=chosen.reduction,
        length=config.max_tokens if chosen.reduction == "fixed_length" else None,
        micro_tokens=config.machine.micro_tokens,
        dump_dir=dump_dir,
    )


def warm_model(config: Config, directory: Path) -> str:
    """The model to start from: the one named, or the result of the warm start, trained now if it is not there yet."""
    if not config.warm.steps:
        return config.model
    out = directory / "warm"
    if not (out / "model").is_dir():
        begun = (out / "config.json").is_file()
        if not begun:
            shutil.rmtree(out, ignore_errors=True)
        sft_recipe.main(warm_config(config, out), resume=out if begun else None)
    return str(out / "model")


def warm_config(config: Config, out: Path) -> sft_recipe.Config:
    """The warm start's own configuration; it is saved ten times on its way."""
    return sft_recipe.Config(
        model=config.model,
        tasks=config.tasks,
        task_options=config.task_options,
        level=config.level,
        data=config.data,
        eval_data=config.eval_data,
        demonstrations=config.warm.demonstrations,
        steps=config.warm.steps,
        batch_size=config.warm.batch_size,
        lr=config.warm.lr,
        max_tokens=config.max_tokens,
        save_every=-(-config.warm.steps // 10),
        seed=config.seed,
        out=str(out),
        tiny=config.tiny,
        problems=config.problems,
        exam=config.exam,
        machine=config.machine,
    )


def main(config: Config, resume: Path | None = None) -> Report:
    """Run (or, given a run directory, continue) reinforcement learning with verifiable rewards.

    Model, data and reward are opened before a run directory is made, so that a mistake in them leaves none.
    """
    torch.set_num_threads(config.machine.threads)
    problems, reward = Problems.of(config), scorer_of(config.reward) if config.reward else None
    train, held_out = problems.train(), problems.held_out()
    if resume is None:
        prepare(config, config.model, train, held_out)
    run = open_run(RECIPE, config, resume, problems.fingerprints())
    with run, Judge(config.machine, train, held_out, reward=reward) as judge:
        prepared = prepare(config, warm_model(config, run.directory), train, held_out)
        say_sizes(run, *prepared[1:])
        return train_on(config, run, *prepared, judge)


def prepare(config: Config, model: str, train: TaskSet, held_out: TaskSet) -> tuple[Language, TaskSet, TaskSet]:
    """The language model, and the training and held-out tasks whose prompts fit into it."""
    language = open_language(
        model,
        tiny=config.tiny,
        tasks=held_out,
        characters=characters_of(train, held_out),
        seed=config.seed,
        lora_rank=config.lora_rank,
        temperature=config.temperature,
        device=config.machine.device,
        layout=config.machine.layout,
    )
    policy = config.problems.bad_rows
    return language, that_fit(train, language, policy), that_fit(held_out, language, policy)


def train_on(config: Config, run: Run, language: Language, train: TaskSet, held_out: TaskSet, judge: Judge) -> Report:
    """The training proper, in a run that is entered."""
    learner = make_learner(config, language.policy, run.directory / "bad")
    generator = language.engine(slots=config.machine.slots, cache_tokens=config.machine.cache_tokens or None)
    prompts = PromptStream(train.tasks, batch_size=config.prompts, seed=config.seed)
    reference = reference_of(config, language)
    baseline = baseline_of(config)
    exam = Exam(run, held_out, language, generator, config.max_tokens, config.seed, config.exam.k, judge.verify)
    parts = {**language.parts(), "learner": learner, "prompts": prompts}
    if reference is not None and reference.every:
        parts["reference"] = reference
    if baseline is not None:
        parts["baseline"] = baseline
    start = run.resume(**parts)
    generator.load(language.state(), start)
    if start == 0:
        run.log(0, exam.sit(0, final=True))
    actor = Actor(
        generator=generator,
        render=language.render,
        decode=language.decode,
        sampling=Sampling(config.max_tokens, config.temperature),
        seed=config.seed,
        context=language.context,
        score=judge.score,
    )
    with progress(config.steps, "grpo", done=start) as bar:
        loop = Loop(
            run=run,
            bar=bar,
            steps=config.steps,
            eval_every=config.eval_every,
            save_every=config.save_every,
            evaluate=lambda step: exam.sit(step, final=step == config.steps),
            parts=parts,
            shown={"rollout/score": "score", "eval/accuracy": "held-out"},
            timing=judge.timing,
        )
        grpo.fit(
            learner,
            prompts,
            act=make_act(run, actor, config.group_size),
            reference=anchored(config, reference),
            renew=reference.renew if reference is not None else None,
            baseline=baseline,
            proximal=proximal_of(
                language.policy,
                correction=config.update.correction,
                cap=config.update.correction_cap,
                budget=config.machine.micro_tokens,
            ),
            publish=lambda version: publish(language.state(), generator, version),
            credit=credit_of(config),
            epochs=config.update.epochs,
            parts=config.update.minibatches,
            pad_id=language.pad_id,
            seed=config.seed,
            start=start,
            steps=config.steps,
            after_step=loop.after_step,
        )
    loop.stop_if_interrupted()
    return exam.report(config.steps)


def reference_of(config: Config, language: Language) -> Reference | None:
    """The policy that the KL is measured from, the one `language` holds now, before a checkpoint is loaded.

    None when there is no KL, or where the convention measures it from the sampler.
    """
    if not kl_coef_of(config, "loss") and not kl_coef_of(config, "reward"):
        return None
    if convention(config.convention).kl_target == "behaviour":
        return None
    return Reference(language, every=config.update.reference_every, budget=config.machine.micro_tokens)


def anchored(config: Config, reference: Reference | None) -> Callable[[PolicyBatch], Tensor] | None:
    """The function that gives the KL's log-probabilities; None when there is no KL."""
    if reference is not None:
        return reference.logp
    wanted = kl_coef_of(config, "loss") or kl_coef_of(config, "reward")
    return (lambda batch: batch.logp_behaviour) if wanted else None


def make_act(run: Run, actor: Actor, group_size: int) -> Callable[[Sequence[Task], int], tuple[list[Episode], Metrics]]:
    """A rollout that also writes some of its samples and says why completions could not be judged."""

    def act(tasks: Sequence[Task], step: int) -> tuple[list[Episode], Metrics]:
        episodes = actor.play(tasks, group_size, step)
        causes = invalid_causes(episodes)
        for cause, count in causes.most_common(3):
            run.say(f"step {step + 1}: {count} completions could not be judged: {cause}")
        run.sample(
            step + 1,
            [
                {
                    "task": e.task_id,
                    "prompt": tasks[e.group].messages[-1].content,
                    "gold": tasks[e.group].answer,
                    "text": e.text,
                    "score": e.score.value,
                    "parts": dict(e.score.parts),
                    "error": e.score.error,
                    "truncated": e.truncated,
                }
                for e in episodes[:SAMPLES_KEPT]
            ],
        )
        return episodes, rollout_metrics(episodes, actor.generator.version)

    return act


PRESETS: dict[str, Config] = {
    # the demonstration's reinforcement learning (recipes/demo.py), with its warm start
    "arithmetic": Config(
        level=3,
        steps=200,
        lr=2e-4,
        warm=WarmStart(steps=1500, lr=3e-3),
        problems=ProblemOptions(style="mixed"),
        update=Update(zero_variance="drop", schedule="linear"),
        machine=Machine(threads=1, slots=512),
    ),
    # calculations of GSM8K's own solutions: whole numbers of at most three digits, worked out in columns
    "gsm8k-steps": Config(
        tasks="gsm8k-steps",
        steps=200,
        max_tokens=112,
        lr=2e-4,
        eval_every=25,
        tiny=Tiny(context=160),
        warm=WarmStart(steps=1500, demonstrations=5000, lr=3e-3),
        problems=ProblemOptions(style="mixed-worked", digits=3, length=8, decimals=0),
        update=Update(zero_variance="drop", schedule="linear"),
        exam=ExamOptions(size=1000, k=4),
        machine=Machine(threads=1, slots=512),
    ),
}


def starting_point(algorithm: str, fields: Mapping[str, Any]) -> Config:
    """The configuration to override when no preset is named; `fields` are those the user gave."""
    return starting_config(PRESETS, Config(), fields)


def load(run: Run) -> Report:
    """The newest checkpoint of a run, ready to talk to."""
    return load_language(run)
