"""Which library or paper makes which choices: the same rewards give six different advantages in six libraries.

Each convention is a frozen set of the choices that policy_loss, group_advantage and loss_weights offer, with the place
it was read at. A field listed in `unsure` is not stated there, or known from memory of the paper only; what a
convention does beyond the choices (clamps, corrections, mixes) is in `notes` and is *not* reproduced by
`policy_loss_of`. Paths are relative to the library's repository, as of 2026; defaults drift, so check before you cite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial

from torch import Tensor

from onepolicy.core import kl, policy
from onepolicy.core.choices import Convention as Convention
from onepolicy.core.methods import METHODS
from onepolicy.core.policy import PolicyLoss
from onepolicy.errors import ConfigError, nearest

_ALL = (
    Convention(
        name="trl",
        source="TRL GRPOTrainer: trl/trainer/grpo_trainer.py:2684-2720, utils.py:857 (nanstd); loss_type 'dapo'",
        center="mean",
        scale="std",
        eps=1e-4,
        reduction="token_mean",
        mismatch="sequence mask at ratio 3, on by default with vLLM",
        notes="beta is 0 and no reference is loaded; tokens of the whole generation batch are counted; dropout is left "
        "on; beta > 0 uses k3 in the loss.",
    ),
    Convention(
        name="verl",
        source="verl: verl/trainer/ppo/core_algos.py:268 (GRPO) and its actor's defaults",
        center="mean",
        scale="std",
        eps=1e-6,
        reduction="token_mean",
        surrogate="dual_clipped",
        dual_clip=3.0,
        value_clip=0.5,
        notes="The log-ratio is clamped to +-20; with G = 1 the raw reward becomes the advantage (an error here); KL "
        "is off, and 0.001 when on, k1 in the reward or k3 in the loss; GRPO has no critic, value_clip is PPO's.",
    ),
    Convention(
        name="open-instruct",
        source="open-instruct grpo_fast: open_instruct/data_loader.py:1473-1484, model_utils.py:793",
        center="mean",
        scale="none",
        eps=1e-8,
        reduction="token_mean",
        high=0.272,
        kl_place="loss",
        kl_coef=0.05,
        mismatch="importance weight clamped at 2, on",
        notes="Its kl_estimator 2 is k3; 'standard' normalisation divides by the biased std + 1e-8; its documentation "
        "says clip 0.2 and temperature 0.7, its code 0.272 and 1.",
    ),
    Convention(
        name="openrlhf",
        source="OpenRLHF: ppo_utils/experience_maker.py:264-270 (group_norm)",
        center="mean",
        scale="std",
        eps=1e-9,
        reduction="token_mean",
        kl_estimator="k1",
        kl_place="reward",
        kl_coef=0.01,
        value_clip=0.5,
        notes="The KL is clamped to +-10 and the log-ratio to +-20; group_norm has no critic, value_clip is PPO's.",
    ),
    Convention(
        name="nemo",
        source="NeMo RL: nemo_rl/algorithms/utils.py, advantage_estimator.py:60-98",
        center="leave_one_out",
        scale="leave_one_out_std",
        eps=1e-6,
        reduction="token_mean",
        kl_place="loss",
        kl_coef=0.01,
        notes="The spread is that of the other samples, and where it is 0 the difference is left as it is; the KL's "
        "log-ratio is clamped to 20 and the KL to 10; the ratio's clamp is a setting.",
    ),
    Convention(
        name="prime-rl",
        source="prime-rl: src/prime_rl/orchestrator/algo/grpo.py, src/prime_rl/trainer/rl/loss.py (default loss)",
        center="mean",
        scale="none",
        eps=0.0,
        reduction="token_mean",
        surrogate="dppo",
        kl_estimator="k2",
        kl_place="loss",
        kl_coef=2e-3,
        kl_target="behaviour",
        mismatch="the surrogate itself: the ratio is to the sampler's log-probs",
        notes="The penalty is 1e-3 times the squared log-ratio to the sampler, which is 2e-3 times k2: put "
        "logp_behaviour into batch.logp_ref.",
    ),
    Convention(
        name="instructgpt",
        source="Ouyang et al. 2022 (arXiv 2203.02155), appendix C.4, and openai/lm-human-preferences, its ancestor",
        credit="gae",
        center="none",
        scale="none",
        eps=0.0,
        reduction="token_mean",
        kl_estimator="k1",
        kl_place="reward",
        kl_coef=0.02,
        value_coef=0.1,
        value_clip=0.2,
        unsure=("reduction", "value_coef", "value_clip", "temperature"),
        notes="GAE without discount (gamma 1; the paper gives no lambda, lm-human-preferences 0.95 and whitens the "
        "advantage with the biased variance); value_coef and value_clip are lm-human-preferences'; pretraining "
        "gradients enter with coefficient 27.8.",
    ),
    Convention(
        name="deepseek-r1",
        source="DeepSeek-AI 2025 (DeepSeek-R1, Nature) as quoted by TRL's paper index; Shao et al. 2024, equations 3-4",
        center="mean",
        scale="std",
        eps=0.0,
        reduction="sequence_mean",
        low=10.0,
        high=10.0,
        kl_place="loss",
        kl_coef=0.001,
        unsure=("scale", "eps", "temperature"),
        notes="The clip range is 10, so hardly any clipping; the papers do not say which std, nor an epsilon; the "
        "reference is replaced every 400 steps; 16 outputs a question.",
    ),
    Convention(
        name="dapo",
        source="Yu et al. 2025 (DAPO, arXiv 2503.14476), equation 8, as quoted by TRL's paper index",
        center="mean",
        scale="std",
        eps=0.0,
        reduction="token_mean",
        high=0.28,
        unsure=("scale", "eps", "temperature"),
        notes="Groups without variance are dropped and resampled; overlong completions lose reward linearly over the "
        "last 4,096 of 20,480 tokens; 16 outputs a prompt; the paper does not say which std, nor an epsilon.",
    ),
    Convention(
        name="dr-grpo",
        source="Liu et al. 2025 (Dr. GRPO, arXiv 2503.20783), equations of section 3",
        center="mean",
        scale="none",
        eps=0.0,
        reduction="fixed_length",
        unsure=("low", "high", "temperature"),
        notes="fixed_length divides by the completion limit, the same for every sequence; low and high are PPO's.",
    ),
)

CONVENTIONS: dict[str, Convention] = {each.name: each for each in (*_ALL, *METHODS)}
"""Every convention by name."""


ESTIMATORS: dict[str, kl.KlEstimator] = {"k1": kl.k1, "k2": kl.k2, "k3": kl.k3}
"""The KL's estimators by name."""


