"""Languages: which one, what share, what is left out of account, and the bands of mixed text (V10)."""

from __future__ import annotations

import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.errors import ConfigError
from onepolicy.tasks.base import conversation
from onepolicy.tasks.instructions_samples import LANGUAGE_SAMPLES
from onepolicy.tasks.language import LANGUAGES, LanguageVerifier, consistency, detect, is_in, same_script
from onepolicy.tasks.scripts import natural_text, script_of, words_by_script
from onepolicy.types import Score, Task

EN = LANGUAGE_SAMPLES["en"]
ZH = "让我们计算前十个数的总和，然后除以二，这样就得到了平均值。"
CODE = "```python\nfor index in range(10):\n    print(index)\n```"
LATEX = r"$\frac{\alpha}{2} + x^2$; \[ \int_0^1 f(x)\,dx \]; \begin{align} a &= b \end{align}"


def score(verifier, text):
    return verifier(Task("t", conversation("Go."), "", verifier), text)


@pytest.mark.parametrize("code", LANGUAGE_SAMPLES)
def test_a_sentence_is_in_its_own_language_and_in_no_other(code):
    text = LANGUAGE_SAMPLES[code]
    assert detect(text) == code
    assert consistency(text, code).share == 1
    others = [one for one in LANGUAGE_SAMPLES if one != code]
    assert [one for one in others if (consistency(text, one).share or 0) > 0] == []
    assert [one for one in others if is_in(text, one)] == []


@pytest.mark.parametrize("code", ["en", "de", "fr", "es", "it", "pl", "ru", "bg", "uk", "fi", "pt", "sw"])
def test_capitals_do_not_change_the_language(code):
    text = "Note 3.\n" + LANGUAGE_SAMPLES[code].upper() * 2
    assert detect(text) == code
    assert consistency(LANGUAGE_SAMPLES[code].upper(), code).share == 1


def test_every_language_has_a_script_of_the_table():
    """A language's own script is one that `script_of` can answer; English shares Latin, Greek shares nothing."""
    import unicodedata

    scripts = {script_of(chr(code)) for code in range(0x3FFFF) if unicodedata.category(chr(code))[0] in "LM"}
    assert {script for _, script in LANGUAGES.values()} <= scripts
    assert same_script("el") == ("el",)
    assert {"en", "fr", "vi"} <= set(same_script("en"))


@pytest.mark.parametrize(
    ("text", "language", "low", "high"),
    [
        (EN, "en", 1, 1),
        (EN + " " + CODE + " " + LATEX, "en", 1, 1),
        (ZH + CODE + LATEX, "zh", 1, 1),
        (EN + "\n" + ZH, "en", 0.3, 0.5),
        (EN + "\n" + ZH, "zh", 0.5, 0.7),
        (EN + " " + LANGUAGE_SAMPLES["fr"], "en", 0.5, 0.65),
        (EN + " " + LANGUAGE_SAMPLES["ru"], "en", 0.5, 0.7),
        ("我们用 Python 和 PyTorch 来训练这个模型，效果很好，速度也很快。", "zh", 0.9, 0.95),
        ("今天天气很好，我们去公园散步，然后回家吃饭，晚上看书。", "ja", 0, 0),
        ("今日は東京大学へ行きました。図書館で本を読みました。", "zh", 0, 0),
        ("今日は東京大学へ行きました。図書館で本を読みました。", "ja", 1, 1),
        (
            "The answer is 42. See https://example.com/a/very/long/address?with=many&words=here for all details.",
            "en",
            1,
            1,
        ),
    ],
)
def test_the_share_lies_in_its_band(text, language, low, high):
    share = consistency(text, language).share
    assert share is not None
    assert low <= share <= high


def test_the_share_by_hand():
    """Eight Latin words, six Han characters: 8 / 14 in English, 6 / 14 in Chinese."""
    text = "Let us compute and then 我们计算总和 as before, right."
    assert consistency(text, "en").share == 8 / 14
    assert consistency(text, "en").foreign == (("zh", 6),)
    assert consistency(text, "zh").share == 6 / 14


