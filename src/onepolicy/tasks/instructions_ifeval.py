"""The 25 constraints of IFEval, under the authors' names and arguments.

The decisions are in `instructions_checks`; here are the arguments, a sentence for prompts (our own wording), how
arguments are drawn, and how a text is made to follow.
Source: Zhou et al. 2023 (arXiv 2311.07911), table 1; the conflicts are those of the authors' registry, widened where
two constraints ask for opposite things.
"""

from __future__ import annotations

import json
import re

from onepolicy.errors import nearest
from onepolicy.tasks import instructions_checks as checks
from onepolicy.tasks.instructions_constraint import (
    RELATIONS,
    TOPIC_WORDS,
    Args,
    Argument,
    Constraint,
    add_sentence,
    integer,
    pick,
    relation,
)
from onepolicy.tasks.instructions_samples import FILLERS, LANGUAGE_SAMPLES
from onepolicy.tasks.language import LANGUAGES

ALL = frozenset({"*"})

_ENDINGS = ("Is there anything else I can help with?", "I hope this helps.", "That is all for today.")


def _fill(text: str, sentences: int) -> str:
    """The text with so many sentences more."""
    return text.rstrip() + "".join(" " + FILLERS[i % len(FILLERS)] for i in range(sentences))


def _mention(text: str, words: list[str] | tuple[str, ...]) -> str:
    return add_sentence(text, "Here I think of the " + " and the ".join(words) + ".") if words else text


def _write_frequency(text: str, args: Args) -> str:
    return _mention(text, [args["keyword"]] * args["frequency"]) if args["relation"] == "at least" else text


def _write_letters(text: str, args: Args) -> str:
    if args["let_relation"] == "less than":
        return text
    return add_sentence(text, "Say " + args["letter"] * args["let_frequency"] + " to me.")


def _write_capitals(text: str, args: Args) -> str:
    if args["capital_relation"] == "less than":
        return text
    return add_sentence(text, "They said " + "YES " * args["capital_frequency"] + "to me.")


def _write_sections(text: str, args: Args) -> str:
    marker, count = args["section_spliter"].strip(), args["num_sections"]
    rest = "".join(f"\n\n{marker} {i}\n{FILLERS[-i]}" for i in range(2, count + 1))
    return f"{marker} 1\n{text}{rest}"


def _write_nth(text: str, args: Args) -> str:
    parts = [text.replace("\n\n", "\n"), *FILLERS[-args["num_paragraphs"] :]][: args["num_paragraphs"]]
    nth = args["nth_paragraph"] - 1
    parts[nth] = f"{args['first_word'].capitalize()} comes first. {parts[nth]}"
    return "\n\n".join(parts)


def _write_json(text: str, args: Args) -> str:
    return json.dumps({"reply": text}, ensure_ascii=False)


def _complain_nth(args: Args) -> str:
    if re.search(r"[\s.,?!'\"]", args["first_word"].strip()):
        return f"first_word is {args['first_word']!r}; it must be a single word."
    if args["nth_paragraph"] <= args["num_paragraphs"]:
        return ""
    return f"nth_paragraph is {args['nth_paragraph']} of {args['num_paragraphs']} paragraphs; it must be one of them."


def _complain_language(args: Args) -> str:
    code = args["language"]
    return "" if code in LANGUAGES else f"language {code!r} is unknown. {nearest(code, LANGUAGES)}"


