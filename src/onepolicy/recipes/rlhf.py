"""PPO on a language model against a reward model, a function or a verifier, with text mixed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onepolicy.algos import rlhf, sft
from onepolicy.batch import PolicyBatch
from onepolicy.core.kl import k1
from onepolicy.core.policy import PolicyLoss, clipped
from onepolicy.data.demonstrations import fingerprint
from onepolicy.data.packing import token_batch
from onepolicy.data.prompts import PromptStream
from onepolicy.errors import ConfigError
from onepolicy.learning.learner import PolicyLearner, evaluate_in_parts
from onepolicy.learning.weights import publish
from onepolicy.nn.scorer import new_scorer
from onepolicy.nn.token_critic import TokenActorCritic
from onepolicy.recipes.arena import Arena, arena_of, rescorer, reward_model_for
from onepolicy.recipes.language import Language, language_of, load_language, save_final
from onepolicy.recipes.loop import Loop, alarms_of, open_run, require_count, require_positive
from onepolicy.recipes.mixing import Mixer, Ptx, Text, text_of
from onepolicy.recipes.options import ExamOptions, Machine, ProblemOptions, Update, optim_of
from onepolicy.recipes.rollouts import make_act
from onepolicy.recipes.scoring import RewardModel, ScorerDirectory, trained_reward_model
from onepolicy.recipes.textual import Problems, that_fit
from onepolicy.recipes.verifying import Judge, scorer_of
from onepolicy.run.progress import progress
from onepolicy.run.report import Report
from onepolicy.run.run import Run
from onepolicy.types import Episode, Metrics, Task

RECIPE = "rlhf"


@dataclass(frozen=True)
class Kl:
    """What leaving the reference costs."""

    coef: float = 0.02
    """Reward units per nat, at the start."""
    target: float | None = None
    """Nats per completion to which the coefficient is steered; None keeps it fixed."""
    horizon: int = 10_000
    """Completions over which it is steered."""


@dataclass(frozen=True)
class Clip:
    """PPO's clipping and the critic's loss."""

    low: float = 0.2
    """How far a token's ratio may fall below 1."""
    high: float = 0.2
    """How far it may rise above 1."""
    value: float | None = 0.2
    """How far a value may move from what it was, reward units; None for no bound."""
    value_coef: float = 0.1
    """Coefficient of the critic's loss."""
    critic_lr: float = 1.0
    """The critic's learning rate as a multiple of the policy's."""


@dataclass(frozen=True)
class Config:
    """PPO-RLHF of a language model."""

    model: str = ""
    """Policy to start from, and the reference: a run of sft, a Hugging Face directory or a hub id."""
    lora_rank: int = 0
    """Rank of the policy's LoRA adapters, 0 trains all its weights."""
    reward_model: str = ""
    """Run or model that scores answers; empty for the task's verifier."""
    reward: str = ""
    """bleu, chrf or another overlap with the task's answer, or an own function as module:f or path/to/file.py:f."""
    re_encode: bool = False
    """The reward model has another tokenizer: tokenise texts again for it."""
    critic: str = ""
    """Model the critic starts from; empty for the reward model, or without one the policy with a new head."""
    tasks: str = "letters"
    """Task set whose prompts are answered."""
    task_options: str = ""
    """Further options of the task set, key=value,key=value."""
    data: str = ""
    """Training file of a task set that reads one."""
    eval_data: str = ""
    """Held-out file of a task set that reads one."""
    steps: int = 100
    """Rollouts; each is followed by update.epochs * update.minibatches optimizer steps."""
    prompts: int = 128
    """Prompts a rollout, one completion each."""
    max_tokens: int = 256
    """Longest completion, tokens."""
    temperature: float = 1.0
    """Of sampling and of the trained log-probabilities alike."""
    lr: float = 9.65e-6
    """Peak learning rate."""
    eval_every: int = 20
    """Rollouts between held-out evaluations, 0 only before and after."""
    save_every: int = 0
    """Rollouts between checkpoints, 0 only at the end."""
    seed: int = 0
    """Seed of everything random."""
    out: str = ""
    """Run directory; empty for the next free runs/rlhf-N."""
    kl: Kl = field(default_factory=Kl)
    ptx: Ptx = field(default_factory=Ptx)
    credit: rlhf.Credit = field(default_factory=rlhf.Credit)
    clip: Clip = field(default_factory=Clip)
    update: Update = field(default_factory=lambda: Update(epochs=1, minibatches=8))
    exam: ExamOptions = field(default_factory=lambda: ExamOptions(k=4))
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        require_positive(self, "steps", "prompts", "max_tokens")
        require_count(self, "lora_rank", "eval_every", "save_every")
        if not self.temperature > 0:
            raise ConfigError(f"temperature is {self.temperature}; exploration needs it above 0. Use 1.0.")
        if self.reward and self.reward_model:
            raise ConfigError("reward and reward_model are both given; answers have one judge. Leave one out.")
        coefficient_of(self)


