"""Benchmarks as an evaluation asks them: where their files are, which problems, in what words, with which examples."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from onepolicy.data.chat_template import check_stable, render
from onepolicy.data.tokenizer import encode
from onepolicy.errors import ConfigError, DataError
from onepolicy.recipes.language import Language
from onepolicy.recipes.textual import Problems
from onepolicy.run.seeding import derive_rng
from onepolicy.tasks.base import TaskSet, load_task_set, makes_problems, read_options, task_options
from onepolicy.types import Message, Task

Prompt = Literal["auto", "chat", "plain"]
Example = tuple[str, str]
"""(question, worked answer) of a few-shot prompt."""

FOLDERS = {
    "math500": ("math500", "MATH-500"),
    "minerva": ("minerva_math", "minerva"),
    "arc-easy": ("ARC-Easy", "arc_easy", "arc-easy"),
    "arc-challenge": ("ARC-Challenge", "arc_challenge", "arc-challenge"),
}
"""Folders below `data_dir` in which a set's file is looked for; for others the set's own name."""

FILES = {
    "test": ("test.jsonl", "*-Test.jsonl", "*test*.jsonl", "input_data.jsonl", "*.jsonl"),
    "train": ("train.jsonl", "*-Train.jsonl", "*train*.jsonl"),
}
"""File names looked for in the folder, in this order, by split."""


@dataclass(frozen=True)
class Plain:
    """The words around a question for a model that knows no chat; stop: what ends its answer."""

    before: str
    between: str
    stop: tuple[str, ...]


QUESTION = Plain("Question: ", "\nAnswer:", ("\nQuestion:",))
PROBLEM = Plain("Problem:\n", "\n\nSolution:", ("\nProblem:", "I hope it is correct."))
PLAIN = dict.fromkeys(("math500", "aime24", "aime25", "amc23", "minerva", "olympiadbench"), PROBLEM)
"""Plain prompts by set; QUESTION for all others. PROBLEM is Minerva's (Lewkowycz et al. 2022, appendix D.2)."""

MATHS: tuple[Example, ...] = (
    (
        r"Find the domain of the expression $\frac{\sqrt{x-2}}{\sqrt{5-x}}$.",
        r"The expressions inside each square root must be non-negative. Therefore, $x-2 \ge 0$, so $x\ge2$, and "
        r"$5 - x \ge 0$, so $x \le 5$. Also, the denominator cannot be equal to zero, so $5-x>0$, which gives $x<5$. "
        r"Therefore, the domain of the expression is $\boxed{[2,5)}$.",
    ),
    (
        r"If $\det \mathbf{A} = 2$ and $\det \mathbf{B} = 12,$ then find $\det (\mathbf{A} \mathbf{B}).$",
        r"We have that $\det (\mathbf{A} \mathbf{B}) = (\det \mathbf{A})(\det \mathbf{B}) = (2)(12) = \boxed{24}.$",
    ),
    (
        "Terrell usually lifts two 20-pound weights 12 times. If he uses two 15-pound weights instead, how many times "
        "must Terrell lift them in order to lift the same total weight?",
        r"If Terrell lifts two 20-pound weights 12 times, he lifts a total of $2\cdot 12\cdot20=480$ pounds of weight. "
        r"If he lifts two 15-pound weights instead for $n$ times, he will lift a total of $2\cdot15\cdot n=30n$ pounds "
        r"of weight. Equating this to 480 pounds, we can solve for $n$: $30n=480$, so $n=480/30=\boxed{16}$.",
    ),
    (
        r"If the system of equations $6x-4y=a$ and $6y-9x=b$ has a solution $(x, y)$ where $x$ and $y$ are both "
        r"nonzero, find $\frac{a}{b},$ assuming $b$ is nonzero.",
        r"If we multiply the first equation by $-\frac{3}{2}$, we obtain $6y-9x=-\frac{3}{2}a$. Since we also know "
        r"that $6y-9x=b$, we have $-\frac{3}{2}a=b$, so $\frac{a}{b}=\boxed{-\frac{2}{3}}.$",
    ),
)
"""The four examples of the mathematics sets, from MATH's training problems, as Minerva's prompt has them."""


@dataclass(frozen=True)
class Asked:
    """A benchmark ready to be asked: its problems, their prompts as token ids, and what ends an answer."""

    name: str
    tasks: TaskSet
    render: Callable[[Task], list[int]]
    decode: Callable[[Sequence[int]], str]
    stop: tuple[str, ...]
    prompt: str
    shots: int


def find_file(directory: str, name: str, split: str) -> str:
    """The file of a benchmark's split below `directory`; "" where there is none."""
    for folder in FOLDERS.get(name, (name, name.replace("-", "_"))):
        for pattern in FILES[split]:
            if found := sorted((Path(directory) / folder).glob(pattern)):
                return str(found[0])
    return ""


def held_out(problems: Problems, *, read: str, size: int | None) -> TaskSet:
    """The held-out split that `problems` names, `size` of it in an order that no seed decides; None for all.

    read: the loader's option of this name, for sets whose answers can be marked in several ways.
    """
    if makes_problems(problems.tasks) or problems.tasks == "gsm8k-steps":
        return problems.held_out()
    known = task_options(problems.tasks)
    wishes = {"path": problems.eval_data, "on_error": problems.options.bad_rows, "read": read}
    options = {name: value for name, value in wishes.items() if value and name in known}
    if not problems.instructed and "system" in known:
        options["system"] = ""
    if read and "read" not in known:
        raise ConfigError(f"read is {read!r}; {problems.tasks} marks its answers in one way only. Leave read out.")
    tasks = load_task_set(problems.tasks, "test", **(options | read_options(problems.tasks, problems.given)))
    order = derive_rng("held-out", problems.tasks).permutation(len(tasks))[:size]
    return replace(tasks, tasks=tuple(tasks.tasks[i] for i in sorted(order)))


