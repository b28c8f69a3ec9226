"""The doctor's rules about rollouts and outcomes: each reads a run's metrics and returns what it noticed, or nothing.

The thresholds are rules of thumb from the literature and practice; each finding carries the measured number, so that
a reader can disagree. A rule judges the present (the last 20 logged values), not a trouble that has passed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import pstdev

from onepolicy.run.history import Finding, History, Window, most_common, p_value, percent
from onepolicy.run.trend import trend

TRUNCATED = 0.10
ZERO_VARIANCE = 0.80
INVALID = 0.01
ENTROPY_LEFT = 0.10
TREND_POINTS, SIGNIFICANT = 30, 0.01
EARLY, BEYOND = 5, 2.0
"""First values that stand for the start where the thirds do not differ; standard deviations to be gained since."""
SOLVED, HOPELESS, CEILING = 0.9, 0.1, 0.98
DRIFT = 3.0
REPEATED, REPEATING_SAMPLES = 0.5, 0.2

OUTCOMES = (
    ("rollout/score", 1),
    ("rollout/return", 1),
    ("eval/accuracy", 1),
    ("eval/return", 1),
    ("sft/nll", -1),
)
"""What a run is for, and the direction in which it is better."""

Rule = Callable[[History], list[Finding]]


def truncation(run: History) -> list[Finding]:
    """Completions cut off before they end."""
    now, start = run.recent("rollout/truncated"), run.start("rollout/truncated")
    if now is None or start is None or now.mean <= TRUNCATED:
        return []
    words = f"{percent(now.mean)} of completions are cut off (at the start {percent(start.mean)}; over 10 % hurts): "
    words += "their reward is that of an unfinished answer."
    advice = "Raise max_tokens, mask truncated completions out of the loss, or warm-start so that answers end."
    return [Finding("problem", "truncation", words, advice, now.span)]


def zero_variance(run: History) -> list[Finding]:
    """Groups all of whose scores are equal: no gradient."""
    now = run.recent("rollout/zero_variance")
    if now is None or now.mean <= ZERO_VARIANCE:
        return []
    score = run.recent("rollout/correct") or run.recent("rollout/score")
    mean = score.mean if score else math.nan
    words = (
        f"In {percent(now.mean)} of groups all scores are equal (over 80 % wastes the step); the mean is {mean:.3g}. "
    )
    if mean >= SOLVED:
        words += "Nearly all completions are right: these tasks have nothing left to teach."
        return [
            Finding("warning", "groups without variance: solved", words, "Stop here, or give harder tasks.", now.span)
        ]
    if mean <= HOPELESS:
        words += "Nearly all completions fail, so no group shows what is better."
        advice = (
            "Give easier tasks first, warm-start with SFT, raise group_size, or check the verifier on gold answers."
        )
        return [Finding("problem", "groups without variance: all fail", words, advice, now.span)]
    words += "Prompts are either always or never solved."
    advice = "Choose tasks of middling difficulty, raise the temperature to 1 or group_size, or drop such groups."
    return [Finding("problem", "groups without variance", words, advice, now.span)]


def verifier_errors(run: History) -> list[Finding]:
    """Completions that could not be judged."""
    now = run.recent("rollout/score_invalid")
    if now is None or now.mean <= INVALID:
        return []
    causes = [str(record["error"]) for record in run.samples if record.get("error")]
    cause = f" Most often: {most_common(causes)}." if causes else ""
    words = (
        f"{percent(now.mean)} of completions could not be judged (over 1 % hides a fault); they are left out.{cause}"
    )
    advice = "Run the verifier on such a completion from samples.jsonl; look for time-outs and crashes."
    return [Finding("problem", "verifier errors", words, advice, now.span)]


def entropy_collapse(run: History) -> list[Finding]:
    """Entropy far below its start; with everything solved that is convergence, otherwise the end of exploration."""
    now, start = run.recent("policy/entropy"), run.start("policy/entropy")
    if now is None or start is None or min(start.values) <= 0 or now.mean >= ENTROPY_LEFT * start.mean:
        return []
    left = f"Entropy is {now.mean:.3g} nats, {percent(now.mean / start.mean)} of its start ({start.mean:.3g})"
    score = run.recent("rollout/correct") or run.recent("rollout/score")
    if score is not None and SOLVED <= score.mean <= 1:
        words = f"{left}, with a score of {score.mean:.3g}: the policy has settled on what works."
        return [Finding("info", "entropy low, tasks solved", words, "", now.span)]
    words = f"{left}: all samples are alike and nothing new is tried."
    advice = "Lower lr, clip higher upwards than downwards, add an entropy or KL term, or sample at temperature 1."
    return [Finding("problem", "entropy collapse", words, advice, now.span)]


def learning(run: History) -> list[Finding]:
    """Whether what the run is for got better: first against last third, Welch's test, autocorrelation allowed for.

    A run that learned all it did in its first steps has equal thirds: there the first few values are the start, and
    held-out intervals that came apart overrule a training score that did not move.
    """
    found = []
    gained = any(_parted(run, key) > 0 for key in ("eval/accuracy", "eval/return"))
    for key, better in OUTCOMES:
        window = run.finite(key)
        if window is not None and len(window.values) >= TREND_POINTS:
            found.append(_outcome(key, better, window, gained))
        elif window is not None and not key.startswith("eval/"):
            words = f"{len(window.values)} values of {key} do not show whether it changes; {TREND_POINTS} would."
            found.append(Finding("info", "too early to tell", words, "", window.span))
    return found


def _parted(run: History, key: str) -> int:
    """1 when the last interval of an evaluation lies above the first, -1 below, 0 when they meet or are not there."""
    low, high = run.metrics.get(f"{key}_low"), run.metrics.get(f"{key}_high")
    if low is None or high is None:
        return 0
    return int(low.values[-1] > high.values[0]) - int(high.values[-1] < low.values[0])


def _outcome(key: str, better: int, window: Window, gained: bool) -> Finding:
    """The finding on the trend of one metric; better: 1 when it should rise, -1 when it should fall.

    gained: whether the held-out evaluations rose beyond their intervals.
    """
    result = trend(window.values)
    numbers = (
        f"{key} went from {result.first:.3g} (first third) to {result.last:.3g} (last third), {p_value(result.p)}."
    )
    if result.p < SIGNIFICANT and (result.last - result.first) * better > 0:
        return Finding("good", "learning", numbers, "", window.span)
    if result.p < SIGNIFICANT:
        advice = "Go back to a checkpoint before that; lower lr, lengthen the warm-up."
        return Finding("problem", "getting worse", numbers, advice, window.span)
    early, spread = trend(window.values, EARLY), pstdev(window.values[-len(window.values) // 3 :])
    if early.p < SIGNIFICANT and (early.last - early.first) * better > BEYOND * spread:
        words = f"{key} went from {early.first:.3g} (first {EARLY} values) to {early.last:.3g} (last third), "
        words += f"{p_value(early.p)}; the gain is in the first third."
        return Finding("good", "learning", words, "", window.span)
    if better > 0 and not key.endswith("/return") and SOLVED <= result.last <= 1:
        return Finding("info", "solved from the start", numbers, "Give harder tasks.", window.span)
    if better > 0 and 0 < CEILING * max(window.values) <= result.last:
        words = f"{numbers} It has stayed near its highest value, {max(window.values):.3g}."
        return Finding("info", "at its highest", words, "", window.span)
    if gained:
        words = f"{numbers} The held-out evaluations rose beyond their intervals: what it learned, it learned early."
        return Finding("info", "level", words, "", window.span)
    advice = "Check the findings above; try 3 times lr, easier tasks, more samples a prompt, a longer run."
    return Finding("warning", "no learning", f"No significant change: {numbers}", advice, window.span)


def held_out(run: History) -> list[Finding]:
    """Evaluations: progress beyond their intervals, or none while the training score rises."""
    found = run.finite("eval/accuracy")
    low, high = run.metrics.get("eval/accuracy_low"), run.metrics.get("eval/accuracy_high")
    if found is None and (series := run.metrics.get("eval/accuracy")) is not None and len(series.values) == 2:
        found = Window(series.steps, series.values)
    if found is None or low is None or high is None:
        return []
    ends = "held-out accuracy " + ", ".join(
        f"{percent(found.values[i])} [{percent(low.values[i])}, {percent(high.values[i])}] at step {found.steps[i]}"
        for i in (0, -1)
    )
    parted = _parted(run, "eval/accuracy")
    if parted > 0:
        return [Finding("good", "held-out gain", f"Intervals apart: {ends}.", "", found.span)]
    if parted < 0:
        advice = "Go back to the best checkpoint; lower lr or add a KL term."
        return [Finding("problem", "held-out loss", f"Intervals apart: {ends}.", advice, found.span)]
    score = run.finite("rollout/score")
    rising = False
    if score is not None and len(score.values) >= TREND_POINTS:
        result = trend(score.values)
        rising = result.p < SIGNIFICANT and result.last > result.first
    if rising and found.values[0] < SOLVED:
        words = f"The training score rises but the held-out accuracy does not: {ends}."
        advice = "Look for reward without the task done in samples.jsonl, and for tasks seen too often."
        return [Finding("warning", "reward up, held-out flat", words, advice, found.span)]
    return []


def lengths(run: History) -> list[Finding]:
    """Completions that grew or shrank beyond a factor of three."""
    now, start = run.recent("rollout/length"), run.start("rollout/length")
    if now is None or start is None or min(now.mean, start.mean) <= 0 or "rollout/return" in run.metrics:
        return []
    if 1 / DRIFT < now.mean / start.mean < DRIFT:
        return []
    words = f"Completions went from {start.mean:.0f} to {now.mean:.0f} tokens."
    advice = "Read some in samples.jsonl: is the length used? Shape the reward against padding, or give more room."
    return [Finding("warning", "length drift", words, advice, now.span)]


def repetition(run: History) -> list[Finding]:
    """Recent samples that say the same words over and over."""
    recent = [r for r in run.samples[-50:] if len(_words(r)) >= 20]
    repeating = [record for record in recent if _distinct(_words(record)) < REPEATED]
    if len(recent) < 10 or len(repeating) < REPEATING_SAMPLES * len(recent):
        return []
    words = f"{len(repeating)} of the last {len(recent)} samples repeat themselves: under half of their runs of four "
    words += "words are distinct."
    advice = "Lower lr, add a KL term, and look at what the reward pays for."
    return [Finding("warning", "repetition", words, advice, (recent[0]["step"], recent[-1]["step"]))]


def _words(record: dict[str, object]) -> list[str]:
    """The words of a sample's completion."""
    return str(record.get("completion", record.get("text", ""))).split()


def _distinct(words: list[str]) -> float:
    """The share of distinct ones among all runs of four words."""
    runs = list(zip(words, words[1:], words[2:], words[3:]))
    return len(set(runs)) / len(runs)


SYMPTOMS: tuple[Rule, ...] = (
    truncation, zero_variance, verifier_errors, entropy_collapse, learning, held_out, lengths, repetition,
)  # fmt: skip
"""Every rule about rollouts and outcomes."""
