"""Metrics: their names, units and meanings, how they are read back, and where they are sent besides metrics.jsonl.

Trackers (tensorboard, wandb, trackio) are extras behind one seam, `Sink`, and are imported nowhere else.
"""

from __future__ import annotations

import math
import re
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, final

from onepolicy.errors import ConfigError, nearest
from onepolicy.run.journal import read_lines
from onepolicy.types import Metrics

_KEY = re.compile(r"[a-z0-9_]+(/[A-Za-z0-9_.@+-]+)+")


@dataclass(frozen=True)
class Metric:
    """A metric's unit and meaning, for docs, reports and the doctor."""

    unit: str
    meaning: str


METRICS: dict[str, Metric] = {
    "policy/loss": Metric(
        "loss", "What the policy minimises, without value, entropy and KL terms; its trend says little."
    ),
    "policy/entropy": Metric("nats", "Mean entropy of the policy at the actions taken; its collapse ends exploration."),
    "policy/clip_fraction": Metric(
        "share", "Actions whose ratio left the clip range on the side that stops the gradient."
    ),
    "policy/kl_old": Metric("nats", "KL from the policy before the step, per action, (r - 1) - log r."),
    "policy/kl": Metric("nats", "KL from the policy that played the rollout to that after its updates."),
    "model/loss": Metric("nats", "MBPO: negative log-likelihood of a step under the world model, without constants."),
    "model/error": Metric("1", "MBPO: squared error of the elites on held-out steps; 1 is no better than the mean."),
    "model/imagined_reward": Metric("reward/step", "MBPO: mean reward of imagined steps."),
    "model/imagined_ends": Metric("share", "MBPO: imagined steps that end their episode."),
    "plan/worth": Metric("reward", "MBPO that plans: what the model promises for the best plans of the last search."),
    "plan/std": Metric("1", "The same: deviation left of the first action, which runs from -1 to 1."),
    "plan/gap": Metric("reward", "`onepolicy plan`: certified bound on how far the values are from the optimum."),
    "plan/sweeps": Metric("sweeps", "`onepolicy plan`: passes over all states."),
    "plan/seconds": Metric("s", "`onepolicy plan`: time the solution took."),
    "plan/start_value": Metric("reward", "`onepolicy plan`: expected return from the start."),
    "plan/converged": Metric("0 or 1", "`onepolicy plan`: whether the gap came below the tolerance."),
    "policy/temperature": Metric("reward/nat", "SAC: what entropy is worth."),
    "policy/surrogate_before": Metric(
        "reward", "Ratio times advantage before the rollout's updates, its samples' mean."
    ),
    "policy/surrogate_after": Metric("reward", "The same after them, on the same samples: what the updates gained."),
    "policy/penalty": Metric("reward/nat", "Coefficient of PPO's KL penalty in the rollout's updates."),
    "policy/step_share": Metric("share", "TRPO: of the full step, what the line search accepted; 0 for none."),
    "policy/cg_steps": Metric("count", "TRPO: conjugate gradient steps taken."),
    "policy/kl_ref": Metric("nats", "KL to the reference policy, per action."),
    "policy/kl_ref_sequence": Metric(
        "nats", "KL to the reference policy, summed over a sequence, mean over sequences."
    ),
    "reward_model/loss": Metric("nats", "Mean over rankings of -log sigmoid(lead), its pairs alike."),
    "reward_model/accuracy": Metric("share", "Pairs of a step's rankings whose better answer scored higher."),
    "reward_model/lead": Metric("reward", "Score of the better answer less that of the worse, mean over pairs."),
    "reward_model/score": Metric("reward", "Mean score of a step's answers."),
    "reward_model/shift": Metric("reward", "Mean score of the demonstrations before it was made 0."),
    "eval/pair_accuracy": Metric("share", "Held-out pairs whose better answer scores higher; equal scores count half."),
    "eval/pair_accuracy_low": Metric("share", "Lower end of its 95 % interval, over rankings."),
    "eval/pair_accuracy_high": Metric("share", "Upper end of its 95 % interval, over rankings."),
    "eval/pair_loss": Metric("nats", "Mean -log sigmoid(lead) of the held-out pairs; 0.693 knows nothing."),
    "eval/calibration_error": Metric("share", "Mean distance between the probability said and the share right."),
    "dpo/loss": Metric("nats", "The objective's loss, mean over pairs (KTO: over answers)."),
    "dpo/accuracy": Metric("share", "Pairs whose better answer has the higher implicit reward."),
    "dpo/margin": Metric("reward", "Implicit reward of the better answer less that of the worse."),
    "dpo/chosen_logp": Metric("nats", "Log-probability of the better answer."),
    "dpo/rejected_logp": Metric("nats", "Log-probability of the worse answer."),
    "dpo/chosen_drift": Metric(
        "nats", "log pi - log pi_ref of the better (KTO: good) answers; below 0 they are unlearnt."
    ),
    "dpo/rejected_drift": Metric("nats", "log pi - log pi_ref of the worse (KTO: bad) answers."),
    "dpo/kl": Metric("nats", "KTO's estimate of the KL to the reference, from answers to other prompts."),
    "eval/preference_accuracy": Metric("share", "Held-out pairs whose better answer has the higher implicit reward."),
    "eval/preference_margin": Metric("reward", "Their mean difference of implicit rewards."),
    "eval/chosen_drift": Metric("nats", "log pi - log pi_ref of the held-out better answers."),
    "eval/score": Metric("reward", "Mean score of sampled answers to held-out prompts, by the judge."),
    "eval/true_score": Metric("reward", "Mean of the task's own score of them, where a reward model is the judge."),
    "eval/win_rate": Metric("share", "P(better than the reference's answer) + P(equal) / 2, on held-out prompts."),
    "rlhf/score": Metric("reward", "Mean score of the rollout, as it was credited."),
    "rlhf/kl": Metric("nats", "KL to the reference, summed over a completion, mean over completions."),
    "rlhf/kl_coef": Metric("reward/nat", "What a nat of KL costs."),
    "rlhf/objective": Metric("reward", "Score less the cost of the KL: what PPO maximises."),
    "ptx/loss": Metric("nats", "Negative log-likelihood of the pretraining text mixed into the steps."),
    "eval/kl": Metric("nats", "KL to the reference of a sampled answer to a held-out prompt."),
    "eval/text_nll": Metric("nats", "Mean negative log-likelihood of held-out pretraining text, per token."),
    "distill/kl": Metric("nats", "KL(student || teacher) a token of the student's texts, by the tokens drawn."),
    "distill/kl_sequence": Metric("nats", "The same, summed over a text."),
    "distill/kl_exact": Metric("nats", "The same a token, over the whole vocabulary; with --loss exact."),
    "eval/teacher_kl": Metric(
        "nats", "KL(student || teacher) a token of answers to held-out prompts, over the vocabulary."
    ),
    "value/loss": Metric("reward^2", "The critic's loss, half the squared error to its target."),
    "value/explained_variance": Metric(
        "share", "1 - var(target - value) / var(target); 1 is a perfect critic, 0 a constant."
    ),
    "value/q": Metric("reward", "Mean Q(s, a) of an update's batch; above what can be earned, it is biased."),
    "learner/loss": Metric("loss", "All of the loss: policy, value, entropy and KL terms with their coefficients."),
    "learner/grad_norm": Metric("norm", "Euclidean norm of the whole gradient before clipping."),
    "learner/lr": Metric("1", "Learning rate of the step."),
    "learner/logp_gap": Metric("nats", "Largest |logp - logp_behaviour| of the step, at the weights before it."),
    "learner/micro_batches": Metric("count", "Parts in which the step's batch went through the policy."),
    "learner/oom_retries": Metric("count", "Times the step was begun again with smaller parts, out of memory."),
    "learner/skipped": Metric("count", "Optimizer steps skipped since the start: loss or gradient not finite."),
    "learner/rejected": Metric("count", "TRPO: rollouts since the start that did not move the policy."),
    "learner/negative_curvature": Metric("count", "TRPO: rollouts since the start whose curvature was not positive."),
    "rollout/score": Metric("reward", "Mean score of the episodes that could be judged."),
    "rollout/score_invalid": Metric("share", "Completions whose verifier failed; left out of baselines and loss."),
    "reward/invalid_<cause>": Metric(
        "share", "Of them by cause: time_out, memory, crash, gold, reward, judge, sandbox, other; absent where none."
    ),
    "reward/skipped": Metric("share", "Completions the verifier does not apply to; left out like those that failed."),
    "rollout/<part>": Metric("reward", "Mean of one component of the score by its name, such as correct or format."),
    "rollout/truncated": Metric("share", "Completions cut off at max_tokens, or episodes at the time limit."),
    "rollout/zero_variance": Metric("share", "Groups whose judged scores are all equal; they teach nothing."),
    "rollout/rounds": Metric("count", "Rollouts drawn until enough groups had variance (dynamic sampling)."),
    "rollout/effective_share": Metric("share", "Effective sample size after importance weights; 1 is all of them."),
    "rollout/importance_max": Metric("ratio", "Largest pi / pi_behaviour of a token before any bound."),
    "rollout/importance_cut": Metric("share", "Tokens whose importance weight was bounded or masked."),
    "rollout/trained": Metric("share", "Completions that reached the learner."),
    "rollout/length": Metric("tokens", "Mean length of a completion; of an episode, its steps."),
    "rollout/length_max": Metric("tokens", "Longest completion."),
    "rollout/staleness": Metric("versions", "Weight updates between sampling and training, mean over episodes."),
    "rollout/logp_gap": Metric(
        "nats", "Largest difference between sampler and trainer log-probs, same weights, same tokens."
    ),
    "rollout/return": Metric("reward", "Undiscounted return of the episodes that ended in the step, mean."),
    "rollout/episodes": Metric("count", "Episodes that ended in the step."),
    "rollout/env_steps": Metric("count", "Environment steps since the start."),
    "eval/accuracy": Metric("share", "Held-out problems answered right, greedy."),
    "eval/avg@<k>": Metric("share", "Mean accuracy of k samples."),
    "eval/pass@<k>": Metric("share", "Problems solved by at least one of k samples, unbiased estimate."),
    "eval/pass_hat@<k>": Metric("share", "Problems solved by all of k samples (pass^k), unbiased estimate."),
    "eval/maj@<k>": Metric("share", "Problems whose most frequent answer among k samples is right."),
    "eval/format": Metric("share", "Completions that kept the answer format, greedy."),
    "eval/truncated": Metric("share", "Completions cut off at max_tokens, greedy."),
    "eval/length": Metric("tokens", "Mean length of a completion, greedy."),
    "eval/invalid": Metric("count", "Completions that could not be judged, greedy."),
    "eval/skipped": Metric("count", "Completions that the verifier does not apply to, greedy."),
    "eval/part_<name>": Metric("as part", "Mean of another part of the verifier's score, greedy."),
    "eval/prompt_<how>": Metric("share", "Replies that follow all their instructions, strict or loose (IFEval)."),
    "eval/instruction_<how>": Metric("share", "Instructions followed, over all prompts, strict or loose (IFEval)."),
    "eval/contaminated": Metric("count", "Problems of which a training file has a copy."),
    "eval/<measure>_clean": Metric("share", "The measure over the problems without a copy in the training file."),
    "eval/sampled_<rate>": Metric("as rate", "The same rates for sampled completions."),
    "eval/return": Metric("reward", "Mean undiscounted return over evaluation episodes."),
    "eval/episodes": Metric("count", "Evaluation episodes."),
    "eval/nll": Metric("nats", "Mean negative log-likelihood of held-out tokens."),
    "eval/bits_per_byte": Metric("bits", "Held-out nats of all tokens / ln 2 / UTF-8 bytes; no tokenizer decides it."),
    "eval/infill_nll": Metric("nats", "Mean negative log-likelihood of held-out middles, prefix and suffix given."),
    "pretrain/nll": Metric("nats", "Mean negative log-likelihood of the step's text, per token."),
    "pretrain/tokens": Metric("tokens", "Tokens predicted in the step."),
    "sft/nll": Metric("nats", "Mean negative log-likelihood of the demonstrations' tokens."),
    "sft/tokens": Metric("tokens", "Demonstration tokens in the step."),
    "engine/tokens": Metric("tokens", "Tokens generated."),
    "engine/seconds": Metric("s", "Wall clock of the generation."),
    "engine/tokens_per_second": Metric("tokens/s", "Tokens generated in a second."),
    "engine/occupancy": Metric("share", "Slots in use, mean over decoding steps."),
    "engine/<count>": Metric(
        "count", "The engine's rows, prompt tokens computed and saved, cached positions and their bytes."
    ),
    "time/step_seconds": Metric("s", "Wall clock of the step, evaluation included."),
    "time/<stage>_seconds": Metric("s", "Wall clock of one stage of the step: rollout, learn, eval, save, verify."),
    "time/unix": Metric("s", "When the line was written, since 1970."),
    "rate/<what>_per_second": Metric("1/s", "Throughput: env_steps, tokens, steps."),
    "memory/resident": Metric("MiB", "Resident memory of the process."),
    "memory/gpu": Metric("MiB", "Largest GPU memory allocated since the start."),
}
"""Every metric the package logs. <name> stands for any name. Any key may carry `seed<n>/` before it, one of several
seeds trained at once, and `_low` or `_high` after it, the ends of its 95 % interval."""


