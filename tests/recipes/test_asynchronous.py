"""Generation in another process: with staleness 0 the synchronous run, else so far behind; resumed to the bit."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from onepolicy.errors import ConfigError, RewardError, TrainingError
from onepolicy.recipes import grpo
from onepolicy.recipes.asynchronous import Ahead, Worker
from onepolicy.recipes.options import Asynchronous, Update
from onepolicy.run.journal import read_lines
from onepolicy.types import Episode, Message, Score, Task

DEATHS = [(1, "before log"), (1, "in save"), (2, "after save"), (3, "after log"), (4, "after save")]


def lines(config):
    return {line["step"]: line for line in read_lines(Path(config.out) / "metrics.jsonl")}


def own(config, reward_directory):
    """The rewards by their file, which the other process can find too."""
    return replace(config, reward=f"{reward_directory}/tiny_rewards.py:digits")


def test_staleness_0_is_the_synchronous_run(tiny_grpo, reward_directory, digests):
    fields = {"update": Update(warmup_steps=0, kl_coef=0.1)}
    here = own(tiny_grpo("here", **fields), reward_directory)
    there = own(tiny_grpo("there", **fields, asynchronous=Asynchronous(staleness=0)), reward_directory)
    grpo.main(here)
    grpo.main(there)
    assert lines(here) == lines(there)
    weights = {k: v for k, v in digests(here.out).items() if "model" in k}
    assert weights == {k: v for k, v in digests(there.out).items() if "model" in k}


@pytest.mark.parametrize("decoupled", [False, True], ids=["plain", "decoupled"])
def test_staleness_2_is_two_updates_and_resumed_with_its_queue(
    decoupled, tiny_grpo, reward_directory, resume_through, digests
):
    fields = {
        "asynchronous": Asynchronous(staleness=2, decoupled=decoupled),
        "update": Update(warmup_steps=0, correction="token_truncate" if decoupled else "none"),
    }
    straight, killed = (own(tiny_grpo(name, **fields), reward_directory) for name in ("straight", "killed"))
    grpo.main(straight)
    resume_through(grpo.main, killed, DEATHS)
    assert digests(straight.out) == digests(killed.out)
    found = lines(straight)
    assert [found[step]["rollout/staleness"] for step in (1, 2, 3, 4)] == [0, 1, 2, 2]
    assert ("rollout/effective_share" in found[1]) is decoupled


def test_an_error_over_there_is_an_error_here(tiny_grpo, reward_directory):
    config = tiny_grpo(asynchronous=Asynchronous(staleness=1))
    broken = replace(config, reward=f"{reward_directory}/tiny_rewards.py:broken")
    with pytest.raises(RewardError, match=r"in the generating process: .*no licence"):
        grpo.main(broken)
    with pytest.raises(ConfigError, match="whether to sample again"):
        tiny_grpo(asynchronous=Asynchronous(staleness=1), update=Update(zero_variance="drop", resample=2))


TASKS = [Task(f"t{i}", (Message("user", "?"),), "", None) for i in range(4)]  # type: ignore[arg-type]


class Order:
    """Tasks one at a time, for ever."""

    tasks = TASKS

    def __init__(self):
        self.at = 0

    def next(self):
        self.at += 1
        return [TASKS[(self.at - 1) % 4]]


def slow_worker(how, pause=60.0):
    """A worker that goes wrong in its third rollout."""
    import time

    held = {"version": -1}

    def play(tasks, step):
        if step == 2 and how == "hang":
            time.sleep(pause)
        if step == 2 and how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return [Episode(t.id, 0, (1, 2), (False, True), (0.0, -1.0), Score(1.0), held["version"]) for t in tasks]

    return Worker(play, lambda state, version: held.update(version=version), {t.id: t for t in TASKS}, lambda: None)


def test_what_hangs_or_dies_is_named():
    for how, reason in (("hang", r"hangs: rollout 3 was asked for .* version 2"), ("die", "killed by signal 9")):
        with Ahead(partial(slow_worker, how), Order(), staleness=0, timeout=180.0, threads=1) as ahead:
            ahead.begin({"w": torch.zeros(1)}, 0)
            for step in range(2):
                assert ahead.play(ahead.next(), step)[0].version == step
                ahead.publish({"w": torch.zeros(1)}, step + 1)
            ahead.timeout = 1.0
            tasks = ahead.next()
            with pytest.raises(TrainingError, match=reason):
                ahead.play(tasks, 2)
        assert not ahead._process.is_alive()


def test_rollouts_come_in_order_with_the_weights_of_their_time():
    """Staleness 1: rollouts 0 and 1 by version 0, then each by the version one before; tasks in the prompts' order."""
    with Ahead(partial(slow_worker, "well"), Order(), staleness=1, timeout=180.0, threads=1) as ahead:
        ahead.begin({"w": torch.zeros(1)}, 0)
        found = []
        for step in range(5):
            tasks = ahead.next()
            episode = ahead.play(tasks, step)[0]
            assert episode.task_id == tasks[0].id == TASKS[step % 4].id
            found.append(episode.version)
            ahead.publish({"w": torch.zeros(1)}, step + 1)
    assert found == [0, 0, 1, 2, 3]
