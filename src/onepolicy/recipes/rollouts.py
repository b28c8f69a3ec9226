"""A recipe's rollouts: the actor of a language model, and a rollout that keeps samples and says what went wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from torch import Tensor

from onepolicy.acting.episodes import Actor, invalid_causes, rollout_metrics
from onepolicy.learning.weights import publish
from onepolicy.recipes.language import Language
from onepolicy.run.run import Run
from onepolicy.tasks.verdicts import Scorer
from onepolicy.types import Episode, Generator, Metrics, Prompts, Sampling, Task

SAMPLES_KEPT = 8
"""Completions written to samples.jsonl each step."""

Act = Callable[[Sequence[Task], int], tuple[list[Episode], Metrics]]
"""(tasks, step) -> episodes, a group for each task, and their metrics."""


def actor_of(
    language: Language, generator: Generator, score: Scorer, *, max_tokens: int, temperature: float, seed: int
) -> Actor:
    """What turns tasks into episodes with this model's template and tokens."""
    return Actor(
        generator=generator,
        render=language.render,
        decode=language.decode,
        sampling=Sampling(max_tokens, temperature),
        seed=seed,
        context=language.context,
        score=score,
    )


@final
class Here:
    """Rollouts made in this process, when they are wanted. What `asynchronous.Ahead` is for another process.

    version: of the weights published last.
    """

    def __init__(self, prompts: Prompts, generator: Generator, actor: Actor, group_size: int) -> None:
        self.prompts, self.generator, self.actor, self.group_size = prompts, generator, actor, group_size
        self.version = 0

    def begin(self, state: Mapping[str, Tensor], version: int) -> None:
        """The first weights, and the step that training begins with."""
        self.generator.load(state, version)
        self.version = version

    def publish(self, state: Mapping[str, Tensor], version: int) -> None:
        """New weights for the next rollout."""
        publish(state, self.generator, version)
        self.version = version

    def next(self) -> Sequence[Task]:
        """The tasks of the next rollout."""
        return self.prompts.next()

    def play(self, tasks: Sequence[Task], step: int) -> list[Episode]:
        """Their episodes."""
        return self.actor.play(tasks, self.group_size, step)

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def make_act(run: Run, play: Callable[[Sequence[Task], int], list[Episode]], version: Callable[[], int]) -> Act:
    """A rollout that also writes some of its samples and says why completions could not be judged.

    play(tasks, step): the episodes. version(): of the weights that are about to be trained.
    """

    def act(tasks: Sequence[Task], step: int) -> tuple[list[Episode], Metrics]:
        episodes = play(tasks, step)
        for cause, count in invalid_causes(episodes).most_common(3):
            run.say(f"step {step + 1}: {count} completions could not be judged: {cause}")
        run.sample(step + 1, [sample(e, tasks[e.group]) for e in episodes[:SAMPLES_KEPT]])
        return episodes, rollout_metrics(episodes, version())

    return act


def sample(episode: Episode, task: Task) -> dict[str, Any]:
    """A completion for samples.jsonl."""
    return {
        "task": episode.task_id,
        "prompt": task.messages[-1].content,
        "gold": task.answer,
        "text": episode.text,
        "score": episode.score.value,
        "parts": dict(episode.score.parts),
        "error": episode.score.error,
        "truncated": episode.truncated,
    }
