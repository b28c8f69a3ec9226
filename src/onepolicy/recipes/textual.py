"""Task sets for the language recipes: which problems, which demonstrations, and the held-out exam."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from onepolicy.data.demonstrations import Example, example, fingerprint
from onepolicy.data.tokenizer import encode, load_tokenizer
from onepolicy.errors import ConfigError, DataError
from onepolicy.evaluation.accuracy import evaluate_tasks
from onepolicy.nn.language import TINY
from onepolicy.recipes.language import Language, check_name, save_final
from onepolicy.recipes.options import DEMONSTRATIONS, TRAIN_SIZE, ProblemOptions
from onepolicy.run.journal import read_lines
from onepolicy.run.progress import progress
from onepolicy.run.report import Report
from onepolicy.run.run import Run
from onepolicy.run.seeding import derive_rng, derive_seed
from onepolicy.tasks.base import (
    INSTRUCTIONS,
    TaskSet,
    load_task_set,
    makes_problems,
    read_options,
    task_options,
)
from onepolicy.tasks.verdicts import Scorer, verify_each
from onepolicy.types import Generator, Metrics, Sampling

C = TypeVar("C")


def starting_config(presets: Mapping[str, C], default: C, fields: Mapping[str, Any]) -> C:
    """The configuration to override when no preset is named; `fields` are those the user gave.

    For a model made on the spot, which knows nothing, the preset of its task set, or for a set without one that of
    arithmetic with the set's own demonstrations; for any other model `default`.
    """
    given: Any = default
    if fields.get("model", given.model) not in TINY:
        return default
    tasks, arithmetic = fields.get("tasks", given.tasks), presets["arithmetic"]
    other: C = replace(arithmetic, level=None, problems=ProblemOptions())  # type: ignore[type-var]
    return presets.get(tasks, other)


@dataclass(frozen=True)
class Problems:
    """Which problems a recipe trains on and is examined on.

    tasks: task set by name. level: of a set that has levels, None for its own default. data, eval_data: files of a set
    that reads them. instructed: whether the model is told the answer format in words. given: options of the set as
    `key=value,key=value`, which go before all others.
    """

    tasks: str
    level: int | None
    data: str
    eval_data: str
    eval_size: int
    seed: int
    instructed: bool
    options: ProblemOptions
    given: str = ""

    @staticmethod
    def of(config: Any) -> Problems:
        """The problems a recipe's configuration asks for."""
        return Problems(
            tasks=config.tasks,
            level=config.level,
            data=config.data,
            eval_data=config.eval_data,
            eval_size=config.exam.size,
            seed=config.seed,
            instructed=instructed(config.model, config.problems.instructions),
            options=config.problems,
            given=getattr(config, "task_options", ""),
        )

    def train(self) -> TaskSet:
        """The training split."""
        return load_task_set(self.tasks, "train", **self._options("train"))

    def held_out(self) -> TaskSet:
        """The held-out split, eval_size problems of it in an order that no run's seed decides."""
        tasks = load_task_set(self.tasks, "test", **self._options("test"))
        order = derive_rng("held-out", self.tasks).permutation(len(tasks))[: self.eval_size]
        return replace(tasks, tasks=tuple(tasks.tasks[i] for i in sorted(order)))

    def fingerprints(self) -> dict[str, str]:
        """The sha256 of each data file, by what it is for."""
        files = {"data": self.data, "eval_data": self.eval_data}
        return {name: fingerprint(path) for name, path in files.items() if path}

    def _options(self, split: str) -> dict[str, Any]:
        """What the set's loader is given: of all there is to say, what it has a keyword for."""
        chosen, train, known = self.options, split == "train", task_options(self.tasks)
        if chosen.style and "style" not in known:
            raise ConfigError(
                f"style is {chosen.style!r}; {self.tasks} has no styles, its demonstrations are the data's own "
                "solutions. Leave --problems.style out, or where a preset sets it: --problems.style ''."
            )
        wishes: dict[str, Any] = {
            "level": self.level,
            "style": chosen.style or None,
            "digits": chosen.digits,
            "length": chosen.length,
            "decimals": chosen.decimals,
        }
        found = {name: wish for name, wish in wishes.items() if wish is not None}
        found |= {"system": INSTRUCTIONS} if self.instructed else {"system": ""}
        found |= {"path": self.data if train else self.eval_data, "on_error": chosen.bad_rows}
        if "path" in known:
            found["exclude"] = "" if train else self.data
        if makes_problems(self.tasks):
            size = (chosen.train_size or TRAIN_SIZE) if train else self.eval_size
            found |= {"n": size, "seed": self.seed if train else 0}
            found |= {"at_most": not train or chosen.train_size is None}
        taken = {name: value for name, value in found.items() if name in known}
        return taken | read_options(self.tasks, self.given)


def instructed(model: str, asked: bool | None) -> bool:
    """Whether a model is told the answer format in words: as asked, or if it is none made here and can read them.

    A model made on the spot has learnt the format from demonstrations; one that grew out of it, now a directory, is
    known by a tokenizer that has no letters.
    """
    if asked is not None:
        return asked
    check_name(model)
    if model in TINY:
        return False
    try:
        return bool(encode(load_tokenizer(model), INSTRUCTIONS))
    except DataError:
        return False


