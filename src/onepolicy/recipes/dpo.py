"""Preference optimisation of a language model: on a file, or online by sampling, judging, pairing, training, again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from onepolicy.algos import dpo
from onepolicy.data.demonstrations import fingerprint, read_jsonl
from onepolicy.data.preferences import judged, judged_example, ranked_example, ranking
from onepolicy.data.prompts import PromptStream, Shuffled
from onepolicy.errors import ConfigError, DataError
from onepolicy.learning.optim import OptimConfig
from onepolicy.learning.rows import RowLearner
from onepolicy.recipes.arena import Arena, Rescore, arena_of, rescorer, reward_model_for
from onepolicy.recipes.language import Language, language_of, load_language, save_final
from onepolicy.recipes.loop import Loop, alarms_of, open_run, require_count, require_positive
from onepolicy.recipes.online import OnlineRows
from onepolicy.recipes.options import ExamOptions, Machine, ProblemOptions
from onepolicy.recipes.reference import reference_logp
from onepolicy.recipes.textual import Problems
from onepolicy.recipes.verifying import Judge, scorer_of
from onepolicy.run.progress import progress
from onepolicy.run.report import Report
from onepolicy.run.run import Run
from onepolicy.run.seeding import derive_rng
from onepolicy.types import Metrics

RECIPE = "dpo"


@dataclass(frozen=True)
class Online:
    """Pairs made by the policy itself."""

    rounds: int = 0
    """Times that answers are sampled, judged and paired; 0 learns from `data` alone."""
    prompts: int = 256
    """Prompts a round."""
    samples: int = 4
    """Answers a prompt; the best and the worst become a pair."""
    moving_reference: bool = False
    """The reference becomes the policy at the start of each round (iterative DPO), not that of the first."""

    def __post_init__(self) -> None:
        require_count(self, "rounds")
        require_positive(self, "prompts")
        if self.samples < 2:
            raise ConfigError(f"samples is {self.samples}; a pair needs at least 2 answers to a prompt.")


@dataclass(frozen=True)
class Config:
    """Direct preference optimisation and its kin."""

    model: str = ""
    """Language model to start from, and the reference: a run of sft, a Hugging Face directory or a hub id."""
    lora_rank: int = 0
    """Rank of LoRA adapters, 0 trains all weights."""
    data: str = ""
    """JSONL file of pairs or rankings; for KTO also rows of prompt, completion and label."""
    eval_data: str = ""
    """Held-out file of the same form; empty keeps eval_share of the prompts."""
    eval_share: float = 0.1
    """Share of the prompts that is held out where there is no eval_data."""
    tasks: str = ""
    """Task set whose prompts the policy answers: online for its pairs, held out for the win rate; empty for none."""
    task_options: str = ""
    """Further options of the task set, key=value,key=value."""
    reward_model: str = ""
    """Run or model that judges answers; empty for the task's verifier."""
    reward: str = ""
    """What judges answers: bleu, chrf, … with the task's answer, or an own function as module:f or file.py:f."""
    re_encode: bool = False
    """The reward model has another tokenizer: tokenise texts again for it."""
    steps: int = 0
    """Optimizer steps; 0 for one pass over the data, or over each round's pairs."""
    batch_size: int = 32
    """Pairs a step; for KTO answers a step."""
    lr: float = 1e-6
    """Peak learning rate."""
    warmup_steps: int = 0
    """Linear warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """Decay after the warm-up."""
    max_tokens: int = 256
    """Longest sampled answer, tokens."""
    bad_rows: Literal["stop", "drop"] = "stop"
    """What a broken or too long row does: stop with the reason, or drop it and count."""
    eval_every: int = 0
    """Steps between held-out evaluations, 0 only before and after."""
    save_every: int = 0
    """Steps between checkpoints, 0 only at the end."""
    seed: int = 0
    """Seed of everything random."""
    out: str = ""
    """Run directory; empty for the next free runs/dpo-N."""
    objective: dpo.Objective = field(default_factory=dpo.Objective)
    online: Online = field(default_factory=Online)
    exam: ExamOptions = field(default_factory=lambda: ExamOptions(k=4))
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        require_positive(self, "batch_size", "max_tokens")
        require_count(self, "lora_rank", "steps", "eval_every", "save_every")
        if not 0.0 <= self.eval_share < 1.0:
            raise ConfigError(f"eval_share is {self.eval_share}; it is a share of the prompts, in [0, 1).")
        if self.reward and self.reward_model:
            raise ConfigError("reward and reward_model are both given; answers have one judge. Leave one out.")
        if self.online.rounds and not self.tasks:
            raise ConfigError("online.rounds needs prompts to answer: name a task set with --tasks.")
        if self.online.rounds and self.data:
            raise ConfigError("online.rounds makes its own pairs; leave data out, or train on the file first.")


@dataclass(frozen=True)
class Offline:
    """Rows to learn from and to be examined on."""

    train: list[Any]
    held_out: list[dpo.Pair]
    dropped: str = ""


def main(config: Config, resume: Path | None = None) -> Report:
    """Train (or, given a run directory, go on training) on preferences."""
    torch.set_num_threads(config.machine.threads)
    if not config.model:
        raise ConfigError("model is empty; name the run of an sft, a Hugging Face directory or a hub id: --model.")
    if not config.data and not config.online.rounds:
        raise ConfigError("data is empty; give a JSONL file of preferences, or --online.rounds with --tasks.")
    language = language_of(config.model, lora_rank=config.lora_rank, layout=config.machine.layout)
    language.model.to(config.machine.device)
    data = read(config, language) if config.data else Offline([], [])
    files = {name: path for name in ("data", "eval_data") if (path := getattr(config, name))}
    sets = task_sets(config)
    reward = scorer_of(config.reward) if config.reward else None
    model = reward_model_for(config.reward_model, language, re_encode=config.re_encode, device=config.machine.device)
    run = open_run(RECIPE, config, resume, {name: fingerprint(path) for name, path in files.items()})
    with run, Judge(config.machine, *sets, reward=reward) as judge:
        if data.dropped:
            run.say(data.dropped)
        rescore = rescorer(model, re_encode=config.re_encode)
        return train_on(config, run, language, data, sets, rescore, judge)


def train_on(
    config: Config, run: Run, language: Language, data: Offline, sets: Sequence[Any], rescore: Rescore, judge: Judge
) -> Report:
    """The training proper, in a run that is entered."""
    generator = language.engine(slots=config.machine.slots, cache_tokens=config.machine.cache_tokens or None)
    arena = None
    if sets:
        arena = arena_of(
            sets[1].tasks, language, generator, rescore, judge.score, n=max(1, config.exam.k),
            max_tokens=config.max_tokens, temperature=1.0, seed=config.seed,
        )  # fmt: skip
    frozen = language.frozen_policy()
    refer = reference_logp(language, frozen, budget=config.machine.micro_tokens, say=run.say)
    needed = config.objective.needs_reference
    add = partial(dpo.referenced, logp=refer) if needed else list
    held_out = add(data.held_out)
    stream: Any
    if config.online.rounds:
        assert arena is not None
        stream = OnlineRows(
            run.directory / "pairs", PromptStream(sets[0].tasks, config.online.prompts, config.seed), arena.actor,
            rescore, language, generator, config.online, config.batch_size, config.seed,
            frozen=frozen, budget=config.machine.micro_tokens, kto=config.objective.kind == "kto", referenced=needed,
        )  # fmt: skip
        steps = config.steps or config.online.rounds * max(1, config.online.prompts // config.batch_size)
        stream.span = -(-steps // config.online.rounds)
    else:
        stream = Shuffled(add(data.train), config.batch_size, config.seed, "preferences")
        steps = config.steps or -(-len(data.train) // config.batch_size)
    learner, before_step = make_learner(config, language, steps, run.directory / "bad")
    parts = {**language.parts(), "learner": learner, "data": stream}

    def sit(step: int) -> Metrics:
        won = duel(language, generator, arena, step) if arena else {}
        return {**exam_of(config, language, held_out), **won}

    start = run.resume(**parts)
    if start == 0:
        run.log(0, sit(0))
    with progress(steps, config.objective.kind, done=start) as bar:
        loop = Loop(
            run=run,
            bar=bar,
            steps=steps,
            eval_every=config.eval_every,
            save_every=config.save_every,
            evaluate=sit,
            parts=parts,
            shown={"dpo/accuracy": "right", "eval/win_rate": "wins"},
            stop_on=alarms_of(config.exam.stop_on),
        )
        dpo.fit(learner, stream, start=start, steps=steps, before_step=before_step, after_step=loop.after_step)
    loop.stop_if_interrupted()
    return finish(config, run, language, loop.at_the_end())


def make_learner(
    config: Config, language: Language, steps: int, dump_dir: Path
) -> tuple[RowLearner[Any], Callable[[Sequence[Any]], None]]:
    """The learner of the objective, and what it must be told of each step's rows."""
    policy, pad_id, budget = language.policy, language.pad_id, config.machine.micro_tokens
    known = {"divergence": 0.0}

    def measure(rows: Sequence[Any]) -> None:
        if config.objective.kind == "kto":
            known["divergence"] = dpo.measured(policy, rows, pad_id=pad_id, budget=budget)

    loss: Any = partial(dpo.loss, policy, objective=config.objective, pad_id=pad_id)
    if config.objective.kind == "kto":
        loss = partial(
            dpo.kto_loss, policy, divergence=lambda: known["divergence"], objective=config.objective, pad_id=pad_id
        )
    optim = OptimConfig(
        lr=config.lr,
        warmup_steps=config.warmup_steps,
        schedule=config.schedule,
        total_steps=0 if config.schedule == "constant" else max(steps, config.warmup_steps) + 1,
        precision=config.machine.precision,
    )
    learner: RowLearner[Any] = RowLearner(
        policy, loss, dpo.tokens_of, optim=optim, micro_tokens=budget, dump_dir=dump_dir
    )
    return learner, measure


