"""Arithmetic in two languages, and several task sets as one."""

from __future__ import annotations

import pytest

from onepolicy.errors import ConfigError
from onepolicy.tasks import arithmetic, bilingual, mixture
from onepolicy.tasks.base import load_task_set

TASK = next(t for t in bilingual.load(n=40, language=0.5) if t.meta["terms"] == 4)


def wrote(*words):
    return "<think>" + ";".join(f"1{word}1=2" for word in words) + f"</think><answer>{TASK.answer}</answer>"


@pytest.mark.parametrize(
    ("words", "share"), [(("συν", "επι"), 1.0), (("συν", "plus"), 0.5), (("minus",), 0.0), (("+",), None)]
)
def test_the_share_of_words_is_paid(words, share):
    """1 for the answer, 0.1 for the format, half a unit for all words in Greek; no word, no pay, no part."""
    score = TASK.verifier(TASK, wrote(*words))
    assert score.parts["language"] == share
    assert score.value == pytest.approx(1.1 + 0.5 * (share or 0.0))


def test_a_wrong_answer_in_the_language_is_paid_for_the_language_alone():
    score = TASK.verifier(TASK, "<think>1συν1=2</think><answer>none</answer>")
    assert score.value == pytest.approx(0.6)
    assert score.parts["correct"] == 0.0


def test_problems_are_arithmetics():
    plain, own = arithmetic.load("test", level=3, n=20), bilingual.load("test", n=20)
    assert [t.messages for t in plain] == [t.messages for t in own]


def test_demonstrations_are_right_and_mix_languages():
    """A third each: all Greek, all Latin, both."""
    tasks = bilingual.load(n=600)
    shares = [t.verifier(t, tasks.demonstrate(t)).parts["language"] for t in tasks]
    assert 0.4 < sum(shares) / len(shares) < 0.6
    assert 0.1 < sum(0 < s < 1 for s in shares) / len(shares) < 0.35


@pytest.mark.parametrize("style", ["rough", "half"])
def test_careless_styles_answer_their_share_at_once_and_work_the_rest_out(style):
    """The share of 600 problems within three standard errors; what is worked out is as in the style `mixed`."""
    share, tasks = bilingual.CARELESS[style], bilingual.load(n=600, style=style)
    texts, plain = [tasks.demonstrate(t) for t in tasks], [bilingual.demonstrate(t) for t in tasks]
    at_once = ["<think></think>" in text for text in texts]
    assert abs(sum(at_once) / 600 - share) < 3 * (share * (1 - share) / 600) ** 0.5
    assert all(text == other for text, other, short in zip(texts, plain, at_once, strict=True) if not short)
    assert len(tasks.demonstrations(5, 0)) == 5


def test_unknown_style():
    with pytest.raises(ConfigError, match="mixed"):
        bilingual.load(style="mixd")


def test_a_mixture_has_its_shares_and_every_verifier():
    found = mixture.load(sets=["bilingual", "letters"], shares=[3, 1], options=["bilingual.language=1.0"], n=1600)
    names = [t.id.partition("/")[0] for t in found]
    assert (names.count("bilingual"), names.count("letters")) == (1200, 400)
    assert len({t.id for t in found}) == 1600
    again = [t for t in found if t.id.endswith("#2")]
    assert again[0].messages == next(t for t in found if t.id == again[0].id[:-2]).messages
    parts = {t.id.partition("/")[0]: t.verifier(t, "x").parts for t in found}
    assert "language" in parts["bilingual"]
    assert "reward" in parts["letters"]


def test_options_for_one_split():
    options = ["arithmetic.train.level=1", "arithmetic.test.level=2"]
    levels = {
        s: {t.meta["level"] for t in load_task_set("mixture", s, options=options, n=9)} for s in ("train", "test")
    }
    assert levels == {"train": {1}, "test": {2}}


def test_a_language_can_be_asked_of_any_tagged_set():
    found = mixture.load(sets=["arithmetic"], language="el", language_weight=2.0, n=3)
    task = found.tasks[0]
    text = f"<think>{'ενα και δυο και τρια και τεσσερα'}</think><answer>{task.answer}</answer>"
    assert task.verifier(task, text).value == pytest.approx(3.1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sets": []}, "at least one"),
        ({"sets": ["letters", "letters"]}, "each once"),
        ({"sets": ["letters"], "shares": [1, 2]}, "shares"),
        ({"sets": ["letters"], "options": ["arithmetic.level=1"]}, "none of letters"),
        ({"sets": ["letters"], "options": ["level"]}, "set.key=value"),
    ],
)
def test_what_cannot_be_mixed(fields, words):
    with pytest.raises(ConfigError, match=words):
        mixture.load(**fields)
