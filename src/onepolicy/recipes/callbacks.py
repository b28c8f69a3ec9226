"""What a user adds to a training of deep control: functions that see it, an early stop, videos.

All of it happens where a line is logged, outside the random streams of training: a run with callbacks that only look
is the run without them, and resumes as exactly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import final

from onepolicy.acting.player import Player
from onepolicy.envs.vector import ControlEnv
from onepolicy.errors import ConfigError
from onepolicy.nn.policies import ControlPolicy
from onepolicy.run.run import Run
from onepolicy.types import Metrics


@dataclass(frozen=True)
class Event:
    """A line that is about to be logged.

    step: environment steps so far, of each seed. metrics: the line's, a copy; of several seeds the names are means, and
    each seed's own are `seed<n>/...`. run_dir: the run's. policies: of each seed, as they are now; they act in the
    world's own form, and draw from streams of their own.
    """

    step: int
    metrics: Metrics
    run_dir: Path
    players: Callable[[], Sequence[Player]] = field(repr=False)

    @cached_property
    def policies(self) -> tuple[Player, ...]:
        """Of each seed."""
        return tuple(self.players())

    @property
    def policy(self) -> Player:
        """Of the first seed."""
        return self.policies[0]


Callback = Callable[[Event], object]
"""Called at each logged line; returns "stop" to end training there, anything else to go on."""


@final
class Watch:
    """The callbacks, the early stop and the videos of one run.

    policies: of each seed as they are now. env: a world as the policies act in it. stop_at_return: the mean return at
    which an evaluation (of several seeds, each one's) ends training; None for never. video: environment steps between
    videos, 0 for none.
    """

    def __init__(
        self,
        run: Run,
        callbacks: Sequence[Callback],
        policies: Callable[[], Sequence[ControlPolicy]],
        env: ControlEnv,
        *,
        stop_at_return: float | None = None,
        video: int = 0,
    ) -> None:
        self.run, self.callbacks, self._policies, self.env = run, tuple(callbacks), policies, env
        self.stop_at_return, self.video = stop_at_return, video

    def players(self) -> list[Player]:
        """The policies as they are now, for the world as it is."""
        return [Player(policy, self.env) for policy in self._policies()]

    def stops(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Calls every callback with the line; True when one of them, or an evaluation, ends training.

        Raises: ConfigError for a word that is not "stop".
        """
        answers = [
            callback(Event(step, dict(metrics), self.run.directory, self.players)) for callback in self.callbacks
        ]
        for callback, answer in zip(self.callbacks, answers, strict=True):
            if isinstance(answer, str) and answer != "stop":
                name = getattr(callback, "__name__", repr(callback))
                raise ConfigError(f'the callback {name} returned {answer!r}; return "stop" to end training, or None.')
        return "stop" in [answer for answer in answers if isinstance(answer, str)] or self.reached(metrics)

    def reached(self, metrics: Mapping[str, float]) -> bool:
        """Whether an evaluation among the metrics came up to stop_at_return, each seed's where there are several."""
        own = [value for key, value in metrics.items() if re.fullmatch(r"seed\d+/eval/return", key)]
        found = own or [metrics[key] for key in ("eval/return",) if key in metrics]
        return self.stop_at_return is not None and bool(found) and min(found) >= self.stop_at_return

    def film(self, step: int, before: int, *, finished: bool) -> None:
        """A video of a greedy episode of the first seed, when a multiple of `video` was passed, or at the end."""
        if self.video and (finished or step // self.video > before // self.video):
            from onepolicy.recipes.video import record

            path = self.run.directory / "videos" / f"step-{step}.mp4"
            self.run.say(f"A greedy episode at step {step:,}: {record(self.players()[0], path, seed=step)}")
