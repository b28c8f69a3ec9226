"""In which language a text is: the share of its words in a target language, and a plain answer which it is.

DeepSeek-R1's language-consistency reward is the share of words of the target language in the chain of thought
(arXiv 2501.12948, section 2.3.2). Here: code, LaTeX, addresses and digits are taken out (`tasks.scripts`); a word is in
the target language when its script is; where several languages share a script, each sentence is asked of py3langid,
deterministic and offline. Japanese and Chinese are told apart by kana. A text of fewer than 20 letters is skipped.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from onepolicy.errors import ConfigError, nearest
from onepolicy.tasks.form import Side, check_side, side_of
from onepolicy.tasks.scripts import KANA, MAX_TEXT, UNSPACED, natural_text, words_by_script
from onepolicy.types import Score, Task, Verifier

LANGUAGES: dict[str, tuple[str, str]] = {
    "af": ("Afrikaans", "Latin"), "ar": ("Arabic", "Arabic"), "az": ("Azerbaijani", "Latin"),
    "be": ("Belarusian", "Cyrillic"), "bg": ("Bulgarian", "Cyrillic"), "bn": ("Bengali", "Bengali"),
    "ca": ("Catalan", "Latin"), "cs": ("Czech", "Latin"), "da": ("Danish", "Latin"), "de": ("German", "Latin"),
    "el": ("Greek", "Greek"), "en": ("English", "Latin"), "es": ("Spanish", "Latin"), "et": ("Estonian", "Latin"),
    "fa": ("Persian", "Arabic"), "fi": ("Finnish", "Latin"), "fr": ("French", "Latin"), "gu": ("Gujarati", "Gujarati"),
    "he": ("Hebrew", "Hebrew"), "hi": ("Hindi", "Devanagari"), "hr": ("Croatian", "Latin"),
    "hu": ("Hungarian", "Latin"), "hy": ("Armenian", "Armenian"), "id": ("Indonesian", "Latin"),
    "it": ("Italian", "Latin"), "ja": ("Japanese", "Hiragana"), "ka": ("Georgian", "Georgian"),
    "kk": ("Kazakh", "Cyrillic"), "km": ("Khmer", "Khmer"), "kn": ("Kannada", "Kannada"), "ko": ("Korean", "Hangul"),
    "lo": ("Lao", "Lao"), "lt": ("Lithuanian", "Latin"), "lv": ("Latvian", "Latin"), "mk": ("Macedonian", "Cyrillic"),
    "ml": ("Malayalam", "Malayalam"), "mn": ("Mongolian", "Cyrillic"), "mr": ("Marathi", "Devanagari"),
    "ms": ("Malay", "Latin"), "ne": ("Nepali", "Devanagari"), "nl": ("Dutch", "Latin"), "no": ("Norwegian", "Latin"),
    "pa": ("Punjabi", "Gurmukhi"), "pl": ("Polish", "Latin"), "pt": ("Portuguese", "Latin"),
    "ro": ("Romanian", "Latin"), "ru": ("Russian", "Cyrillic"), "si": ("Sinhala", "Sinhala"),
    "sk": ("Slovak", "Latin"), "sl": ("Slovenian", "Latin"), "sq": ("Albanian", "Latin"), "sv": ("Swedish", "Latin"),
    "sw": ("Swahili", "Latin"), "ta": ("Tamil", "Tamil"), "te": ("Telugu", "Telugu"), "th": ("Thai", "Thai"),
    "tl": ("Tagalog", "Latin"), "tr": ("Turkish", "Latin"), "uk": ("Ukrainian", "Cyrillic"),
    "ur": ("Urdu", "Arabic"), "vi": ("Vietnamese", "Latin"), "zh": ("Chinese", "Han"),
}  # fmt: skip
"""Codes of ISO 639-1, each with its English name and the script that is its own."""

MIN_LETTERS = 20
"""Letters below which a text is too short to say anything of its language."""

MARGIN = 5.0
"""Nats by which another language must be likelier than the target before a sentence counts as foreign."""

_SENTENCE = re.compile(r"[^.!?。！？।؟\n]*[.!?。！？।؟\n]*")
"""Where sentences end, for this module's purposes; linear."""


def same_script(language: str) -> tuple[str, ...]:
    """The known languages that are written in this language's script, itself included.

    >>> same_script("hi")
    ('hi', 'mr', 'ne')
    """
    script = LANGUAGES[check_language(language)][1]
    return tuple(code for code, (_, own) in LANGUAGES.items() if own == script)