def ask(name: str, tasks: TaskSet, language: Language, *, prompt: Prompt, shots: int, train: str, policy: str) -> Asked:
    """The set asked by chat or in plain text, after `shots` worked examples.

    prompt: "auto" is chat where the tokenizer has a template. train: file of the set's training rows, from which its
    examples come; the mathematics sets have four of their own. policy: "drop" leaves prompts out that do not fit.
    Raises: ConfigError for more examples than there are; DataError for prompts longer than the model's context.
    """
    chat = prompt == "chat" or (prompt == "auto" and language.tokenizer.chat_template is not None)
    examples = examples_of(name, tasks, shots, train)
    first = tasks.tasks[0]
    if chat:
        check_stable(language.tokenizer, 1, question=question(first), answers=(first.answer,))
    words = PLAIN.get(name, QUESTION)
    stop = () if chat else words.stop

    def chatted(task: Task) -> list[int]:
        turns = [turn for asks, says in examples for turn in (Message("user", asks), Message("assistant", says))]
        return render(language.tokenizer, [*task.messages[:-1], *turns, task.messages[-1]])

    def written(task: Task) -> list[int]:
        return start + encode(language.tokenizer, plain_text(words, examples, question(task)))

    start = [] if chat else first_tokens(language.tokenizer)
    renderer = chatted if chat else written
    kept = _that_fit(tasks, renderer, language.context, policy)

    def decode(tokens: Sequence[int]) -> str:
        return cut(language.decode(tokens), stop)

    return Asked(name, kept, renderer, decode, stop, "chat" if chat else "plain", shots)


def question(task: Task) -> str:
    """What a task asks, without the system message."""
    return task.messages[-1].content


def plain_text(words: Plain, examples: Sequence[Example], asked: str) -> str:
    """The examples and the question as one text.

    >>> plain_text(QUESTION, [("1+1?", "2")], "2+2?")
    'Question: 1+1?\\nAnswer: 2\\n\\nQuestion: 2+2?\\nAnswer:'
    """
    shown = [f"{words.before}{q}{words.between} {a}\n\n" for q, a in examples]
    return "".join(shown) + f"{words.before}{asked}{words.between}"


def cut(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the strings that end an answer.

    >>> cut("18\\nQuestion: and", ("\\nQuestion:",))
    '18'
    """
    return re.split("|".join(map(re.escape, stop)), text, maxsplit=1)[0] if stop else text


def first_tokens(tokenizer: Any) -> list[int]:
    """What the tokenizer itself puts before a text: its begin token, or nothing."""
    bare, full = (tokenizer("a", add_special_tokens=flag)["input_ids"] for flag in (False, True))
    return list(full[: full.index(bare[0])]) if bare and bare[0] in full else []


def examples_of(name: str, tasks: TaskSet, shots: int, train: str) -> tuple[Example, ...]:
    """The same `shots` worked examples whatever the seed: the first of a fixed order of the training rows.

    Raises: ConfigError where there are fewer, saying where more could come from.
    """
    if shots == 0:
        return ()
    if not train and PLAIN.get(name) is PROBLEM:
        found: tuple[Example, ...] = MATHS
    elif not train:
        raise ConfigError(
            f"shots is {shots}, but {name} has no training rows to take examples from. Give them by --data FILE, or a "
            "--data-dir whose folder of the set has train.jsonl."
        )
    else:
        given = {"path": train, "read": tasks.form.name}
        rows = load_task_set(name, "train", **{k: v for k, v in given.items() if k in task_options(name)})
        own = {question(task) for task in tasks}
        order = [rows.tasks[i] for i in derive_rng("shots", name).permutation(len(rows))]
        found = tuple((question(t), _worked(rows, t)) for t in order if question(t) not in own)[:shots]
    if len(found) < shots:
        raise ConfigError(f"shots is {shots}; {name} has {len(found)} examples. Ask for at most as many.")
    return found[:shots]


def _worked(rows: TaskSet, task: Task) -> str:
    return rows.demonstrate(task) if rows.demonstrate else rows.form.write("", task.answer)


def _that_fit(tasks: TaskSet, renderer: Callable[[Task], list[int]], context: int, policy: str) -> TaskSet:
    """The tasks whose prompts leave room for an answer."""
    long = {task.id: size for task in tasks if (size := len(renderer(task))) > context - 1}
    if not long:
        return tasks
    if policy == "stop" or len(long) == len(tasks):
        worst = max(long, key=lambda name: long[name])
        raise DataError(
            f"{len(long)} of {len(tasks)} prompts of {tasks.name} leave no room for an answer: the longest, {worst!r}, "
            f"has {long[worst]} tokens and the model's context is {context}. Take fewer --shots or a model with a "
            "longer context, or leave such prompts out: --problems.bad-rows drop."
        )
    kept = tuple(task for task in tasks if task.id not in long)
    return replace(tasks, tasks=kept, dropped=(*tasks.dropped, *(f"{name}: prompt too long" for name in long)))
