"""A reward model from preference rows, pairs or rankings, on any language model; K-wise as InstructGPT, or by pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from onepolicy.algos import reward_model
from onepolicy.data.demonstrations import conversation, example, fingerprint, read_jsonl
from onepolicy.data.preferences import RankedExample, Ranking, ranked_example, ranking
from onepolicy.data.prompts import Shuffled
from onepolicy.errors import ConfigError, DataError
from onepolicy.evaluation.preferences import PairReport, pair_report
from onepolicy.learning.optim import OptimConfig
from onepolicy.learning.rows import RowLearner
from onepolicy.nn.language import TINY
from onepolicy.recipes.language import PRINTABLE
from onepolicy.recipes.loop import Loop, open_run, require_count, require_positive
from onepolicy.recipes.options import Machine, Tiny
from onepolicy.recipes.scoring import PART, RewardModel, open_reward_model, same_device, trained_reward_model
from onepolicy.run.pictures import calibration
from onepolicy.run.progress import progress
from onepolicy.run.report import Report
from onepolicy.run.run import Run
from onepolicy.run.seeding import derive_rng
from onepolicy.types import Metrics

RECIPE = "reward_model"


@dataclass(frozen=True)
class Config:
    """A reward model."""

    model: str = "tiny-0.2m"
    """Language model to start from: a run of sft, a Hugging Face directory or hub id; or a reward model, to go on."""
    data: str = ""
    """JSONL file of pairs (prompt, chosen, rejected) or rankings (prompt, answers, ranks or scores)."""
    eval_data: str = ""
    """Held-out file of the same forms; empty keeps eval_share of the data's prompts."""
    eval_share: float = 0.1
    """Share of the prompts that is held out where there is no eval_data."""
    demonstrations: str = ""
    """JSONL file of demonstrations, whose mean score becomes 0; empty takes the best answers of the data."""
    form: Literal["k-wise", "pairwise"] = "k-wise"
    """All pairs of a prompt in one forward pass, or every pair on its own."""
    steps: int = 0
    """Optimizer steps; 0 for one pass over the data, the papers' choice."""
    batch_size: int = 64
    """Rankings a step; by pairs, pairs a step."""
    lr: float = 9e-6
    """Peak learning rate."""
    warmup_steps: int = 0
    """Linear warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Decay after the warm-up."""
    weight_decay: float = 0.0
    """AdamW's weight decay."""
    center_coef: float = 0.0
    """Coefficient of the mean squared score, which keeps scores near 0 while training; TRL suggests 0.01."""
    bad_rows: Literal["stop", "drop"] = "stop"
    """What a broken or too long row does: stop with the reason, or drop it and count."""
    eval_every: int = 0
    """Steps between held-out evaluations, 0 only at the end."""
    save_every: int = 0
    """Steps between checkpoints, 0 only at the end."""
    seed: int = 0
    """Seed of everything random."""
    out: str = ""
    """Run directory; empty for the next free runs/reward_model-N."""
    tiny: Tiny = field(default_factory=Tiny)
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        require_positive(self, "batch_size")
        require_count(self, "steps", "eval_every", "save_every", "center_coef")
        if not 0.0 <= self.eval_share < 1.0:
            raise ConfigError(f"eval_share is {self.eval_share}; it is a share of the prompts, in [0, 1).")


@dataclass(frozen=True)
class Data:
    """Rankings to learn from and to be examined on, as tokens, and the demonstrations whose mean score is 0."""

    train: list[RankedExample]
    held_out: list[RankedExample]
    demonstrations: list[tuple[list[int], list[bool]]]
    dropped: str


