"""What preferences.py and rlhf.py start from: text, a model pretrained on it and taught the letters, its reward model.

The text is a Markov source over the very letters of the task, so that whoever writes `cacaca` for a reward and forgets
the rest is seen in its loss, and the loss of a model that knows all there is is known.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch

from onepolicy.algos import sft
from onepolicy.data.demonstrations import Example, conversation, example
from onepolicy.data.prompts import Shuffled
from onepolicy.data.text import documents, token_rows
from onepolicy.data.tokenizer import char_tokenizer
from onepolicy.learning.learner import Mixed, PolicyLearner
from onepolicy.learning.optim import OptimConfig
from onepolicy.nn.language import build_model, save_model
from onepolicy.nn.token_policy import TokenPolicy
from onepolicy.recipes import reward_model
from onepolicy.recipes.options import Machine
from onepolicy.tasks import letters

CONTEXT, DEMONSTRATIONS, RANKINGS = 40, 4000, 10_000
PRETRAIN, TEACH = 500, 400
"""Optimizer steps on text alone, and on demonstrations with text mixed in."""
DOCUMENT = 30
"""Characters of a document."""


STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
"""The 97.5 % quantile of Student's t, by the number of values."""


def source() -> np.ndarray:
    """The chance of each letter after each letter, [8, 8]: the same source for all seeds."""
    return np.random.default_rng(0).dirichlet(np.full(len(letters.LETTERS), 0.3), len(letters.LETTERS))


def floor() -> float:
    """The loss of a model that knows the source, nats a token.

    A document's first letter is not predicted, the others cost the source's entropy in the long run, and the end
    nothing: all documents are of one length.
    """
    chance = source()
    values, vectors = np.linalg.eig(chance.T)
    often = np.real(vectors[:, np.argmax(np.real(values))])
    each = -(chance * np.log(np.maximum(chance, 1e-300))).sum(-1)
    return float((often / often.sum() * each).sum()) * (DOCUMENT - 1) / DOCUMENT


def write_text(path: Path, count: int, seed: int) -> None:
    """A file of documents of the source, blank lines between."""
    rng, steps = np.random.default_rng(seed), source().cumsum(-1)
    at = rng.integers(len(steps), size=count)
    columns = [at]
    for draws in rng.random((DOCUMENT - 1, count)):
        at = np.minimum((steps[at] < draws[:, None]).sum(-1), len(steps) - 1)
        columns.append(at)
    texts = ["".join(letters.LETTERS[i] for i in row) for row in np.stack(columns, -1)]
    path.write_text("\n\n".join(texts) + "\n")


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def prepare(folder: Path, seed: int) -> None:
    """Makes what is missing of text.txt, held_out.txt, demos.jsonl, pairs.jsonl, rankings.jsonl and the SFT model."""
    folder.mkdir(parents=True, exist_ok=True)
    makers: dict[str, Callable[[Path], None]] = {
        "text.txt": lambda path: write_text(path, 6000, 2 * seed),
        "held_out.txt": lambda path: write_text(path, 300, 2 * seed + 1),
        "demos.jsonl": lambda path: write_rows(path, letters.demonstration_rows(DEMONSTRATIONS, seed=seed)),
        "pairs.jsonl": lambda path: write_rows(path, letters.ranking_rows(RANKINGS, k=2, seed=seed)),
        "rankings.jsonl": lambda path: write_rows(path, letters.ranking_rows(RANKINGS // 2, k=4, seed=seed + 100)),
        "model": lambda path: teach(folder, path, seed),
    }
    for name, make in makers.items():
        if not (folder / name).exists():
            make(folder / name)


def teach(folder: Path, out: Path, seed: int) -> None:
    """The SFT model: text first, then demonstrations with text mixed in as InstructGPT's appendix C.4 does."""
    tokenizer: Any = char_tokenizer(letters.CHARACTERS)
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = build_model("tiny-0.2m", len(tokenizer), context=CONTEXT, seed=seed, **ids)
    policy = TokenPolicy(model, layout="packed")
    text = token_rows(tokenizer, documents(folder / "text.txt"), CONTEXT)
    demos: list[Example] = []
    for line in (folder / "demos.jsonl").read_text().splitlines():
        demos.append(example(tokenizer, conversation(json.loads(line)), CONTEXT))
    texts, taught = Shuffled(text, 32, seed, "text"), Shuffled(demos, 64, seed, "demonstrations")
    steps = PRETRAIN + TEACH
    learner = PolicyLearner(
        policy, sft.LOSS, optim=OptimConfig(lr=3e-3, warmup_steps=20, schedule="cosine", total_steps=steps)
    )
    pad_id = int(tokenizer.pad_token_id)
    for step in range(steps):
        mixed = sft.credit(texts.next(), pad_id)
        if step < PRETRAIN:
            learner.step(mixed)
        else:
            learner.step(sft.credit(taught.next(), pad_id), [Mixed("text", mixed, sft.LOSS, 1.0, policy=policy)])
    save_model(model, tokenizer, out)


def judge(folder: Path, seed: int) -> Path:
    """The reward model of the rankings, made if it is missing: its run's directory."""
    out = folder / "judge"
    if not (out / "report.md").is_file():
        reward_model.main(
            reward_model.Config(
                model=str(folder / "model"), data=str(folder / "rankings.jsonl"), steps=300, batch_size=32, lr=1e-3,
                warmup_steps=20, seed=seed, out=str(out), machine=Machine(threads=1),
            )
        )  # fmt: skip
    return out


def interval(values: Sequence[float], digits: int = 3) -> str:
    """Mean and half of Student's 95 % interval over seeds, in words; the value alone where there is one."""
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    return f"{mean(values):.{digits}f} ± {margin(values):.{digits}f}"


def margin(values: Sequence[float]) -> float:
    """Half of Student's 95 % interval of the mean of 2 to 8 values."""
    return STUDENT[len(values)] * stdev(values) / math.sqrt(len(values))


def one_thread() -> None:
    """Tiny models gain nothing from a second thread."""
    torch.set_num_threads(1)
