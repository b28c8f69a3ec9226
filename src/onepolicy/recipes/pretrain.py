"""Pretraining of a language model: next-token prediction on text and JSONL files, with fill-in-the-middle."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as of
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from onepolicy.algos import sft
from onepolicy.data.corpus import TextStream
from onepolicy.data.demonstrations import Example, fingerprint
from onepolicy.data.fim import EXTRA, Infilling, sentinels
from onepolicy.data.mixture import Source
from onepolicy.data.text import Chunk, chunks, documents, utf8_bytes, weighted_files
from onepolicy.errors import ConfigError, DataError
from onepolicy.learning.learner import PolicyLearner
from onepolicy.learning.optim import OptimConfig
from onepolicy.recipes.blank import blank_language, keep_tokenizer, made_here
from onepolicy.recipes.language import Language, language_of, load_language, save_final
from onepolicy.recipes.loop import Loop, open_run, require_count, require_positive
from onepolicy.recipes.options import Machine, Tiny
from onepolicy.run.journal import read_lines
from onepolicy.run.progress import progress
from onepolicy.run.report import Report
from onepolicy.run.run import Run
from onepolicy.run.seeding import derive_rng
from onepolicy.types import Metrics

RECIPE = "pretrain"


@dataclass(frozen=True)
class Infill:
    """Fill-in-the-middle."""

    on: bool = False
    """Move the middle of some documents behind their end, so that the model learns to infill."""
    share: float = 0.1
    """Share of the documents (of pieces that fit the context)."""
    spm: float = 0.5
    """Of those, the share in the order suffix, prefix, middle."""

    def __post_init__(self) -> None:
        if not (0.0 <= self.share <= 1.0 and 0.0 <= self.spm <= 1.0):
            raise ConfigError(f"infill.share is {self.share} and infill.spm {self.spm}; shares are in [0, 1].")


@dataclass(frozen=True)
class Config:
    """Pretraining."""

    data: str = ""
    """Text and JSONL files, several by commas, with weights by tokens or without: a.txt:0.7,b.jsonl:0.3."""
    eval_data: str = ""
    """Held-out files; empty keeps eval_share of the data's documents."""
    eval_share: float = 0.01
    """Share of the documents, at least one of each file, that is held out where there is no eval_data; 0 for none."""
    field: str = "text"
    """Of a JSONL file's rows, what is read; several are joined by a line break: question+answer."""
    parts: Literal["paragraphs", "whole"] = "paragraphs"
    """What a document of a text file is: the parts between blank lines, or all of it."""
    model: str = "tiny-0.2m"
    """Tiny preset (made on the spot); or a run, a directory or hub id, to go on with or for its shape alone."""
    weights: Literal["keep", "new"] = "keep"
    """Of a model that is no tiny preset: go on with its weights, or draw new ones for its configuration."""
    vocab_size: int = 0
    """Of a tokenizer made on the spot: 0 for one token a character, else byte-level BPE of so many tokens."""
    epochs: float = 1.0
    """Passes over the data, where steps is 0."""
    steps: int = 0
    """Optimizer steps; 0 for as many as the epochs take."""
    batch_tokens: int = 8192
    """Tokens a step, to the end of the document that brings them."""
    lr: float = 1e-3
    """Peak learning rate."""
    min_lr: float = 0.1
    """Share of it that is left at the end."""
    warmup_steps: int = 50
    """Linear warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Decay after the warm-up."""
    weight_decay: float = 0.1
    """AdamW's weight decay, of matrices only."""
    eval_every: int = 0
    """Steps between held-out evaluations, 0 only at the end."""
    save_every: int = 0
    """Steps between checkpoints, 0 only at the end."""
    seed: int = 0
    """Seed of everything random."""
    out: str = ""
    """Run directory; empty for the next free runs/pretrain-N."""
    infill: Infill = of(default_factory=Infill)
    tiny: Tiny = of(default_factory=Tiny)
    machine: Machine = of(default_factory=Machine)

    def __post_init__(self) -> None:
        require_positive(self, "batch_tokens")
        require_count(self, "steps", "warmup_steps", "eval_every", "save_every", "vocab_size", "weight_decay")
        if not 0.0 <= self.eval_share < 1.0:
            raise ConfigError(f"eval_share is {self.eval_share}; it is a share of the documents, in [0, 1).")
        if not 0.0 <= self.min_lr <= 1.0:
            raise ConfigError(f"min_lr is {self.min_lr}; it is a share of lr, in [0, 1].")
        if not (self.epochs > 0 and math.isfinite(self.epochs)):
            raise ConfigError(f"epochs is {self.epochs}; passes over the data are above 0.")