def check_language(language: str) -> str:
    """The code itself. Raises: ConfigError for an unknown one, offering the nearest; a name is answered by its code."""
    if language in LANGUAGES:
        return language
    for code, (name, _) in LANGUAGES.items():
        if str(language).lower() in (name.lower(), code):
            raise ConfigError(f"Unknown language {language!r}; languages are codes of ISO 639-1: write {code!r}.")
    raise ConfigError(f"Unknown language {language!r}. {nearest(str(language), LANGUAGES)}")


def require_langid(why: str) -> None:
    """Raises: ConfigError with the command that installs py3langid, when it is missing."""
    try:
        import py3langid  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"{why} needs py3langid, which tells languages of one script apart: pip install 'onepolicy[langid]'."
        ) from error


@lru_cache(maxsize=1)
def _identifier() -> Any:
    """py3langid's model; its own object, so that another user's choice of languages does not reach it."""
    require_langid("telling languages of one script apart")
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)


@lru_cache(maxsize=4096)
def likelihoods(text: str, languages: tuple[str, ...]) -> dict[str, float]:
    """Log-likelihood of each of some languages up to a constant, nats, for a text of their script (py3langid).

    A text mostly in capitals is read in small letters, which is what the model knows.
    """
    if 2 * sum(map(str.isupper, text)) > sum(map(str.isalpha, text)):
        text = text.lower()
    return {code: score for code, score in _identifier().rank(text) if code in languages}


def _letters_only(text: str) -> str:
    """The natural part of a text, or all of it where it is nothing but code and formulas."""
    plain = natural_text(text)
    return plain if words_by_script(plain) else text[:MAX_TEXT]


def detect(text: str) -> str | None:
    """The code of the language that most of a text's words are in; None for a text without letters.

    Among languages of one script the likeliest by py3langid. Han characters are Japanese when a tenth or more of the
    text's Han and kana characters is kana, otherwise Chinese. Short texts are guessed at as well.

    >>> detect("これは日本語の文です。"), detect("这是一个句子。"), detect("12 + 3")
    ('ja', 'zh', None)
    """
    plain = _letters_only(text)
    counts = Counter(script for script, _ in words_by_script(plain) if script != "Other")
    han, kana = counts.pop("Han", 0), sum(counts.pop(script, 0) for script in KANA)
    if han + kana:
        counts["Hiragana" if 10 * kana >= han + kana else "Han"] = han + kana
    if not counts:
        return None
    script = counts.most_common(1)[0][0]
    codes = tuple(code for code, (_, own) in LANGUAGES.items() if own == script)
    if len(codes) < 2:
        return codes[0] if codes else None
    scores = likelihoods(plain.strip(), codes)
    return max(codes, key=lambda code: scores.get(code, float("-inf")))


def is_in(text: str, language: str) -> bool | None:
    """Whether most of a text is in a language, None for a text without letters.

    As `detect`, but in favour of the language asked for: of the languages of its script, none is likelier by MARGIN.
    """
    found = detect(text)
    if found is None or found == language or LANGUAGES[found][1] != LANGUAGES[check_language(language)][1]:
        return None if found is None else found == language
    scores = likelihoods(_letters_only(text).strip(), same_script(language))
    return scores[found] <= scores.get(language, float("-inf")) + MARGIN


@dataclass(frozen=True)
class Consistency:
    """What was counted. share: of words in the target language, None under `MIN_LETTERS` letters. foreign: words by
    the script or language they were taken for."""

    share: float | None
    words: int
    letters: int
    foreign: tuple[tuple[str, int], ...] = ()


