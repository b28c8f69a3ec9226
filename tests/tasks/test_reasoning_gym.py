"""The library's generators as task sets: gold is right and junk is not, nothing is executed, a seed is a seed."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from onepolicy.errors import ConfigError, DataError
from onepolicy.tasks import reasoning_gym as gym
from onepolicy.tasks.base import load_task_set
from onepolicy.tasks.pool import VerifierPool
from onepolicy.tasks.rewards import TAGGED
from onepolicy.tasks.verdicts import verdict, verify_each
from onepolicy.types import Score

pytest.importorskip("reasoning_gym")

SAMPLE = ("basic_arithmetic", "gcd", "leg_counting", "graph_color", "propositional_logic", "spell_backward", "maze")


def answered(task, answer):
    return verdict(task, TAGGED.write("", answer))


@pytest.mark.parametrize("name", SAMPLE)
def test_gold_is_right_and_junk_is_wrong(name):
    tasks = load_task_set(f"reasoning-gym:{name}", "test", n=3)
    for task in tasks:
        assert answered(task, task.answer).parts == {"correct": 1.0, "score": 1.0, "format": 1.0, "unreadable": 0.0}
        assert answered(task, task.answer).value == 1.1
        assert answered(task, "no answer at all").parts["correct"] == 0.0
        assert verdict(task, task.answer) == Score(0.0, {"correct": 0, "score": 0, "format": 0, "unreadable": 0})


@pytest.mark.slow
def test_every_generator_makes_sound_problems():
    """Gold answers are right by their own scorers and junk is wrong, with at most one exception in eight problems."""
    names = gym.generators()
    assert len(names) >= 101
    for name in names:
        tasks = load_task_set(f"reasoning-gym:{name}", "train", n=4 if name == "knight_swap" else 7, at_most=True)
        assert len(tasks) >= 2, name
        assert len(tasks.dropped) <= 1, tasks.dropped
        assert tasks.demonstrations(1, seed=0)


def test_refused_generators_say_why():
    for name in gym.REFUSED:
        with pytest.raises(ConfigError, match=re.escape(f"reasoning-gym:{name} is refused: {gym.REFUSED[name]}")):
            load_task_set(f"reasoning-gym:{name}")
        assert name not in gym.generators()


def test_what_is_refused_deserves_it(monkeypatch):
    """Two give no gold answer, so each of their problems fails; the third takes any text for right."""
    monkeypatch.setattr(gym, "REFUSED", {})
    gold = "the gold answer 'None' is not right"
    junk = "its own scorer takes 'no answer at all' for right"
    for name, words in (("boxnet", gold), ("rush_hour", gold), ("game_of_life_halting", junk)):
        with pytest.raises(DataError, match=f"{name}: 9 of 9 problems .* {words}"):
            load_task_set(f"reasoning-gym:{name}", n=4)


def test_splits_share_no_question_and_seeds_decide():
    """The two splits of a small set of problems: digits plus digits."""
    options = {"max_terms": 2, "max_digits": 1, "operators": ["+"], "allow_negation": False, "at_most": True}
    options["allow_parentheses"] = False
    train, test = (load_task_set("reasoning-gym:basic_arithmetic", s, n=500, **options) for s in ("train", "test"))
    questions = [{task.messages[-1].content for task in tasks} for tasks in (train, test)]
    assert not questions[0] & questions[1]
    assert len(questions[0] | questions[1]) == 11 * 11  # 0 to 10 twice: the library's one digit
    assert min(map(len, questions)) > 30
    again = load_task_set("reasoning-gym:gcd", n=20, seed=3)
    assert [t.id for t in again] == [t.id for t in load_task_set("reasoning-gym:gcd", n=20, seed=3)]
    assert {t.id for t in again} != {t.id for t in load_task_set("reasoning-gym:gcd", n=20, seed=4)}
    with pytest.raises(ConfigError, match=r"gave only .* different problems for the train split; 500 were asked"):
        load_task_set("reasoning-gym:basic_arithmetic", n=500, **(options | {"at_most": False}))


def test_a_seed_gives_the_same_problems_in_every_process():
    """ransom_note chooses among the elements of a set, whose order is another in every process."""
    assert "ransom_note" in gym.UNSTABLE
    code = "from onepolicy.tasks import reasoning_gym as gym\n"
    code += "print([task.id for task in gym.load(name='ransom_note', n=3)])"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


def test_options_go_to_the_generator():
    tasks = load_task_set("reasoning-gym:leg_counting", n=5, min_animals=1, max_animals=1)
    assert all(task.messages[-1].content.count(",") == 1 for task in tasks)  # "…, how many legs …" and no list
    assert tasks.tasks[0].verifier.config == (("max_animals", 1), ("min_animals", 1))
    for options, words in (
        ({"max_animal": 1}, "reasoning-gym:leg_counting has no option 'max_animal'. Did you mean 'max_animals'"),
        ({"min_animals": 9, "max_animals": 2}, "reasoning-gym:leg_counting with max_animals=2, min_animals=9: "),
    ):
        with pytest.raises(ConfigError, match=words):
            load_task_set("reasoning-gym:leg_counting", n=5, **options)
    with pytest.raises(ConfigError, match=r"reasoning-gym has no generator 'leg_count'\. Did you mean 'leg_counting'"):
        load_task_set("reasoning-gym:leg_count")


def test_a_mixture_has_equal_shares_and_options_by_member():
    tasks = load_task_set("reasoning-gym:gcd+lcm+chain_sum", n=10, **{"lcm.max_numbers": 2, "min_terms": 3})
    verifiers = [task.verifier for task in tasks]
    counts = {name: sum(v.generator == name for v in verifiers) for name in ("gcd", "lcm", "chain_sum")}
    assert counts == {"gcd": 4, "lcm": 3, "chain_sum": 3}
    assert {v.generator: v.config for v in verifiers} == {
        "gcd": (),
        "lcm": (("max_numbers", 2),),
        "chain_sum": (("min_terms", 3),),
    }
    assert {task.meta["level"] for task in tasks} == set(counts)
    with pytest.raises(ConfigError, match=r"has no option 'gcd\.max_number'\. Did you mean 'max_numbers'"):
        load_task_set("reasoning-gym:gcd+lcm", **{"gcd.max_number": 2})


def test_partial_scores_are_kept_as_the_value():
    """spell_backward pays for each letter in its place: two of three."""
    task = next(t for t in load_task_set("reasoning-gym:spell_backward", n=60, max_word_len=4) if len(t.answer) == 3)
    wrong = "z" if task.answer[2].lower() != "z" else "y"
    score = answered(task, task.answer[:2] + wrong)
    assert score.parts["score"] == pytest.approx(2 / 3)
    assert (score.value, score.parts["correct"]) == (pytest.approx(2 / 3 + 0.1), 0.0)


def test_an_answer_that_makes_the_scorer_raise_is_wrong_and_seen():
    """prime_factorization reads integers without asking whether they are."""
    task = load_task_set("reasoning-gym:prime_factorization", n=1).tasks[0]
    score = answered(task, "two × three")
    assert score == Score(0.1, {"correct": 0.0, "score": 0.0, "format": 1.0, "unreadable": 1.0})


ATTACKS = [
    "__import__('os').mkdir('PLACE')",
    "[__import__('os').mkdir('PLACE')]",
    "open('PLACE', 'w')",
    "(lambda: __import__('os').mkdir('PLACE'))()",
    "x.__class__.__base__.__subclasses__()",
    'S(\'__import__("os").mkdir("PLACE")\')',
    "[x for x in [__import__('os').mkdir('PLACE')]]",
    "sympify('1')",
    "exec('import os; os.mkdir(\"PLACE\")')",
]


@pytest.mark.parametrize("name", [*sorted(gym.LITERALS | gym.FORMULAS), "gcd", "maze"])
def test_nothing_in_an_answer_is_executed(name, tmp_path):
    task = gym.load(name=name, n=1).tasks[0]
    for number, attack in enumerate(ATTACKS):
        place = tmp_path / str(number)
        score = answered(task, attack.replace("PLACE", str(place)))
        assert score.parts["correct"] == 0.0
        assert not place.exists()
        if name in gym.LITERALS | gym.FORMULAS:
            assert score.parts["unreadable"] == 1.0


def test_the_attacks_are_real(tmp_path, monkeypatch):
    """Without the guard a scorer runs them."""
    monkeypatch.setattr(gym, "harmless", lambda generator, answer: True)
    for number, name in enumerate(("spiral_matrix", "puzzle24")):
        place = tmp_path / str(number)
        answered(gym.load(name=name, n=1).tasks[0], ATTACKS[0].replace("PLACE", str(place)))
        assert place.exists()


def test_every_scorer_that_executes_answers_is_guarded(monkeypatch):
    """Found in the library's source; with one more than we know, that one is refused."""
    known = gym._library().factory.DATASETS
    found = {name for name in gym.generators() if gym._executes(known[name][0].__module__)}
    assert found == gym.LITERALS | gym.FORMULAS
    monkeypatch.setattr(gym, "FORMULAS", gym.FORMULAS - {"puzzle24"})
    with pytest.raises(ConfigError, match="puzzle24 is refused: its scorer executes the answer, and nobody guards"):
        load_task_set("reasoning-gym:puzzle24")


@pytest.mark.parametrize(
    ("name", "answer"),
    [("puzzle24", "(8 - 2)*4"), ("simple_integration", "2*X**3/3 + sin(x) + C"), ("n_queens", "Q _\n_ Q")],
)
def test_honest_answers_pass_the_guard(name, answer):
    assert gym.harmless(name, answer)
    assert not gym.harmless(name, answer + " or os.x()")


def test_the_pool_gives_the_same_scores():
    tasks = load_task_set("reasoning-gym:gcd+spell_backward", n=6)
    assert tasks.isolated
    pairs = [(task, TAGGED.write("", text)) for task in tasks for text in (task.answer, "12", "ab")]
    with VerifierPool(2, timeout=20, modules=tasks.modules) as pool:
        assert pool.score(pairs) == verify_each(pairs)
