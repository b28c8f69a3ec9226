"""R1's stages: each is another recipe's run, started from an earlier stage's model, and resumed if it was begun."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from onepolicy.data.demonstrations import conversation, read_jsonl
from onepolicy.errors import ConfigError
from onepolicy.nn.language import TINY
from onepolicy.recipes import distill, grpo, rejection, reward_model, sft
from onepolicy.recipes.options import ExamOptions, Update
from onepolicy.recipes.r1_config import INPUT, STAGES, USUAL, Config, Reinforced, Supervised
from onepolicy.recipes.textual import Problems
from onepolicy.run.files import replace_bytes
from onepolicy.run.process import read_status
from onepolicy.tasks import letters
from onepolicy.tasks.base import task_options
from onepolicy.types import Message

ROWS = "rows.jsonl"
"""The set for SFT in the directory of `reject`."""


def problems_of(config: Config, options: str) -> Problems:
    """The problems of a mixture with these options."""
    return Problems.of(
        rejection.Asked(
            model=config.model, tasks="mixture", task_options=options, level=None, data="", seed=config.seed,
            problems=config.problems, exam=config.exam,
        )
    )  # fmt: skip


def plan(config: Config) -> list[str]:
    """The stages to run, in the pipeline's order.

    Raises: ConfigError for a stage whose input is neither among them nor given.
    """
    wanted = [name.strip() for name in config.stages.split(",")]
    if wanted == ["all"]:
        wanted = list(USUAL if config.general else [name for name in USUAL if name != "reward"])
        wanted += (["distill"] + ["teach"] * bool(config.student.steps)) if config.student.model else []
    if config.model in TINY and "base" not in wanted:
        wanted.append("base")
    for name in wanted:
        _require(config, name, wanted)
    return [name for name in STAGES if name in wanted]


def _require(config: Config, name: str, wanted: Sequence[str]) -> None:
    """Raises ConfigError where the input of a stage is missing."""
    needs = [INPUT[name]] if name in INPUT and INPUT[name] != "base" else []
    own = {"sft": config.sft.data, "distill": config.sft.data}.get(name, "")
    needs += ["reject"] if name in ("sft", "distill") and not own else []
    models = name == "rl2" or (name == "reject" and config.reject.general_prompts)
    needs += ["reward"] if models and config.general and not config.reward.model else []
    needs += ["rl2"] if name == "teach" else []
    if missing := [need for need in needs if need not in wanted]:
        raise ConfigError(
            f"stage {name!r} starts from what {missing[0]!r} makes ({STAGES[missing[0]]}), which is not among the "
            f"stages {', '.join(wanted)}. Add {missing[0]!r} to --stages, or for RL straight from the base take zero."
        )
    if name in ("distill", "teach") and not config.student.model:
        raise ConfigError(f"stage {name!r} needs a student: --student.model, a tiny preset, a directory or a hub id.")


def model_of(config: Config, directory: Path, stage: str) -> str:
    """The model that a stage leaves."""
    return config.model if stage == "base" and config.model not in TINY else str(directory / stage / "model")


def mixture(config: Config, *sets: str, pays: bool = True) -> str:
    """The task options of reasoning, general tasks or both. pays: whether language consistency is rewarded."""
    weight = config.language_weight if pays else 0.0
    shares = [1 - config.general_share, config.general_share] if len(sets) > 1 else [1.0]
    own = [piece.strip() for piece in config.options.split(";") if piece.partition(".")[0].strip() in sets]
    found: dict[str, Any] = {"sets": list(sets), "shares": shares}
    if config.level is not None and config.tasks in sets:
        own.append(f"{config.tasks}.level={config.level}")
    if config.language:
        found |= {"language": config.language, "language_weight": weight}
    elif config.tasks in sets and "language" in task_options(config.tasks):
        own.append(f"{config.tasks}.language={weight}")
    found |= {"options": own} if own else {}
    return ",".join(f"{key}={value}" for key, value in found.items())


def everything(config: Config) -> tuple[str, ...]:
    """The names of all task sets."""
    return (config.tasks, config.general) if config.general else (config.tasks,)


def watching(config: Config) -> ExamOptions:
    """The stages' own exams, which only watch; the table's is that of `r1_report`."""
    return ExamOptions(size=min(config.exam.size, 128))


def finished(directory: Path) -> bool:
    """Whether the run in a directory came to its end."""
    status = read_status(directory)
    return status is not None and status.state == "finished"


def carry_out(recipe: Any, config: Any) -> None:
    """A recipe's run in `config.out`, begun or gone on with; nothing if it has ended."""
    out = Path(config.out)
    if finished(out):
        return
    begun = (out / "config.json").is_file()
    if not begun:
        shutil.rmtree(out, ignore_errors=True)
    recipe.main(config, resume=out if begun else None)


