"""`onepolicy data sample MODEL --tasks SET -n 16`: many answers a prompt, judged, the good ones kept as rows for SFT.

What is sampled is written to `OUT.samples.jsonl` prompt by prompt, so that a killed run goes on where it was; what is
kept is a function of that file alone. Beside the rows: why each of the others was not kept, and best-of-n.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from onepolicy.errors import ConfigError
from onepolicy.evaluation.accuracy import powers_of_two
from onepolicy.evaluation.best_of import best_of_n
from onepolicy.evaluation.stats import bootstrap_interval
from onepolicy.recipes.data import Outcome, only
from onepolicy.recipes.language import language_of
from onepolicy.recipes.loop import require_count, require_positive
from onepolicy.recipes.model_reward import reward_of
from onepolicy.recipes.options import ExamOptions, Machine, ProblemOptions
from onepolicy.recipes.reference import weights_hash
from onepolicy.recipes.rollouts import actor_of
from onepolicy.recipes.textual import Problems, that_fit
from onepolicy.recipes.verifying import Judge
from onepolicy.run.config import to_json
from onepolicy.run.files import replace_bytes, replace_object
from onepolicy.run.progress import progress
from onepolicy.tasks.language import LanguageVerifier
from onepolicy.tasks.repetition import covered_share, tokens_of
from onepolicy.types import Episode, Task

CHUNK = 64
"""Prompts sampled between two writes to disk."""
CAUSES = (
    *(
        "could not be judged",
        "empty",
        "cut off",
        "wrong",
        "score too low",
        "format",
        "language",
        "repetition",
        "length",
    ),
    *("duplicate", "more than wanted"),
)
"""Why an answer is not kept; the first that holds counts."""


@dataclass(frozen=True)
class Keep:
    """Which answers are kept."""

    most: int = 1
    """Of a prompt at most; 0 for all."""
    choose: Literal["best", "shortest", "first"] = "best"
    """Which of more: the highest scores, the fewest tokens, or those sampled first; ties in the order sampled."""
    right: bool = True
    """Only what the task's verifier calls right; without it, all that the judge gave a score."""
    least: float | None = None
    """Lowest score that is good enough, reward units; None for any."""
    format: bool = True
    """Only answers in the task's format, where it has one."""
    language: str = ""
    """Language of the thinking, a code of ISO 639-1; empty takes the part `language` of the task's own verifier."""
    language_share: float = 0.0
    """Least share of its words in that language; an answer without words passes. 0 does not look."""
    repetition: float = 0.2
    """Largest share of tokens in a 20-gram that has occurred before; 1 does not look."""
    shortest: int = 1
    """Fewest tokens, the end of turn included."""
    longest: int = 0
    """Most tokens; 0 for no bound."""

    def __post_init__(self) -> None:
        require_count(self, "most", "shortest", "longest")
        if not 0 <= self.language_share <= 1 or not 0 <= self.repetition <= 1:
            raise ConfigError(f"{self}: language_share and repetition are shares, in [0, 1].")


@dataclass(frozen=True)
class Config:
    """Many answers a prompt, and the good ones as a training file."""

    model: str = ""
    """Run directory, Hugging Face directory or hub id."""
    tasks: str = "arithmetic"
    """Task set whose training prompts are answered."""
    task_options: str = ""
    """Further options of the task set, key=value,key=value (docs/tasks.md)."""
    level: int | None = None
    """Difficulty, for a task set that has levels; None for its own default."""
    data: str = ""
    """Training file of a task set that reads one."""
    prompts: int = 1000
    """Prompts at most, the set's first."""
    n: int = 16
    """Answers a prompt."""
    reward: str = ""
    """Judge: module:f, file.py:f, model:RUN or model:RUN@SET; empty for the task's verifier."""
    max_tokens: int = 1024
    """Longest answer, tokens."""
    temperature: float = 1.0
    """Of the samples."""
    seed: int = 0
    """Seed of the samples."""
    out: str = "samples.jsonl"
    """The kept rows: messages, task, score."""
    keep: Keep = field(default_factory=Keep)
    problems: ProblemOptions = field(default_factory=ProblemOptions)
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        require_positive(self, "prompts", "n", "max_tokens")
        if not self.temperature > 0:
            raise ConfigError(f"temperature is {self.temperature}; {self.n} answers that differ need it above 0.")


@dataclass(frozen=True)
class Answer:
    """One sampled answer, as it is on file. correct, format, language: parts of the verifier's score, None for none."""

    text: str
    tokens: int
    truncated: bool
    score: float | None
    correct: float | None
    format: float | None
    language: float | None