@pytest.mark.parametrize(
    "text", ["", "Yes.", "42", "1 + 1 = 2", CODE, "$x^2 + y^2 = z^2$", "<think></think>", "好的。"]
)
def test_short_text_is_skipped(text):
    assert score(LanguageVerifier("en"), text) == Score(None, {"language": None})
    assert score(LanguageVerifier("zh"), text).state == "skipped"


def test_nineteen_letters_are_skipped_and_twenty_are_not():
    assert score(LanguageVerifier("ru"), "а" * 19).state == "skipped"
    assert score(LanguageVerifier("ru", minimum=19), "привет " * 3).state == "skipped"
    assert score(LanguageVerifier("el"), "α" * 20) == Score(1, {"language": 1})


def test_which_side_is_judged():
    text = f"<think>{EN}</think>{ZH}"
    assert score(LanguageVerifier("en", "thinking"), text).value == 1
    assert score(LanguageVerifier("en", "answer"), text).value == 0
    assert 0.3 < score(LanguageVerifier("en"), text).value < 0.5


def test_a_threshold_pays_all_or_nothing():
    text = EN + "\n" + ZH
    assert score(LanguageVerifier("zh", threshold=0.5), text).value == 1
    assert score(LanguageVerifier("en", threshold=0.5), text).value == 0
    assert score(LanguageVerifier("en", threshold=0.5), text).parts["language"] == consistency(text, "en").share


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"language": "English"}, "write 'en'"),
        ({"language": "xx"}, "Unknown language 'xx'"),
        ({"side": "thoughts"}, "Unknown side"),
        ({"minimum": 0}, "at least 1"),
        ({"threshold": 1.5}, "threshold"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings_, words):
    with pytest.raises(ConfigError, match=words):
        LanguageVerifier(**settings_)


def test_langid_is_asked_for_only_where_it_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "py3langid", None)
    with pytest.raises(ConfigError, match=r"pip install 'onepolicy\[langid\]'"):
        LanguageVerifier("en")
    assert score(LanguageVerifier("ja"), LANGUAGE_SAMPLES["ja"]).value == 1
    assert score(LanguageVerifier("th"), LANGUAGE_SAMPLES["th"]).value == 1


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a `b c` d", ["a", "d"]),
        ("a ```b\nc``` d", ["a", "d"]),
        ("a ```b never closed", ["a"]),
        ("costs $5 or $6 now", ["costs", "$", "or", "$", "now"]),
        ("so $x+y$ is", ["so", "is"]),
        ("lone ` stays\nhere `", ["lone", "`", "stays", "here", "`"]),
        (r"see \alpha and \textbf{bold}", ["see", "and", "{bold}"]),
        (r"\begin{a}\begin{b}x\end{b}y\end{a} z", ["z"]),
        ("<b>bold</b> me@example.com www.a.b", ["bold"]),
    ],
)
def test_what_is_no_language_is_taken_out(text, left):
    assert natural_text(text).split() == left


def test_combining_signs_belong_to_their_word():
    assert words_by_script("नमस्ते") == [("Devanagari", 4)]
    assert words_by_script("cafe\u0301 x") == [("Latin", 4), ("Latin", 1)]
    assert words_by_script("שָׁלוֹם") == [("Hebrew", 4)]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=120) | st.text("`$\\[](){}<>/ab한の字 \n", max_size=120))
def test_no_text_makes_it_raise_and_shares_are_shares(text):
    for language in ("ko", "ja", "zh", "th"):
        share = consistency(text, language).share
        assert share is None or 0 <= share <= 1
    natural_text(text)


@pytest.mark.parametrize(
    "unit", ["`", "$", "$$", "\\[", "\\begin{a}", "<a ", "www.", "a@", "``` ", "字", "e\u0301", "\\a "]
)
def test_long_junk_takes_no_time(unit):
    started = time.process_time()
    consistency(unit * (60_000 // len(unit)), "ja")
    assert time.process_time() - started < 1.0