def supervised(config: Config, directory: Path, stage: str, model: str, chosen: Supervised, data: Path) -> None:
    """A stage of SFT on a file of conversations."""
    carry_out(
        sft,
        sft.Config(
            model=model, tasks="mixture", task_options=mixture(config, *everything(config)), data=str(data),
            steps=chosen.steps, batch_size=chosen.batch_size, lr=chosen.lr, max_tokens=config.max_tokens,
            warmup_steps=min(20, chosen.steps // 10), save_every=-(-chosen.steps // 5), seed=config.seed,
            out=str(directory / stage), tiny=config.tiny, problems=config.problems, exam=watching(config),
            machine=config.machine,
        ),
    )  # fmt: skip


def reinforced(config: Config, directory: Path, stage: str, chosen: Reinforced) -> None:
    """A stage of GRPO, by DeepSeek-R1's conventions."""
    last = stage == "rl2"
    judge = f"model:{reward_place(config, directory)}@{config.general}" if last and config.general else ""
    carry_out(
        grpo,
        grpo.Config(
            model=model_of(config, directory, INPUT[stage]), tasks="mixture",
            task_options=mixture(config, *(everything(config) if last else (config.tasks,))), reward=judge,
            convention="deepseek-r1", steps=chosen.steps, prompts=chosen.prompts, group_size=chosen.group_size,
            max_tokens=config.max_tokens, temperature=chosen.temperature, lr=chosen.lr,
            eval_every=-(-chosen.steps // 4), save_every=-(-chosen.steps // 8), seed=config.seed,
            out=str(directory / stage), tiny=config.tiny, problems=config.problems, exam=watching(config),
            update=Update(
                minibatches=chosen.minibatches, kl_coef=chosen.kl_coef, reference_every=chosen.reference_every,
                zero_variance=chosen.zero_variance,
            ),
            machine=config.machine,
        ),
    )  # fmt: skip


def base(config: Config, directory: Path) -> None:
    """The education of a base made on the spot: rough demonstrations of everything."""
    data = demonstrated(config, directory, "base", config.base)
    supervised(config, directory, "base", config.model, config.base, data)


def cold(config: Config, directory: Path) -> None:
    """The cold start."""
    data = demonstrated(config, directory, "cold", config.cold)
    supervised(config, directory, "cold", model_of(config, directory, "base"), config.cold, data)


def reject(config: Config, directory: Path) -> None:
    """The set for SFT: what the RL model gets right, and of the base's general answers those the reward model likes."""
    place = directory / "reject"
    if (place / ROWS).is_file():
        return
    common: dict[str, Any] = {"n": config.reject.n, "max_tokens": config.max_tokens, "seed": config.seed}
    common |= {"tasks": "mixture", "problems": config.problems, "machine": config.machine}
    rejection.sample(
        rejection.Config(
            model=model_of(config, directory, "rl"), task_options=mixture(config, config.tasks),
            prompts=config.reject.prompts, keep=config.reject.keep, out=str(place / "reasoning.jsonl"), **common,
        )
    )  # fmt: skip
    if config.reject.general_prompts and config.general:
        rejection.sample(
            rejection.Config(
                model=model_of(config, directory, "base"), task_options=mixture(config, config.general),
                prompts=config.reject.general_prompts, reward=f"model:{reward_place(config, directory)}",
                keep=replace(config.reject.keep, right=False, least=None, language="", language_share=0.0),
                out=str(place / "general.jsonl"), **common,
            )
        )  # fmt: skip
    found = [(place / name).read_bytes() for name in ("reasoning.jsonl", "general.jsonl") if (place / name).is_file()]
    replace_bytes(place / ROWS, b"".join(found))


def again(config: Config, directory: Path) -> None:
    """SFT on the sampled set, from the base."""
    supervised(
        config, directory, "sft", model_of(config, directory, "base"), config.sft, _set_of(config, directory, "sft")
    )


def reward(config: Config, directory: Path) -> None:
    """The reward model of the general tasks, from the base."""
    if config.reward.model:
        return
    data = Path(config.reward.data) if config.reward.data else directory / "reward.jsonl"
    if not config.reward.data:
        if config.general != "letters":
            raise ConfigError(
                f"{config.general} draws no rankings; give the reward model's training file, --reward.data, a trained "
                "one, --reward.model, or no general tasks: --general ''."
            )
        _write(data, letters.ranking_rows(config.reward.rows, seed=config.seed))
    carry_out(
        reward_model,
        reward_model.Config(
            model=model_of(config, directory, "base"), data=str(data), lr=config.reward.lr, seed=config.seed,
            save_every=20, out=str(directory / "reward"), machine=config.machine,
        ),
    )  # fmt: skip


def reward_place(config: Config, directory: Path) -> str:
    """Where the reward model is."""
    return config.reward.model or str(directory / "reward")


def distilled(config: Config, directory: Path) -> None:
    """SFT of the student on the same set, as DeepSeek-R1 distils."""
    data = _set_of(config, directory, "distill")
    supervised(config, directory, "distill", config.student.model, config.sft, data)


def taught(config: Config, directory: Path) -> None:
    """On-policy distillation of the student."""
    chosen = config.student
    carry_out(
        distill,
        distill.Config(
            model=model_of(config, directory, "distill"), teacher=model_of(config, directory, "rl2"), tasks="mixture",
            task_options=mixture(config, *everything(config)), steps=chosen.steps, max_tokens=config.max_tokens,
            lr=chosen.lr, eval_every=0, seed=config.seed, out=str(directory / "teach"), problems=config.problems,
            exam=watching(config), machine=config.machine,
        ),
    )  # fmt: skip


RUN: Mapping[str, Callable[[Config, Path], None]] = {
    "base": base,
    "cold": cold,
    "rl": lambda config, directory: reinforced(config, directory, "rl", config.rl),
    "zero": lambda config, directory: reinforced(config, directory, "zero", config.rl),
    "reward": reward,
    "reject": reject,
    "sft": again,
    "rl2": lambda config, directory: reinforced(config, directory, "rl2", config.rl2),
    "distill": distilled,
    "teach": taught,
}
"""What carries a stage out, or goes on with it; nothing is done for one that has ended."""


def demonstrated(config: Config, directory: Path, stage: str, chosen: Supervised) -> Path:
    """The rows of a stage of SFT: the user's file, or demonstrations of the task sets written down now."""
    if chosen.data:
        read_jsonl(chosen.data, conversation, config.problems.bad_rows)
        return Path(chosen.data)
    place = directory / f"{stage}.jsonl"
    if place.is_file():
        return place
    options = f"{mixture(config, config.tasks)},style={chosen.style}" if chosen.style else mixture(config, config.tasks)
    tasks = problems_of(config, options).train()
    rows = [_row(talk) for talk in tasks.demonstrations(min(chosen.demonstrations, len(tasks)), config.seed)]
    general = chosen.general if config.general == "letters" else 0
    _write(place, [*rows, *letters.demonstration_rows(general, seed=config.seed)])
    return place


def _row(talk: Sequence[Message]) -> dict[str, Any]:
    return {"messages": [{"role": m.role, "content": m.content} for m in talk]}


def _write(place: Path, rows: Sequence[dict[str, Any]] | Iterator[dict[str, Any]]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    replace_bytes(place, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def _set_of(config: Config, directory: Path, stage: str) -> Path:
    """The file that a stage after `reject` learns from. Raises: ConfigError when nothing was kept."""
    place = Path(config.sft.data) if config.sft.data else directory / "reject" / ROWS
    if not config.sft.data and not list(islice(place.open("rb"), 1)):
        raise ConfigError(
            f"stage {stage!r} has nothing to learn from: {place} is empty, not one answer was kept. Why is in "
            f"{place.parent / 'reasoning.jsonl.report.json'}; loosen --reject.keep, or train the RL stage for longer."
        )
    return place
