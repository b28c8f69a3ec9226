"""Accuracy against a generator whose answers are known."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from onepolicy.errors import ConfigError, DataError
from onepolicy.evaluation.accuracy import answer_text, evaluate_tasks, powers_of_two, summarise
from onepolicy.evaluation.attempts import attempt_of, make_attempts
from onepolicy.tasks.arithmetic import load
from onepolicy.tasks.base import AnswerVerifier, as_reward, conversation
from onepolicy.tasks.rewards import HASHED, TAGGED
from onepolicy.types import Completion, Sampling, Score, Task

SAMPLING = Sampling(max_tokens=8, temperature=1.0)


class Script:
    """A Generator that reads its completions from a list: texts[mode][prompt][sample], mode by temperature."""

    version = 0

    def __init__(self, greedy, sampled=(), truncated=()):
        self.texts = {True: greedy, False: sampled}
        self.truncated = truncated
        self.calls = []

    def generate(self, prompts, n, sampling, seeds):
        self.calls.append((n, sampling, tuple(seeds)))
        rows = self.texts[sampling.temperature == 0]
        return [[self._completion(rows[prompt[0]][i]) for i in range(n)] for prompt in prompts]

    def _completion(self, text):
        stop = "length" if text in self.truncated else "stop"
        return Completion(tuple(map(ord, text)), (0.0,) * len(text), stop)

    def load(self, state, version):
        raise AssertionError("evaluation loads no weights")


def decode(tokens):
    return "".join(map(chr, tokens))


def say(answer):
    return f"<think></think><answer>{answer}</answer>"


def judge(task, answer):
    return answer == task.answer


def problems(count, verifier=None, **meta):
    made = verifier or AnswerVerifier(judge, TAGGED)
    return [
        Task(f"t{i}", conversation(f"{i}?"), "1", made, {key: values[i] for key, values in meta.items()})
        for i in range(count)
    ]


def run(tasks, generator, **options):
    index = {task.id: i for i, task in enumerate(tasks)}
    return evaluate_tasks(generator, tasks, lambda task: [index[task.id]], decode, sampling=SAMPLING, **options)


def test_hand_numbers():
    """Two problems, four samples. Greedy: right, wrong. Samples: 1 of 4 and 2 of 4 right.

    avg@4 = (1/4 + 2/4) / 2 = 3/8. pass@2 = (3/6 + 5/6) / 2 = 2/3. pass@4 = 1.
    maj@4: problem 0 votes 1, 2, 2, 2 -> wrong; problem 1 votes 1, 1, 3, - -> right: 1/2.
    maj@2: problem 0 blocks {1,2} tie 1/2, {2,2} 0 -> 1/4; problem 1 {1,1} 1, {3,-} 0 -> 1/2; mean 3/8.
    """
    greedy = [[say(1)], ["no tags"]]
    sampled = [[say(1), say(2), say(2), say(2)], [say(1), say(1), say(3), "cut"]]
    report = run(problems(2), Script(greedy, sampled, truncated=("cut", "no tags")), k=4)
    metrics = report.metrics()
    assert metrics["eval/accuracy"] == 0.5
    assert metrics["eval/avg@4"] == pytest.approx(3 / 8)
    assert metrics["eval/pass@1"] == pytest.approx(3 / 8)
    assert metrics["eval/pass@2"] == pytest.approx(2 / 3)
    assert metrics["eval/pass@4"] == 1.0
    assert metrics["eval/maj@4"] == pytest.approx(1 / 2)
    assert metrics["eval/maj@2"] == pytest.approx(3 / 8)
    assert (metrics["eval/format"], metrics["eval/truncated"]) == (0.5, 0.5)
    assert (metrics["eval/sampled_format"], metrics["eval/sampled_truncated"]) == (7 / 8, 1 / 8)
    assert report.correct == (1.0, 0.0)


def test_known_probabilities_are_recovered():
    """Each of 400 problems is right with probability 0.3 a sample: avg@8 = 0.3 and pass@8 = 1 - 0.7^8 = 0.942."""
    rng = np.random.default_rng(0)
    right = rng.random((400, 8)) < 0.3
    sampled = [[say(1) if ok else say(2) for ok in row] for row in right]
    greedy = [[say(1)] if rng.random() < 0.6 else [say(2)] for _ in range(400)]
    report = run(problems(400), Script(greedy, sampled), k=8)
    assert report.average.low < 0.3 < report.average.high
    assert report.passed[8].low < 1 - 0.7**8 < report.passed[8].high
    assert report.passed[2].low < 1 - 0.7**2 < report.passed[2].high
    assert report.greedy.low < 0.6 < report.greedy.high
    assert report.greedy.high - report.greedy.low < 0.12


def test_what_could_not_be_judged_is_left_out_and_counted():
    """Of problem 0's four samples one is invalid: 2 of 3 judged are right. Greedy on problem 1 is invalid."""

    def verifier(task, text):
        if text == "broken":
            return Score(None, {"correct": None}, "timeout")
        return Score(float(text == "yes"), {"correct": float(text == "yes"), "format": 1.0})

    sampled = [["yes", "yes", "no", "broken"], ["yes", "no", "no", "no"]]
    report = run(problems(2, verifier), Script([["yes"], ["broken"]], sampled), k=4)
    assert report.greedy.value == 1.0
    assert report.greedy_rates.invalid == 1
    assert report.sampled_rates.invalid == 1
    assert report.average.value == pytest.approx((2 / 3 + 1 / 4) / 2)
    assert report.passed[4].value == 1.0
    assert report.passed[1].value == pytest.approx((2 / 3 + 1 / 4) / 2)
    assert math.isnan(report.correct[1])
    everything = run(problems(1, verifier), Script([["broken"]]))
    assert math.isnan(everything.greedy.value)


