"""The GRPO family as conventions: each a method's own paper, read as choices of advantage, ratio, surrogate, reduction.

None has a trainer of its own. What a method does besides (resampling, shaping) is an option of the recipe and is in
`notes`.
"""

from __future__ import annotations

from onepolicy.core.choices import Convention

METHODS = (
    Convention(
        name="grpo",
        source="Shao et al. 2024 (DeepSeekMath, arXiv 2402.03300), equations 3 and 4 and section 4.2",
        center="mean",
        scale="std",
        eps=0.0,
        reduction="sequence_mean",
        kl_place="loss",
        kl_coef=0.04,
        unsure=("scale", "eps", "low", "high", "kl_coef", "temperature"),
        notes="64 outputs a question, one update a rollout; the paper does not say which std, nor an epsilon.",
    ),
    Convention(
        name="gspo",
        source="Zheng et al. 2025 (GSPO, arXiv 2507.18071), equations 5 to 7 and section 5.1",
        center="mean",
        scale="std",
        eps=0.0,
        reduction="sequence_mean",
        level="sequence",
        low=3e-4,
        high=4e-4,
        unsure=("scale", "eps", "temperature"),
        notes="The ratio is the geometric mean of a sequence's, so its range is a thousandth of PPO's.",
    ),
    Convention(
        name="cispo",
        source="MiniMax 2025 (MiniMax-M1, arXiv 2506.13585), equations 4 and 5",
        center="mean",
        scale="std",
        eps=0.0,
        reduction="token_mean",
        surrogate="cispo",
        low=1.0,
        high=4.0,
        unsure=("scale", "eps", "high", "temperature"),
        notes="low 1 leaves the weight unbounded below, as the paper does; it does not give its upper bound, which "
        "libraries set between 1.2 and 6 (docs/conventions.md).",
    ),
    Convention(
        name="rloo",
        source="Ahmadian et al. 2024 (Back to basics, arXiv 2402.14740), equation 6; Kool et al. 2019",
        center="leave_one_out",
        scale="none",
        eps=0.0,
        reduction="sequence_sum",
        surrogate="reinforce",
        kl_estimator="k1",
        kl_place="reward",
        kl_coef=0.05,
        unsure=("kl_coef", "temperature"),
        notes="A completion is one action: its tokens' gradients are summed, not averaged; 2 or 4 samples a prompt.",
    ),
    Convention(
        name="reinforce++",
        source="Hu 2025 (REINFORCE++, arXiv 2501.03262), equations 7 to 9",
        center="none",
        scale="none",
        eps=0.0,
        reduction="token_mean",
        whiten=True,
        kl_estimator="k1",
        kl_place="reward",
        kl_coef=0.01,
        unsure=("kl_coef", "temperature"),
        notes="One sample a prompt will do: advantages are whitened over the whole rollout, the KL's cost included.",
    ),
    Convention(
        name="reinforce++-baseline",
        source="Hu 2025 (REINFORCE++, arXiv 2501.03262), its form with a group baseline",
        center="mean",
        scale="none",
        eps=0.0,
        reduction="token_mean",
        whiten=True,
        kl_estimator="k2",
        kl_place="loss",
        kl_coef=0.01,
        unsure=("kl_coef", "temperature"),
        notes="The group's mean is subtracted, the spread is that of the whole rollout.",
    ),
    Convention(
        name="reinforce",
        source="Williams 1992; Sutton and Barto 2018, section 13.4, the baseline a running mean of scores",
        center="none",
        scale="none",
        eps=0.0,
        reduction="sequence_sum",
        surrogate="reinforce",
        baseline="moving",
        unsure=("temperature",),
        notes="The baseline is that of the rollouts before: it does not depend on the sample it is subtracted from.",
    ),
)
"""In the order of docs/algorithms/grpo.md."""
