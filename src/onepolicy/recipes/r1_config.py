"""R1's configuration: its stages, and what each is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from onepolicy.errors import ConfigError, nearest
from onepolicy.recipes.loop import require_count, require_positive
from onepolicy.recipes.options import ExamOptions, Machine, ProblemOptions, Tiny
from onepolicy.recipes.rejection import Keep

STAGES: dict[str, str] = {
    "base": "the base model itself, where it is made on the spot",
    "cold": "SFT on a few long demonstrations, from the base",
    "rl": "RL on reasoning: accuracy, format, language consistency",
    "zero": "RL on reasoning straight from the base, without SFT (R1-Zero)",
    "reward": "a reward model for the general prompts",
    "reject": "rejection sampling from the RL model, and general answers, to an SFT set",
    "sft": "SFT on that set, from the base again",
    "rl2": "RL on all tasks: verifiers for reasoning, the reward model for the rest",
    "distill": "SFT of a smaller student on the same set",
    "teach": "on-policy distillation of that student",
}
"""The pipeline in order, and what each stage is."""
USUAL = ("cold", "rl", "reward", "reject", "sft", "rl2")
"""What `--stages all` means, with distill where a student is named."""
INPUT = {
    "cold": "base", "rl": "cold", "zero": "base", "reject": "rl", "sft": "base", "reward": "base", "rl2": "sft",
    "teach": "distill",
}  # fmt: skip
"""The stage whose model each stage starts from."""


@dataclass(frozen=True)
class Supervised:
    """A stage of supervised fine-tuning."""

    data: str = ""
    """JSONL rows; empty makes them: demonstrations for base and cold, the set of `reject` for the others."""
    demonstrations: int = 1000
    """Reasoning demonstrations, where they are made."""
    general: int = 0
    """General demonstrations besides, where the general task set writes some."""
    style: str = ""
    """How demonstrations work a problem out; empty for the task set's own default."""
    steps: int = 300
    """Optimizer steps."""
    batch_size: int = 64
    """Sequences a step."""
    lr: float = 1e-5
    """Peak learning rate."""

    def __post_init__(self) -> None:
        require_positive(self, "steps", "batch_size")
        require_count(self, "demonstrations", "general")


@dataclass(frozen=True)
class Reinforced:
    """A stage of reinforcement learning by GRPO."""

    steps: int = 1000
    """Rollouts."""
    prompts: int = 512
    """Prompts a rollout."""
    group_size: int = 16
    """Completions a prompt."""
    lr: float = 3e-6
    """Learning rate."""
    minibatches: int = 16
    """Optimizer steps a rollout."""
    kl_coef: float = 0.001
    """Coefficient of the KL to the reference, in the loss."""
    reference_every: int = 400
    """Rollouts after which the reference becomes the policy; 0 never."""
    temperature: float = 1.0
    """Of sampling."""
    zero_variance: Literal["keep", "drop"] = "keep"
    """Groups whose scores are all equal: kept in the mean, or left out."""

    def __post_init__(self) -> None:
        require_positive(self, "steps", "prompts", "group_size", "minibatches")


@dataclass(frozen=True)
class Sampled:
    """Rejection sampling: of reasoning by verifiers, of general prompts by the reward model's choice."""

    prompts: int = 4000
    """Reasoning prompts."""
    n: int = 16
    """Answers a prompt."""
    general_prompts: int = 0
    """General prompts, answered by the base's SFT and chosen by the reward model; 0 for none."""
    keep: Keep = field(default_factory=lambda: Keep(language_share=1.0))


@dataclass(frozen=True)
class Rewarded:
    """The reward model of the general tasks."""

    model: str = ""
    """A trained one, a run or a directory; empty trains one on `data`."""
    data: str = ""
    """JSONL of pairs or rankings; empty for the general task set's own, where it draws some (letters)."""
    rows: int = 2000
    """Rankings, where they are drawn."""
    lr: float = 9e-6
    """Peak learning rate."""


@dataclass(frozen=True)
class Student:
    """Distillation into a smaller model."""

    model: str = ""
    """Tiny preset, directory or hub id; empty for no distillation."""
    steps: int = 0
    """Rollouts of on-policy distillation after the SFT; 0 for none."""
    lr: float = 1e-4
    """Its learning rate."""


@dataclass(frozen=True)
class Config:
    """DeepSeek-R1's pipeline: cold start, RL, rejection sampling, SFT, RL on everything, a run for each."""

    model: str = "tiny-0.2m"
    """Base model: a directory or hub id; a tiny preset is made and given a base's education first."""
    stages: str = "all"
    """all, zero, or some of base, cold, rl, reject, sft, reward, rl2, distill, teach, with commas between."""
    dry_run: bool = False
    """Print what each stage would need in memory and time, and train nothing."""
    tasks: str = "bilingual"
    """Task set of reasoning, with verifiable answers."""
    general: str = "letters"
    """Task set of everything else, judged by the reward model; empty for none."""
    general_share: float = 0.25
    """Its share of the prompts in the last stage of RL."""
    level: int | None = None
    """Difficulty of the reasoning, for a task set that has levels; None for its own default."""
    options: str = ""
    """Options of the task sets, set.key=value or set.train.key=value, with semicolons between (docs/tasks.md)."""
    language: str = ""
    """Language that thinking is to be in, a code of ISO 639-1; empty for a task set that has its own (bilingual)."""
    language_weight: float = 1.0
    """What the share of words in it pays beside 1 for a right answer; 0 measures only."""
    max_tokens: int = 64
    """Longest completion, tokens."""
    seed: int = 0
    """Seed of everything random."""
    out: str = ""
    """Directory; empty for the next free runs/r1-N."""
    flops: float = 4e14
    """Floating-point operations a second that the estimate of time assumes, all devices together."""
    base: Supervised = field(default_factory=Supervised)
    cold: Supervised = field(default_factory=Supervised)
    rl: Reinforced = field(default_factory=Reinforced)
    reject: Sampled = field(default_factory=Sampled)
    sft: Supervised = field(default_factory=Supervised)
    reward: Rewarded = field(default_factory=Rewarded)
    rl2: Reinforced = field(default_factory=Reinforced)
    student: Student = field(default_factory=Student)
    tiny: Tiny = field(default_factory=Tiny)
    problems: ProblemOptions = field(default_factory=ProblemOptions)
    exam: ExamOptions = field(default_factory=ExamOptions)
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        require_positive(self, "max_tokens")
        if not 0 < self.general_share < 1:
            raise ConfigError(f"general_share is {self.general_share}; it is a share of the prompts, in (0, 1).")
        for name in self.stages.split(",") if self.stages != "all" else ():
            if name.strip() not in STAGES:
                raise ConfigError(f"Unknown stage {name.strip()!r} of r1. {nearest(name.strip(), STAGES)}")