def read(config: Config, language: Language) -> Offline:
    """The files' rows as tokens, some prompts held out.

    Raises: DataError for a broken or too long row (unless dropped), or where nothing is left.
    """
    tokenizer, context = language.tokenizer, language.context
    alone = config.objective.kind == "kto" and _is_judged(config.data)

    def parse(row: dict[str, Any]) -> tuple[str, Any]:
        if alone:
            single = judged(row)
            return str(single.prompt), judged_example(tokenizer, single, context)
        found = ranking(row)
        return str(found.prompt), ranked_example(tokenizer, found, context)

    rows = read_jsonl(config.data, parse, config.bad_rows)
    dropped = f"{config.data}: {sum(rows.dropped.values())} rows dropped: {dict(rows.dropped)}" if rows.dropped else ""
    train, held = list(rows.rows), []
    if config.eval_data:
        held = list(read_jsonl(config.eval_data, parse, config.bad_rows).rows)
    elif config.eval_share:
        names = sorted({name for name, _ in train})
        if len(names) < 2:
            raise DataError(
                f"{config.data} has {len(names)} prompt; holding some out needs at least 2. Give eval_data."
            )
        size = min(max(1, round(config.eval_share * len(names))), len(names) - 1)
        out = {names[i] for i in derive_rng(config.seed, "held-out-prompts").permutation(len(names))[:size]}
        train, held = [r for r in train if r[0] not in out], [r for r in train if r[0] in out]
    if alone:
        return Offline(dpo.singles_of([row for _, row in train]), [], dropped)
    pairs = dpo.pairs_of([row for _, row in train])
    chosen = dpo.singles_of_pairs(pairs) if config.objective.kind == "kto" else pairs
    return Offline(chosen, dpo.pairs_of([row for _, row in held]), dropped)


