"""GRPO and its kin on a language model: sample groups, verify, learn, repeat.

`convention` chooses the variant (core.conventions); `warm` puts supervised fine-tuning on the task's own demonstrations
in front, which a model made on the spot needs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onepolicy.acting.episodes import Actor
from onepolicy.algos import grpo
from onepolicy.batch import PolicyBatch
from onepolicy.core.conventions import ESTIMATORS, convention, policy_loss_of
from onepolicy.data.prompts import PromptStream
from onepolicy.learning.learner import PolicyLearner
from onepolicy.recipes import sft as sft_recipe
from onepolicy.recipes.anchor import Reference, proximal_of, surrogate_of
from onepolicy.recipes.asynchronous import Ahead, Worker
from onepolicy.recipes.grpo_config import Config as Config
from onepolicy.recipes.grpo_config import baseline_of, credit_of, kl_coef_of
from onepolicy.recipes.language import Language, characters_of, load_language, open_language
from onepolicy.recipes.loop import Loop, alarms_of, open_run
from onepolicy.recipes.model_reward import reward_of
from onepolicy.recipes.options import ExamOptions, Machine, ProblemOptions, Tiny, Update, WarmStart, optim_of
from onepolicy.recipes.rollouts import Here, actor_of, make_act
from onepolicy.recipes.textual import Exam, Problems, say_sizes, starting_config, that_fit
from onepolicy.recipes.verifying import Judge
from onepolicy.run.progress import progress
from onepolicy.run.report import Report
from onepolicy.run.run import Run
from onepolicy.tasks.base import TaskSet
from onepolicy.types import Generator, Metrics

RECIPE = "grpo"


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
    problems, reward = Problems.of(config), reward_of(config.reward)
    train, held_out = problems.train(), problems.held_out()
    if resume is None:
        prepare(config, config.model, train, held_out)
    run = open_run(RECIPE, config, resume, problems.fingerprints())
    with run, Judge(config.machine, train, held_out, reward=reward) as judge:
        model = warm_model(config, run.directory)
        language, train, held_out = prepare(config, model, train, held_out)
        say_sizes(run, train, held_out)
        with source_of(config, model, language, train, judge) as source:
            return train_on(config, run, language, source, held_out, judge)


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


def source_of(config: Config, model: str, language: Language, train: TaskSet, judge: Judge) -> Here | Ahead:
    """Where rollouts come from: this process, or another one that opens `model` for itself."""
    prompts = PromptStream(train.tasks, batch_size=config.prompts, seed=config.seed)
    chosen = config.asynchronous
    if chosen.staleness is not None:
        worker = partial(generating, replace(config, lora_rank=0), model)
        return Ahead(worker, prompts, staleness=chosen.staleness, timeout=chosen.timeout, threads=chosen.threads)
    generator = language.engine(slots=config.machine.slots, cache_tokens=config.machine.cache_tokens or None)
    return Here(prompts, generator, actor(config, language, generator, judge), config.group_size)


def actor(config: Config, language: Language, generator: Generator, judge: Judge) -> Actor:
    """What plays the configuration's rollouts."""
    return actor_of(
        language,
        generator,
        judge.score,
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        seed=config.seed,
    )


def generating(config: Config, model: str) -> Worker:
    """The other process's side: its own model, tasks and judge."""
    problems, reward = Problems.of(config), reward_of(config.reward)
    language, train, held_out = prepare(config, model, problems.train(), problems.held_out())
    judge = Judge(config.machine, train, held_out, reward=reward)
    generator = language.engine(slots=config.machine.slots, cache_tokens=config.machine.cache_tokens or None)
    player = actor(config, language, generator, judge)
    return Worker(
        play=lambda tasks, step: player.play(tasks, config.group_size, step),
        load=generator.load,
        tasks={task.id: task for task in train},
        close=lambda: judge.__exit__(None, None, None),
    )


