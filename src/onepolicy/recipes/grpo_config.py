"""GRPO's configuration, and what of it the algorithm is told."""

from __future__ import annotations

from dataclasses import dataclass, field

from onepolicy.algos import grpo
from onepolicy.core.conventions import CONVENTIONS, ESTIMATORS, convention
from onepolicy.errors import ConfigError
from onepolicy.recipes.loop import require_count, require_positive
from onepolicy.recipes.options import (
    Asynchronous,
    ExamOptions,
    Machine,
    ProblemOptions,
    Tiny,
    Update,
    WarmStart,
    optim_of,
)


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
    asynchronous: Asynchronous = field(default_factory=Asynchronous)
    exam: ExamOptions = field(default_factory=ExamOptions)
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        require_positive(self, "steps", "prompts", "group_size", "max_tokens")
        require_count(self, "lora_rank", "eval_every", "save_every")
        if not self.temperature > 0:
            raise ConfigError(f"temperature is {self.temperature}; exploration needs it above 0. Use 1.0.")
        if self.asynchronous.staleness is not None and self.update.resample > 1:
            raise ConfigError(
                f"update.resample is {self.update.resample} with asynchronous generation; whether to sample again is "
                "known only when a rollout is judged. Set it to 1, or leave asynchronous.staleness out."
            )
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
