"""Tasks to episodes: who wrote which token, how samples are seeded, what a batch of them measures."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from onepolicy.acting.episodes import Actor, invalid_causes, rollout_metrics, verify_each
from onepolicy.errors import DataError
from onepolicy.tasks.length import OverlongPenalty, Ruler
from onepolicy.types import Completion, Episode, Message, Sampling, Score, Task

STOP = 1


def verifier(task, text):
    """1 for the answer, no verdict on a question mark."""
    if text == "?":
        return Score(None, {}, "a question is no answer")
    return Score(float(text == task.answer), {"correct": float(text == task.answer), "format": 1.0})


def task(name, question, answer="7"):
    return Task(name, (Message("user", question),), answer, verifier)


class Scripted:
    """A generator that gives written completions and remembers what it was asked."""

    version = 3

    def __init__(self, *texts):
        self.texts = texts

    def generate(self, prompts, n, sampling, seeds):
        self.prompts, self.seeds, self.n = [list(p) for p in prompts], list(seeds), n
        return [[self.completion(self.texts[k % len(self.texts)]) for k in range(n)] for _ in prompts]

    @staticmethod
    def completion(text):
        cut = text.endswith("…")
        tokens = [*map(ord, text.rstrip("…")), *([] if cut else [STOP])]
        return Completion(tuple(tokens), (-0.5,) * len(tokens), "length" if cut else "stop", version=2)

    def load(self, state, version):
        raise AssertionError("an actor publishes nothing")


def decode(tokens):
    return "".join(map(chr, tokens[:-1] if tokens[-1] == STOP else tokens))


def actor(generator, **fields):
    render = lambda task: [2, *map(ord, task.messages[-1].content)]  # noqa: E731
    return Actor(generator, render, decode, Sampling(4), fields.pop("seed", 0), fields.pop("context", 20), **fields)


def test_an_episode_holds_the_tokens_as_sampled():
    """Prompt "3+4" behind a 2, then "7" and the stop token, which is among the actions."""
    (right, wrong) = actor(Scripted("7", "88…")).play([task("a", "3+4")], 2, step=0)
    assert right == Episode(
        task_id="a",
        group=0,
        tokens=(2, ord("3"), ord("+"), ord("4"), ord("7"), STOP),
        is_action=(False,) * 4 + (True, True),
        logp=(0.0,) * 4 + (-0.5, -0.5),
        score=Score(1.0, {"correct": 1.0, "format": 1.0}),
        version=2,
        text="7",
    )
    assert (wrong.text, wrong.truncated, wrong.score.value) == ("88", True, 0.0)
    assert wrong.tokens[-2:] == (ord("8"), ord("8"))


def test_groups_are_the_tasks_in_order():
    episodes = actor(Scripted("7", "8", "9")).play([task("a", "1"), task("b", "2"), task("c", "3")], 3, step=0)
    assert [(e.task_id, e.group, e.text) for e in episodes] == [
        (name, group, text) for group, name in enumerate("abc") for text in "789"
    ]


def seeds(tasks, step=0, seed=0):
    generator = Scripted("7")
    actor(generator, seed=seed).play(tasks, 1, step)
    return generator.seeds


def test_a_sample_depends_on_run_step_and_task_alone():
    a, b = task("a", "1"), task("b", "2")
    assert seeds([a, b]) == seeds([b, a])[::-1] == seeds([a]) + seeds([b])
    assert len({*seeds([a, b]), *seeds([a, b], step=1), *seeds([a, b], seed=1)}) == 6


def test_a_task_that_comes_twice_is_sampled_afresh():
    """Else two groups of a rollout would be copies; the first time it is seeded as if it came once."""
    a, b = task("a", "1"), task("b", "2")
    found = seeds([a, b, a, a])
    assert found[:2] == seeds([a, b])
    assert len(set(found)) == 4


def test_a_prompt_that_leaves_no_room_is_named():
    with pytest.raises(DataError, match=r"the prompt of task 'long' has 6 tokens; the model's context is 6"):
        actor(Scripted("7"), context=6).play([task("a", "1"), task("long", "12345")], 1, step=0)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_scorer_gives_one_score_for_each(count):
    with pytest.raises(DataError, match=f"the scorer returned {count} scores for 2 completions; it must return one"):
        actor(Scripted("7"), score=lambda pairs: [Score(1.0)] * count).play([task("a", "1")], 2, step=0)


def test_each_task_is_judged_by_its_own_verifier():
    pairs = [(task("a", "1", "x"), "x"), (task("b", "2", "y"), "x"), (task("c", "3"), "?")]
    assert [score.value for score in verify_each(pairs)] == [1.0, 0.0, None]


def scored(value, group, *, length=1, truncated=False, version=0, **parts):
    """An episode with a prompt of one token."""
    return Episode(
        task_id=str(group),
        group=group,
        tokens=(0,) * (1 + length),
        is_action=(False, *[True] * length),
        logp=(0.0,) * (1 + length),
        score=Score(value, parts, None if value is not None else "crashed"),
        version=version,
        truncated=truncated,
    )


def test_lengths_in_tokens_are_those_that_were_sampled():
    """ "12" and its stop token are 3, "1234…" was cut off at 4: a penalty from 2 to 4 gives -1/2 and -1."""
    penalty = OverlongPenalty(limit=4, buffer=2, ruler=Ruler("tokens"))
    one = replace(task("a", "?"), verifier=penalty)
    episodes = actor(Scripted("12", "1234…")).play([one], 2, 0)
    assert [e.score.value for e in episodes] == [-0.5, -1.0]
    assert [e.score.parts["length"] for e in episodes] == [3.0, 4.0]
    assert "completion_tokens" not in one.meta


def test_metrics_by_hand():
    """Groups (1, 0), (1, None), (0, 0): judged 1 0 1 0 0; the second has one judged score, the third one value."""
    episodes = [
        scored(1.0, 0, length=2, correct=1.0, format=1.0),
        scored(0.0, 0, length=4, correct=0.0, format=1.0, truncated=True),
        scored(1.0, 1, length=1, correct=1.0, format=None),
        scored(None, 1, length=1),
        scored(0.0, 2, length=1, correct=0.0, format=0.0, version=4),
        scored(0.0, 2, length=3, correct=0.0, format=0.0, version=3),
    ]
    assert rollout_metrics(episodes, version=4) == {
        "rollout/score": pytest.approx(2 / 5),
        "rollout/score_invalid": pytest.approx(1 / 6),
        "rollout/truncated": pytest.approx(1 / 6),
        "rollout/length": 2.0,
        "rollout/length_max": 4.0,
        "rollout/zero_variance": pytest.approx(2 / 3),
        "rollout/staleness": pytest.approx((4 * 4 + 0 + 1) / 6),
        "rollout/correct": pytest.approx(2 / 5),
        "rollout/format": pytest.approx(2 / 4),
        "reward/skipped": 0.0,
        "reward/invalid_other": pytest.approx(1 / 6),
    }
    assert invalid_causes(episodes) == {"crashed": 1}


def test_three_states_are_counted_apart():
    """Of 8 completions 3 were judged, 2 skipped, 2 timed out, 1 had no memory: of the judged the mean is 1/3."""
    scores = [Score(1.0), Score(0.0), Score(0.0), Score(None), Score(None)]
    scores += [Score(None, {}, f"{cause}: …") for cause in ("time-out", "time-out", "memory")]
    episodes = [replace(scored(0.0, 0), score=score) for score in scores]
    metrics = rollout_metrics(episodes, version=0)
    assert {name: value for name, value in metrics.items() if "reward/" in name or "score" in name} == {
        "rollout/score": pytest.approx(1 / 3),
        "rollout/score_invalid": 3 / 8,
        "reward/skipped": 2 / 8,
        "reward/invalid_time_out": 2 / 8,
        "reward/invalid_memory": 1 / 8,
    }
    assert invalid_causes(episodes) == {"time-out: …": 2, "memory: …": 1}


def test_a_batch_that_nobody_could_judge_has_no_score():
    metrics = rollout_metrics([scored(None, 0), scored(None, 0)], version=0)
    assert math.isnan(metrics["rollout/score"])
    assert (metrics["rollout/score_invalid"], metrics["rollout/zero_variance"]) == (1.0, 1.0)