def convention(name: str) -> Convention:
    """The convention of that name.

    Raises: ConfigError for an unknown one, offering the nearest.
    """
    if name not in CONVENTIONS:
        raise ConfigError(f"unknown convention {name!r}. {nearest(name, CONVENTIONS)}")
    return CONVENTIONS[name]


def policy_loss_of(choices: Convention) -> PolicyLoss:
    """The PolicyLoss that makes a convention's choices; a KL placed in the reward is the caller's to subtract.

    Its reduction goes to loss_weights, its center, scale and eps to group_advantage.
    """
    bounds = {"low": choices.low, "high": choices.high}
    if choices.dual_clip is not None:
        bounds["c"] = choices.dual_clip
    surrogates: dict[str, Callable[..., Tensor]] = {
        "clipped": policy.clipped,
        "dual_clipped": policy.dual_clipped,
        "dppo": policy.dppo,
        "cispo": policy.cispo,
    }
    bound = partial(surrogates[choices.surrogate], **bounds) if choices.surrogate != "reinforce" else policy.reinforce
    return PolicyLoss(
        surrogate=bound,
        level=choices.level,
        value_coef=choices.value_coef,
        value_clip=choices.value_clip if choices.value_coef else None,
        kl_coef=choices.kl_coef if choices.kl_place == "loss" else 0.0,
        kl=ESTIMATORS[choices.kl_estimator],
    )


def difference(a: str, b: str) -> str:
    """The choices in which two conventions differ, as a text table; `?` marks a value its source does not state.

    >>> print(difference("dapo", "dr-grpo").splitlines()[1])
    scale      std?        none
    """
    first, second = convention(a), convention(b)
    rows = [("", a, b)]
    for name in CHOICES:
        if getattr(first, name) != getattr(second, name):
            rows.append((name, _shown(first, name), _shown(second, name)))
    if len(rows) == 1:
        rows.append(("(every choice)", "the same", "the same"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    for each in (first, second):
        lines += ["", f"{each.name}: {each.source}.", f"  {each.notes}"]
    return "\n".join(lines)


def table() -> str:
    """All conventions as a Markdown table, one row each; `?` as in `difference`."""
    head = ("convention", "advantage", "ratio and surrogate", "reduction", "KL", "critic", "mismatch", "T")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for each in CONVENTIONS.values():
        lines.append("| " + " | ".join((each.name, *_summary(each))) + " |")
    return "\n".join(lines)


CHOICES = tuple(f.name for f in fields(Convention) if f.name not in ("name", "source", "unsure", "notes"))
"""The fields in which conventions can differ."""


def _shown(choices: Convention, name: str) -> str:
    value = getattr(choices, name)
    text = "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text + "?" * (name in choices.unsure)


def _summary(each: Convention) -> tuple[str, ...]:
    """The cells of a convention's row in `table`, its name left out."""
    show = {name: _shown(each, name) for name in CHOICES}
    group = f"{show['center']} / {show['scale']}" + (f" + {show['eps']}" if each.scale != "none" else "")
    group = group if each.baseline == "group" else "score - moving mean"
    group += ", whitened" if each.whiten else ""
    bounds = f" {show['low']}, {show['high']}" + (f", c {show['dual_clip']}" if each.dual_clip else "")
    bounds = "" if each.surrogate == "reinforce" else bounds
    target = "" if each.kl_target == "reference" else f" to {each.kl_target}"
    penalty = f"{show['kl_coef']} {show['kl_estimator']} in the {each.kl_place}{target}"
    critic = f"{show['value_coef']}, clip {show['value_clip']}" if each.value_coef else "none"
    return (
        group if each.credit == "group" else "GAE",
        f"{show['level']}, {show['surrogate']}{bounds}",
        show["reduction"],
        "off" if each.kl_place == "none" else penalty,
        critic,
        show["mismatch"],
        show["temperature"],
    )
