"""Our side of grpo_vs_trl.py: the GRPO recipe's own parts, timed step by step. Arguments: WORK.json OUT.json."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch

from common import Record, write_json
from onepolicy.acting.episodes import Actor, rollout_metrics
from onepolicy.algos import grpo
from onepolicy.data.prompts import PromptStream
from onepolicy.learning.weights import publish
from onepolicy.recipes.grpo import Config, credit_of, make_learner, prepare, scorer_of
from onepolicy.recipes.options import Machine, Update
from onepolicy.tasks.arithmetic import load
from onepolicy.types import Episode, Metrics, Sampling, Task


class Stopwatch:
    """Seconds spent in wrapped functions since the last `take`, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time counted under a name."""

        def timed(*arguments: Any, **options: Any) -> Any:
            began = perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - began

        return timed

    def take(self) -> dict[str, float]:
        """What was counted, the counters at zero again."""
        seconds, self.seconds = self.seconds, {}
        return seconds


def clocks() -> tuple[float, float]:
    """Seconds of the wall clock and of this process's CPU time."""
    return perf_counter(), process_time()


def measure(work: Record) -> Record:
    """Seconds of each step but the first ones, in all and by part, and the lengths sampled in them."""
    torch.set_num_threads(work["threads"])
    config = Config(
        model=work["model"],
        prompts=len(work["prompts"]),
        group_size=work["group_size"],
        max_tokens=work["max_tokens"],
        lr=work["lr"],
        convention="trl",
        reward="grpo_reward:share_of_digits",
        steps=work["warmup"] + work["steps"],
        seed=work["seed"],
        update=Update(warmup_steps=0),
        machine=Machine(threads=work["threads"]),
    )
    asked = load("train", level=work["levels"], n=config.prompts)
    language, tasks, _ = prepare(config, config.model, asked, asked)
    if [language.render(task) for task in tasks] != work["prompts"]:
        raise SystemExit("the prompts are not those of the other side")
    watch = Stopwatch()
    engine = language.engine(slots=config.machine.slots, cache_tokens=config.machine.cache_tokens or None)
    learner = make_learner(config, language.policy, Path(work["model"]) / "bad")
    engine.generate, learner.step = watch.wrap("generate", engine.generate), watch.wrap("train", learner.step)
    actor = Actor(
        generator=engine,
        render=language.render,
        decode=language.decode,
        sampling=Sampling(config.max_tokens),
        seed=config.seed,
        context=language.context,
        score=scorer_of(config.reward),
    )
    steps: list[Record] = []
    lengths: list[int] = []
    began = clocks()

    def act(chosen: Sequence[Task], step: int) -> tuple[list[Episode], Metrics]:
        episodes = actor.play(chosen, config.group_size, step)
        lengths[:] = [sum(e.is_action) for e in episodes]
        return episodes, rollout_metrics(episodes, engine.version)

    def after_step(step: int, metrics: Metrics) -> bool:
        nonlocal began
        now = clocks()
        steps.append({"seconds": now[0] - began[0], "cpu": now[1] - began[1], **watch.take(), "lengths": list(lengths)})
        began = clocks()
        return False

    began = clocks()
    grpo.fit(
        learner,
        PromptStream(tasks.tasks, batch_size=config.prompts, seed=config.seed),
        act=act,
        reference=None,
        publish=lambda version: publish(language.state(), engine, version),
        credit=credit_of(config),
        epochs=1,
        parts=1,
        pad_id=language.pad_id,
        seed=config.seed,
        start=0,
        steps=config.steps,
        after_step=after_step,
    )
    return {"path": engine.path, "layout": language.policy.layout, "steps": steps[work["warmup"] :]}


if __name__ == "__main__":
    write_json(sys.argv[2], measure(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
