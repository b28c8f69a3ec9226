"""What a convention is: the choices between which libraries, papers and methods of one family differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onepolicy.core.advantages import Center, Scale
from onepolicy.core.policy import Level
from onepolicy.core.reduce import Reduction
from onepolicy.errors import ConfigError


@dataclass(frozen=True)
class Convention:
    """The choices of one library or paper.

    credit: where the advantage comes from, the prompt's group or GAE over time with a critic. center, scale, eps: of
    group_advantage. baseline: "moving" subtracts a running mean of all scores, for single samples. whiten: advantages
    to mean 0 and deviation 1 over all tokens of the rollout, after the group's part. level, surrogate, low, high,
    dual_clip: of the ratio and its clipping, as distances from 1 (dppo: of the probability); dual_clip is
    dual_clipped's c. reduction: of loss_weights. kl_estimator, kl_place, kl_coef, kl_target: the penalty, where it is
    subtracted, its coefficient as shipped (0 = off) and from whom it is measured. value_coef, value_clip: of the
    critic's loss. mismatch: correction of the gap between sampler and trainer. temperature: of sampling in training.
    source: where it was read. unsure: fields not found there. notes: the rest.
    """

    name: str
    source: str
    center: Center
    scale: Scale
    eps: float
    reduction: Reduction
    credit: Literal["group", "gae"] = "group"
    baseline: Literal["group", "moving"] = "group"
    whiten: bool = False
    level: Level = "token"
    surrogate: Literal["clipped", "dual_clipped", "dppo", "reinforce", "cispo"] = "clipped"
    low: float = 0.2
    high: float = 0.2
    dual_clip: float | None = None
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    kl_place: Literal["loss", "reward", "none"] = "none"
    kl_coef: float = 0.0
    kl_target: Literal["reference", "behaviour"] = "reference"
    value_coef: float = 0.0
    value_clip: float | None = None
    mismatch: str = "none"
    temperature: float = 1.0
    unsure: tuple[str, ...] = ()
    notes: str = ""

    def __post_init__(self) -> None:
        if (self.dual_clip is not None) != (self.surrogate == "dual_clipped"):
            raise ConfigError(f"dual_clip is {self.dual_clip} with surrogate {self.surrogate!r}; they go together.")