@dataclass(frozen=True)
class Text:
    """Documents by file to learn from, with the files' weights, and those held out."""

    train: dict[str, list[str]]
    weight: dict[str, float]
    held_out: list[str]

    @property
    def all(self) -> list[str]:
        """Every document."""
        return [text for texts in self.train.values() for text in texts] + self.held_out


@dataclass(frozen=True)
class HeldOut:
    """Held-out text as rows: as it is, and with the middles to be filled in. size: its UTF-8 bytes."""

    rows: list[Example]
    middles: list[Example]
    size: int


def main(config: Config, resume: Path | None = None) -> Report:
    """Pretrain, or, given a run directory, go on."""
    torch.set_num_threads(config.machine.threads)
    text = read(config)
    language = open_language(config, text, resume)
    infilling = infilling_of(config, language)
    stream = stream_of(config, language, text, infilling)
    held_out = held_out_of(config, language, text, infilling)
    steps = config.steps or max(1, math.ceil(config.epochs * stream.tokens / config.batch_tokens))
    run = open_run(RECIPE, config, resume, fingerprints(config))
    keep_tokenizer(config, language.tokenizer, run.directory)
    learner = make_learner(config, language, steps, run.directory / "bad")
    parts = {**language.parts(), "learner": learner, "data": stream}
    clock = Clock()

    def watch(step: int, metrics: Metrics) -> bool:
        clock.tokens += metrics["pretrain/tokens"]
        return loop.after_step(step, metrics)

    with run:
        documents_ = sum(map(len, text.train.values()))
        run.say(
            f"{documents_:,} documents, {stream.tokens:,} tokens; held out: {len(text.held_out):,}. {steps:,} steps."
        )
        start = run.resume(**parts)
        with progress(steps, "pretraining", done=start) as bar:
            loop = Loop(
                run=run,
                bar=bar,
                steps=steps,
                eval_every=config.eval_every,
                save_every=config.save_every,
                evaluate=lambda step: examine(language, held_out, config.machine.micro_tokens),
                parts=parts,
                shown={"pretrain/nll": "nll", "eval/bits_per_byte": "held-out bits/byte"},
                timing=clock.read,
            )
            sft.fit(
                learner, stream, pad_id=language.pad_id, start=start, steps=steps, after_step=watch, area="pretrain"
            )
        loop.stop_if_interrupted()
        return finish(run, language, steps)


@dataclass
class Clock:
    """Tokens since the clock was last read, and when that was."""

    tokens: float = 0.0
    since: float = of(default_factory=time.perf_counter)

    def read(self) -> Metrics:
        """Tokens a second since then."""
        now = time.perf_counter()
        rate = self.tokens / (now - self.since)
        self.tokens, self.since = 0.0, now
        return {"rate/tokens_per_second": rate}


def read(config: Config) -> Text:
    """The documents of the files, some held out.

    Raises: ConfigError for no file; DataError for a file without a document, or with one where some are to be held out.
    """
    if not config.data:
        raise ConfigError("data is empty; give text or JSONL files: --data books.txt,pages.jsonl.")
    files = weighted_files(config.data)
    train = {path: _documents(config, path) for path, _ in files}
    held_out = (
        [text for path, _ in weighted_files(config.eval_data) for text in _documents(config, path)]
        if config.eval_data
        else []
    )
    if config.eval_share and not config.eval_data:
        for path, texts in train.items():
            if len(texts) < 2:
                raise DataError(f"{path} is one document, none can be held out; give --eval-data, or --eval-share 0.")
            size = min(max(1, round(config.eval_share * len(texts))), len(texts) - 1)
            kept_out = set(derive_rng("held-out-text", path).permutation(len(texts))[:size].tolist())
            held_out += [text for i, text in enumerate(texts) if i in kept_out]
            train[path] = [text for i, text in enumerate(texts) if i not in kept_out]
    return Text(train, dict(files), held_out)


def open_language(config: Config, text: Text, resume: Path | None) -> Language:
    """The model: made on the spot with a tokenizer of its own, drawn anew for a configuration, or gone on with."""
    if made_here(config):
        return blank_language(config, text.all, resume)
    language = language_of(config.model, layout=config.machine.layout)
    language.model.to(config.machine.device)
    return language


def infilling_of(config: Config, language: Language) -> Infilling | None:
    """What moves middles, if any is moved. Raises: ConfigError for a tokenizer without sentinels."""
    if not config.infill.on:
        return None
    known = sentinels(language.tokenizer)
    return Infilling(language.tokenizer, known, config.infill.share, config.infill.spm, language.context)