@dataclass(frozen=True)
class Harvest:
    """What was sampled and kept.

    rows: for SFT. causes: why the others were not, by cause. prompts, answers: how many there were; served: prompts
    with a row. best_of: n -> (mean over prompts of the value of the best-scored of n, low, high).
    """

    rows: tuple[dict[str, Any], ...]
    causes: Mapping[str, int]
    prompts: int
    answers: int
    served: int
    best_of: Mapping[int, tuple[float, float, float]]

    def text(self) -> str:
        """The report in words."""
        lines = [
            f"{len(self.rows):,} of {self.answers:,} answers kept, for {self.served:,} of {self.prompts:,} prompts"
        ]
        lines += [f"  {cause:<20}{self.causes[cause]:>9,}" for cause in CAUSES if self.causes.get(cause)]
        shown = [f"  best of {n:<12}{v:>9.1%}  [{a:.1%}, {b:.1%}]" for n, (v, a, b) in self.best_of.items()]
        return "\n".join([*lines, *(["right, of the answers the judge likes best"] if shown else []), *shown])


def arguments(words: Sequence[str]) -> list[str]:
    """The flags of the words before the first flag."""
    return only("model", words, "sample MODEL --tasks SET --n 16 --out rows.jsonl")


def main(config: Config) -> Outcome:
    """Samples, judges, keeps and writes; exit code 1 where nothing was kept. Raises: ConfigError for no model."""
    found = sample(config)
    return Outcome(f"{config.out}: {found.text()}", 0 if found.rows else 1)


def sample(config: Config) -> Harvest:
    """The kept answers, which are in `config.out` as well; goes on with what is on file.

    Raises: ConfigError for no model, or samples on file that another configuration or other weights made.
    """
    if not config.model:
        raise ConfigError("name a model: onepolicy data sample MODEL --tasks SET --n 16 --out rows.jsonl.")
    torch.set_num_threads(config.machine.threads)
    out, book = Path(config.out), Path(f"{config.out}.samples.jsonl")
    language = language_of(config.model, layout=config.machine.layout)
    language.model.to(config.machine.device)
    problems = Problems.of(Asked(**{name: getattr(config, name) for name in ASKED}))
    tasks = that_fit(problems.train(), language, config.problems.bad_rows)
    chosen = tasks.tasks[: config.prompts]
    done = _open_book(book, config, weights_hash(language.model))
    waiting = [task for task in chosen if task.id not in done]
    generator = language.engine(slots=config.machine.slots, cache_tokens=config.machine.cache_tokens or None)
    with Judge(config.machine, tasks, reward=reward_of(config.reward)) as judge:
        player = actor_of(
            language, generator, judge.score,
            max_tokens=config.max_tokens, temperature=config.temperature, seed=config.seed,
        )  # fmt: skip
        with progress(len(chosen), "sample", done=len(chosen) - len(waiting)) as bar:
            for start in range(0, len(waiting), CHUNK):
                part = waiting[start : start + CHUNK]
                episodes = player.play(part, config.n, 0)
                with book.open("a", encoding="utf-8") as file:
                    for number, task in enumerate(part):
                        record = [_on_file(e) for e in episodes[number * config.n : (number + 1) * config.n]]
                        file.write(json.dumps({"task": task.id, "answers": record}, ensure_ascii=False) + "\n")
                bar.advance(len(part))
    found = harvest(chosen, _open_book(book, config, ""), config.keep)
    replace_bytes(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found.rows).encode())
    report = {"causes": dict(found.causes), "prompts": found.prompts, "answers": found.answers, "rows": len(found.rows)}
    replace_object(Path(f"{config.out}.report.json"), {**report, "served": found.served, "best_of": found.best_of})
    return found


def harvest(tasks: Sequence[Task], answers: Mapping[str, Sequence[Answer]], keep: Keep) -> Harvest:
    """The rows of the tasks' answers that are kept, and why the others are not."""
    rows: list[dict[str, Any]] = []
    causes: Counter[str] = Counter()
    served = 0
    for task in tasks:
        chosen, refused = select(task, answers[task.id], keep)
        causes.update(refused)
        served += bool(chosen)
        messages = [{"role": m.role, "content": m.content} for m in task.messages]
        rows += [
            {"messages": [*messages, {"role": "assistant", "content": a.text}], "task": task.id, "score": a.score}
            for a in chosen
        ]
    total = sum(len(answers[task.id]) for task in tasks)
    return Harvest(tuple(rows), dict(causes), len(tasks), total, served, _best_of([answers[t.id] for t in tasks]))


