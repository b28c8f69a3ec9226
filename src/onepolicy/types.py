"""The text side's vocabulary: messages, tasks, scores, completions, episodes and the seams around them.

No torch here, so that verifiers, data checks and the command line start fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Metrics = dict[str, float]
"""One step's measurements, keyed `area/name`; units and meanings are in docs/metrics.md."""

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


CAUSES = ("time-out", "memory", "crash", "gold", "reward", "judge", "sandbox", "other")
"""Why a completion could not be judged: the time or memory limit, a verifier that raised or died, a gold answer that
cannot be read, a reward that is no finite number, a judging model or a sandbox that failed."""


@dataclass(frozen=True)
class Score:
    """A verdict on one completion, in one of three states.

    judged: it has a value. invalid: the verifier failed, there is no value and `error` says why. skipped: the verifier
    does not apply, there is neither. Both without a value are left out of baselines and counted apart, never taken
    as 0.

    value: reward, None where there is none. parts: the reward's components by name, each a number or None.
    error: why it could not be judged, beginning with its cause and a colon (CAUSES); None in the other states.
    """

    value: float | None
    parts: Mapping[str, float | None] = field(default_factory=dict)
    error: str | None = None

    @property
    def state(self) -> Literal["judged", "invalid", "skipped"]:
        """Which of the three it is."""
        if self.value is not None:
            return "judged"
        return "skipped" if self.error is None else "invalid"

    @property
    def cause(self) -> str | None:
        """Why it is invalid, one of CAUSES; "other" for words that begin with none of them, None if it is not."""
        if self.state != "invalid" or self.error is None:
            return None
        word = self.error.partition(":")[0]
        return word if word in CAUSES else "other"


class Verifier(Protocol):
    """Judges a completion's text against its task. Deterministic; never raises on bad model output."""

    def __call__(self, task: Task, text: str) -> Score: ...


@dataclass(frozen=True)
class Task:
    """One text problem.

    id: unique within its set; part of every sample's seed.
    messages: the conversation that asks for an answer.
    answer: the gold answer as text.
    verifier: judges a completion of this task.
    meta: whatever the verifier or a report needs besides (numbers of a countdown, a difficulty level).
    """

    id: str
    messages: tuple[Message, ...]
    answer: str
    verifier: Verifier
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    max_tokens: new tokens at most, the stop token included. temperature: 0 is greedy. top_k: 0 keeps all.
    top_p: 1 keeps all. stop: strings that end a completion. stop_tokens: token ids that do, besides the
    generator's own end tokens.
    """

    max_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    stop_tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class Completion:
    """What a generator returned for one sample.

    tokens: exactly the ids sampled, the stop token included; never re-tokenised.
    logp: nats, per token, of the distribution it was sampled from (after temperature, top-k, top-p).
    stop: "stop" (a stop token or string was reached) or "length" (cut off at max_tokens: truncated).
    version: of the weights that sampled it.
    """

    tokens: tuple[int, ...]
    logp: tuple[float, ...]
    stop: Literal["stop", "length"]
    version: int = 0


@dataclass(frozen=True)
class Episode:
    """One trajectory of a language model: prompt and completion spans in order, as tokens.

    group: episodes with equal group share a baseline. tokens, is_action, logp: same length; is_action is True
    where the policy wrote the token, logp is 0 elsewhere. truncated: the last completion was cut off.
    """

    task_id: str
    group: int
    tokens: tuple[int, ...]
    is_action: tuple[bool, ...]
    logp: tuple[float, ...]
    score: Score
    version: int = 0
    truncated: bool = False
    text: str = ""


class Generator(Protocol):
    """Anything that completes prompts: the built-in engine, vLLM, a remote server."""

    version: int

    def generate(
        self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """n completions for each prompt (token ids). seeds: one per prompt; sample k of prompt i depends on
        (seeds[i], k) and the weights only, not on what else is in the batch."""
        ...

    def load(self, state: Mapping[str, Any], version: int) -> None:
        """Replace the weights by `state` (parameter name -> tensor) and set the version."""
        ...


class Prompts(Protocol):
    """A source of batches of tasks that goes on where it was, after a checkpoint too."""

    def next(self) -> Sequence[Task]: ...