def test_accuracy_is_what_the_reward_function_of_training_says():
    """One verifier: the reward's part `correct` of every transcript adds up to the accuracy."""
    tasks = load("test", level=4, n=40).tasks
    greedy = [[say(task.answer if i % 3 else int(task.answer) + 1)] for i, task in enumerate(tasks)]
    report = run(tasks, Script(greedy))
    scores = [task.verifier(task, row[0]) for task, row in zip(tasks, greedy)]
    assert report.greedy.value == pytest.approx(sum(s.parts["correct"] for s in scores) / 40)
    assert [s["correct"] for s in report.samples] == [s.parts["correct"] for s in scores]


def test_levels_are_told_apart():
    tasks = problems(4, level=[2, 2, 10, 10])
    report = run(tasks, Script([[say(1)], [say(1)], [say(1)], [say(2)]]))
    assert list(report.levels) == ["2", "10"]
    assert (report.levels["2"].value, report.levels["10"].value) == (1.0, 0.5)


def test_all_right_still_has_an_interval():
    """40 of 40: a bootstrap would say 100 % for sure, Wilson says at least 91 %."""
    report = run(problems(40), Script([[say(1)]] * 40))
    assert report.greedy.value == 1.0
    assert 0.90 < report.greedy.low < 0.93


def test_a_problem_s_seed_depends_on_its_id_alone():
    tasks = problems(5)
    first, second = Script([[say(1)]] * 5), Script([[say(1)]] * 5)
    run(tasks, first, seed=3)
    run(tasks[::-1], second, seed=3)
    assert first.calls[0][2] == second.calls[0][2][::-1]
    assert len(set(first.calls[0][2])) == 5


def test_the_greedy_run_is_greedy_and_the_sampled_one_as_asked():
    script = Script([[say(1)]], [[say(1)] * 3])
    run(problems(1), script, k=3)
    (one, greedy, _), (three, sampled, _) = script.calls
    assert (one, greedy.temperature, greedy.max_tokens) == (1, 0.0, 8)
    assert (three, sampled) == (3, SAMPLING)


def test_numbers_vote_alike_and_by_the_format_the_verifier_reads():
    hashed = problems(1, AnswerVerifier(judge, HASHED))[0]
    assert answer_text(hashed, "so\n#### 6.0") == answer_text(hashed, "#### 6") == "6"
    assert answer_text(problems(1)[0], say("2+4")) == "2+4"
    assert answer_text(problems(1)[0], "6") is None


def test_table_and_transcripts_say_what_was_measured():
    report = run(problems(3), Script([[say(1)]] * 3, [[say(1), say(2)]] * 3), k=2, keep=1)
    table = report.table()
    assert "accuracy, greedy, 3 problems" in table
    assert "avg@2" in table
    assert "50.0 %" in table
    assert [s["mode"] for s in report.samples] == ["greedy", "sampled", "sampled"]
    assert report.samples[2]["text"] == say(2)


def test_what_cannot_be_evaluated_is_an_error():
    with pytest.raises(ConfigError, match="no tasks"):
        run([], Script([]))
    with pytest.raises(ConfigError, match="part 'correct'"):
        run(problems(1, as_reward(lambda prompts, completions, **c: [1.0])), Script([["x"]]))
    with pytest.raises(ConfigError, match="temperature"):
        evaluate_tasks(
            Script([["x"]]), problems(1), lambda t: [0], decode, k=2, sampling=Sampling(max_tokens=1, temperature=0)
        )


