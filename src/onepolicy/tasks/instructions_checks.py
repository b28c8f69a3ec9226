"""The decisions of IFEval's 25 constraints: as the original makes them, and as their wording asks.

A function whose name ends in `_corrected` is the other decision where the two differ; docs/verifiers.md lists them. Two
things are not reproduced: a letter that is none is counted as it is (the original draws another at random), and a
keyword is a text, never a regular expression. Languages are detected by `tasks.language`.
Source: Zhou et al. 2023, Instruction-Following Evaluation for Large Language Models (arXiv 2311.07911), table 1;
google-research/instruction_following_eval for the decisions, none of its code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from onepolicy.tasks import instructions_text as texts
from onepolicy.tasks.instructions_constraint import Args, compare
from onepolicy.tasks.language import is_in

OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
"""The answers of `detectable_format:constrained_response`."""


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def language(text: str, args: Args) -> bool:
    return is_in(text, args["language"]) is not False


def language_corrected(text: str, args: Args) -> bool:
    return is_in(text, args["language"]) is True


def english(case: Callable[[str], bool], fails_open: bool) -> Callable[[str, Args], bool]:
    def check(text: str, args: Args) -> bool:
        return case(text) and is_in(text.lower(), "en") in ((True, None) if fails_open else (True,))

    return check


def sentences(text: str, args: Args) -> bool:
    return compare(len(texts.sentences(text)), args["relation"], args["num_sentences"])


def words(text: str, args: Args) -> bool:
    return compare(texts.count_words(text), args["relation"], args["num_words"])


def placeholders(text: str, args: Args) -> bool:
    count = 0
    for line in text.split("\n"):
        start = line.find("[")
        while start >= 0 and (end := line.find("]", start)) >= 0:
            count += 1
            start = line.find("[", end)
    return count >= args["num_placeholders"]


def bullets(text: str, args: Args) -> bool:
    starred = re.findall(r"^[^\S\n]*\*[^*].*$", text, flags=re.MULTILINE)
    dashed = re.findall(r"^[^\S\n]*-.*$", text, flags=re.MULTILINE)
    return len(starred) + len(dashed) == args["num_bullets"]


def bullets_corrected(text: str, args: Args) -> bool:
    return sum(re.match(r"[*-]\s+(?![*-]|\s)", line) is not None for line in texts.lines(text)) == args["num_bullets"]


def options(text: str, args: Args) -> bool:
    return any(option in text for option in OPTIONS)


def options_corrected(text: str, args: Args) -> bool:
    return sum(option in text for option in OPTIONS) == 1


def highlights(text: str, args: Args) -> bool:
    single = [found for found in re.findall(r"\*[^\n*]*\*", text) if found.strip("*").strip()]
    double = [found for found in re.findall(r"\*\*[^\n*]*\*\*", text) if found.strip("*").strip()]
    return len(single) + len(double) >= args["num_highlights"]


def highlights_corrected(text: str, args: Args) -> bool:
    emphasis = re.findall(r"(?<![*\w])(\*{1,3})(?![*\s])([^\n*]*[^\n*\s])\1(?![*\w])", text)
    return len(emphasis) >= args["num_highlights"]


def sections(text: str, args: Args) -> bool:
    marker = re.escape(args["section_spliter"].strip())
    return len(re.findall(rf"\s?{marker}\s?\d+\s?", text)) >= args["num_sections"]


def sections_corrected(text: str, args: Args) -> bool:
    marker = re.escape(args["section_spliter"].strip())
    numbers = re.findall(rf"^[ \t#*_]*{marker}\s?(\d+)\b", text, flags=re.MULTILINE)
    return len(set(numbers)) == args["num_sections"]


def divided(text: str, args: Args) -> bool:
    parts = [part.strip() for part in re.split(r"\s?\*\*\*\s?", text)]
    return all(parts[1:-1]) and sum(map(bool, parts)) == args["num_paragraphs"]


def postscript(text: str, args: Args) -> bool:
    marker = args["postscript_marker"].strip()
    patterns = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(patterns.get(marker, re.escape(marker.lower())), text.lower()) is not None


def postscript_corrected(text: str, args: Args) -> bool:
    """The marker begins a line other than the first, something follows it, and no other paragraph comes after."""
    lines = [line.strip("*_ ").lower() for line in text.strip().split("\n")]
    marker = re.escape(args["postscript_marker"].strip().lower()).replace(r"\.", r"\.?\s?")
    for i, line in enumerate(lines[1:], start=1):
        if re.match(marker, line):
            after = texts.paragraphs("\n".join(lines[i:]))
            return len(after) == 1 and len(after[0]) > len(args["postscript_marker"].strip()) + 1
    return False


def keywords(text: str, args: Args) -> bool:
    small = text.lower()
    return all(keyword.lower() in small for keyword in args["keywords"])


def keywords_corrected(text: str, args: Args) -> bool:
    return all(texts.contains_word(text, keyword) for keyword in args["keywords"])


def frequency(text: str, args: Args) -> bool:
    return compare(text.lower().count(args["keyword"].strip().lower()), args["relation"], args["frequency"])


def frequency_corrected(text: str, args: Args) -> bool:
    return compare(texts.count_phrase(text, args["keyword"].strip()), args["relation"], args["frequency"])


def forbidden(text: str, args: Args) -> bool:
    return not any(re.search(rf"\b{re.escape(word)}\b", text, flags=re.IGNORECASE) for word in args["forbidden_words"])


def forbidden_corrected(text: str, args: Args) -> bool:
    return not any(texts.contains_word(text, word) for word in args["forbidden_words"])


def letters(text: str, args: Args) -> bool:
    return compare(text.lower().count(args["letter"].lower()), args["let_relation"], args["let_frequency"])


def capitals(text: str, args: Args) -> bool:
    return compare(texts.capital_words(text), args["capital_relation"], args["capital_frequency"])


_FENCES = ("```json", "```Json", "```JSON", "```")


def _unfenced(text: str) -> str:
    text = text.strip()
    for fence in _FENCES:
        text = text.removeprefix(fence)
    return text.removesuffix("```").strip()


def is_json(text: str, args: Args) -> bool:
    try:
        json.loads(_unfenced(text))
    except (ValueError, RecursionError):
        return False
    return True


def is_json_corrected(text: str, args: Args) -> bool:
    try:
        return isinstance(json.loads(_unfenced(text), parse_constant=_refuse), dict | list)
    except (ValueError, RecursionError):
        return False


def _first_word(paragraph: str) -> str:
    word = paragraph.split()[0].lstrip("'").lstrip('"')
    return re.split(r"[.,?!'\"]", word)[0].lower()


def nth_first_word(text: str, args: Args) -> bool:
    parts = text.split("\n\n")
    count = sum(bool(part.strip()) for part in parts)
    nth = args["nth_paragraph"]
    if nth > count or not parts[nth - 1].strip():
        return False
    return count == args["num_paragraphs"] and _first_word(parts[nth - 1].strip()) == args["first_word"].lower()


def nth_first_word_corrected(text: str, args: Args) -> bool:
    parts = texts.paragraphs(text)
    if len(parts) != args["num_paragraphs"]:
        return False
    words = [word for word in (one.strip("*_#>~") for one in parts[args["nth_paragraph"] - 1].split()) if word]
    return bool(words) and _first_word(words[0]) == args["first_word"].lower()


def two(text: str, args: Args) -> bool:
    parts = [part.strip() for part in text.split("******")]
    kept = [part for part in parts if part]
    return all(parts[1:-1]) and len(kept) == 2 and kept[0] != kept[1]


def repeats(text: str, args: Args) -> bool:
    return text.strip().lower().startswith(args["prompt_to_repeat"].strip().lower())


def repeats_corrected(text: str, args: Args) -> bool:
    prompt, text = args["prompt_to_repeat"].strip(), text.strip()
    return text.lower().startswith(prompt.lower()) and bool(text[len(prompt) :].strip())


def ends_with(text: str, args: Args) -> bool:
    return text.strip().strip('"').lower().endswith(args["end_phrase"].strip().lower())


def title(text: str, args: Args) -> bool:
    for line in text.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if 0 <= start <= end - 3 and line[start:end].lstrip("<").rstrip(">").strip():
            return True
    return False


def no_comma(text: str, args: Args) -> bool:
    return "," not in text


def quoted(text: str, args: Args) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == '"' and text[-1] == '"'
