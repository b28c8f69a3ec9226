"""Episodes of a language model: render a task, ask the generator, verify the answer.

The generator sees tokens only; verifiers see text only; nobody here sees an advantage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from onepolicy.errors import DataError, RewardError
from onepolicy.run.seeding import derive_seed
from onepolicy.tasks.length import with_tokens
from onepolicy.tasks.verdicts import Scorer, Tally, verify_each
from onepolicy.types import Completion, Episode, Generator, Metrics, Sampling, Score, Task


@dataclass(frozen=True)
class Actor:
    """What turns tasks into episodes.

    generator: completes token prompts. render: a task's prompt as token ids. decode: completion ids to text,
    without the stop token. sampling: how tokens are drawn. score: judges completions. seed: of the run.
    context: longest sequence the model takes, prompt and completion together.
    """

    generator: Generator
    render: Callable[[Task], list[int]]
    decode: Callable[[Sequence[int]], str]
    sampling: Sampling
    seed: int
    context: int
    score: Scorer = verify_each

    def play(self, tasks: Sequence[Task], n: int, step: int) -> list[Episode]:
        """n episodes of each task, those of one task sharing a group, in the tasks' order.

        Sample k of a task depends on (seed, step, task id, k) and the weights only; of a task that comes more than
        once, on which time it is too.
        Raises: DataError for a prompt that leaves no room to answer, or a scorer that returns the wrong number.
        """
        prompts = [self.render(task) for task in tasks]
        for task, prompt in zip(tasks, prompts, strict=True):
            if len(prompt) >= self.context:
                raise DataError(
                    f"the prompt of task {task.id!r} has {len(prompt)} tokens; the model's context is {self.context}. "
                    "Drop long prompts (data.prompts.fit_prompts) or use a model with a longer context."
                )
        seeds = [derive_seed(self.seed, "rollout", step, task.id, *again) for task, again in _repeats(tasks)]
        answers = self.generator.generate(prompts, n, self.sampling, seeds)
        drawn = [(group, done) for group, samples in enumerate(answers) for done in samples]
        texts = [self.decode(done.tokens) for _, done in drawn]
        scores = self.score(
            [
                (with_tokens(tasks[group], len(done.tokens)), text)
                for (group, done), text in zip(drawn, texts, strict=True)
            ]
        )
        if len(scores) != len(drawn):
            raise DataError(
                f"the scorer returned {len(scores)} scores for {len(drawn)} completions; it must return one for each."
            )
        return [
            _episode(tasks[group], group, prompts[group], done, text, score)
            for (group, done), text, score in zip(drawn, texts, scores, strict=True)
        ]


def _repeats(tasks: Sequence[Task]) -> Iterator[tuple[Task, tuple[int, ...]]]:
    """Each task with (), or from its second time on with (how often it came before,)."""
    seen: Counter[str] = Counter()
    for task in tasks:
        yield task, (seen[task.id],) if seen[task.id] else ()
        seen[task.id] += 1


def _episode(task: Task, group: int, prompt: list[int], done: Completion, text: str, score: Score) -> Episode:
    p, c = len(prompt), len(done.tokens)
    return Episode(
        task_id=task.id,
        group=group,
        tokens=(*prompt, *done.tokens),
        is_action=(False,) * p + (True,) * c,
        logp=(0.0,) * p + tuple(done.logp),
        score=score,
        version=done.version,
        truncated=done.stop == "length",
        text=text,
    )


def rollout_metrics(episodes: Sequence[Episode], version: int) -> Metrics:
    """What a batch of episodes looks like: rewards by part, lengths, truncation, groups without variance, staleness,
    what could not be judged by cause.

    version: of the weights about to be trained. A group has no variance when its judged scores are all equal.
    """
    judged = [e.score.value for e in episodes if e.score.value is not None]
    lengths = [sum(e.is_action) for e in episodes]
    groups: dict[int, set[float]] = {}
    for e in episodes:
        values = groups.setdefault(e.group, set())
        if e.score.value is not None:
            values.add(e.score.value)
    n = len(episodes)
    tally = Tally.of(e.score for e in episodes)
    metrics: Metrics = {
        "rollout/score": sum(judged) / len(judged) if judged else float("nan"),
        "rollout/score_invalid": tally.causes.total() / n,
        "rollout/truncated": sum(e.truncated for e in episodes) / n,
        "rollout/length": sum(lengths) / n,
        "rollout/length_max": float(max(lengths)),
        "rollout/zero_variance": sum(len(values) < 2 for values in groups.values()) / len(groups),
        "rollout/staleness": sum(version - e.version for e in episodes) / n,
    }
    for name in sorted({name for e in episodes for name in e.score.parts}):
        parts = [value for e in episodes if (value := e.score.parts.get(name)) is not None]
        if parts:
            metrics[f"rollout/{name}"] = sum(parts) / len(parts)
    return metrics | tally.metrics()


def judged(episodes: Sequence[Episode]) -> list[Episode]:
    """The episodes that could be judged. Raises: RewardError when there is none: nothing could ever be learned."""
    found = [episode for episode in episodes if episode.score.value is not None]
    if not found:
        cause, count = Counter(e.score.error or "skipped" for e in episodes).most_common(1)[0]
        raise RewardError(
            f"not one of the {len(episodes)} completions of this step could be judged ({count} of them: {cause}). "
            "Mend the reward function or verifier; a number is needed for some completions at least."
        )
    return found


def invalid_causes(episodes: Sequence[Episode]) -> Counter[str]:
    """How often each error kept a completion from being judged; the skipped have none."""
    return Counter(e.score.error for e in episodes if e.score.value is None and e.score.error is not None)