def test_powers_of_two():
    assert [powers_of_two(k) for k in (0, 1, 2, 5, 8)] == [[], [1], [1, 2], [1, 2, 4, 5], [1, 2, 4, 8]]


def test_what_has_no_answer_to_vote_for_has_no_majority():
    """Programs, constraints: a verifier without an answer format; 1 of 2 right is not a majority of one vote."""

    def verifier(task, text):
        return Score(float(text == "yes"), {"correct": float(text == "yes")})

    report = run(problems(1, verifier), Script([["yes"]], [["yes", "no"]]), k=2)
    assert (report.passed[2].value, dict(report.majority)) == (1.0, {})


def test_causes_skipped_and_each_problems_outcome():
    """Four samples: right, wrong, invalid by time-out, skipped. Judged 2, right 1, all of k right never."""

    def verifier(task, text):
        return {
            "right": Score(1.0, {"correct": 1.0}),
            "wrong": Score(0.0, {"correct": 0.0}),
            "late": Score(None, {}, "time-out: 3 s"),
            "other": Score(None),
        }[text]

    report = run(problems(1, verifier), Script([["right"]], [["right", "wrong", "late", "other"]]), k=4)
    rates = report.sampled_rates
    assert (rates.invalid, dict(rates.causes), rates.skipped) == (1, {"time-out": 1}, 1)
    (outcome,) = report.outcomes
    assert (outcome.greedy, outcome.right, outcome.judged, outcome.average) == (1.0, 1, 2, 0.5)
    assert (list(report.passed), report.always[2].value, report.always[1].value) == ([1, 2], 0.0, 0.5)
    assert "1; 1 x time-out" in report.table()
    assert "skipped by the verifier, sampled" in report.table()


def test_a_report_is_a_function_of_the_attempts_in_any_order_and_through_a_file():
    tasks = problems(3)
    sampled = [[say(1), say(2)], [say(2), say(2)], ["x", say(1)]]
    options = {"sampling": SAMPLING, "k": 2}
    attempts = make_attempts(Script([[say(1)]] * 3, sampled), tasks, lambda task: [int(task.id[1:])], decode, **options)
    lines = [json.dumps(a.record(tasks[int(a.task[1:])])) for a in attempts]
    read = [attempt_of(json.loads(line)) for line in lines]
    assert read == attempts
    assert summarise(tasks, attempts, k=2) == summarise(tasks, read[::-1], k=2)
    assert list(summarise(tasks, attempts, k=2, at=[2]).passed) == [2]
    with pytest.raises(ConfigError, match="pass@3 was asked of 2"):
        summarise(tasks, attempts, k=2, at=[3])
    with pytest.raises(DataError, match="has 1 sampled attempts, others more"):
        summarise(tasks, attempts[:-1], k=2)
    with pytest.raises(DataError, match="no field 'answer'"):
        attempt_of({"task": "t", "mode": "greedy", "sample": 0, "text": ""})


def test_other_parts_are_means():
    def verifier(task, text):
        return Score(1.0, {"correct": 1.0, "passed": float(text)})

    report = run(problems(2, verifier), Script([["0.25"], ["0.5"]]))
    assert report.parts == {"passed": 0.375}
    assert report.metrics()["eval/part_passed"] == 0.375
    assert dict(report.followed) == {}
    assert "format kept" not in report.table()


def test_verifiers_see_the_number_of_tokens():
    """Of the tokens generated: "12345" is 5 of 4, "123" is within the limit."""

    def verifier(task, text):
        return Score(1.0, {"correct": float(task.meta["completion_tokens"] <= 4)})

    report = run(problems(2, verifier), Script([["12345"], ["123"]], [["1"], ["123456"]]), k=1)
    assert report.correct == (0.0, 1.0)
    assert [outcome.right for outcome in report.outcomes] == [1, 0]


def test_programs_and_whole_replies_do_not_vote():
    replies = problems(1, AnswerVerifier(judge, replace(TAGGED, name="code")))
    report = run(replies, Script([[say(1)]], [[say(1), say(2)]]), k=2)
    assert dict(report.majority) == {}
    assert answer_text(replies[0], say(1)) is None
    tagged = run(problems(1), Script([["x"]], [["x", "y"]]), k=2)
    assert tagged.majority[2].value == 0.0