def consistency(text: str, language: str, *, minimum: int = MIN_LETTERS) -> Consistency:
    """The share of a text's words that are in a language, in [0, 1].

    A word counts by its script, a character each in scripts without blanks. Where known languages share the script,
    a sentence of at least `minimum` letters whose likeliest language beats the target by MARGIN nats is foreign
    whole; a shorter one goes with the sentence before it. Han characters are Chinese or Japanese by their sentence's
    kana. A name in another script counts against the text, as in the source.

    Raises: ConfigError for an unknown language, or one that needs py3langid when it is not installed.
    """
    script = LANGUAGES[check_language(language)][1]
    rivals = same_script(language)
    if len(rivals) > 1:
        require_langid(f"language {language!r}, whose script is that of {len(rivals)} known languages,")
    foreign: Counter[str] = Counter()
    own = total = letters = 0
    taken = _first_guess(text, language)
    for sentence in _SENTENCE.findall(natural_text(text)):
        words = words_by_script(sentence)
        total += len(words)
        letters += sum(count for _, count in words)
        taken = _sentence_language(sentence, words, language, rivals, minimum, taken)
        for one, _ in words:
            shown = "Hiragana" if one in KANA else one
            if shown == "Han":
                shown = "Hiragana" if taken == "ja" else "Han"
            if shown != script:
                foreign[shown if shown not in ("Hiragana", "Han") else {"Hiragana": "ja", "Han": "zh"}[shown]] += 1
            elif len(rivals) > 1 and taken != language and LANGUAGES[taken][1] == script:
                foreign[taken] += 1
            else:
                own += 1
    share = own / total if letters >= minimum and total else None
    return Consistency(share, total, letters, tuple(foreign.most_common()))


def _first_guess(text: str, language: str) -> str:
    """What a short first sentence is taken for: the target, or for Han the whole text's own language."""
    if LANGUAGES[language][1] not in UNSPACED:
        return language
    found = detect(text) if any(one == "Han" for one, _ in words_by_script(natural_text(text))) else None
    return found if found in ("ja", "zh") else language


def _sentence_language(
    sentence: str, words: list[tuple[str, int]], language: str, rivals: tuple[str, ...], minimum: int, before: str
) -> str:
    """The language a sentence is taken for, as far as its script leaves that open."""
    if any(one in KANA for one, _ in words):
        return "ja"
    if any(one == "Han" for one, _ in words):
        return "zh" if len(words) >= minimum else before
    script = LANGUAGES[language][1]
    if len(rivals) < 2 or sum(count for one, count in words if one == script) < minimum:
        return before
    scores = likelihoods(sentence.strip(), rivals)
    best = max(rivals, key=lambda code: scores.get(code, float("-inf")))
    return best if scores[best] > scores.get(language, float("-inf")) + MARGIN else language


@dataclass(frozen=True)
class LanguageVerifier:
    """The share of a completion's words in a language, as value and part `language`; skipped when it is too short.

    language: a code of LANGUAGES. side: which part is judged (form.side_of).
    minimum: letters below which the score is skipped (value None, error None). threshold: None pays the share;
    a number pays 1 from that share on and 0 below.

    Raises: ConfigError for an unknown language or side, a threshold outside (0, 1], or py3langid missing and needed.
    """

    language: str = "en"
    side: Side = "text"
    minimum: int = MIN_LETTERS
    threshold: float | None = None

    def __post_init__(self) -> None:
        if len(same_script(self.language)) > 1:
            require_langid(f"language {self.language!r}")
        check_side(self.side)
        if self.minimum < 1:
            raise ConfigError(f"minimum is {self.minimum} letters; it must be at least 1 (20 is the default).")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ConfigError(f"threshold is {self.threshold}; it must be in (0, 1], or None to pay the share itself.")

    def __call__(self, task: Task, text: str) -> Score:
        share = consistency(side_of(text, self.side), self.language, minimum=self.minimum).share
        if share is None:
            return Score(None, {"language": None})
        value = share if self.threshold is None else float(share >= self.threshold)
        return Score(value, {"language": share})


@dataclass(frozen=True)
class LanguageReward:
    """The answer's reward plus `weight` times the share of the thinking's words that are in a language.

    answer: judges the answer; its parts are kept. language: measures; part `language` is the share, None where it
    skips the text, for which nothing is paid. weight: reward units, at least 0; 0 measures and does not pay.
    Source: DeepSeek-R1 (arXiv 2501.12948), section 2.3.2, which adds accuracy and language directly, weight 1.
    """

    answer: Verifier
    weight: float = 0.0
    language: LanguageVerifier = field(default_factory=lambda: LanguageVerifier(side="thinking"))

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise ConfigError(f"the language's weight is {self.weight}; it is finite and at least 0.")

    def __call__(self, task: Task, text: str) -> Score:
        score = self.answer(task, text)
        share = self.language(task, text).parts["language"]
        value = None if score.value is None else score.value + self.weight * (share or 0.0)
        return Score(value, {**score.parts, "language": share}, score.error)