def coefficient_of(config: Config) -> rlhf.KlCoefficient:
    """The KL's coefficient at the start. Raises: ConfigError for settings that cannot work."""
    return rlhf.KlCoefficient(config.kl.coef, target=config.kl.target, horizon=config.kl.horizon)


def main(config: Config, resume: Path | None = None) -> Report:
    """Train (or, given a run directory, go on training) a policy against a reward."""
    torch.set_num_threads(config.machine.threads)
    if not config.model:
        raise ConfigError("model is empty; name the run of an sft, a Hugging Face directory or a hub id: --model.")
    language = language_of(
        config.model, lora_rank=config.lora_rank, layout=config.machine.layout, temperature=config.temperature
    )
    language.model.to(config.machine.device)
    reward = scorer_of(config.reward) if config.reward else None
    model = reward_model_for(config.reward_model, language, re_encode=config.re_encode, device=config.machine.device)
    problems = problems_of(config)
    sets = [that_fit(found, language, "stop") for found in (problems.train(), problems.held_out())]
    text = text_of(config.ptx, language, config.seed)
    critic = critic_of(config, language, model)
    files = {"ptx": config.ptx.data, "ptx_eval": config.ptx.eval_data}
    known = {**problems.fingerprints(), **{name: fingerprint(path) for name, path in files.items() if path}}
    run = open_run(RECIPE, config, resume, known)
    with run, Judge(config.machine, *sets, reward=reward) as judge:
        return train_on(config, run, language, critic, model, sets, text, judge)


def train_on(
    config: Config,
    run: Run,
    language: Language,
    critic: RewardModel,
    model: RewardModel | None,
    sets: Sequence[Any],
    text: Text,
    judge: Judge,
) -> Report:
    """The training proper, in a run that is entered."""
    both = TokenActorCritic(language.policy, critic.scorer)
    learner = make_learner(config, both, run.directory / "bad")
    generator = language.engine(slots=config.machine.slots, cache_tokens=config.machine.cache_tokens or None)
    rescore = rescorer(model, re_encode=config.re_encode)
    arena = arena_of(
        sets[1].tasks, language, generator, rescore, judge.score, n=max(1, config.exam.k),
        max_tokens=config.max_tokens, temperature=config.temperature, seed=config.seed,
    )  # fmt: skip
    frozen, budget = language.frozen_policy(), config.machine.micro_tokens
    actor = replace(arena.actor, seed=config.seed)
    prompts = PromptStream(sets[0].tasks, batch_size=config.prompts, seed=config.seed)
    mixer = Mixer(config.ptx, language, text, config.seed)
    coefficient = coefficient_of(config)
    parts = {
        **language.parts(), "critic": ScorerDirectory(critic), "learner": learner, "prompts": prompts,
        "kl": coefficient, **({"text": mixer.stream} if mixer.stream is not None else {}),
    }  # fmt: skip

    def play(tasks: Sequence[Task], step: int) -> list[Episode]:
        return rescore(actor.play(tasks, 1, step), tasks)

    def sit(step: int) -> Metrics:
        generator.load(language.state(), step)
        return examine(language, frozen, arena, text, budget)

    start = run.resume(**parts)
    generator.load(language.state(), start)
    if start == 0:
        run.log(0, sit(0))
    with progress(config.steps, "rlhf", done=start) as bar:
        loop = Loop(
            run=run,
            bar=bar,
            steps=config.steps,
            eval_every=config.eval_every,
            save_every=config.save_every,
            evaluate=sit,
            parts=parts,
            shown={"rlhf/score": "score", "rlhf/kl": "KL", "eval/win_rate": "wins"},
            stop_on=alarms_of(config.exam.stop_on),
            timing=judge.timing,
        )
        rlhf.fit(
            learner,
            prompts,
            act=make_act(run, play, lambda: generator.version),
            reference=lambda batch: evaluate_in_parts(frozen, batch, budget).logp,
            values=lambda batch: value_of(both, batch, budget),
            mix=mixer.next,
            publish=lambda version: publish(language.state(), generator, version),
            coefficient=coefficient,
            credit=config.credit,
            epochs=config.update.epochs,
            parts=config.update.minibatches,
            pad_id=language.pad_id,
            seed=config.seed,
            start=start,
            steps=config.steps,
            after_step=loop.after_step,
        )
    loop.stop_if_interrupted()
    return finish(config, run, language, loop.at_the_end())


