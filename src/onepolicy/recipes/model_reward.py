"""Rewards by name for training and sampling: a reward model, for all tasks or one set's, or the user's function.

`model:RUN` scores every task by the reward model of a run, `model:RUN@SET` only those of a task set (the ids that begin
with `SET/`), the others being judged by their own verifiers: DeepSeek-R1's last stage, rules for reasoning and a model
for the rest. Scores keep the parts of the task's own verifier, so that right and wrong are still known.
"""

from __future__ import annotations

from collections.abc import Sequence

from onepolicy.errors import DataError
from onepolicy.recipes.scoring import RewardModel, trained_reward_model
from onepolicy.recipes.verifying import scorer_of
from onepolicy.tasks.verdicts import Scorer, verify_each
from onepolicy.types import Score, Task

PREFIX = "model:"


def reward_of(path: str) -> Scorer | None:
    """The scorer that a name means, None for "": the tasks' own verifiers.

    Raises: as `verifying.scorer_of`; ModelError for a language model where a reward model is named.
    """
    if not path.startswith(PREFIX):
        return scorer_of(path) if path else None
    place, _, only = path.removeprefix(PREFIX).partition("@")
    model = trained_reward_model(place)

    def score(pairs: Sequence[tuple[Task, str]]) -> list[Score]:
        own = verify_each(pairs)
        return [
            _by_model(model, task, text, found) if not only or task.id.startswith(f"{only}/") else found
            for (task, text), found in zip(pairs, own, strict=True)
        ]

    return score


def _by_model(model: RewardModel, task: Task, text: str, own: Score) -> Score:
    """What the reward model says, beside the parts of the task's own verifier."""
    try:
        value = model.score(task.messages, [text])[0]
    except DataError as error:
        return Score(None, own.parts, f"reward: the reward model cannot read the text: {error}")
    return Score(value, {**own.parts, "reward_model": value})
