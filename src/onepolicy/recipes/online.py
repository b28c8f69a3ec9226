"""Rows for online preference optimisation: the policy answers, a judge scores, best and worst become a pair."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

from onepolicy.acting.episodes import Actor
from onepolicy.algos import dpo
from onepolicy.data.demonstrations import Example, read_jsonl
from onepolicy.data.prompts import PromptStream, Shuffled
from onepolicy.errors import DataError, RewardError
from onepolicy.nn.token_policy import TokenPolicy
from onepolicy.recipes.arena import Rescore
from onepolicy.recipes.language import Language
from onepolicy.run.files import replace_text
from onepolicy.types import Episode, Generator


@final
class OnlineRows:
    """Batches of pairs (or KTO's singles) that are made anew every `span` batches by the policy as it is then.

    directory: where each round's pairs are kept, a line each, so that a run killed within a round goes on with the
    same. online: the recipe's options. frozen: the reference, to which the policy is copied each round if that moves.
    """

    def __init__(
        self,
        directory: Path,
        prompts: PromptStream,
        actor: Actor,
        rescore: Rescore,
        language: Language,
        generator: Generator,
        online: Any,
        batch_size: int,
        seed: int,
        *,
        frozen: TokenPolicy,
        budget: int | None,
        kto: bool,
        referenced: bool,
    ) -> None:
        self.directory, self.prompts, self.actor, self.rescore = directory, prompts, actor, rescore
        self.language, self.generator, self.online = language, generator, online
        self.batch_size, self.seed = batch_size, seed
        self.frozen, self.budget, self.kto, self.referenced = frozen, budget, kto, referenced
        self.span = 1
        self.served = 0
        self._stream: Shuffled[Any] | None = None

    def next(self) -> Sequence[Any]:
        """The next batch; at the start of a round its pairs are made first.

        Raises: RewardError when a round yields no pair: all answers to each prompt are worth the same.
        """
        if self.served % self.span == 0 and self.served < self.span * self.online.rounds:
            self._begin(self.served // self.span, self._made(self.served // self.span))
        assert self._stream is not None
        self.served += 1
        return self._stream.next()

    def state_dict(self) -> dict[str, Any]:
        """How many batches were served, where the prompts are, and where in the round's pairs."""
        inner = self._stream.state_dict() if self._stream is not None else {}
        return {"served": self.served, "prompts": self.prompts.state_dict(), "round": inner}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on within the round. Raises: DataError when its pairs are gone."""
        self.served = int(state["served"])
        self.prompts.load_state_dict(state["prompts"])
        if self.served and self.served % self.span:
            number = self.served // self.span
            place = self.directory / f"round-{number}.jsonl"
            if not place.is_file():
                raise DataError(f"{place} is gone; the round cannot be gone on with. Resume from an older checkpoint.")
            self._begin(number, list(read_jsonl(place, _read).rows))
            assert self._stream is not None
            self._stream.load_state_dict(state["round"])

    def _begin(self, number: int, rows: list[Any]) -> None:
        self._stream = Shuffled(rows, self.batch_size, self.seed, f"round-{number}")

    def _made(self, number: int) -> list[Any]:
        """A round's rows, by the policy as it is now, kept on disk."""
        self.generator.load(self.language.state(), number)
        tasks = self.prompts.next()
        episodes = self.rescore(self.actor.play(tasks, self.online.samples, number + 1), tasks)
        size = self.online.samples
        groups = [episodes[i : i + size] for i in range(0, len(episodes), size)]
        pairs = [pair for group in groups for pair in best_and_worst(group)]
        if not pairs:
            raise RewardError(
                f"round {number}: none of {len(groups)} prompts has two answers of different worth: no pair to "
                "learn from. Sample more answers a prompt, at a higher temperature, or mend the judge."
            )
        rows: list[Any] = list(dpo.singles_of_pairs(pairs)) if self.kto else list(pairs)
        if self.referenced:
            if self.online.moving_reference:
                self.frozen.load_state_dict(self.language.policy.state_dict())
            rows = dpo.referenced(rows, self._logp)
        self.directory.mkdir(parents=True, exist_ok=True)
        replace_text(self.directory / f"round-{number}.jsonl", "".join(json.dumps(_line(row)) + "\n" for row in rows))
        return rows

    def _logp(self, examples: Sequence[Example]) -> list[float]:
        return dpo.logp_in_parts(self.frozen, examples, pad_id=self.language.pad_id, budget=self.budget)


def best_and_worst(group: Sequence[Episode]) -> list[dpo.Pair]:
    """The best and the worst answer to a prompt as a pair; none when all that could be judged are worth the same."""
    known = [e for e in group if e.score.value is not None]
    if len(known) < 2:
        return []
    best = max(known, key=lambda e: e.score.value or 0.0)
    worst = min(known, key=lambda e: e.score.value or 0.0)
    if best.score.value == worst.score.value:
        return []
    chosen, rejected = ((list(e.tokens), list(e.is_action)) for e in (best, worst))
    return [dpo.Pair(chosen, rejected)]


def _line(row: Any) -> dict[str, Any]:
    return dict(vars(row))


def _read(line: dict[str, Any]) -> Any:
    """A row as it was written; JSON has lists for tuples."""
    kind: Any = dpo.Single if "answer" in line else dpo.Pair
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in line.items()})
