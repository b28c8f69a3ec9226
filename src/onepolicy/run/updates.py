"""The doctor's rules about updates: losses, gradients, how far a step moves the policy, sampler against trainer.

As in symptoms.py each rule reads a run's metrics and returns what it noticed, or nothing.
"""

from __future__ import annotations

import math
import statistics
from typing import Literal

from onepolicy.run.history import Finding, History, Window, percent

KL_SEQUENCE = 10.0
KL_GROWTH, KL_GROWTH_STEPS, KL_FLOOR = 3.0, 10, 0.02
KL_OLD = 0.1
CLIPPED = 0.3
GAP = 1e-2
SPIKE, SPIKE_HISTORY, SPIKES = 10.0, 20, 3


def not_finite(run: History) -> list[Finding]:
    """Losses that are not numbers at the end."""
    names = [
        key
        for key in ("learner/loss", "policy/loss", "value/loss", "sft/nll")
        if key in run.metrics and not math.isfinite(run.metrics[key].values[-1])
    ]
    if not names:
        return []
    series = run.metrics[names[0]]
    finite = [step for step, value in zip(series.steps, series.values) if math.isfinite(value)]
    words = f"{', '.join(names)}: not finite at step {series.steps[-1]}"
    words += f"; the last number was at step {finite[-1]}." if finite else "; it never was."
    advice = "Lower lr, lengthen the warm-up, use fp32; resume from a checkpoint before it."
    return [Finding("problem", "loss not finite", words, advice, (series.steps[-1], series.steps[-1]))]


def kl_to_reference(run: History) -> list[Finding]:
    """Distance to the reference policy: too large, or growing too fast."""
    found = []
    kl = run.recent("policy/kl_ref")
    length = run.recent("rollout/length")
    whole = run.recent("policy/kl_ref_sequence")
    total = whole.mean if whole else kl.mean * length.mean if kl and length else 0.0
    advice = "Raise kl_coef, lower lr, or check that the reward cannot be had without doing the task."
    span = (whole or kl).span if (whole or kl) else None  # type: ignore[union-attr]
    if total > KL_SEQUENCE:
        words = f"KL to the reference is {total:.3g} nats a sequence (over 10 the policy is another one)."
        found.append(Finding("problem", "KL blow-up", words, advice, span))
    jump = _jump(run.finite("policy/kl_ref"))
    if jump is not None:
        before, after, steps = jump
        words = f"KL to the reference went from {before:.3g} to {after:.3g} nats an action within 10 logged steps."
        found.append(Finding("problem", "KL jump", words, advice, steps))
    return found


def _jump(kl: Window | None) -> tuple[float, float, tuple[int, int]] | None:
    """The first growth by KL_GROWTH within KL_GROWTH_STEPS logged values that has not gone back: from, to, steps."""
    if kl is None:
        return None
    end = statistics.median(kl.values[-3:])
    for i, before in enumerate(kl.values):
        for j in range(i + 1, min(i + 1 + KL_GROWTH_STEPS, len(kl.values))):
            after = kl.values[j]
            if KL_FLOOR / KL_GROWTH < before < after / KL_GROWTH and after > KL_FLOOR and end >= after:
                return before, after, (kl.steps[i], kl.steps[j])
    return None


def step_size(run: History) -> list[Finding]:
    """Policy updates that go too far on one batch."""
    found = []
    kl = run.recent("policy/kl_old")
    if kl is not None and kl.mean > KL_OLD:
        words = f"One batch moves the policy by a KL of {kl.mean:.3g} nats an action (over 0.1 is no longer on-policy)."
        found.append(
            Finding("problem", "steps too large: KL", words, "Lower lr, or fewer epochs over a batch.", kl.span)
        )
    clip = run.recent("policy/clip_fraction")
    if clip is not None and clip.mean > CLIPPED:
        words = f"{percent(clip.mean)} of actions are clipped (over 30 %: most of the batch gives no gradient)."
        advice = "Lower lr, fewer epochs or parts of a batch, or fresher rollouts."
        found.append(Finding("problem", "steps too large: clipping", words, advice, clip.span))
    return found


def sampler_gap(run: History) -> list[Finding]:
    """Sampler and trainer that disagree about the same tokens under the same weights."""
    now = run.recent("rollout/logp_gap")
    if now is None or max(now.values) <= GAP:
        return []
    over = sum(value > GAP for value in now.values)
    words = (
        f"Sampler and trainer differ by up to {max(now.values):.3g} nats for one token under the same weights, over "
    )
    words += f"0.01 in {over} of the last {len(now.values)} steps: ratios are wrong from the start."
    advice = "Give both the same temperature, no top-k or top-p; publish weights every step; compare in fp32."
    return [Finding("problem", "sampler/trainer gap", words, advice, now.span)]


def gradients(run: History) -> list[Finding]:
    """Gradient norm spikes and skipped optimizer steps."""
    found = []
    norm = run.finite("learner/grad_norm")
    if norm is not None:
        spikes = _spikes(norm)
        if len(spikes) >= SPIKES or any(times > SPIKE**2 for _, times in spikes):
            step, times = max(spikes, key=lambda spike: spike[1])
            words = f"{len(spikes)} gradient norms of over 10 times the median before them; the largest, {times:.0f} "
            words += f"times, at step {step}."
            advice = "Lower lr or max_grad_norm, lengthen the warm-up; read the samples of that step."
            found.append(Finding("warning", "gradient spikes", words, advice, (spikes[0][0], spikes[-1][0])))
    skipped = run.metrics.get("learner/skipped")
    total = max((value for value in skipped.values if math.isfinite(value)), default=0.0) if skipped else 0.0
    if skipped is not None and total > 0:
        step = next(step for step, value in zip(skipped.steps, skipped.values) if value > 0)
        words = f"{total:.0f} optimizer steps were skipped, the first by step {step}: loss or gradient was not finite."
        advice = "Look at the dumped batch in the run directory; lower lr, or use fp32."
        severity: Literal["problem", "warning"] = "problem" if total > 0.05 * len(skipped.steps) else "warning"
        found.append(Finding(severity, "skipped steps", words, advice, (step, skipped.steps[-1])))
    return found


def _spikes(norm: Window) -> list[tuple[int, float]]:
    """Steps whose value is over SPIKE times the median of the SPIKE_HISTORY before, with the factor."""
    found = []
    for i in range(SPIKE_HISTORY, len(norm.values)):
        usual = statistics.median(norm.values[i - SPIKE_HISTORY : i])
        if usual > 0 and norm.values[i] > SPIKE * usual:
            found.append((norm.steps[i], norm.values[i] / usual))
    return found


UPDATES = (not_finite, sampler_gap, gradients, step_size, kl_to_reference)
"""Every rule about updates."""
