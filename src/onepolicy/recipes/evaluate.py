"""Language models on benchmarks: greedy and sampled, in pairs, killed and continued, every sample kept."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from onepolicy.errors import ConfigError, nearest
from onepolicy.evaluation.accuracy import AccuracyReport, proportion, summarise
from onepolicy.evaluation.attempts import attempt_of, make_attempts
from onepolicy.evaluation.choice import NORMS
from onepolicy.evaluation.contamination import DEFAULT_N, Contamination, contamination, training_rows
from onepolicy.recipes.evaluate_book import (
    HEADER,
    Book,
    problems_fingerprint,
    read_problems,
    weights_fingerprint,
)
from onepolicy.recipes.evaluate_choice import likelihoods
from onepolicy.recipes.evaluate_report import Result, against, comparison_text, scores_of, summary, write
from onepolicy.recipes.evaluate_sets import Asked, Prompt, ask, find_file, held_out, question
from onepolicy.recipes.language import Language, is_run, language_of
from onepolicy.recipes.loop import require_count, require_positive
from onepolicy.recipes.options import Machine, ProblemOptions
from onepolicy.recipes.textual import Problems, instructed
from onepolicy.recipes.verifying import Judge
from onepolicy.run.progress import Bar, progress
from onepolicy.run.report import Report
from onepolicy.run.run import Run
from onepolicy.run.seeding import derive_seed
from onepolicy.tasks.base import makes_problems
from onepolicy.types import Generator, Metrics, Sampling

AUTO = "auto"
"""The directory below runs/ that is named after the model and what decides its samples."""
MADE_SIZE = 512
"""Problems of a set that makes its own, when no number is given."""


@dataclass(frozen=True)
class Config:
    """Held-out accuracy of a language model, greedy and sampled."""

    model: str = ""
    """Run directory, Hugging Face directory, or hub id."""
    tasks: str = "arithmetic"
    """Task sets, separated by commas."""
    level: int | None = None
    """Difficulty, for a task set that has levels; None for that which the run was trained on, or the set's own."""
    task_options: str = ""
    """Further options of the task sets, key=value,key=value (docs/tasks.md)."""
    data: str = ""
    """Training rows of the set: few-shot examples come from them; gsm8k-steps takes their problems out of its exam."""
    eval_data: str = ""
    """Held-out file of a task set that reads one."""
    data_dir: str = ""
    """Directory with a folder for each benchmark (math500/test.jsonl, gsm8k/test.jsonl and train.jsonl, …)."""
    k: int = 0
    """Sampled completions a problem, for avg@k, pass@k and maj@k; 0 is greedy only."""
    at: str = ""
    """Numbers j of samples for pass@j and maj@j, separated by commas; empty for 1, 2, 4, … up to k."""
    size: int | None = None
    """Problems of each set at most; None for all of a benchmark, 512 of a set that makes its own."""
    max_tokens: int = 4096
    """Longest completion, tokens; cut to the room in the model's context. DeepSeek-R1 was given 32,768."""
    temperature: float = 0.6
    """Of the sampled completions (DeepSeek-R1's)."""
    top_p: float = 0.95
    """Of the sampled completions (DeepSeek-R1's); 1 keeps every token."""
    seed: int = 0
    """Seed of the sampled completions."""
    prompt: Prompt = "auto"
    """chat: through the tokenizer's template. plain: as text, for models that know no chat. auto: chat where it can."""
    shots: int = 0
    """Worked examples before each question, the same for all seeds."""
    read: str = ""
    """How answers are marked: `last` for all sets, or gsm8k=last,math500=open; empty for each set's own way."""
    choice: Literal["letter", "likelihood", "both"] = "both"
    """Multiple choice: a written letter, the most probable answer (acc, acc_norm), or both."""
    against: str = ""
    """A second model, or the directory of a finished evaluation, to compare with problem by problem."""
    contamination: str = ""
    """Training file in which the problems are looked for."""
    ngram: int = DEFAULT_N
    """Words in a row that count as a copy; 13 as in GPT-3, 8 finds more."""
    out: str = ""
    """Directory for the report and every sample; the same call again goes on. Empty writes none, auto names one."""
    problems: ProblemOptions = field(default_factory=ProblemOptions)
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        require_positive(self, "size", "max_tokens")
        require_count(self, "k", "shots")
        if self.k > 0 and self.temperature == 0:
            raise ConfigError(f"k is {self.k} at temperature 0: all samples would be equal. Set temperature > 0.")
        if wrong := [j for j in self.numbers if not 1 <= j <= self.k]:
            raise ConfigError(f"at names {wrong[0]}, but there are {self.k} samples a problem; ask for 1 to {self.k}.")

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers in `at`."""
        try:
            return tuple(sorted({int(word) for word in self.at.split(",") if word.strip()}))
        except ValueError:
            raise ConfigError(f"at is {self.at!r}; give whole numbers separated by commas, such as 1,8,64.") from None

    @property
    def reads(self) -> dict[str, str]:
        """`read` by task set; under "" what holds for all others. Raises: ConfigError for a set not evaluated."""
        pairs = [word.strip().rpartition("=") for word in self.read.split(",") if word.strip()]
        if unknown := [name for name, _, _ in pairs if name and name not in self.names]:
            raise ConfigError(f"read names {unknown[0]!r}, which is not evaluated. {nearest(unknown[0], self.names)}")
        return {name: how for name, _, how in pairs}

    @property
    def names(self) -> list[str]:
        """The task sets."""
        return list(dict.fromkeys(name.strip() for name in self.tasks.split(",") if name.strip()))


def main(config: Config) -> Report:
    """Evaluate on every task set in turn, and against a second model or report if one is named.

    Raises: ConfigError for no model, an unknown task set, or a directory that holds another evaluation.
    """
    if not config.model:
        raise ConfigError("no model was named; give a run directory, a Hugging Face directory or a hub id.")
    if not config.names:
        raise ConfigError(f"tasks is {config.tasks!r}; give at least one task set, see: onepolicy list.")
    torch.set_num_threads(config.machine.threads)
    config, language, settings, results = _evaluate(config)
    pairs = against(results, _other(config)) if config.against else []
    metrics: Metrics = {}
    for result in results:
        metrics |= result.metrics()
    for pair in pairs:
        place, _, measure = pair.name.partition(" ")
        metrics |= {f"{place}/{measure}_difference": pair.difference.value, f"{place}/{measure}_p": pair.p}
    parts = [result.text() for result in results]
    parts += [summary(results, config.k)] if len(results) > 1 else []
    parts += [comparison_text(pairs, config.against)] if pairs else []
    if config.out:
        write(Path(config.out), config.model, settings, results, pairs, config.against)
        parts.append(f"Report and samples are in {config.out}")
    return Report(Path(config.out), metrics, language, "\n\n".join(parts))


def arguments(argv: Sequence[str]) -> list[str]:
    """A command line with its short forms written out: up to two models before the fields, -k, --limit.

    Without --out it is AUTO: the same line again goes on where it was killed.

    >>> arguments(["a", "b", "-k", "8", "--limit=5", "--out", "x"])
    ['--model', 'a', '--against', 'b', '--k', '8', '--size=5', '--out', 'x']
    """
    short = {"-k": "--k", "--limit": "--size"}
    words = list(itertools.takewhile(lambda word: not word.startswith("-"), argv))
    if len(words) > 2:
        raise ConfigError(
            f"eval takes one model or two, got {len(words)}: onepolicy eval MODEL [OTHER] [--field value]."
        )
    named = [part for flag, word in zip(("--model", "--against"), words) for part in (flag, word)]
    rest = []
    for word in argv[len(words) :]:
        flag, equals, value = word.partition("=")
        rest.append(short.get(flag, flag) + equals + value)
    line = [*named, *rest]
    if words and not any(word.partition("=")[0] in ("--out", "-h", "--help") for word in line):
        line += ["--out", AUTO]
    return line


def tasks_of(config: Config, name: str) -> Problems:
    """The problems of one task set that a configuration asks for."""
    return Problems(
        tasks=name,
        level=_level(config, name),
        data=config.data,
        eval_data=config.eval_data or (find_file(config.data_dir, name, "test") if config.data_dir else ""),
        eval_size=config.size or MADE_SIZE,
        seed=config.seed,
        instructed=_instructed(config),
        options=config.problems,
        given=config.task_options or _given(config, name),
    )


def _evaluate(config: Config) -> tuple[Config, Language, dict[str, Any], list[Result]]:
    """The configuration with its directory, the model, what decides its attempts, and the results."""
    language = language_of(config.model)
    language.model.to(config.machine.device)
    sets = [_asked(config, name, language) for name in config.names]
    settings = _settings(config, language, sets)
    if config.out == AUTO:
        name = f"eval-{Path(config.model).resolve().name}-{derive_seed(json.dumps(settings)) % 16**6:06x}"
        config = replace(config, out=str(Path("runs") / name))
    batch = max(1, 2 * config.machine.slots // max(1, config.k))
    book = Book(Path(config.out) if config.out else None, settings, batch)
    generator = language.engine(slots=config.machine.slots, cache_tokens=config.machine.cache_tokens or None)
    results = []
    with Judge(config.machine, *(asked.tasks for asked in sets)) as judge:
        for asked in sets:
            written, likely = _ways(config, asked)
            total = len(asked.tasks) * ((1 + config.k) * written + likely)
            with progress(total, f"evaluation, {asked.name}") as bar:
                results.append(_one(config, asked, language, generator, judge, book, bar))
    book.close()
    return config, language, settings, results


def _asked(config: Config, name: str, language: Language) -> Asked:
    plain = config.prompt == "plain" or (config.prompt == "auto" and language.tokenizer.chat_template is None)
    read = config.reads.get(name) or config.reads.get("") or ("hash" if plain and name == "gsm8k" else "")
    size = config.size or (MADE_SIZE if makes_problems(name) else None)
    tasks = held_out(tasks_of(config, name), read=read, size=size)
    train = config.data or (find_file(config.data_dir, name, "train") if config.data_dir else "")
    policy = config.problems.bad_rows
    return ask(name, tasks, language, prompt=config.prompt, shots=config.shots, train=train, policy=policy)


def _one(
    config: Config, asked: Asked, language: Language, generator: Generator, judge: Judge, book: Book, bar: Bar
) -> Result:
    written, likely = _ways(config, asked)
    report = _attempts(config, asked, generator, judge, book, bar) if written else None
    device, budget = config.machine.device, config.machine.micro_tokens
    picks = likelihoods(asked, language, book, bar, device=device, budget=budget) if likely else {}
    means = {norm: proportion(torch.tensor(list(picks[norm].values())).double().numpy()) for norm in NORMS if picks}
    how = {"prompt": asked.prompt, "shots": asked.shots, "answers": asked.tasks.form.name}
    overlap = _overlap(config, asked) if config.contamination else None
    return Result(asked.name, len(asked.tasks), how, report, means, picks, overlap, asked.tasks.dropped)


def _ways(config: Config, asked: Asked) -> tuple[bool, bool]:
    """Whether a set's answers are written by the model, and whether given ones are judged by their likelihood."""
    choices = all("choices" in task.meta for task in asked.tasks)
    return not choices or config.choice != "likelihood", choices and config.choice != "letter"


