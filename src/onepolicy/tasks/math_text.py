r"""Answers as text: where a completion writes its answer, and one spelling for the many that LaTeX has.

Nothing here knows what a formula means. `boxes` finds the contents of `\boxed{}`, `normalise` takes out what changes
only how a formula looks, `too_hard` refuses what no honest answer is before anything reads it.
"""

from __future__ import annotations

import re

from onepolicy.tasks.math_spelling import respell
from onepolicy.tasks.rewards import MAX_ANSWER, AnswerFormat, split_thinking

MAX_NESTING = 40
"""Brackets inside one another at most."""

MAX_PROSE = 4000
"""Characters at a text's end among which prose is searched for its answer."""

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*(?:(\{)|(?<=[dx])\s([^\s{}\\$]))")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_OPENING, _CLOSING = "([{", ")]}"


def boxes(text: str) -> list[str]:
    r"""The contents of every `\boxed{}`, in order, stripped; one whose braces do not balance is left out.

    A box inside a box is not listed apart. Takes time linear in the text.

    >>> boxes(r"so \boxed{\frac{1}{2}} and \boxed 3, \boxed{4")
    ['\\frac{1}{2}', '3']
    """
    closes: dict[int, int] = {}
    opened: list[int] = []
    if "boxed" not in text and "box{" not in text:
        return []
    for brace in _BRACE.finditer(text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif brace[0] == "}" and opened:
            closes[opened.pop()] = brace.start()
    found, position = [], 0
    while match := _BOX.search(text, position):
        position = match.end()
        if match[2]:
            found.append(match[2])
        elif end := closes.get(match.start(1)):
            found.append(text[match.end() : end].strip())
            position = end
    return found


def too_hard(text: str) -> str | None:
    """Why a text is refused before it is read, or None: length and nesting."""
    if len(text) > MAX_ANSWER:
        return f"{len(text):,} characters; at most {MAX_ANSWER:,} are read"
    depth = deepest = 0
    for letter in text:
        depth += (letter in _OPENING) - (letter in _CLOSING)
        deepest = max(deepest, depth)
    return f"brackets {deepest} deep; at most {MAX_NESTING} are read" if deepest > MAX_NESTING else None


_UNICODE = {
    "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "≤": r"\le ", "≥": r"\ge ",
    "≠": r"\ne ", "∞": r"\infty ", "π": r"\pi ", "√": r"\sqrt ", "±": r"\pm ", "∓": r"\mp ", "°": r"^\circ ",
    "²": "^2", "³": "^3", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "½": r"\frac{1}{2}",
    "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ",
    "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "ℝ": r"\mathbb{R}", "€": " ", "£": " ",
    "→": r"\to ", "’": "'", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\t": " ", "\n": " ",
}  # fmt: skip
_UNICODE_TABLE = str.maketrans(_UNICODE)

_THOUSANDS = re.compile(r"(?<=\d)(?:\s*\{,\}\s*|\s*,\s*\\!\s*|\s*\\!\s*,\s*|\s*\\[,;:]\s*)(?=\d{3}(?!\d))")
_FUNCTIONS = (
    "arcsinh arccosh arctanh arsinh arcosh artanh arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth "
    "sin cos tan cot sec csc ln lg log exp sqrt floor ceil abs"
)
FUNCTION_NAMES = tuple(_FUNCTIONS.split())
"""Functions that are known by name, with or without a backslash; a longer name comes before its beginning."""

_REPLACED = [
    (re.compile(r"\\begin\{(?:[bB]?(?:small)?matrix|array)\}(?:\{[lcr| ]*\})?"), r"\\begin{pmatrix}"),
    (re.compile(r"\\end\{(?:[bB]?(?:small)?matrix|array)\}"), r"\\end{pmatrix}"),
    (re.compile(r"\\(?:left|right)\s*\.(?!\d)"), " "),
    (re.compile(r"\\m?(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])"), ""),
    (re.compile(r"(?<!\\)\\(?:[,;:! ]|q?quad(?![A-Za-z])|(?:displaystyle|textstyle|limits)(?![A-Za-z]))|~"), " "),
    (re.compile(r"\\(?:hspace|vspace|phantom|hphantom)\*?\{[^{}]*\}|\\(?:mkern|kern)[-\d.]+\w\w"), " "),
    (re.compile(r"\\(?:lbrace|lgroup)(?![A-Za-z])"), r"\\{"),
    (re.compile(r"\\(?:rbrace|rgroup)(?![A-Za-z])"), r"\\}"),
    (re.compile(r"\\lbrack(?![A-Za-z])"), "["),
    (re.compile(r"\\rbrack(?![A-Za-z])"), "]"),
    (re.compile(r"\\(?:[lr]?vert|mid)(?![A-Za-z])"), "|"),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\[dt]binom(?![A-Za-z])"), r"\\binom"),
    (re.compile(r"\\(?:leqslant|leqq|leq)(?![A-Za-z])|<=|=<"), r"\\le "),
    (re.compile(r"\\(?:geqslant|geqq|geq)(?![A-Za-z])|>="), r"\\ge "),
    (re.compile(r"\\lt(?![A-Za-z])"), "<"),
    (re.compile(r"\\gt(?![A-Za-z])"), ">"),
    (re.compile(r"\\neq(?![A-Za-z])|!="), r"\\ne "),
    (re.compile(r"\\(?:ast|star)(?![A-Za-z])|\*"), r"\\cdot "),
    (re.compile(r"\\cdot\s*\\cdot(?![A-Za-z])"), "^"),
    (re.compile(r"\\(?:mbox|textnormal|textrm|textbf|textit|textsf|textup|emph|hbox)(?![A-Za-z])"), r"\\text"),
    (re.compile(r"\\text\s*\{\s*\}"), " "),
    (re.compile(r"\\math(?:rm|bf|it|sf|cal|frak|scr)\s*\{\s*([A-Za-z])\s*\}"), r" \1 "),
    (re.compile(r"\\math(?:rm|bf|it|sf|cal|frak|scr)\s+([A-Za-z])"), r" \1 "),
    (re.compile(r"\\(?:mathrm|mathbf|mathit|mathsf|boldsymbol|bm)\s*(?=\{\s*[-\d\\(])"), ""),
    (re.compile(r"\\(?:mathrm|mathbf|mathit|mathsf)(?![A-Za-z])"), r"\\text"),
    (re.compile(r"\\(?:boldsymbol|bm)(?![A-Za-z])"), ""),
    (re.compile(rf"\\operatorname\*?\s*\{{\s*({'|'.join(FUNCTION_NAMES)})\s*\}}"), r"\\\1 "),
    (re.compile(r"\\operatorname\*?(?![A-Za-z])"), r"\\text"),
    (re.compile(r"[,;]?\s*(?:\\text\s*\{\s*[,;]?\s*(?:and|or)\s*\}|\\(?:land|lor|vee|wedge)(?![A-Za-z]))\s*,?"), " , "),
    (re.compile(r"\\(?:degree|textdegree)(?![A-Za-z])|\^\s*\{?\s*\\circ\s*\}?"), r"\\degree "),
    (re.compile(r"\\(?:varnothing|emptyset)(?![A-Za-z])|\\\{\s*\\\}"), r"\\emptyset "),
    (re.compile(r"\\(?:varepsilon)(?![A-Za-z])"), r"\\epsilon "),
    (re.compile(r"\\(?:varphi)(?![A-Za-z])"), r"\\phi "),
    (re.compile(r"\\(?:Bbb|mathbb)\s*\{?\s*([A-Z])\s*\}?"), r"\\mathbb{\1}"),
    (re.compile(r"^(\s*[A-Za-z](?:_\{?\w+\}?)?\s*)\\(?:approx|simeq)(?![A-Za-z])"), r"\1="),
    (re.compile(r"(?<=\S)\s*\\(?:approx|simeq)(?![A-Za-z]).*$"), ""),
    (re.compile(r"\^\s*\{\s*((?:\\prime\s*)+)\}|\^\s*(\\prime)(?![A-Za-z])"), "'"),
    (re.compile(r"\b(?:np|math|numpy)\.(?=[a-z])"), ""),
]  # fmt: skip
_AND = re.compile(r"[,;]?\s*(?<![A-Za-z\\])(?:and|or)(?:(?![A-Za-z])(?=\s*\S)|(?=[A-Z]\b|[a-z]\s*=))\s*,?")
_MONEY = re.compile(r"^(-?)\s*(?:US|USD)?\s*\\\$\s*(-?[\d.,]+)$")
_ROOT_SIGN = re.compile(r"√\s*(\d+(?:\.\d+)?|[A-Za-z])")
_DOUBLED = re.compile(r"\\\\(?=[A-Za-z])")
_GROUPED_BY_SPACES = re.compile(r"(?<![\d.])\d{1,3}(?: \d{3})+(?![\d])")
_DELIMITERS = (("$$", "$$"), (r"\[", r"\]"), (r"\(", r"\)"), ("$", "$"))


def normalise(text: str) -> str:
    r"""One spelling: delimiters, spacing, fonts, dollar signs and thousands separators put aside, synonyms united.

    `\text{…}` keeps its braces, since it may be a name or a unit. Deterministic; any text is taken.

    >>> normalise(r"$\left(\dfrac{1}{2},\, 10{,}080 \right)$.")
    '(\\frac{1}{2}, 10080 )'
    """
    text = _ROOT_SIGN.sub(r"\\sqrt{\1}", text.replace(r"\text{°}", "°")).translate(_UNICODE_TABLE).strip()
    for opening, closing in _DELIMITERS:
        if text.startswith(opening) and text.endswith(closing) and len(text) >= len(opening) + len(closing):
            text = text[len(opening) : len(text) - len(closing)].strip()
    text = text.strip("*").strip().removesuffix("\\\\").removesuffix("\\").rstrip()
    text = _THOUSANDS.sub("", text if "matrix" in text or "array" in text else _DOUBLED.sub(r"\\", text))
    text = _MONEY.sub(r"\1\2\\text{ dollars}", text)
    text = text.replace(r"\$", " ").replace("$", " ")
    for pattern, replacement in _REPLACED:
        text = pattern.sub(replacement, text)
    text = _AND.sub(" , ", text) if "\\text" not in text else text
    text = _GROUPED_BY_SPACES.sub(lambda match: match[0].replace(" ", ""), text)
    text = respell(re.sub(r"\s+", " ", text).strip())
    return text.rstrip(" .;") if not text.endswith("...") else text


def split_top(text: str, separators: str = ",;") -> list[str]:
    r"""The parts between separators that stand in no bracket, stripped. Intervals such as `[0,1)` are brackets too.

    >>> split_top(r"(1,2], \{3,4\}, 5")
    ['(1,2]', '\\{3,4\\}', '5']
    """
    parts, depth, start, place = [], 0, 0, 0
    while place < len(text):
        letter = text[place]
        if letter == "\\":
            escaped = text[place + 1 : place + 2]
            word = re.match(r"\\[A-Za-z]+", text[place:])
            name = word[0] if word else ""
            depth += (escaped == "{" or name in (r"\langle", r"\begin")) - (
                escaped == "}" or name in (r"\rangle", r"\end")
            )
            place += len(name) or 2
            continue
        if letter in separators and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
        depth += (letter in _OPENING) - (letter in _CLOSING)
        place += 1
    return [*parts, text[start:].strip()]


_ENVIRONMENT = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<!\\)\$((?:\\\$|[^$])+?)(?<!\\)\$", re.DOTALL)
_ANCHOR = re.compile(r"(?i:\banswer\b(?:[^.\n$\\]{0,60}?\bis\b|\s*:)\s*:?\**)\s*")
_PROSE = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{3,}")
_JOINED = re.compile(r"\s*(?:,|,?\s*and|,?\s*or)\s*")
_TAIL = re.compile(r"(?:(?<!\d)\.|\.(?!\d)|<\||\n).*$", re.DOTALL)
_LAST_NUMBER = re.compile(
    r"(?<![A-Za-z\d.])-?\$?(?:\d{1,3}(?:,\d{3})+|\d+,\d{1,2}(?![\d,])|\d+)?(?:\.\d+|(?<=\d))(?:/\d+)?\s?%?"
)


def final_answer(text: str) -> str | None:
    """The answer that prose without a box ends in, or None where it is not clear which.

    In this order: the whole text if it has no words; what follows the last "answer is" or "answer:"; the last formula
    or number. Formulas joined by "and" or "or" are one list.

    >>> final_answer("So $x \\ge 5$ solves it."), final_answer("The answer is 7."), final_answer("It is $1$ or $2$")
    ('x \\\\ge 5', '7', '1 , 2')
    """
    text = text[-MAX_PROSE:]
    if not _PROSE.search(text) and not _ENVIRONMENT.search(text):
        return text.strip() or None
    formulas = [(m.start(), m.end(), next(g for g in m.groups() if g).strip()) for m in _ENVIRONMENT.finditer(text)]
    for anchor in reversed(list(_ANCHOR.finditer(text))):
        first = next((i for i, (start, _, _) in enumerate(formulas) if start == anchor.end()), None)
        if first is not None:
            return _joined(text, formulas, first)
        plain = _TAIL.sub("", text[anchor.end() :]).strip(" *")
        if any(letter.isalnum() for letter in plain):
            numbers = [number for number in _LAST_NUMBER.findall(plain) if number.strip()]
            return numbers[-1].strip() if numbers and _PROSE.search(plain) else plain
    after = formulas[-1][1] if formulas else 0
    numbers = [number for number in _LAST_NUMBER.findall(text[after:][-MAX_ANSWER:]) if number.strip()]
    if numbers:
        return numbers[-1].strip()
    if not formulas:
        return None
    first = len(formulas) - 1
    while first and _JOINED.fullmatch(text[formulas[first - 1][1] : formulas[first][0]]):
        first -= 1
    return _joined(text, formulas, first)


def _joined(text: str, formulas: list[tuple[int, int, str]], first: int) -> str:
    """The formula number `first` and those that an "and", "or" or comma joins to it, as a list."""
    last = first
    while last + 1 < len(formulas) and _JOINED.fullmatch(text[formulas[last][1] : formulas[last + 1][0]]):
        last += 1
    return " , ".join(formula for _, _, formula in formulas[first : last + 1])


def _boxed_answer(text: str) -> str | None:
    """The last box after the thinking, or None."""
    found = boxes(split_thinking(text)[1])
    return found[-1] if found else None


def _open_answer(text: str) -> str | None:
    """The last box after the thinking; without one, what the prose ends in."""
    rest = split_thinking(text)[1]
    found = boxes(rest)
    return found[-1] if found else final_answer(rest)


def _has_answer(text: str) -> bool:
    return _open_answer(text) is not None


def _keeps_box(text: str) -> bool:
    return len(set(boxes(split_thinking(text)[1]))) == 1


def _write_boxed(thinking: str, answer: str) -> str:
    return f"{thinking}\n\\boxed{{{answer}}}" if thinking else f"\\boxed{{{answer}}}"


BOXED = AnswerFormat(
    "boxed",
    _boxed_answer,
    _keeps_box,
    _write_boxed,
    r"Please reason step by step, and put your final answer within \boxed{}.",
)
r"""The final answer in `\boxed{}`, after the thinking if there is any."""

OPEN = AnswerFormat(
    "open",
    _open_answer,
    _has_answer,
    _write_boxed,
    "Please reason step by step, and end with the final answer.",
)
"""Lenient: the last box, or what the prose ends in. For models trained elsewhere."""
