"""The doctor's rules about alignment: rewards that are won without the task, preferences unlearnt, samples too old.

As in symptoms.py each rule reads a run's metrics and returns what it noticed, or nothing.
"""

from __future__ import annotations

from onepolicy.run.history import Finding, History, Window, percent
from onepolicy.run.trend import trend

OWN_LANGUAGE = 0.9
STALE, EFFECTIVE = 8.0, 0.5
IN_RANGE = 0.95
UNLEARNT = 1.0
SURE = 0.01
DULL = 1e-3


def hacking(run: History) -> list[Finding]:
    """The judge's score of held-out answers rises, the task's own does not."""
    judge, truth = _whole(run, "eval/score"), _whole(run, "eval/true_score")
    if judge is None or truth is None or judge.values[-1] <= judge.values[0]:
        return []
    best = max(truth.values)
    spread = max(truth.values) - min(truth.values)
    fell = best - truth.values[-1]
    if truth.values[-1] > truth.values[0] and fell <= 0.5 * spread:
        return []
    words = (
        f"The judge's score of held-out answers rose from {judge.values[0]:.3g} to {judge.values[-1]:.3g}, the task's "
        f"own went from {truth.values[0]:.3g} by way of {best:.3g} to {truth.values[-1]:.3g}: reward without the task."
    )
    advice = "Go back to the checkpoint of the best true score; raise the KL's coefficient; train the reward model on "
    return [Finding("problem", "reward hacking", words, advice + "such answers.", judge.span)]


def off_language(run: History) -> list[Finding]:
    """Completions that are not in the language asked for."""
    now, start = run.recent("rollout/language"), run.start("rollout/language")
    if now is None or start is None or now.mean >= OWN_LANGUAGE:
        return []
    words = f"{percent(1 - now.mean)} of the words are not in the language asked for (at the start "
    words += f"{percent(1 - start.mean)}; over 10 % is mixing)."
    advice = "Give the language-consistency part more weight, or a KL to a model that keeps to one language."
    return [Finding("warning", "languages mixed", words, advice, now.span)]


def stale(run: History) -> list[Finding]:
    """Samples of weights that are long gone, or of which few count after weighing."""
    found = []
    age = run.recent("rollout/staleness")
    if age is not None and age.mean > STALE:
        words = f"Samples are {age.mean:.3g} updates old on average (over 8 hurts even with correction)."
        advice = "Lower asynchronous.staleness, or give generation more of the machine."
        found.append(Finding("problem", "stale samples", words, advice, age.span))
    share = run.recent("rollout/effective_share")
    if share is not None and share.mean < EFFECTIVE:
        words = f"After importance weights {percent(share.mean)} of the samples count (under 50 % wastes the rollout)."
        advice = "Fresher rollouts, a lower lr, or token instead of sequence weights."
        found.append(Finding("problem", "few effective samples", words, advice, share.span))
    return found


def beyond_reward_model(run: History) -> list[Finding]:
    """Answers that score outside of what the reward model gave the texts it was trained on."""
    now = run.recent("rollout/in_range")
    if now is None or now.mean >= IN_RANGE:
        return []
    words = (
        f"{percent(1 - now.mean)} of answers score outside the range of the reward model's own data: it guesses there."
    )
    advice = "Raise the KL's coefficient, clip scores (credit.score_clip), or rank such answers and train it on."
    return [Finding("warning", "reward model out of range", words, advice, now.span)]


def unlearnt(run: History) -> list[Finding]:
    """Preferred answers that become less likely than under the reference."""
    now = run.recent("dpo/chosen_drift")
    if now is None or now.mean >= -UNLEARNT or "dpo/margin" not in run.metrics:
        return []
    result = trend(run.metrics["dpo/chosen_drift"].values) if len(run.metrics["dpo/chosen_drift"].values) >= 9 else None
    falling = result is None or (result.p < SURE and result.last < result.first)
    if not falling:
        return []
    words = (
        f"Preferred answers are {-now.mean:.3g} nats less likely than under the reference: the margin grows by making "
    )
    words += "both answers unlikely, and what takes their place nobody has judged."
    advice = "Add objective.nll_coef (0.2 to 1), raise beta, lower lr, or stop earlier."
    return [Finding("warning", "chosen answers unlearnt", words, advice, now.span)]


def small_loss(run: History) -> list[Finding]:
    """What a loss of about 0 means: the surrogate before and after the step."""
    before, after = run.recent("policy/surrogate_before"), run.recent("policy/surrogate_after")
    loss = run.recent("policy/loss")
    if before is None or after is None or loss is None:
        return []
    gain = after.mean - before.mean
    words = f"The surrogate (ratio times advantage) was {before.mean:.3g} before the updates of a rollout and "
    words += f"{after.mean:.3g} after, on the same samples. "
    if abs(before.mean) < DULL or abs(loss.mean) < 10 * DULL:
        words += "That the loss is about 0 says nothing: advantages are centred, so it starts there by construction. "
    if gain <= 0:
        words += "It did not rise: the updates do not improve what they are made to."
        advice = "Raise lr, or look at clipping (policy/clip_fraction) and at groups without variance."
        return [Finding("warning", "updates without effect", words, advice, after.span)]
    return [Finding("info", "surrogate", words + f"It rose by {gain:.3g} a rollout.", "", after.span)]


def _whole(run: History, key: str) -> Window | None:
    """All finite values of an evaluation, two at least."""
    series = run.metrics.get(key)
    pairs = [] if series is None else [(s, v) for s, v in zip(series.steps, series.values) if v == v]
    return Window([p[0] for p in pairs], [p[1] for p in pairs]) if len(pairs) >= 2 else None


ALIGNMENT = (hacking, off_language, stale, beyond_reward_model, unlearnt, small_loss)
"""Every rule about alignment."""