def describe(key: str) -> Metric | None:
    """The unit and meaning of a metric; None when it is not registered.

    >>> describe("eval/pass@8").unit, describe("seed3/rollout/return_low").unit, describe("my/own")
    ('share', 'reward', None)
    """
    name = re.sub(r"^seed\d+/", "", key)
    for candidate in (name, re.sub(r"_(low|high)$", "", name)):
        if candidate in METRICS:
            return METRICS[candidate]
        for pattern, metric in METRICS.items():
            if "<" in pattern and re.fullmatch(re.sub(r"<\w+>", r"[A-Za-z0-9_.-]+", pattern), candidate):
                return metric
    return None


def metrics_page() -> str:
    """docs/metrics.md: the table of METRICS."""
    rows = [f"| `{key}` | {metric.unit} | {metric.meaning} |" for key, metric in METRICS.items()]
    head = "# Metrics\n\n" + " ".join(PAGE_WORDS.split()) + "\n\n| key | unit | meaning |\n|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


PAGE_WORDS = """
`metrics.jsonl` has one line for each time a run logs: its step and these numbers, the same to the byte when the run is
repeated with the same seed on the same machine; a number that is not finite is `null`. What depends on the clock
(`time/`, `rate/`, `engine/`, `memory/`) is in `timing.jsonl`. A name in angle brackets stands for any name. A key may
carry `seed<n>/` before it (one of several seeds trained at once) and `_low` or `_high` after it (the ends of its 95 %
interval). This page is written by `python -m onepolicy.run.metrics > docs/metrics.md`, and a test compares the two.
"""


