"""Groups of settings the language recipes share; on the command line `--exam.size 512`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from onepolicy.core.importance import Correction
from onepolicy.errors import ConfigError
from onepolicy.learning.optim import OptimConfig
from onepolicy.recipes.loop import require_count, require_positive

TRAIN_SIZE = 20_000
"""Problems that a task set makes for training when no number is given, if its level has as many."""
DEMONSTRATIONS = 8000
"""Worked solutions that are learnt from when no number is given, if there are as many."""


@dataclass(frozen=True)
class Tiny:
    """Shape of a tiny preset made on the spot; real models ignore it."""

    arch: Literal["qwen3", "llama", "gpt2"] = "qwen3"
    """Architecture."""
    context: int = 128
    """Longest sequence, prompt and completion together, tokens."""

    def __post_init__(self) -> None:
        if self.context < 2:
            raise ConfigError(f"context is {self.context}; a prompt and a completion need at least 2 tokens.")


@dataclass(frozen=True)
class ProblemOptions:
    """Which problems are made or kept."""

    train_size: int | None = None
    """Problems a procedural task set makes for training; None for 20,000, or all where the level has fewer."""
    style: str = ""
    """How demonstrations work a problem out; empty for the task set's own default."""
    digits: int | None = None
    """gsm8k-steps: digits of every number at most; None keeps all."""
    length: int | None = None
    """gsm8k-steps: characters of a problem at most; None keeps all."""
    decimals: int | None = None
    """gsm8k-steps: decimal places at most, 0 for whole numbers; None keeps all."""
    instructions: bool | None = None
    """Tell the model the answer format in words; None for those not made on the spot, if they can read the words."""
    bad_rows: Literal["stop", "drop"] = "stop"
    """What a row of a data file that is broken or too long does: stop with the reason, or drop it and count."""

    def __post_init__(self) -> None:
        require_positive(self, "train_size")


@dataclass(frozen=True)
class ExamOptions:
    """The held-out exam."""

    size: int = 512
    """Problems at most."""
    k: int = 0
    """Sampled completions per problem at the first and last sitting, for avg@k, pass@k and maj@k; 0 is greedy only."""
    stop_on: str = ""
    """Findings of the doctor at which training is saved and stopped: names, or problem, warning; commas between."""
    probe: bool = True
    """Measure the surrogate before and after the updates of the rollouts that are followed by an exam."""

    def __post_init__(self) -> None:
        require_positive(self, "size")
        require_count(self, "k")


@dataclass(frozen=True)
class Machine:
    """How the work is laid out on the machine; results do not depend on it beyond rounding."""

    threads: int = 2
    """CPU threads of torch; tiny models gain nothing from a second one, and lose much on a busy machine."""
    device: str = "cpu"
    """Where the model lives: cpu, cuda, cuda:1, mps."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Width of the policy's matrix work."""
    micro_tokens: int = 32_768
    """Padded tokens in memory at once when training."""
    layout: Literal["padded", "packed"] = "packed"
    """How a batch runs through the model: rows side by side, or all tokens in one row with shared prompts once."""
    slots: int = 256
    """Sequences generated at once."""
    cache_tokens: int = 0
    """Bound on the generator's cached positions; 0 for as many as the slots need."""
    verifier_workers: int = 0
    """Processes that judge completions, for task sets whose verifiers can be slow or die; 0 for one a core."""
    verifier_timeout: float = 5.0
    """Seconds such a verifier has for a completion; one that takes longer is killed, the completion not judged."""
    verifier_memory: int = 1024
    """MiB such a verifier may take for a completion."""

    def __post_init__(self) -> None:
        if self.threads < 1 or self.micro_tokens < 1 or self.slots < 1 or self.cache_tokens < 0:
            raise ConfigError(f"{self}: threads, micro_tokens and slots are at least 1, cache_tokens at least 0.")
        require_count(self, "verifier_workers")
        require_positive(self, "verifier_memory")
        if not self.verifier_timeout > 0:
            raise ConfigError(f"verifier_timeout is {self.verifier_timeout}; a verifier needs more than 0 seconds.")


