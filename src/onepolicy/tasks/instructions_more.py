"""Constraints of our own on words, letters and sentences, in the spirit of IFBench and IF-RLVR.

Words are runs of letters and digits with their inner apostrophes and hyphens (`plain_words`), sentences those of
IFEval's counter. Each decides one thing, exactly; none is a matter of taste.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import TypeVar

from onepolicy.tasks import instructions_text as texts
from onepolicy.tasks.instructions_constraint import TOPIC_WORDS, Args, Argument, Constraint, add_sentence, integer, pick
from onepolicy.tasks.instructions_samples import FILLERS

T = TypeVar("T")

_WHOLE = frozenset({"*"})
_EXACT = frozenset({"length_constraints:*", "detectable_format:title"})

_PALINDROMES = ("level", "radar", "civic", "kayak", "rotor", "madam", "refer", "noon")
_VOWEL_WORDS = {
    "a": "a small black cat sat at a dark lamp and sang",
    "e": "seven green trees bend when gentle breezes get here",
    "i": "his thin twin sits in mist with six big pigs",
    "o": "two old fox or dog go to town soon",
    "u": "dull dumb ducks hunt such lush bulbs",
}
_ALLITERATION = {
    "b": "brave bears bring big blue baskets by boat",
    "c": "calm cooks carry cold clean copper cups",
    "f": "five friendly foxes find fresh figs for free",
    "m": "many merry men make more music monthly",
    "p": "patient painters put pink paint past paper",
    "s": "seven small sailors sing slow sweet songs",
    "t": "twelve tired teachers told the truth today",
}


def _between(count: int, args: Args) -> bool:
    return args["low"] <= count <= args["high"]


def _ordered_bounds(args: Args) -> str:
    return "" if args["low"] <= args["high"] else f"low is {args['low']} and high {args['high']}; low is at most high."


def _unique(words: Iterable[str]) -> bool:
    words = list(words)
    return len(set(words)) == len(words) > 0


def _every(counted: list[T], test: Callable[[T], bool]) -> bool:
    return bool(counted) and all(map(test, counted))


def _letters_of(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalpha())


def _trim_words(text: str, args: Args) -> str:
    """As many words as the middle of the range, from the text and then from the fillers."""
    goal = (args["low"] + args["high"]) // 2
    words = " ".join([text, *FILLERS * (1 + goal // 100)]).split()[:goal]
    return " ".join(words).rstrip(".") + "."


def _palindromes(text: str, args: Args) -> bool:
    words = set(texts.plain_words(text))
    return sum(len(word) >= 3 and word.isalpha() and word == word[::-1] for word in words) >= args["count"]


def _alternates(text: str, args: Args) -> bool:
    words = re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", text)
    wanted = [(str.isupper, str.islower)[i % 2] for i in range(len(words))]
    return len(words) > 1 and all(test(word) for test, word in zip(wanted, words, strict=True))


def _alternate(text: str, args: Args) -> str:
    return " ".join((str.upper, str.lower)[i % 2](word) for i, word in enumerate(FILLERS[0].split()))


def _first_letters_differ(text: str, args: Args) -> bool:
    words = texts.plain_words(text)
    return len(words) > 1 and all(one[0] != two[0] for one, two in pairwise(words))


def _sentence_words(text: str) -> list[int]:
    return [count for one in texts.sentences(text) if (count := len(texts.plain_words(one)))]


def _sentence_starts(text: str) -> list[str]:
    return [words[0] for one in texts.sentences(text) if (words := texts.plain_words(one))]


def _questions(text: str) -> int:
    """Sentences with a word that end with a question mark."""
    found = texts.sentences(text)
    return sum(one.rstrip("\"')”").endswith("?") and bool(texts.plain_words(one)) for one in found)


def _in_sentence(text: str, args: Args) -> bool:
    found = texts.sentences(text)
    return len(found) >= args["sentence"] and texts.contains_word(found[args["sentence"] - 1], args["word"])


def _in_order(text: str, args: Args) -> bool:
    position = 0
    for word in args["words"]:
        found = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE).search(text, position)
        if found is None:
            return False
        position = found.end()
    return True


def _vowels(text: str, args: Args) -> bool:
    letters = _letters_of(text)
    used = {character for character in letters if character in "aeiou"}
    return used == {args["vowel"].lower()}


def _exact_letter(text: str, args: Args) -> str:
    letter = args["letter"].lower()
    plain = re.sub(rf"\S*{re.escape(letter)}\S* ?", "", text, flags=re.IGNORECASE).strip() or "."
    return f"{plain} {' '.join([letter] * args['count'])}"


def _avoid(text: str, args: Args) -> str:
    return re.sub(rf"\S*{re.escape(args['letter'])}\S*", "", text, flags=re.IGNORECASE).strip()


def _letter(rng_letters: str) -> Argument:
    return Argument("letter", "choice", choices=tuple(rng_letters))


_ALPHABET = "abcdefghijklmnopqrstuvwxyz"

MORE: tuple[Constraint, ...] = (
    Constraint(
        "words:range",
        (integer("low"), integer("high")),
        lambda text, args: _between(len(texts.plain_words(text)), args),
        "Write between {low} and {high} words.",
        lambda rng: {"low": (low := int(rng.integers(20, 60))), "high": low + int(rng.integers(10, 21))},
        _trim_words,
        6,
        complaint=_ordered_bounds,
        conflicts=_EXACT | {"words:unique_at_least"},
    ),
    Constraint(
        "words:unique_at_least",
        (integer("count"),),
        lambda text, args: len(set(texts.plain_words(text))) >= args["count"],
        "Use at least {count} different words.",
        lambda rng: {"count": int(rng.integers(20, 61))},
        lambda text, args: text + " " + " ".join(FILLERS[: args["count"] // 4 + 1]),
        1,
        conflicts=_EXACT,
    ),
    Constraint(
        "words:no_repeat",
        (),
        lambda text, args: _unique(texts.plain_words(text)),
        "Use no word twice.",
        lambda rng: {},
        lambda text, args: " ".join(dict.fromkeys(texts.plain_words(text))) + ".",
        6,
        conflicts=_WHOLE,
    ),
    Constraint(
        "words:palindromes",
        (integer("count", high=50),),
        _palindromes,
        "Use at least {count} different words of three letters or more that read the same backwards.",
        lambda rng: {"count": int(rng.integers(1, 5))},
        lambda text, args: add_sentence(text, "We wrote " + " ".join(_PALINDROMES[: args["count"]]) + " there."),
        2,
    ),
    Constraint(
        "words:alternating_case",
        (),
        _alternates,
        "Write one word in CAPITALS and the next in small letters, in turn, beginning with capitals.",
        lambda rng: {},
        _alternate,
        6,
        conflicts=_WHOLE,
    ),
    Constraint(
        "words:at_most_letters",
        (integer("letters", 3, 40),),
        lambda text, args: _every(texts.plain_words(text), lambda word: len(word) <= args["letters"]),
        "Use no word of more than {letters} letters.",
        lambda rng: {"letters": int(rng.integers(6, 10))},
        lambda text, args: " ".join(word for word in text.split() if len(word.strip(".,")) <= args["letters"]),
        3,
        conflicts=frozenset({"keywords:letter_frequency", "letters:exactly", "words:at_least_letters"}),
    ),
    Constraint(
        "words:at_least_letters",
        (integer("letters", 2, 12),),
        lambda text, args: _every(texts.plain_words(text), lambda word: len(word) >= args["letters"]),
        "Use no word of fewer than {letters} letters.",
        lambda rng: {"letters": int(rng.integers(3, 6))},
        lambda text, args: " ".join(w for w in " ".join(FILLERS).split() if len(w.strip(".")) >= args["letters"]),
        6,
        conflicts=_WHOLE,
    ),
    Constraint(
        "words:first",
        (Argument("word", "text"),),
        lambda text, args: texts.plain_words(text)[:1] == texts.plain_words(args["word"])[:1] != [],
        "Let the first word be {word}.",
        lambda rng: {"word": pick(rng, TOPIC_WORDS)[0]},
        lambda text, args: f"{args['word'].capitalize()} comes to mind. {text}",
        6,
        conflicts=frozenset({"detectable_format:title", "detectable_format:multiple_sections", "copy:first_last"})
        | {"length_constraints:nth_paragraph_first_word", "paragraphs:same_start", "format:*", "lines:*"},
    ),
    Constraint(
        "words:last",
        (Argument("word", "text"),),
        lambda text, args: texts.plain_words(text)[-1:] == texts.plain_words(args["word"])[-1:] != [],
        "Let the last word be {word}.",
        lambda rng: {"word": pick(rng, TOPIC_WORDS)[0]},
        lambda text, args: f"{text} So we speak of the {args['word']}.",
        6,
        conflicts=frozenset({"startend:end_checker", "detectable_content:postscript", "copy:first_last", "format:*"})
        | {"words:range", "letters:exactly", "lines:*", "sentences:*"},
    ),
    Constraint(
        "words:position",
        (integer("position", high=1000), Argument("word", "text")),
        lambda text, args: texts.plain_words(text)[args["position"] - 1 : args["position"]] == [args["word"].lower()],
        "Let word number {position} be {word}.",
        lambda rng: {"position": int(rng.integers(2, 9)), "word": pick(rng, TOPIC_WORDS)[0]},
        lambda text, args: " ".join(
            [*(words := text.split())[: args["position"] - 1], args["word"], *words[args["position"] - 1 :]]
        ),
        7,
        complaint=lambda args: "" if re.fullmatch(r"\w+", args["word"]) else "word must be a single word.",
        conflicts=frozenset({"words:first", "detectable_format:title", "paragraphs:same_start", "copy:*", "format:*"})
        | {"length_constraints:nth_paragraph_first_word", "detectable_format:multiple_sections", "lines:*"}
        | {"startend:quotation", "words:range", "sentences:*", "length_constraints:number_paragraphs"},
    ),
    Constraint(
        "words:alliteration",
        (_letter(_ALPHABET),),
        lambda text, args: (
            len(texts.plain_words(text)) > 1
            and _every(texts.plain_words(text), lambda word: word.startswith(args["letter"]))
        ),
        "Let every word begin with the letter {letter}, and write at least two words.",
        lambda rng: {"letter": pick(rng, tuple(_ALLITERATION))[0]},
        lambda text, args: _ALLITERATION.get(args["letter"], f"{args['letter']} {args['letter']}"),
        6,
        conflicts=_WHOLE,
    ),
    Constraint(
        "words:neighbors_differ",
        (),
        _first_letters_differ,
        "Let no two words next to each other begin with the same letter.",
        lambda rng: {},
        lambda text, args: "Some big cats drink milk. Every fox hunts at night.",
        6,
        conflicts=_WHOLE,
    ),
    Constraint(
        "letters:exactly",
        (_letter(_ALPHABET), integer("count", 0, 1000)),
        lambda text, args: text.lower().count(args["letter"]) == args["count"],
        "Let the letter {letter} appear exactly {count} times.",
        lambda rng: {"letter": pick(rng, tuple("bfgjkpqvwxyz"))[0], "count": int(rng.integers(1, 6))},
        _exact_letter,
        7,
        conflicts=frozenset({"letters:*", "language:response_language", "copy:*", "lines:*", "format:*"})
        | {"keywords:letter_frequency", "startend:end_checker", "paragraphs:*", "sentences:*", "order:*"},
    ),
    Constraint(
        "letters:none",
        (_letter(_ALPHABET),),
        lambda text, args: args["letter"] not in text.lower(),
        "Do not use the letter {letter} at all.",
        lambda rng: {"letter": pick(rng, tuple("bfgjkpqvxyz"))[0]},
        _avoid,
        1,
        conflicts=frozenset({"letters:*", "keywords:letter_frequency"}),
    ),
    Constraint(
        "letters:one_vowel",
        (Argument("vowel", "choice", choices=tuple("aeiou")),),
        _vowels,
        "Of the vowels a, e, i, o, u use only {vowel}, at least once.",
        lambda rng: {"vowel": pick(rng, tuple(_VOWEL_WORDS))[0]},
        lambda text, args: _VOWEL_WORDS[args["vowel"]],
        6,
        conflicts=_WHOLE,
    ),
    Constraint(
        "sentences:exactly",
        (integer("count", high=500),),
        lambda text, args: len(texts.sentences(text)) == args["count"],
        "Write exactly {count} sentences.",
        lambda rng: {"count": int(rng.integers(2, 9))},
        lambda text, args: " ".join((texts.sentences(text) + list(FILLERS))[: args["count"]]),
        6,
        conflicts=_EXACT | {"lines:*", "format:*", "paragraphs:*", "copy:*", "words:unique_at_least"},
    ),
    Constraint(
        "sentences:words_each",
        (integer("low"), integer("high")),
        lambda text, args: _every(_sentence_words(text), lambda count: args["low"] <= count <= args["high"]),
        "Let every sentence have between {low} and {high} words.",
        lambda rng: {"low": (low := int(rng.integers(3, 7))), "high": low + int(rng.integers(4, 9))},
        lambda text, args: " ".join(
            one for one in (*texts.sentences(text), *FILLERS) if args["low"] <= len(one.split()) <= args["high"]
        ),
        6,
        complaint=_ordered_bounds,
        conflicts=frozenset({"lines:*", "format:*", "sentences:exactly", "words:range", "detectable_format:*"}),
    ),
    Constraint(
        "sentences:different_starts",
        (),
        lambda text, args: _unique(_sentence_starts(text)),
        "Let every sentence begin with another word.",
        lambda rng: {},
        lambda text, args: " ".join({one.split()[0].lower(): one for one in texts.sentences(text)}.values()),
        6,
        conflicts=frozenset({"lines:*", "format:*", "copy:*", "length_constraints:*", "sentences:*", "paragraphs:*"}),
    ),
    Constraint(
        "sentences:growing",
        (),
        lambda text, args: len(counts := _sentence_words(text)) > 1 and all(one < two for one, two in pairwise(counts)),
        "Let every sentence have more words than the one before it, and write at least two.",
        lambda rng: {},
        lambda text, args: "Stop. Look around. Birds fly south. Winter comes very soon.",
        6,
        conflicts=_WHOLE,
    ),
    Constraint(
        "sentences:questions",
        (integer("count", high=200),),
        lambda text, args: _questions(text) >= args["count"],
        "Ask at least {count} questions, each a sentence that ends with a question mark.",
        lambda rng: {"count": int(rng.integers(1, 4))},
        lambda text, args: text + " Who can say?" * args["count"],
        1,
        conflicts=frozenset({"punctuation:only_stops", "sentences:*"}),
    ),
    Constraint(
        "order:keywords",
        (Argument("words", "texts"),),
        _in_order,
        "Use these words in this order: {words}.",
        lambda rng: {"words": pick(rng, TOPIC_WORDS, int(rng.integers(2, 5)))},
        lambda text, args: add_sentence(text, "I saw the " + " and the ".join(args["words"]) + "."),
        2,
        conflicts=frozenset({"language:response_language", "sentences:*"}),
    ),
    Constraint(
        "order:keyword_in_sentence",
        (Argument("word", "text"), integer("sentence", high=200)),
        _in_sentence,
        "Use the word {word} in sentence number {sentence}.",
        lambda rng: {"word": pick(rng, TOPIC_WORDS)[0], "sentence": int(rng.integers(1, 5))},
        lambda text, args: " ".join(
            [
                *(texts.sentences(text) + list(FILLERS))[: args["sentence"] - 1],
                f"This is a {args['word']}.",
                *texts.sentences(text)[args["sentence"] - 1 :],
            ]
        ),
        6,
        conflicts=frozenset({"language:response_language", "sentences:*", "lines:*", "format:*", "copy:*"}),
    ),
)
"""On words, letters and sentences."""