class Series(NamedTuple):
    """One metric of a run over its steps; a value that was not finite is NaN."""

    steps: list[int]
    values: list[float]


def read_series(path: Path) -> dict[str, Series]:
    """Every metric in a metrics.jsonl or timing.jsonl file by key, in step order; empty when the file is missing.

    Raises: CheckpointError for a broken line, with its number.
    """
    found: dict[str, Series] = {}
    for record in read_lines(path):
        for key, value in record.items():
            if key != "step":
                series = found.setdefault(key, Series([], []))
                series.steps.append(record["step"])
                series.values.append(math.nan if value is None else float(value))
    return found


def checked(metrics: Metrics) -> dict[str, float | int]:
    """Metrics as plain numbers: integers stay integers, tensors and numpy scalars of one element become floats.

    Raises: ConfigError for a key that is not `area/name`, or a value that is no number.
    """
    clean: dict[str, float | int] = {}
    for key, value in metrics.items():
        if not _KEY.fullmatch(key):
            raise ConfigError(
                f"{key!r} is not a metric's name; expected area/name, in lower case, such as policy/loss."
            )
        try:
            clean[key] = value if type(value) is int else float(value)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"Metric {key} is {value!r}, which is no number. Log floats.") from error
    return clean


def resources() -> dict[str, float]:
    """What every timing line carries: seconds since the epoch, and this process's resident memory in MiB."""
    found = {"time/unix": round(time.time(), 3)}
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return found
    return {**found, "memory/resident": pages * resource.getpagesize() / 2**20}