def exam_of(config: Config, language: Language, held_out: Sequence[dpo.Pair]) -> Metrics:
    """Of the held-out pairs, the share whose implicit reward is the right way round, and its margin."""
    if not held_out:
        return {}
    texts = [e for pair in held_out for e in (pair.chosen, pair.rejected)]
    logp = dpo.logp_in_parts(language.policy, texts, pad_id=language.pad_id, budget=config.machine.micro_tokens)
    if config.objective.needs_reference:
        value = [x - ref for x, ref in zip(logp, (r for p in held_out for r in (p.ref_chosen, p.ref_rejected)))]
    else:
        value = [x / max(1, sum(acts)) for x, (_, acts) in zip(logp, texts, strict=True)]
    lead = [config.objective.beta * (c - r) for c, r in zip(value[0::2], value[1::2], strict=True)]
    chosen = [x - p.ref_chosen for x, p in zip(logp[0::2], held_out, strict=True)]
    metrics: Metrics = {
        "eval/preference_accuracy": sum(x > 0 for x in lead) / len(lead),
        "eval/preference_margin": sum(lead) / len(lead),
    }
    if config.objective.needs_reference:
        metrics["eval/chosen_drift"] = sum(chosen) / len(chosen)
    return metrics


def duel(language: Language, generator: Any, arena: Arena, step: int) -> Metrics:
    """The arena with the policy's present weights."""
    generator.load(language.state(), step)
    return arena.sit()