@dataclass(frozen=True)
class WarmStart:
    """Supervised fine-tuning on the task set's demonstrations before reinforcement learning; steps 0 for none."""

    steps: int = 0
    """Optimizer steps."""
    demonstrations: int | None = None
    """Worked solutions; None for 8,000, or all where there are fewer."""
    batch_size: int = 64
    """Sequences a step."""
    lr: float = 2e-3
    """Peak learning rate."""

    def __post_init__(self) -> None:
        require_count(self, "steps")
        require_positive(self, "demonstrations", "batch_size")


@dataclass(frozen=True)
class Update:
    """How a rollout becomes optimizer steps."""

    epochs: int = 1
    """Passes over a rollout."""
    minibatches: int = 1
    """Optimizer steps per pass."""
    warmup_steps: int = 10
    """Optimizer steps over which the learning rate rises."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Decay of the learning rate after the warm-up."""
    max_grad_norm: float = 1.0
    """Global bound on the gradient's 2-norm, 0 for none."""
    kl_coef: float | None = None
    """Coefficient of the KL to the starting policy; None for the convention's."""
    kl: Literal["", "k1", "k2", "k3"] = ""
    """Its estimator; empty for the convention's."""
    kl_place: Literal["", "loss", "reward"] = ""
    """Where it is subtracted; empty for the convention's, in the loss where that has none."""
    reference_every: int = 0
    """Rollouts after which the reference becomes the policy as it is then; 0 never (DeepSeek-R1: 400)."""
    zero_variance: Literal["keep", "drop"] = "keep"
    """Groups whose scores are all equal: kept in the mean, or left out of the step."""
    resample: int = 1
    """With zero_variance drop, rollouts drawn at most until enough groups have variance (DAPO's dynamic sampling)."""
    overlong_cache: int = 0
    """Tokens before max_tokens over which the score falls by 1 (DAPO's soft punishment); 0 for none."""
    baseline_decay: float = 0.9
    """Of the moving mean that the convention reinforce subtracts."""
    correction: Correction = "none"
    """Importance weights where sampler and trainer differ: token or sequence, truncated at correction_cap or masked."""
    correction_cap: float = 2.0
    """Bound on those weights, and 1 / it below for masked ones."""
    truncated: Literal["keep", "mask"] = "keep"
    """Cut-off completions: trained on, or taken out of the loss."""

    def __post_init__(self) -> None:
        require_positive(self, "epochs", "minibatches")
        require_count(self, "warmup_steps", "reference_every", "overlong_cache")
        require_positive(self, "resample")
        if not self.correction_cap >= 1.0:
            raise ConfigError(f"correction_cap is {self.correction_cap}; a weight of 1 must pass. Set it >= 1.")
        if self.max_grad_norm < 0 or (self.kl_coef is not None and self.kl_coef < 0):
            raise ConfigError(f"{self}: max_grad_norm and kl_coef are at least 0; 0 switches them off.")


def optim_of(config: Any) -> OptimConfig:
    """The optimizer of a recipe with `update`, `steps`, `lr` and `machine`: steps are rollouts.

    Raises: ConfigError for settings that cannot work.
    """
    update: Update = config.update
    total = max(config.steps * update.epochs * update.minibatches, update.warmup_steps + 1)
    return OptimConfig(
        lr=config.lr,
        warmup_steps=update.warmup_steps,
        schedule=update.schedule,
        total_steps=0 if update.schedule == "constant" else total,
        max_grad_norm=update.max_grad_norm,
        precision=config.machine.precision,
    )


@dataclass(frozen=True)
class Asynchronous:
    """Generation in a process of its own while training goes on."""

    staleness: int | None = None
    """Updates that the weights of a rollout are behind; 0 waits for each; None generates in this process."""
    decoupled: bool = False
    """The clip holds on to the policy before the update, not to the older one that sampled (decoupled PPO); with
    update.correction its samples are weighed."""
    timeout: float = 600.0
    """Seconds in which a rollout must come; what hangs is named."""
    threads: int = 1
    """CPU threads of the generating process."""

    def __post_init__(self) -> None:
        if self.staleness is not None and self.staleness < 0:
            raise ConfigError(f"staleness is {self.staleness}; it counts updates. Set it >= 0, or leave it out.")
        if not self.timeout > 0 or self.threads < 1:
            raise ConfigError(f"timeout is {self.timeout} and threads {self.threads}; both are above 0.")