def train_on(
    config: Config, run: Run, language: Language, source: Here | Ahead, held_out: TaskSet, judge: Judge
) -> Report:
    """The training proper, in a run that is entered."""
    learner = make_learner(config, language.policy, run.directory / "bad")
    shared = isinstance(source, Here)
    machine = config.machine
    generator = (
        source.generator
        if isinstance(source, Here)
        else language.engine(slots=machine.slots, cache_tokens=machine.cache_tokens or None)
    )
    reference = reference_of(config, language)
    baseline = baseline_of(config)
    exam = Exam(run, held_out, language, generator, config.max_tokens, config.seed, config.exam.k, judge.verify)
    optional = {
        "reference": reference if reference is not None and reference.every else None,
        "baseline": baseline,
        "ahead": source if isinstance(source, Ahead) else None,
    }
    present = {name: part for name, part in optional.items() if part is not None}
    parts: dict[str, Any] = {**language.parts(), "learner": learner, "prompts": source.prompts, **present}

    def sit(step: int, *, final: bool) -> Metrics:
        if not shared:
            generator.load(language.state(), step)
        return exam.sit(step, final=final)

    start = run.resume(**parts)
    source.begin(language.state(), start)
    if start == 0:
        run.log(0, sit(0, final=True))
    with progress(config.steps, "grpo", done=start) as bar:
        loop = Loop(
            run=run,
            bar=bar,
            steps=config.steps,
            eval_every=config.eval_every,
            save_every=config.save_every,
            evaluate=lambda step: sit(step, final=step == config.steps),
            parts=parts,
            shown={"rollout/score": "score", "eval/accuracy": "held-out"},
            stop_on=alarms_of(config.exam.stop_on),
            timing=judge.timing,
        )
        grpo.fit(
            learner,
            source,
            act=make_act(run, source.play, lambda: source.version),
            reference=anchored(config, reference),
            renew=reference.renew if reference is not None else None,
            baseline=baseline,
            proximal=proximal_of(
                language.policy,
                correction=config.update.correction,
                cap=config.update.correction_cap,
                budget=config.machine.micro_tokens,
                decoupled=config.asynchronous.decoupled,
            ),
            probe=surrogate_of(language.policy, budget=machine.micro_tokens) if config.exam.probe else None,
            probed=lambda step: step in (1, config.steps) or bool(config.eval_every and step % config.eval_every == 0),
            publish=lambda version: source.publish(language.state(), version),
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
    # sums of two or three small numbers, written at once, from a generator of the library reasoning-gym
    "reasoning-gym": Config(
        tasks="reasoning-gym:basic_arithmetic",
        task_options="max_terms=3,max_digits=1,operators=['+','-'],allow_parentheses=False",
        steps=200,
        max_tokens=14,
        lr=5e-4,
        eval_every=50,
        tiny=Tiny(context=64),
        warm=WarmStart(steps=600, demonstrations=1000, batch_size=32, lr=3e-3),
        problems=ProblemOptions(train_size=2500),
        update=Update(zero_variance="drop", schedule="linear"),
        exam=ExamOptions(size=400, k=4),
        machine=Machine(threads=1, slots=512),
    ),
    # one-line programs of two steps, each different one run in the sandbox
    "code": Config(
        tasks="code",
        task_options="notation=signs",
        level=2,
        steps=40,
        prompts=32,
        max_tokens=40,
        lr=3e-4,
        eval_every=0,
        tiny=Tiny(context=64),
        warm=WarmStart(steps=1200, demonstrations=1500, batch_size=32, lr=3e-3),
        problems=ProblemOptions(style="mixed"),
        update=Update(zero_variance="drop", schedule="linear"),
        exam=ExamOptions(size=400),
        machine=Machine(threads=1, slots=512),
    ),
}


def starting_point(algorithm: str, fields: Mapping[str, Any]) -> Config:
    """The configuration to override when no preset is named; `fields` are those the user gave."""
    return starting_config(PRESETS, Config(), fields)


def load(run: Run) -> Report:
    """The newest checkpoint of a run, ready to talk to."""
    return load_language(run)