def worked_examples(tasks: TaskSet, count: int | None, seed: int, language: Language) -> list[Example]:
    """`count` demonstrations of a task set as (tokens, is_action); for None the usual number, or all there are.

    Raises: ConfigError for more than there are; DataError for one that is longer than the model's context.
    """
    found: list[Example] = []
    for talk in tasks.demonstrations(min(DEMONSTRATIONS, len(tasks)) if count is None else count, seed):
        try:
            found.append(example(language.tokenizer, talk, language.context))
        except DataError as error:
            raise DataError(
                f"the demonstration of {talk[-2].content[:60]!r} cannot be learnt from: {error}. Use a larger context "
                "(--tiny.context), shorter problems or another style."
            ) from error
    return found


def that_fit(tasks: TaskSet, language: Language, policy: Literal["stop", "drop"]) -> TaskSet:
    """The tasks whose prompts leave room for an answer in the model's context.

    Only prompts that could be too long are rendered: a tokenizer makes no more tokens of a text than it has bytes.
    Raises: DataError for a longer prompt, naming the longest, by policy "stop"; or when none is left.
    """
    limit = language.context - 1
    around = len(language.render(tasks.tasks[0]))
    suspects = [t for t in tasks if around + sum(len(m.content.encode()) for m in t.messages) > limit]
    lengths = {task.id: length for task in suspects if (length := len(language.render(task))) > limit}
    if not lengths:
        return tasks
    if policy == "stop" or len(lengths) == len(tasks):
        worst = max(lengths, key=lambda name: lengths[name])
        raise DataError(
            f"{len(lengths)} of {len(tasks)} prompts of {tasks.name} leave no room for an answer: the longest, "
            f"{worst!r}, has {lengths[worst]} tokens and the model's context is {language.context}. Use a model with a "
            "longer context (--tiny.context for one made on the spot), or drop such prompts: --problems.bad-rows drop."
        )
    kept = tuple(task for task in tasks if task.id not in lengths)
    return replace(tasks, tasks=kept, dropped=(*tasks.dropped, *(f"{name}: prompt too long" for name in lengths)))


def say_sizes(run: Run, *sets: TaskSet) -> None:
    """Notes in the run's log which sets are smaller than asked for: few problems of a level, or rows left out, why."""
    for tasks in sets:
        made, asked = tasks.counts["tasks"], tasks.counts.get("asked", 0)
        if made < asked:
            run.say(f"{tasks.name}: {made:,} problems, all that the level has; {asked:,} would have been taken.")
        if tasks.dropped:
            run.say(
                f"{tasks.name}: {len(tasks.dropped)} rows dropped, {len(tasks)} kept; the first: {tasks.dropped[0]}"
            )


@dataclass(frozen=True)
class Exam:
    """The held-out problems, sat before, during and after training with one definition of correct.

    k: sampled completions per problem in the first and last sitting; those between are greedy only. grade: judges them.
    """

    run: Run
    tasks: TaskSet
    language: Language
    generator: Generator
    max_tokens: int
    seed: int
    k: int = 0
    grade: Scorer = verify_each

    def sit(self, step: int, *, final: bool) -> Metrics:
        """The accuracy of the generator's present weights; at the first and last sitting transcripts are kept."""
        with progress(len(self.tasks), "held-out exam") as bar:
            report = evaluate_tasks(
                self.generator,
                self.tasks.tasks,
                self.language.render,
                self.language.decode,
                k=self.k if final else 0,
                sampling=Sampling(max_tokens=self.max_tokens),
                seed=derive_seed(self.seed, "exam"),
                scorer=self.grade,
            )
            bar.advance(len(self.tasks))
        if final:
            self.run.sample(step, [{"exam": True, **record} for record in report.samples])
            self.run.say(f"held-out exam at step {step}\n{report.table()}")
        return report.metrics()

    def report(self, steps: int) -> Report:
        """The model saved beside the checkpoints, report.md and curves.png; what the caller gets."""
        table = self._table()
        summary = f"{steps} steps. {save_final(self.run, self.language)}"
        records = [r for r in read_lines(self.run.directory / "samples.jsonl") if r.get("exam")]
        shown = {when: [r for r in records if r["step"] == step] for when, step in (("before", 0), ("after", steps))}
        last: Metrics = {}
        for line in read_lines(self.run.directory / "metrics.jsonl"):
            last |= {name: value for name, value in line.items() if name != "step" and value is not None}
        self.run.finish(summary, tables={"Held-out accuracy": table}, before=shown["before"], after=shown["after"])
        return Report(self.run.directory, last, self.language, f"{table}\n{summary}")

    def _table(self) -> str:
        """Held-out accuracy with its interval at every sitting, from the run's metrics."""
        rows = ["step   accuracy  95 % interval   format  truncated"]
        for line in read_lines(self.run.directory / "metrics.jsonl"):
            if "eval/accuracy" in line:
                low, high = line["eval/accuracy_low"], line["eval/accuracy_high"]
                rows.append(
                    f"{line['step']:>5}  {line['eval/accuracy']:>8.1%}  [{low:.1%}, {high:.1%}]  "
                    f"{line['eval/format']:>6.1%}  {line['eval/truncated']:>9.1%}"
                )
        return "\n".join(rows)