def _attempts(config: Config, asked: Asked, generator: Generator, judge: Judge, book: Book, bar: Bar) -> AccuracyReport:
    """The report of a set's attempts, batch by batch: read where the book has them, made and written where not.

    Texts are in the book only: a thousand problems with 64 long samples would not fit into memory.
    """
    sampling = Sampling(config.max_tokens, config.temperature, top_p=config.top_p, stop=asked.stop)
    tasks, found, right = asked.tasks.tasks, [], 0.0
    for start in range(0, len(tasks), book.batch):
        batch = tasks[start : start + book.batch]
        lines = book.take(asked.name, [task.id for task in batch], 1 + config.k)
        if lines is None:
            made = make_attempts(
                generator,
                batch,
                asked.render,
                asked.decode,
                sampling=sampling,
                k=config.k,
                seed=config.seed,
                scorer=judge.verify,
            )
            by_id = {task.id: task for task in batch}
            lines = [{"tasks": asked.name, **attempt.record(by_id[attempt.task])} for attempt in made]
            book.add(lines)
        found += [attempt_of({**line, "text": ""}) for line in lines]
        right += sum(line["correct"] or 0.0 for line in lines)
        bar.advance(len(lines), right=right / len(found))
    return summarise(tasks, found, k=config.k, keep=0, at=config.numbers)