def task_sets(config: Config) -> list[Any]:
    """[training prompts, held-out prompts], or nothing without a task set."""
    if not config.tasks:
        return []
    problems = Problems(
        tasks=config.tasks, level=None, data="", eval_data="", eval_size=config.exam.size, seed=config.seed,
        instructed=False, options=ProblemOptions(), given=config.task_options,
    )  # fmt: skip
    return [problems.train(), problems.held_out()]


def finish(config: Config, run: Run, language: Language, last: Metrics) -> Report:
    """The model saved beside the checkpoints, the report, what the caller gets."""
    lines = [f"{name:<26} {value:.4f}" for name, value in sorted(last.items())]
    summary = f"{config.objective.kind} from {config.model}. {save_final(run, language)}"
    run.finish(summary, tables={"Held-out": "\n".join(lines)} if lines else {})
    return Report(run.directory, last, language, "\n".join([*lines, summary]))


def _is_judged(path: str) -> bool:
    """Whether a file's first row is a judgement, not a ranking."""
    first = read_jsonl(path, lambda row: "label" in row, "drop")
    return bool(first.rows[0])


PRESETS: dict[str, Config] = {
    # a model made on the spot and taught by `onepolicy data make letters`; the judge is the task's own formula
    "letters": Config(
        tasks="letters", lr=5e-4, batch_size=64, warmup_steps=10, max_tokens=24, machine=Machine(threads=1)
    ),
    # TRL's and the paper's: beta 0.1, 1e-6, one pass; Meng et al. 2024, table 7 for SimPO on an instruct model
    "dpo": Config(),
    "ipo": Config(objective=dpo.Objective("ipo", beta=0.1)),
    "simpo": Config(objective=dpo.Objective("simpo", beta=2.5, margin=1.375)),
    "orpo": Config(objective=dpo.Objective("orpo", beta=0.1), lr=8e-6),
    "kto": Config(objective=dpo.Objective("kto", beta=0.1)),
}


def starting_point(algorithm: str, fields: Mapping[str, Any]) -> Config:
    """The configuration to override when no preset is named."""
    return Config()


def load(run: Run) -> Report:
    """The newest checkpoint of a run, ready to talk to."""
    return load_language(run)