IFEVAL: tuple[Constraint, ...] = (
    Constraint(
        "keywords:existence",
        (Argument("keywords", "texts"),),
        checks.keywords,
        "Use the words {keywords}.",
        lambda rng: {"keywords": sorted(pick(rng, TOPIC_WORDS, int(rng.integers(1, 4))))},
        lambda text, args: _mention(text, args["keywords"]),
        2,
        checks.keywords_corrected,
        conflicts=frozenset({"language:response_language"}),
    ),
    Constraint(
        "keywords:frequency",
        (Argument("keyword", "text"), integer("frequency"), relation()),
        checks.frequency,
        "Let the word {keyword} appear {relation} {frequency} times.",
        lambda rng: {
            "keyword": pick(rng, TOPIC_WORDS)[0],
            "frequency": int(rng.integers(2, 6)),
            "relation": pick(rng, RELATIONS)[0],
        },
        _write_frequency,
        2,
        checks.frequency_corrected,
        conflicts=frozenset({"language:response_language"}),
    ),
    Constraint(
        "keywords:forbidden_words",
        (Argument("forbidden_words", "texts"),),
        checks.forbidden,
        "Do not use the words {forbidden_words}.",
        lambda rng: {"forbidden_words": sorted(pick(rng, TOPIC_WORDS, int(rng.integers(1, 4))))},
        lambda text, args: text,
        corrected=checks.forbidden_corrected,
        conflicts=frozenset({"language:response_language"}),
    ),
    Constraint(
        "keywords:letter_frequency",
        (Argument("letter", "character"), integer("let_frequency"), relation("let_relation")),
        checks.letters,
        "Let the letter {letter} appear {let_relation} {let_frequency} times.",
        lambda rng: {
            "letter": pick(rng, tuple("abcdefghijklmnopqrstuvwxyz"))[0],
            "let_frequency": int(rng.integers(2, 20)),
            "let_relation": "at least",
        },
        _write_letters,
        2,
        conflicts=frozenset({"language:response_language"}),
    ),
    Constraint(
        "language:response_language",
        (Argument("language", "text"),),
        checks.language,
        "Write your whole reply in the language with the code {language} and in no other.",
        lambda rng: {"language": pick(rng, tuple(LANGUAGE_SAMPLES))[0]},
        lambda text, args: " ".join([LANGUAGE_SAMPLES[args["language"]]] * 2),
        0,
        checks.language_corrected,
        _complain_language,
        frozenset({"detectable_format:multiple_sections", "startend:end_checker", "change_case:english_capital"})
        | frozenset({"change_case:english_lowercase", "change_case:capital_word_frequency"}),
    ),
    Constraint(
        "length_constraints:number_sentences",
        (integer("num_sentences"), relation()),
        checks.sentences,
        "Write {relation} {num_sentences} sentences.",
        lambda rng: {"num_sentences": int(rng.integers(12, 21)), "relation": pick(rng, RELATIONS)[0]},
        lambda text, args: _fill(text, args["num_sentences"] if args["relation"] == "at least" else 0),
        1,
        conflicts=frozenset({"language:response_language"}),
    ),
    Constraint(
        "length_constraints:number_paragraphs",
        (integer("num_paragraphs"),),
        checks.divided,
        "Write {num_paragraphs} paragraphs, with the divider *** between one and the next.",
        lambda rng: {"num_paragraphs": int(rng.integers(2, 6))},
        lambda text, args: "\n***\n".join([text, *FILLERS][: args["num_paragraphs"]]),
        3,
        conflicts=frozenset({"length_constraints:nth_paragraph_first_word", "length_constraints:number_sentences"}),
    ),
    Constraint(
        "length_constraints:number_words",
        (integer("num_words"), relation()),
        checks.words,
        "Write {relation} {num_words} words.",
        lambda rng: {"num_words": int(rng.integers(15, 31)) * 10, "relation": pick(rng, RELATIONS)[0]},
        lambda text, args: _fill(text, args["num_words"] // 6 + 1 if args["relation"] == "at least" else 0),
        1,
        conflicts=frozenset({"language:response_language"}),
    ),
    Constraint(
        "length_constraints:nth_paragraph_first_word",
        (integer("num_paragraphs"), integer("nth_paragraph"), Argument("first_word", "text")),
        checks.nth_first_word,
        "Write {num_paragraphs} paragraphs with an empty line between one and the next, and nowhere else; "
        "the first word of paragraph {nth_paragraph} is {first_word}.",
        lambda rng: {
            "num_paragraphs": (count := int(rng.integers(2, 6))),
            "nth_paragraph": int(rng.integers(1, count + 1)),
            "first_word": pick(rng, TOPIC_WORDS)[0],
        },
        _write_nth,
        3,
        checks.nth_first_word_corrected,
        _complain_nth,
        frozenset({"length_constraints:number_paragraphs", "detectable_content:postscript"})
        | frozenset({"detectable_format:multiple_sections", "combination:two_responses"}),
    ),
    Constraint(
        "detectable_content:number_placeholders",
        (integer("num_placeholders"),),
        checks.placeholders,
        "Put at least {num_placeholders} placeholders in square brackets, such as [address].",
        lambda rng: {"num_placeholders": int(rng.integers(1, 6))},
        lambda text, args: add_sentence(text, "Send it to " + "[name] " * args["num_placeholders"] + "today."),
        2,
    ),
    Constraint(
        "detectable_content:postscript",
        (Argument("postscript_marker", "text"),),
        checks.postscript,
        "At the end add a postscript that begins with {postscript_marker}",
        lambda rng: {"postscript_marker": pick(rng, ("P.S.", "P.P.S"))[0]},
        lambda text, args: f"{text}\n\n{args['postscript_marker']} The door is open.",
        4,
        checks.postscript_corrected,
    ),
    Constraint(
        "detectable_format:number_bullet_lists",
        (integer("num_bullets"),),
        checks.bullets,
        "Give exactly {num_bullets} bullet points, each on a line that begins with an asterisk and a blank.",
        lambda rng: {"num_bullets": int(rng.integers(2, 7))},
        lambda text, args: text + "\n" + "\n".join(f"* {FILLERS[-i - 1]}" for i in range(args["num_bullets"])),
        3,
        checks.bullets_corrected,
    ),
    Constraint(
        "detectable_format:constrained_response",
        (),
        checks.options,
        "Answer with one of these: 'My answer is yes.', 'My answer is no.', 'My answer is maybe.'",
        lambda rng: {},
        lambda text, args: checks.OPTIONS[2],
        0,
        checks.options_corrected,
        conflicts=ALL,
    ),
    Constraint(
        "detectable_format:number_highlighted_sections",
        (integer("num_highlights"),),
        checks.highlights,
        "Highlight at least {num_highlights} parts of your reply with asterisks, as in *this part*.",
        lambda rng: {"num_highlights": int(rng.integers(1, 5))},
        lambda text, args: add_sentence(text, "We saw " + "*the light* and " * args["num_highlights"] + "the sky."),
        2,
        checks.highlights_corrected,
    ),
    Constraint(
        "detectable_format:multiple_sections",
        (Argument("section_spliter", "text"), integer("num_sections")),
        checks.sections,
        "Write {num_sections} sections, each begun by a line {section_spliter} X, with its number for X.",
        lambda rng: {
            "section_spliter": pick(rng, ("Section", "SECTION", "Part"))[0],
            "num_sections": int(rng.integers(2, 6)),
        },
        _write_sections,
        3,
        checks.sections_corrected,
        conflicts=frozenset({"detectable_format:number_highlighted_sections", "change_case:english_lowercase"})
        | frozenset({"change_case:english_capital"}),
    ),
    Constraint(
        "detectable_format:json_format",
        (),
        checks.is_json,
        "Give the whole reply as one JSON object; a code fence around it is allowed.",
        lambda rng: {},
        _write_json,
        9,
        checks.is_json_corrected,
        conflicts=ALL,
    ),
    Constraint(
        "detectable_format:title",
        (),
        checks.title,
        "Give your reply a title in double angle brackets, such as <<poem of joy>>.",
        lambda rng: {},
        lambda text, args: f"<<A Small World>>\n{text}",
        6,
        conflicts=frozenset({"startend:quotation"}),
    ),
    Constraint(
        "combination:two_responses",
        (),
        checks.two,
        "Give two different replies, with six asterisks, ******, between them and nowhere else.",
        lambda rng: {},
        lambda text, args: f"{text}\n******\n{FILLERS[0]} {text}",
        4,
        conflicts=ALL,
    ),
    Constraint(
        "combination:repeat_prompt",
        (Argument("prompt_to_repeat", "text"),),
        checks.repeats,
        "First repeat the request above word for word, without this sentence and with nothing before it; then reply.",
        lambda rng: {"prompt_to_repeat": "request"},
        lambda text, args: f"{args['prompt_to_repeat']}\n{text}",
        8,
        checks.repeats_corrected,
        conflicts=ALL,
    ),
    Constraint(
        "startend:end_checker",
        (Argument("end_phrase", "text"),),
        checks.ends_with,
        "End with exactly these words and nothing after them: {end_phrase}",
        lambda rng: {"end_phrase": pick(rng, _ENDINGS)[0]},
        lambda text, args: f"{text}\n{args['end_phrase']}",
        6,
        conflicts=frozenset({"detectable_content:postscript"}),
    ),
    Constraint(
        "startend:quotation",
        (),
        checks.quoted,
        "Put your whole reply between double quotation marks.",
        lambda rng: {},
        lambda text, args: f'"{text}"',
        8,
        conflicts=frozenset({"detectable_format:title"}),
    ),
    Constraint(
        "change_case:capital_word_frequency",
        (integer("capital_frequency"), relation("capital_relation")),
        checks.capitals,
        "Let words in capital letters appear {capital_relation} {capital_frequency} times.",
        lambda rng: {"capital_frequency": int(rng.integers(4, 15)), "capital_relation": pick(rng, RELATIONS)[0]},
        _write_capitals,
        2,
        conflicts=frozenset({"change_case:english_lowercase", "change_case:english_capital"}),
    ),
    Constraint(
        "change_case:english_capital",
        (),
        checks.english(str.isupper, True),
        "Write in English and in capital letters only.",
        lambda rng: {},
        lambda text, args: text.upper(),
        7,
        checks.english(str.isupper, False),
    ),
    Constraint(
        "change_case:english_lowercase",
        (),
        checks.english(str.islower, True),
        "Write in English and in small letters only.",
        lambda rng: {},
        lambda text, args: text.lower(),
        7,
        checks.english(str.islower, False),
        conflicts=frozenset({"change_case:english_capital"}),
    ),
    Constraint(
        "punctuation:no_comma",
        (),
        checks.no_comma,
        "Do not use any comma.",
        lambda rng: {},
        lambda text, args: text.replace(",", ""),
        7,
    ),
)
"""In the order of the authors' registry."""
