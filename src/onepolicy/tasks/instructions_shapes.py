"""Constraints of our own on lines, paragraphs, tables, copies, marks and numbers."""

from __future__ import annotations

import csv
import re
import unicodedata
from itertools import pairwise

from onepolicy.tasks import instructions_text as texts
from onepolicy.tasks.instructions_constraint import TOPIC_WORDS, Args, Argument, Constraint, add_sentence, integer, pick
from onepolicy.tasks.instructions_samples import FILLERS

_WHOLE = frozenset({"*"})
_STRUCTURE = frozenset(
    {"lines:*", "format:table", "format:csv", "paragraphs:*", "detectable_format:*", "length_constraints:*"}
)
_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf\u2b50\u2b55\U0001f1e6-\U0001f1ff]")
_MARKS = ".,!?;:"
_CELLS = ("north", "south", "east", "west", "up", "down", "left", "right")


def is_emoji(character: str) -> bool:
    """Whether a character is a pictograph of Unicode's emoji blocks."""
    return _EMOJI.match(character) is not None


def _numbered(text: str, args: Args) -> bool:
    numbers = [int(found[1]) for line in texts.lines(text) if (found := re.match(r"(\d{1,6})[.)]\s+\S", line))]
    return numbers == list(range(1, args["count"] + 1))


def _stairs(text: str, args: Args) -> bool:
    lines = [line for line in text.splitlines() if line.strip()]
    indents = [len(line) - len(line.lstrip(" ")) for line in lines]
    return len(lines) >= args["lines"] and all(two == one + 1 for one, two in pairwise(indents))


def _csv(text: str, args: Args) -> bool:
    lines = texts.lines(text)
    if any(len(line) > 100_000 for line in lines):
        return False
    try:
        rows = list(csv.reader(lines, strict=True))
    except csv.Error:
        return False
    return len(rows) == args["rows"] and all(len(row) == args["columns"] and all(map(str.strip, row)) for row in rows)


def _cells(line: str) -> list[str] | None:
    line = line.strip()
    if len(line) < 2 or not (line.startswith("|") and line.endswith("|")):
        return None
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line[1:-1])]


def _table(text: str, args: Args) -> bool:
    """One Markdown table: a head, a rule, and so many rows, all of the same width."""
    rows = [cells for line in text.splitlines() if (cells := _cells(line)) is not None]
    if len(rows) != args["rows"] + 2 or any(len(row) != args["columns"] for row in rows):
        return False
    return all(re.fullmatch(r":?-{3,}:?", cell) for cell in rows[1])


def _write_table(text: str, args: Args) -> str:
    columns = args["columns"]
    body = [[_CELLS[(i + j) % len(_CELLS)] for j in range(columns)] for i in range(args["rows"])]
    rows = [[_CELLS[j % len(_CELLS)] for j in range(columns)], ["---"] * columns, *body]
    return f"{text}\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _write_csv(text: str, args: Args) -> str:
    return "\n".join(
        ",".join(_CELLS[(i + j) % len(_CELLS)] for j in range(args["columns"])) for i in range(args["rows"])
    )


def _emoji_ends(text: str, args: Args) -> bool:
    lines = texts.lines(text)
    return bool(lines) and all(is_emoji(line.rstrip("\ufe0f\u200d")[-1:]) for line in lines)


def _headings(text: str, args: Args) -> bool:
    return sum(re.match(r"#{1,6} +\S", line) is not None for line in text.splitlines()) == args["count"]


def _code_blocks(text: str, args: Args) -> bool:
    fences = [line.strip() for line in text.splitlines() if line.strip().startswith("```")]
    opened, closed = fences[0::2], fences[1::2]
    return len(fences) == 2 * args["count"] and all(
        one[3:].strip().lower() == args["language"] and two == "```" for one, two in zip(opened, closed, strict=True)
    )


def _depth(text: str, args: Args) -> bool:
    depth = deepest = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            return False
        deepest = max(deepest, depth)
    return depth == 0 and deepest == args["depth"]


def _first_last(text: str, args: Args) -> bool:
    found = [one.strip() for one in texts.sentences(text)]
    return len(found) > 2 and found[0] == found[-1]


def _span(args: Args) -> str:
    return " ".join(args["text"].split()[args["first"] - 1 : args["last"]])


def _complain_span(args: Args) -> str:
    count = len(args["text"].split())
    if args["first"] <= args["last"] <= count:
        return ""
    return f"words {args['first']} to {args['last']} of a text of {count} words; first <= last <= {count}."


def _only_stops(text: str, args: Args) -> bool:
    marks = {character for character in text if unicodedata.category(character).startswith("P")}
    return marks <= {".", "'", "’", "-"} and "." in marks


def _numbers(text: str) -> int:
    return len(re.findall(r"(?<![\w.])\d+(?:[.,]\d+)*(?!\w)", text))


