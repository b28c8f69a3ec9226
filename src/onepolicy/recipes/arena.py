"""What answers are worth: by a reward model, a function or the task; and who wins on held-out prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from onepolicy.acting.episodes import Actor
from onepolicy.errors import ConfigError, DataError, ModelError
from onepolicy.evaluation.winrate import win_rate
from onepolicy.recipes.language import Language
from onepolicy.recipes.rollouts import actor_of
from onepolicy.recipes.scoring import RewardModel, same_tokenizer, trained_reward_model
from onepolicy.run.seeding import derive_seed
from onepolicy.types import Episode, Generator, Metrics, Score, Task

Rescore = Callable[[Sequence[Episode], Sequence[Task]], list[Episode]]
"""(episodes, the tasks their groups number) -> the episodes with the scores that count."""


def reward_model_for(name: str, language: Language, *, re_encode: bool, device: str) -> RewardModel | None:
    """The reward model `name` for the policy's texts, None for "".

    re_encode: the reward model has another tokenizer, and texts are to be tokenised again for it.
    Raises: ModelError for another tokenizer, unless that is said.
    """
    if not name:
        return None
    model = trained_reward_model(name)
    model.scorer.to(device)
    if not re_encode and not same_tokenizer(model.tokenizer, language.tokenizer):
        raise ModelError(
            f"the reward model {name} has another tokenizer than the policy, so it cannot read the policy's tokens. "
            "Train one that starts from the policy's model, or have the text tokenised again for it: --re-encode."
        )
    return model


def rescorer(model: RewardModel | None, *, re_encode: bool) -> Rescore:
    """Scores by a reward model, the task's own kept as the part `task`; without a model, episodes as they are."""

    def by_model(episodes: Sequence[Episode], tasks: Sequence[Task]) -> list[Episode]:
        assert model is not None
        if re_encode:
            values = _of_texts(model, episodes, tasks)
        else:
            values = list(model.score_tokens([e.tokens for e in episodes]))
        known = model.scorer.known
        return [replace(e, score=_with_task(value, e.score, known)) for e, value in zip(episodes, values, strict=True)]

    return by_model if model is not None else lambda episodes, tasks: list(episodes)


def _of_texts(model: RewardModel, episodes: Sequence[Episode], tasks: Sequence[Task]) -> list[float | None]:
    """Scores of texts tokenised again; None for one that the reward model cannot read."""
    found: list[float | None] = []
    for episode in episodes:
        try:
            found += model.score(tasks[episode.group].messages, [episode.text])
        except DataError:
            found.append(None)
    return found


def _with_task(value: float | None, by_task: Score, known: tuple[float, float] | None) -> Score:
    parts: dict[str, float | None] = {**by_task.parts, "task": by_task.value}
    if known is not None and value is not None:
        parts["in_range"] = float(known[0] <= value <= known[1])
    return Score(value, parts, None if value is not None else "the reward model cannot read the text")


@dataclass(frozen=True)
class Arena:
    """Held-out prompts, n sampled answers each, worth what `rescore` says, against the reference's answers.

    reference: scores of the reference's answers [P][n], NaN for what could not be judged; `answered` makes them.
    """

    tasks: Sequence[Task]
    actor: Actor
    rescore: Rescore
    n: int
    reference: Sequence[Sequence[float]] = ()

    def answered(self) -> list[list[float]]:
        """Scores [P][n] of the generator's present weights; the same seeds each time."""
        return [[_number(e.score.value) for e in group] for group in self.groups()]

    def groups(self) -> list[list[Episode]]:
        """The n episodes of each prompt by the generator's present weights."""
        episodes = self.rescore(self.actor.play(self.tasks, self.n, 0), self.tasks)
        return [episodes[i : i + self.n] for i in range(0, len(episodes), self.n)]

    def sit(self, groups: Sequence[Sequence[Episode]] | None = None) -> Metrics:
        """Win rate against the reference, mean score, and the mean of the task's own score where another one counts.

        groups: what `groups` gave, if it was called already.
        """
        groups = self.groups() if groups is None else groups
        scores = [[_number(e.score.value) for e in group] for group in groups]
        metrics: Metrics = {"eval/score": _mean([x for row in scores for x in row])}
        own = [_number(e.score.parts.get("task")) for group in groups for e in group]
        if any(x == x for x in own):
            metrics["eval/true_score"] = _mean(own)
        metrics["eval/truncated"] = _mean([float(e.truncated) for group in groups for e in group])
        metrics["eval/length"] = _mean([float(sum(e.is_action)) for group in groups for e in group])
        if self.reference:
            won = win_rate(scores, self.reference)
            metrics |= {"eval/win_rate": won.value, "eval/win_rate_low": won.low, "eval/win_rate_high": won.high}
        return metrics


def arena_of(
    tasks: Sequence[Task],
    language: Language,
    generator: Generator,
    rescore: Rescore,
    score: Any,
    *,
    n: int,
    max_tokens: int,
    temperature: float,
    seed: int,
) -> Arena:
    """The arena over the policy that `generator` has now, whose answers become the reference's.

    score: what judges texts (acting.episodes.Scorer).
    """
    if n < 1:
        raise ConfigError(f"n is {n}; the arena needs at least 1 answer a prompt.")
    actor = actor_of(
        language,
        generator,
        score,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=derive_seed(seed, "arena"),
    )
    arena = Arena(tasks, actor, rescore, n)
    return replace(arena, reference=arena.answered())


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _mean(values: Sequence[float]) -> float:
    known = [x for x in values if x == x]
    return sum(known) / len(known) if known else float("nan")