def select(task: Task, answers: Sequence[Answer], keep: Keep) -> tuple[list[Answer], list[str]]:
    """A task's answers that are kept, in the order wished for, and the causes of the others."""
    causes: list[str] = []
    good: list[Answer] = []
    seen: set[str] = set()
    for answer in answers:
        fault = _fault(task, answer, keep)
        words = " ".join(answer.text.split())
        if fault is None and words in seen:
            fault = "duplicate"
        if fault is None:
            good.append(answer)
            seen.add(words)
        else:
            causes.append(fault)
    if keep.choose == "best":
        good.sort(key=lambda a: -(a.score or 0.0))
    elif keep.choose == "shortest":
        good.sort(key=lambda a: a.tokens)
    most = keep.most or len(good)
    return good[:most], causes + ["more than wanted"] * len(good[most:])


def _fault(task: Task, answer: Answer, keep: Keep) -> str | None:
    """The first cause that an answer is not kept for, None for a good one."""
    share = answer.language
    if keep.language and keep.language_share:
        share = LanguageVerifier(keep.language, side="thinking", minimum=1)(task, answer.text).parts["language"]
    repeated = keep.repetition < 1 and covered_share(tokens_of(answer.text), 20) > keep.repetition
    faults = {
        "could not be judged": answer.score is None,
        "empty": not answer.text.strip(),
        "cut off": answer.truncated,
        "wrong": keep.right and answer.correct != 1.0,
        "score too low": keep.least is not None and (answer.score or 0.0) < keep.least,
        "format": keep.format and answer.format is not None and answer.format != 1.0,
        "language": bool(keep.language_share) and share is not None and share < keep.language_share,
        "repetition": repeated,
        "length": answer.tokens < keep.shortest or bool(keep.longest and answer.tokens > keep.longest),
    }
    return next((cause for cause, holds in faults.items() if holds), None)


def _best_of(answers: Sequence[Sequence[Answer]]) -> dict[int, tuple[float, float, float]]:
    """Best of 1, 2, 4, ... by the judge's score, where right and wrong are known: mean over prompts, 95 % interval."""
    known = [[(a.score, a.correct) for a in row if a.score is not None and a.correct is not None] for row in answers]
    full = [row for row in known if row]
    if not full:
        return {}
    found = {}
    for n in powers_of_two(min(map(len, full))):
        values = [best_of_n([s for s, _ in row], [c for _, c in row], n) for row in full]
        interval = bootstrap_interval(values)
        found[n] = (interval.value, interval.low, interval.high)
    return found


def _on_file(episode: Episode) -> dict[str, Any]:
    """An answer as its book has it."""
    parts = episode.score.parts
    named = {name: parts.get(name) for name in ("correct", "format", "language")}
    common = {"text": episode.text, "tokens": sum(episode.is_action), "truncated": episode.truncated}
    return {**common, "score": episode.score.value, **named}


def _open_book(book: Path, config: Config, weights: str) -> dict[str, list[Answer]]:
    """The answers on file by task; a new file begins with what made it. A torn last line is cut off.

    weights: of the model, "" where they were compared already. Raises: ConfigError when something else made it.
    """
    decisive = {k: v for k, v in to_json(config).items() if k not in ("model", "out", "keep", "machine", "prompts")}
    head = {"config": decisive, "weights": weights}
    records = _whole_lines(book)
    if not records:
        book.parent.mkdir(parents=True, exist_ok=True)
        replace_bytes(book, (json.dumps(head, ensure_ascii=False) + "\n").encode())
        return {}
    if weights and records[0] != json.loads(json.dumps(head)):
        raise ConfigError(
            f"{book} has samples of another model or configuration; give --out another name, or delete it."
        )
    replace_bytes(book, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records).encode())
    return {r["task"]: [Answer(**one) for one in r["answers"]] for r in records[1:]}


def _whole_lines(book: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines, without a last one that a crash has torn; none when it is missing."""
    lines = book.read_bytes().split(b"\n")[:-1] if book.exists() else []
    return [json.loads(line) for line in lines]


@dataclass(frozen=True)
class Asked:
    """The fields by which `Problems.of` knows a configuration."""

    model: str
    tasks: str
    task_options: str
    level: int | None
    data: str
    seed: int
    problems: ProblemOptions
    eval_data: str = ""
    exam: ExamOptions = field(default_factory=ExamOptions)


ASKED = ("model", "tasks", "task_options", "level", "data", "seed", "problems")
"""Those of them that a configuration here has."""