def main(config: Config, resume: Path | None = None) -> Report:
    """Train (or, given a run directory, go on training) a reward model."""
    torch.set_num_threads(config.machine.threads)
    files = {name: path for name in ("data", "eval_data", "demonstrations") if (path := getattr(config, name))}
    if "data" not in files:
        raise ConfigError("data is empty; give a JSONL file of pairs or rankings: --data rankings.jsonl.")
    rows: dict[str, Any] = {
        name: read_jsonl(files[name], ranking, config.bad_rows) for name in ("data", "eval_data") if name in files
    }
    model = open_reward_model(config.model, seed=config.seed, tiny=config.tiny, characters=_characters(config, rows))
    model = same_device(model, config.machine.device)
    data = prepare(config, model, {name: list(found.rows) for name, found in rows.items()})
    steps = config.steps or -(-len(data.train) // config.batch_size)
    run = open_run(RECIPE, config, resume, {name: fingerprint(path) for name, path in files.items()})
    learner = make_learner(config, model, steps, run.directory / "bad")
    stream = Shuffled(data.train, config.batch_size, config.seed, "rankings")
    parts = {**model.parts(), "learner": learner, "data": stream}

    def sit(step: int) -> Metrics:
        metrics: Metrics = {}
        if step == steps:
            metrics = centre(model, data)
        return {**metrics, **examine(model, data).metrics()}

    with run:
        run.say(f"{len(data.train)} rankings to learn from, {len(data.held_out)} held out.{data.dropped}")
        start = run.resume(**parts)
        with progress(steps, "reward model", done=start) as bar:
            loop = Loop(
                run=run,
                bar=bar,
                steps=steps,
                eval_every=config.eval_every,
                save_every=config.save_every,
                evaluate=sit,
                parts=parts,
                shown={"reward_model/accuracy": "right", "eval/pair_accuracy": "held-out"},
            )
            reward_model.fit(learner, stream, start=start, steps=steps, after_step=loop.after_step)
        loop.stop_if_interrupted()
        return finish(run, model, data)


def make_learner(config: Config, model: RewardModel, steps: int, dump_dir: Path) -> RowLearner[RankedExample]:
    """The learner with the ranking loss."""
    total = 0 if config.schedule == "constant" else max(steps, config.warmup_steps + 1)
    return RowLearner(
        model.scorer,
        partial(reward_model.loss, model.scorer, pad_id=model.pad_id, center_coef=config.center_coef),
        reward_model.tokens_of,
        optim=OptimConfig(
            lr=config.lr,
            weight_decay=config.weight_decay,
            warmup_steps=config.warmup_steps,
            schedule=config.schedule,
            total_steps=total,
            precision=config.machine.precision,
        ),
        micro_tokens=config.machine.micro_tokens,
        dump_dir=dump_dir,
    )


def prepare(config: Config, model: RewardModel, rows: Mapping[str, Sequence[Ranking]]) -> Data:
    """The rows as tokens, split by prompt, taken apart where pairs are asked for.

    Raises: DataError for a row that is too long for the model (unless dropped), or a side without a ranking.
    """
    train = list(rows["data"])
    held_out = list(rows.get("eval_data", ()))
    if not held_out:
        train, held_out = split(train, config.eval_share, config.seed)
    dropped: list[str] = []
    tokens = [_tokens(model, part, config.bad_rows, dropped) for part in (train, held_out)]
    for name, found in zip(("data", "eval_data"), tokens, strict=True):
        if not found and (name == "data" or config.eval_share):
            raise DataError(
                f"{name} leaves no ranking; {len(dropped)} were dropped, the first: {(dropped or ['none'])[0]}"
            )
    train_tokens = reward_model.one_by_one(tokens[0]) if config.form == "pairwise" else tokens[0]
    said = f" {len(dropped)} rows dropped, the first: {dropped[0]}." if dropped else ""
    return Data(train_tokens, tokens[1], _demonstrations(config, model, tokens[0]), said)


def split(rows: Sequence[Ranking], share: float, seed: int) -> tuple[list[Ranking], list[Ranking]]:
    """(train, held out): a share of the prompts, each with all its rankings, drawn by the seed."""
    if not share:
        return list(rows), []
    known = sorted({str(row.prompt) for row in rows})
    size = min(max(1, round(share * len(known))), len(known) - 1)
    if size < 1:
        raise DataError(f"data has {len(known)} prompt; holding some out needs at least 2. Give eval_data.")
    held = {known[i] for i in derive_rng(seed, "held-out-prompts").permutation(len(known))[:size]}
    return [r for r in rows if str(r.prompt) not in held], [r for r in rows if str(r.prompt) in held]


def centre(model: RewardModel, data: Data) -> Metrics:
    """The scores shifted so that the demonstrations' mean is 0 (InstructGPT, section 3.5); what it was.

    The range of the held-out answers' scores is noted: what scores beyond it later is unlike anything that was ranked.
    """
    texts = [example for row in data.held_out for example in row.examples]
    if texts:
        seen = reward_model.scores_of(model.scorer, texts, pad_id=model.pad_id, budget=model.budget)
        model.scorer.known = min(seen), max(seen)
    if not data.demonstrations:
        return {}
    found = reward_model.scores_of(model.scorer, data.demonstrations, pad_id=model.pad_id, budget=model.budget)
    shift = sum(found) / len(found)
    model.scorer.rescale(gain=1.0, shift=shift)
    return {"reward_model/shift": shift}


def examine(model: RewardModel, data: Data) -> PairReport:
    """Agreement with the held-out rankings."""
    found = list(reward_model.compare(model.scorer, data.held_out, pad_id=model.pad_id, budget=model.budget))
    return pair_report([p.lead for p in found], [p.ranking for p in found], [p.gap for p in found])


def finish(run: Run, model: RewardModel, data: Data) -> Report:
    """The report of a trained model: its table, its calibration drawn, and where it is."""
    summary = f"The reward model is in {run.directory}; name that directory wherever a reward model is asked for."
    if not data.held_out:
        run.finish(summary)
        return Report(run.directory, {}, model, summary)
    found = examine(model, data)
    bins = [(one.said, one.right, one.pairs) for one in found.calibration]
    calibration(run.directory / "calibration.png", bins)
    run.finish(summary, tables={"Held-out preferences": found.table()})
    return Report(run.directory, found.metrics(), model, f"{found.table()}\n{summary}")


def load(run: Run) -> Report:
    """The newest checkpoint of a run, ready to be asked: `.policy.score(prompt, answers)`."""
    return Report(run.directory, {}, trained_reward_model(str(run.directory)), f"{run.recipe} from {run.directory}")


def _tokens(
    model: RewardModel, rows: Sequence[Ranking], bad_rows: Literal["stop", "drop"], dropped: list[str]
) -> list[RankedExample]:
    found: list[RankedExample] = []
    for row in rows:
        try:
            found.append(ranked_example(model.tokenizer, row, model.scorer.context))
        except DataError as error:
            if bad_rows == "stop":
                raise DataError(f"{str(row.prompt)[:80]}: {error} Or drop such rows: --bad-rows drop.") from error
            dropped.append(f"{str(row.prompt)[:80]}: {error}")
    return found


def _demonstrations(
    config: Config, model: RewardModel, train: Sequence[RankedExample]
) -> list[tuple[list[int], list[bool]]]:
    """The texts whose mean score is to be 0: the user's own, or the best answer of each ranking."""
    if config.demonstrations:
        tokenizer, context = model.tokenizer, model.scorer.context
        rows = read_jsonl(
            config.demonstrations, lambda row: example(tokenizer, conversation(row), context), config.bad_rows
        )
        return list(rows.rows)
    return [row.examples[min(range(len(row.rank)), key=lambda i, r=row: r.rank[i])] for row in train]  # type: ignore[misc]


def _characters(config: Config, rows: Mapping[str, Any]) -> str:
    """Every character of the rows, and all of ASCII, for a model made on the spot."""
    if config.model not in TINY:
        return ""
    found = set(PRINTABLE)
    for each in rows.values():
        for row in each.rows:
            found.update(*(turn["content"] for part in (row.prompt, *row.answers) for turn in part))
    return "".join(sorted(found))


PRESETS: dict[str, Config] = {
    # a model made on the spot, on preferences of a known reward (onepolicy data make letters --rankings 40000 --k 8)
    "letters": Config(
        batch_size=16, steps=2500, lr=2e-3, warmup_steps=100, tiny=Tiny(context=64), machine=Machine(threads=1)
    ),
    # Ouyang et al. 2022, appendix C.2: one pass, 64 prompts a batch, K of 4 to 9, a cosine down to a tenth
    "instructgpt": Config(batch_size=64, lr=9e-6, form="k-wise"),
}


def starting_point(algorithm: str, fields: Mapping[str, Any]) -> Config:
    """The configuration to override when no preset is named."""
    return PRESETS["letters"] if fields.get("model", Config.model) in TINY else Config()


__all__ = ["PART", "PRESETS", "RECIPE", "Config", "load", "main", "starting_point"]