def make_learner(config: Config, both: TokenActorCritic, dump_dir: Path) -> PolicyLearner:
    """The learner of actor and critic; the critic has its own rate and its own bound on the gradient."""
    clip = config.clip
    loss = PolicyLoss(
        surrogate=partial(clipped, low=clip.low, high=clip.high), value_coef=clip.value_coef, value_clip=clip.value
    )
    return PolicyLearner(
        both,
        loss,
        optim=optim_of(config),
        micro_tokens=config.machine.micro_tokens,
        dump_dir=dump_dir,
        apart=both.critic,
        apart_lr=clip.critic_lr,
    )


def critic_of(config: Config, language: Language, model: RewardModel | None) -> RewardModel:
    """The critic: a copy of the reward model, the model named, or the policy's backbone with a new head.

    Raises: ModelError for one whose vocabulary is not the policy's.
    """
    if config.critic:
        found = reward_model_for(config.critic, language, re_encode=False, device=config.machine.device)
        assert found is not None
        return found
    if model is not None and not config.re_encode:
        return trained_reward_model(config.reward_model)
    if language.lora:
        plain = language_of(config.model)
        return RewardModel(new_scorer(plain.model, seed=config.seed), language.tokenizer)
    return RewardModel(new_scorer(language.model, seed=config.seed), language.tokenizer)


def problems_of(config: Config) -> Problems:
    """The problems whose prompts are answered."""
    return Problems(
        tasks=config.tasks, level=None, data=config.data, eval_data=config.eval_data, eval_size=config.exam.size,
        seed=config.seed, instructed=False, options=ProblemOptions(), given=config.task_options,
    )  # fmt: skip


def examine(language: Language, frozen: Any, arena: Arena, text: Text, budget: int) -> Metrics:
    """Win rate and scores on held-out prompts, the KL there, and the loss on held-out pretraining text."""
    groups = arena.groups()
    metrics = arena.sit(groups)
    episodes = [e for group in groups for e in group]
    batch = token_batch(episodes, [0.0] * len(episodes), language.pad_id)
    reference = evaluate_in_parts(frozen, batch, budget).logp
    cost = torch.where(batch.mask, k1(batch.logp_behaviour, reference), 0.0)
    metrics["eval/kl"] = float(cost.sum(-1).mean())
    if text.held_out:
        rows = sft.credit(text.held_out, language.pad_id)
        logp = evaluate_in_parts(language.policy, rows, budget).logp
        metrics["eval/text_nll"] = float(-logp[rows.mask].mean())
    return metrics


def value_of(both: TokenActorCritic, batch: PolicyBatch, budget: int) -> Tensor:
    """The critic's values of a batch, [B, T]."""
    value = evaluate_in_parts(both, batch, budget).value
    assert value is not None
    return value


def finish(config: Config, run: Run, language: Language, last: Metrics) -> Report:
    """The model saved beside the checkpoints, the report, what the caller gets."""
    lines = [f"{name:<22} {value:.4f}" for name, value in sorted(last.items())]
    summary = f"{config.steps} rollouts from {config.model}. {save_final(run, language)}"
    run.finish(summary, tables={"Held-out prompts": "\n".join(lines)})
    return Report(run.directory, last, language, "\n".join([*lines, summary]))


PRESETS: dict[str, Config] = {
    # the policy and the reward model of `onepolicy data make letters`
    "letters": Config(
        lr=3e-4, max_tokens=24, steps=60, kl=Kl(coef=0.05), ptx=Ptx(coef=2.0),
        update=Update(epochs=2, minibatches=2, warmup_steps=5), machine=Machine(threads=1),
    ),
    # Ouyang et al. 2022, appendix C.4: 512 episodes in 8 minibatches, one pass, clip 0.2, KL 0.02, gamma 27.8
    "instructgpt": Config(
        prompts=512, lr=9.65e-6, kl=Kl(coef=0.02), ptx=Ptx(coef=27.8, batch_size=512),
        update=Update(epochs=1, minibatches=8, warmup_steps=50), steps=500,
    ),
    # Ziegler et al. 2019, openai/lm-human-preferences: adaptive KL, 4 passes, whitened rewards
    "lm-human-preferences": Config(
        prompts=512, lr=5e-6, temperature=0.7, kl=Kl(coef=0.2, target=6.0), ptx=Ptx(coef=0.0),
        credit=rlhf.Credit(whiten_reward=True), update=Update(epochs=4, minibatches=1),
    ),
}  # fmt: skip


def starting_point(algorithm: str, fields: Mapping[str, Any]) -> Config:
    """The configuration to override when no preset is named."""
    return Config()


def load(run: Run) -> Report:
    """The newest checkpoint of a run, ready to talk to."""
    return load_language(run)