def _overlap(config: Config, asked: Asked) -> Contamination:
    problems = {task.id: question(task) for task in asked.tasks}
    return contamination(problems, training_rows(config.contamination), n=config.ngram)


def _settings(config: Config, language: Language, sets: Sequence[Asked]) -> dict[str, Any]:
    """What decides the attempts, in JSON: the same settings give the same samples."""
    names = ("k", "max_tokens", "temperature", "top_p", "seed", "choice")
    return {
        "weights": weights_fingerprint(language.model),
        **{name: getattr(config, name) for name in names},
        "precision": config.machine.precision,
        "verifier_timeout": config.machine.verifier_timeout,
        "task_options": config.task_options,
        "tasks": {
            asked.name: {
                "problems": len(asked.tasks),
                "prompt": asked.prompt,
                "shots": asked.shots,
                "answers": asked.tasks.form.name,
                "stop": list(asked.stop),
                "sha256": problems_fingerprint(asked.tasks, map(asked.render, asked.tasks)),
            }
            for asked in sets
        },
    }


def _other(config: Config) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
    """The scores of what is compared with: read from a finished evaluation, or those of a second model, made now."""
    place = Path(config.against)
    if (place / HEADER).is_file():
        return scores_of(read_problems(place))
    out = str(Path(config.out) / "against") if config.out else ""
    second = replace(config, model=config.against, against="", contamination="", out=out)
    _, _, settings, results = _evaluate(second)
    if out:
        write(Path(out), config.against, settings, results, [], "")
    return {result.name: result.scores() for result in results}


def _trained(config: Config) -> dict[str, Any] | None:
    """The configuration of the run that is named; None when a model is named."""
    place = Path(config.model)
    return Run.open(place).config if is_run(place) else None


def _level(config: Config, name: str) -> int | None:
    """The level asked for, or that of the run where it trained on this task set, or None for the set's default."""
    trained = _trained(config)
    if config.level is None and trained and trained["tasks"] == name:
        return None if trained["level"] is None else int(trained["level"])
    return config.level


def _given(config: Config, name: str) -> str:
    """The task options of the run that is named, where it trained on this task set."""
    trained = _trained(config)
    return str(trained.get("task_options", "")) if trained and trained["tasks"] == name else ""


def _instructed(config: Config) -> bool:
    """Whether the model is told the answer format: as asked, or as the run that trained it decided."""
    asked, trained = config.problems.instructions, _trained(config)
    if asked is None and trained:
        return instructed(trained["model"], trained["problems"].get("instructions"))
    return instructed(config.model, asked)