class Sink(Protocol):
    """Where metrics go besides the run directory."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def open_sink(tracker: str, directory: Path, recipe: str, config: Mapping[str, Any]) -> Sink | None:
    """The tracker called `tracker`; None for "".

    Raises: ConfigError for an unknown tracker, or one that is not installed, with the command that installs it.
    """
    if not tracker:
        return None
    if tracker not in TRACKERS:
        raise ConfigError(f"{tracker!r} is not a tracker. {nearest(tracker, TRACKERS)}")
    try:
        return TRACKERS[tracker](directory, recipe, config)
    except ImportError as error:
        raise ConfigError(
            f'The tracker {tracker!r} is not installed ({error}). Install it: pip install "onepolicy[{tracker}]"'
        ) from error


@final
class _Tensorboard:
    """Event files in the run directory, for `tensorboard --logdir`."""

    def __init__(self, directory: Path, recipe: str, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(directory / "tensorboard"))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        self._writer.close()


@final
class _Hosted:
    """wandb, and trackio which has its interface; a resumed run continues under the same name."""

    def __init__(self, module: Any, arguments: Mapping[str, Any]) -> None:
        self._module = module
        module.init(**arguments)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._module.log({key: value for key, value in metrics.items() if math.isfinite(value)}, step=step)

    def close(self) -> None:
        self._module.finish()


def _wandb(directory: Path, recipe: str, config: Mapping[str, Any]) -> Sink:
    import wandb

    place = {"dir": str(directory), "id": directory.name, "name": directory.name, "resume": "allow"}
    return _Hosted(wandb, {"project": f"onepolicy-{recipe}", "config": dict(config), **place})


def _trackio(directory: Path, recipe: str, config: Mapping[str, Any]) -> Sink:
    import trackio

    place = {"name": directory.name, "resume": "allow"}
    return _Hosted(trackio, {"project": f"onepolicy-{recipe}", "config": dict(config), **place})


TRACKERS: dict[str, Callable[[Path, str, Mapping[str, Any]], Sink]] = {
    "tensorboard": _Tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
}


if __name__ == "__main__":
    print(metrics_page(), end="")