def stream_of(config: Config, language: Language, text: Text, infilling: Infilling | None) -> TextStream:
    """The order in which the text is learnt."""
    size = _size(language, infilling)
    found = {path: chunks(language.tokenizer, texts, size) for path, texts in text.train.items()}
    if not any(text.weight.values()):
        heap: list[Chunk] = [chunk for each in found.values() for chunk in each]
        sources = [Source("text", heap, 1.0)]
    else:
        sources = [Source(path, each, text.weight[path]) for path, each in found.items()]
    return TextStream(sources, config.batch_tokens, config.seed, infilling)


def held_out_of(config: Config, language: Language, text: Text, infilling: Infilling | None) -> HeldOut:
    """The held-out documents as rows; the cuts of their middles are the same in every run."""
    if not text.held_out:
        return HeldOut([], [], 0)
    found = chunks(language.tokenizer, text.held_out, _size(language, infilling))
    middles = infilling.middles(found, derive_rng("held-out-middles")) if infilling else []
    return HeldOut([chunk.example for chunk in found], middles, utf8_bytes(text.held_out))


def examine(language: Language, held_out: HeldOut, budget: int) -> Metrics:
    """The loss of the held-out text, in nats a token and bits a byte, and of its middles."""
    metrics: Metrics = {}
    ask = partial(sft.nats, language.policy, pad_id=language.pad_id, budget=budget)
    if held_out.rows:
        nats, tokens = ask(held_out.rows)
        metrics = {"eval/nll": nats / tokens, "eval/bits_per_byte": nats / math.log(2) / held_out.size}
    if held_out.middles:
        nats, tokens = ask(held_out.middles)
        metrics["eval/infill_nll"] = nats / tokens
    return metrics


def make_learner(config: Config, language: Language, steps: int, dump_dir: Path) -> PolicyLearner:
    """The learner: mean negative log-likelihood over the step's tokens, AdamW with betas 0.9 and 0.95."""
    optim = OptimConfig(
        lr=config.lr,
        betas=(0.9, 0.95),
        weight_decay=config.weight_decay,
        decay="matrices",
        warmup_steps=config.warmup_steps,
        schedule=config.schedule,
        total_steps=0 if config.schedule == "constant" else max(steps, config.warmup_steps + 1),
        min_lr=config.min_lr * config.lr,
        precision=config.machine.precision,
    )
    return PolicyLearner(
        language.policy, sft.LOSS, optim=optim, micro_tokens=config.machine.micro_tokens, dump_dir=dump_dir
    )


def finish(run: Run, language: Language, steps: int) -> Report:
    """The model saved beside the checkpoints, and the table of evaluations."""
    rows = ["  step  nats/token  bits/byte"]
    last: Metrics = {}
    for line in read_lines(run.directory / "metrics.jsonl"):
        last |= {name: value for name, value in line.items() if name != "step" and value is not None}
        if "eval/nll" in line:
            rows.append(f"{line['step']:>6}  {line['eval/nll']:>10.4f}  {line['eval/bits_per_byte']:>9.4f}")
    summary = f"{steps} steps. {save_final(run, language)}"
    if len(rows) == 1:
        run.finish(summary)
        return Report(run.directory, last, language, summary)
    table = "\n".join(rows)
    run.finish(summary, tables={"Held-out text": table})
    return Report(run.directory, last, language, f"{table}\n{summary}")


def fingerprints(config: Config) -> dict[str, str]:
    """The sha256 of each file."""
    given = {"data": config.data, "eval_data": config.eval_data}
    return {
        f"{name}/{path}": fingerprint(path)
        for name, files in given.items()
        if files
        for path, _ in weighted_files(files)
    }


def load(run: Run) -> Report:
    """The newest checkpoint of a run."""
    return load_language(run)


def _documents(config: Config, path: str) -> list[str]:
    return documents(path, field=config.field, parts=config.parts)


def _size(language: Language, infilling: Infilling | None) -> int:
    """Tokens of a chunk: of the context, less what a chunk needs more when its middle is moved."""
    return language.context - (EXTRA if infilling else 0)


PRESETS: dict[str, Config] = {
    # the problems and solutions of GSM8K's training file, some minutes a pass on one core; give --data train.jsonl
    "gsm8k": Config(
        field="question+answer",
        vocab_size=2048,
        epochs=1.0,
        batch_tokens=4096,
        lr=3e-3,
        warmup_steps=20,
        tiny=Tiny(context=320),
        machine=Machine(threads=1),
    ),
}


def starting_point(algorithm: str, fields: Mapping[str, Any]) -> Config:
    """The configuration to override when no preset is named."""
    return Config()
