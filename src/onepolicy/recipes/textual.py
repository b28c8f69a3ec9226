"""Task sets for the language recipes: which problems, which demonstrations, and the held-out exam."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from onepolicy.data.chat_template import render_with_mask
from onepolicy.evaluation.accuracy import evaluate_tasks
from onepolicy.nn.language import TINY
from onepolicy.recipes.language import Language
from onepolicy.recipes.options import ProblemOptions
from onepolicy.run.journal import read_lines
from onepolicy.run.progress import progress
from onepolicy.run.report import Report, write_report
from onepolicy.run.run import Run
from onepolicy.run.seeding import derive_rng, derive_seed
from onepolicy.tasks.base import INSTRUCTIONS, TaskSet, load_task_set
from onepolicy.types import Generator, Metrics, Sampling

MADE = ("arithmetic", "countdown")
"""Task sets that make their own problems."""


@dataclass(frozen=True)
class Problems:
    """Which problems a recipe trains on and is examined on.

    tasks: task set by name. made: its own generator's level, sizes and style; data, eval_data: files of the others.
    instructed: whether the model is told the answer format in words.
    """

    tasks: str
    level: int
    data: str
    eval_data: str
    eval_size: int
    seed: int
    instructed: bool
    options: ProblemOptions

    @staticmethod
    def of(config: Any) -> Problems:
        """The problems a recipe's configuration asks for; a model that is not tiny is told the answer format."""
        return Problems(
            tasks=config.tasks,
            level=config.level,
            data=config.data,
            eval_data=config.eval_data,
            eval_size=config.exam.size,
            seed=config.seed,
            instructed=config.model not in TINY,
            options=config.problems,
        )

    def train(self) -> TaskSet:
        """The training split."""
        return load_task_set(self.tasks, "train", **self._options("train"))

    def held_out(self) -> TaskSet:
        """The held-out split, eval_size problems of it in an order that no run's seed decides."""
        tasks = load_task_set(self.tasks, "test", **self._options("test"))
        order = derive_rng("held-out", self.tasks).permutation(len(tasks))[: self.eval_size]
        return replace(tasks, tasks=tuple(tasks.tasks[i] for i in sorted(order)))

    def _options(self, split: str) -> dict[str, Any]:
        chosen, train = self.options, split == "train"
        found: dict[str, Any] = {"system": INSTRUCTIONS} if self.instructed else {}
        if chosen.style:
            found["style"] = chosen.style
        if self.tasks in MADE:
            size = chosen.train_size if train else self.eval_size
            return found | {"level": self.level, "n": size, "seed": self.seed if train else 0}
        found |= {"path": self.data if train else self.eval_data, "on_error": chosen.bad_rows}
        if self.tasks == "gsm8k-steps":
            limits = {"digits": chosen.digits, "length": chosen.length, "decimals": chosen.decimals}
            found |= {"exclude": "" if train else self.data, **limits}
        return found


def worked_examples(tasks: TaskSet, count: int, seed: int, language: Language) -> list[tuple[list[int], list[bool]]]:
    """`count` demonstrations of a task set as (tokens, is_action)."""
    return [render_with_mask(language.tokenizer, talk) for talk in tasks.demonstrations(count, seed)]


@dataclass(frozen=True)
class Exam:
    """The held-out problems, sat before, during and after training with one definition of correct.

    k: sampled completions per problem in the first and last sitting; those between are greedy only.
    """

    run: Run
    tasks: TaskSet
    language: Language
    generator: Generator
    max_tokens: int
    seed: int
    k: int = 0

    def sit(self, step: int, *, final: bool) -> Metrics:
        """The accuracy of the generator's present weights; at the first and last sitting transcripts are kept."""
        with progress(1, "held-out exam"):
            report = evaluate_tasks(
                self.generator,
                self.tasks.tasks,
                self.language.render,
                self.language.decode,
                k=self.k if final else 0,
                sampling=Sampling(max_tokens=self.max_tokens),
                seed=derive_seed(self.seed, "exam"),
            )
        if final:
            self.run.sample(step, [{"exam": True, **record} for record in report.samples])
            self.run.say(f"held-out exam at step {step}\n{report.table()}")
        return report.metrics()

    def report(self, steps: int, policy: Any, last: Metrics) -> Report:
        """The model saved beside the checkpoints, report.md and curves.png; what the caller gets."""
        directory = self.run.directory / "model"
        self.language.parts()["model"].save_to(directory)
        table = self._table()
        summary = f"{steps} steps. The model is in {directory}; talk to it: onepolicy chat {self.run.directory}"
        self.run.finish(summary)
        records = [r for r in read_lines(self.run.directory / "samples.jsonl") if r.get("exam")]
        shown = {when: [r for r in records if r["step"] == step] for when, step in (("before", 0), ("after", steps))}
        write_report(
            self.run.directory,
            summary,
            tables={"Held-out accuracy": table},
            before=shown["before"],
            after=shown["after"],
        )
        return Report(self.run.directory, last, policy, f"{table}\n{summary}")

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