SHAPES: tuple[Constraint, ...] = (
    Constraint(
        "lines:numbered",
        (integer("count", high=500),),
        _numbered,
        "Give exactly {count} steps, each on a line of its own that begins with its number and a full stop, as in 1.",
        lambda rng: {"count": int(rng.integers(2, 8))},
        lambda text, args: (
            text + "\n" + "\n".join(f"{i}. {FILLERS[-i % len(FILLERS)]}" for i in range(1, args["count"] + 1))
        ),
        4,
        conflicts=_STRUCTURE | {"numbers:*", "startend:end_checker"},
    ),
    Constraint(
        "lines:exactly",
        (integer("count", high=1000),),
        lambda text, args: len(texts.lines(text)) == args["count"],
        "Write exactly {count} lines that are not empty.",
        lambda rng: {"count": int(rng.integers(2, 9))},
        lambda text, args: "\n".join([" ".join(text.split()), *FILLERS * 50][: args["count"]]),
        4,
        conflicts=_STRUCTURE | {"startend:end_checker", "detectable_content:postscript", "format:*"},
    ),
    Constraint(
        "lines:stairs",
        (integer("lines", 2, 50),),
        _stairs,
        "Write at least {lines} lines, each indented by one blank more than the line before it.",
        lambda rng: {"lines": int(rng.integers(3, 7))},
        lambda text, args: "\n".join(" " * i + FILLERS[i % len(FILLERS)] for i in range(args["lines"])),
        6,
        conflicts=_WHOLE,
    ),
    Constraint(
        "format:csv",
        (integer("rows", high=500), integer("columns", 2, 50)),
        _csv,
        "Reply with CSV only: {rows} rows of {columns} comma-separated values, none empty.",
        lambda rng: {"rows": int(rng.integers(2, 6)), "columns": int(rng.integers(2, 5))},
        _write_csv,
        6,
        conflicts=_WHOLE,
    ),
    Constraint(
        "format:table",
        (integer("rows", high=500), integer("columns", 2, 50)),
        _table,
        "Include one Markdown table with a head, {rows} rows and {columns} columns.",
        lambda rng: {"rows": int(rng.integers(1, 5)), "columns": int(rng.integers(2, 5))},
        _write_table,
        4,
        conflicts=_STRUCTURE
        | {"startend:end_checker", "sentences:*", "punctuation:only_stops", "detectable_content:*"},
    ),
    Constraint(
        "format:emoji",
        (integer("count", high=500),),
        lambda text, args: sum(map(is_emoji, text)) >= args["count"],
        "Use at least {count} emoji.",
        lambda rng: {"count": int(rng.integers(1, 6))},
        lambda text, args: add_sentence(text, "Look at this " + "\U0001f600 " * args["count"] + "here."),
        2,
    ),
    Constraint(
        "format:emoji_ends",
        (),
        _emoji_ends,
        "End every line with an emoji.",
        lambda rng: {},
        lambda text, args: "\n".join(f"{line} \U0001f33f" if line.strip() else line for line in text.splitlines()),
        7,
        conflicts=frozenset({"startend:*", "format:*", "detectable_format:title", "lines:*", "words:alternating_case"})
        | {"detectable_content:postscript", "length_constraints:number_paragraphs"},
    ),
    Constraint(
        "format:headings",
        (integer("count", high=200),),
        _headings,
        "Use exactly {count} Markdown headings, each a line that begins with # and a blank.",
        lambda rng: {"count": int(rng.integers(1, 5))},
        lambda text, args: (
            text + "".join(f"\n# {TOPIC_WORDS[i].capitalize()}\n{FILLERS[i]}" for i in range(args["count"]))
        ),
        4,
        conflicts=_STRUCTURE | {"startend:end_checker", "detectable_format:*"},
    ),
    Constraint(
        "format:code_blocks",
        (integer("count", high=50), Argument("language", "choice", choices=("python", "json", "bash", "text"))),
        _code_blocks,
        "Include exactly {count} fenced code blocks, each opened by three backticks and the word {language}.",
        lambda rng: {"count": int(rng.integers(1, 4)), "language": pick(rng, ("python", "json", "bash", "text"))[0]},
        lambda text, args: text + f"\n```{args['language']}\nok\n```" * args["count"],
        4,
        conflicts=_STRUCTURE | {"startend:*", "punctuation:only_stops", "sentences:*", "change_case:*", "letters:*"},
    ),
    Constraint(
        "format:nested_brackets",
        (integer("depth", 1, 50),),
        _depth,
        "Nest round brackets exactly {depth} deep somewhere, and close all of them.",
        lambda rng: {"depth": int(rng.integers(2, 6))},
        lambda text, args: add_sentence(text, "It grows " + "(so " * args["depth"] + ")" * args["depth"] + " on."),
        2,
        conflicts=frozenset({"punctuation:only_stops"}),
    ),
    Constraint(
        "copy:phrase",
        (Argument("phrase", "text"), integer("count", high=200)),
        lambda text, args: text.count(args["phrase"]) == args["count"],
        "Write this phrase exactly {count} times, letter for letter: {phrase}",
        lambda rng: {"phrase": f"the {' '.join(pick(rng, TOPIC_WORDS, 2))}", "count": int(rng.integers(2, 5))},
        lambda text, args: add_sentence(text, "Say " + " and ".join([args["phrase"]] * args["count"]) + "."),
        2,
        conflicts=frozenset({"change_case:*", "language:response_language", "sentences:*"}),
    ),
    Constraint(
        "copy:first_last",
        (),
        _first_last,
        "Write at least three sentences, and let the last be the first word for word.",
        lambda rng: {},
        lambda text, args: f"{FILLERS[-1]} {text} {FILLERS[-2]} {FILLERS[-1]}",
        6,
        conflicts=frozenset(
            {"startend:*", "format:*", "lines:*", "detectable_format:*", "detectable_content:postscript"}
        )
        | {"length_constraints:nth_paragraph_first_word", "length_constraints:number_paragraphs", "words:*"},
    ),
    Constraint(
        "copy:span",
        (Argument("text", "text"), integer("first"), integer("last")),
        lambda text, args: _span(args) in " ".join(text.split()),
        "Copy words {first} to {last} of this text, unchanged: {text}",
        lambda rng: {
            "text": " ".join(pick(rng, FILLERS, 2)),
            "first": (first := int(rng.integers(2, 5))),
            "last": first + int(rng.integers(1, 5)),
        },
        lambda text, args: add_sentence(text, f"The words are: {_span(args)}"),
        2,
        complaint=_complain_span,
        conflicts=frozenset({"change_case:*", "language:response_language", "letters:*", "sentences:*", "words:range"})
        | {"punctuation:only_stops", "words:at_most_letters", "order:*"},
    ),
    Constraint(
        "punctuation:only_stops",
        (),
        _only_stops,
        "Use no punctuation but full stops, apostrophes and hyphens, and at least one full stop.",
        lambda rng: {},
        lambda text, args: text,
        conflicts=frozenset({"startend:*", "format:*", "detectable_format:*", "detectable_content:*", "copy:phrase"})
        | {"lines:numbered", "length_constraints:number_paragraphs", "punctuation:*"},
    ),
    Constraint(
        "punctuation:exclamations",
        (integer("count", 1, 200),),
        lambda text, args: text.count("!") == args["count"],
        "Use exactly {count} exclamation marks.",
        lambda rng: {"count": int(rng.integers(1, 5))},
        lambda text, args: text + " Oh!" * args["count"],
        1,
        conflicts=frozenset({"sentences:*", "punctuation:variety"}),
    ),
    Constraint(
        "punctuation:variety",
        (),
        lambda text, args: all(mark in text for mark in _MARKS),
        "Use each of these marks at least once: full stop, comma, exclamation mark, question mark, semicolon, colon.",
        lambda rng: {},
        lambda text, args: add_sentence(text, "Look, here it is: calm; is it not? Yes!"),
        2,
        conflicts=frozenset({"punctuation:*", "sentences:*"}),
    ),
    Constraint(
        "numbers:exactly",
        (integer("count", 1, 500),),
        lambda text, args: _numbers(text) == args["count"],
        "Write exactly {count} numbers in digits.",
        lambda rng: {"count": int(rng.integers(1, 6))},
        lambda text, args: add_sentence(text, "Take " + "".join(f"{i + 3} and " for i in range(args["count"])) + "go."),
        2,
        conflicts=frozenset({"numbers:*", "lines:numbered", "detectable_format:multiple_sections", "sentences:*"}),
    ),
    Constraint(
        "numbers:none",
        (),
        lambda text, args: not any(map(str.isdigit, text)),
        "Use no digits.",
        lambda rng: {},
        lambda text, args: text,
        conflicts=frozenset({"detectable_format:multiple_sections"}),
    ),
    Constraint(
        "paragraphs:exactly",
        (integer("count", high=200),),
        lambda text, args: len(texts.paragraphs(text)) == args["count"],
        "Write exactly {count} paragraphs with an empty line between one and the next.",
        lambda rng: {"count": int(rng.integers(2, 6))},
        lambda text, args: "\n\n".join([text, *FILLERS * 10][: args["count"]]),
        4,
        conflicts=_STRUCTURE | {"detectable_content:postscript", "format:*"},
    ),
    Constraint(
        "paragraphs:same_start",
        (integer("count", 2, 100), Argument("word", "text")),
        lambda text, args: (
            len(parts := texts.paragraphs(text)) >= args["count"]
            and all(texts.plain_words(part)[:1] == texts.plain_words(args["word"])[:1] != [] for part in parts)
        ),
        "Write at least {count} paragraphs, each begun with the word {word}.",
        lambda rng: {"count": int(rng.integers(2, 5)), "word": pick(rng, TOPIC_WORDS)[0]},
        lambda text, args: "\n\n".join(
            f"{args['word'].capitalize()} comes again. {part}"
            for part in [text.replace("\n\n", "\n"), *FILLERS * 5][: args["count"]]
        ),
        4,
        conflicts=_STRUCTURE
        | {"detectable_content:postscript", "detectable_format:*", "format:*", "copy:*", "words:*"},
    ),
)
"""On lines, paragraphs, formats, copies, marks and numbers."""
