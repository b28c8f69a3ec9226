r"""Rarer spellings of answers, put into the common one: repeating decimals, chosen and permuted things, bases, `]a,b[`.

Text in, text out, after `math_text.normalise`'s first passes; each rule is about one notation and leaves all else.
"""

from __future__ import annotations

import re

_OPEN_INTERVAL = re.compile(r"([\]\[])([^\[\]]+,[^\[\]]+)([\]\[])")
_RULES = [
    # {10 \choose 3}, ^{10}C_3, _{10}C_3, C(10,3)
    (re.compile(r"\{([^{}]+?)\\choose(?![A-Za-z])\s*([^{}]+?)\}"), r"\\binom{\1}{\2}"),
    (re.compile(r"^([^{}]+?)\\choose(?![A-Za-z])\s*([^{}]+?)$"), r"\\binom{\1}{\2}"),
    (
        re.compile(r"(?:(?<![\w)}])|\{\s*\})[\^_]\s*(?:\{(\w+)\}|(\w))\s*C\s*_\s*(?:\{(\w+)\}|(\w))"),
        r"\\binom{\1\2}{\3\4}",
    ),
    (re.compile(r"(?<![A-Za-z\\])C\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)"), r"\\binom{\1}{\2}"),
    # 1011 (base 2), 1011_{\text{base }2}
    (re.compile(r"^(-?[0-9A-Z]+)\s*(?:\\text\s*\{\s*\(?\s*|\(\s*)base\s*(\w+)\s*\)?\s*\}?$"), r"\1_{\2}"),
    (re.compile(r"_\s*\{\s*\\text\s*\{\s*base\s*(\d*)\s*\}\s*(\d*)\s*\}"), r"_{\1\2}"),
    # USD 5
    (re.compile(r"^(?:\\text\s*\{\s*USD\s*\}|USD)\s*(-?[\d.,]+)$"), r"\1\\text{ dollars}"),
    # (k \in \mathbb{Z}) behind a family of solutions
    (
        re.compile(
            r"(?<=[\w})])(?:\s*[,;(]+\s*|\s+)(?:\\text\s*\{\s*(?:for|where|with)\s*\})?\s*[a-z]\s*\\in\s*\\mathbb\{Z\}\s*\)?$"
        ),
        "",
    ),
    # 6 cis 90°, cis(\pi/3)
    (
        re.compile(
            r"(?:\\text\s*\{\s*cis\s*\}|(?<![A-Za-z\\])cis(?![A-Za-z]))\s*(?:\(([^()]+)\)|\{([^{}]+)\}|([^()+,]+))$"
        ),
        r"(\\cos(\1\2\3)+i\\sin(\1\2\3))",
    ),
]
_DOTTED = re.compile(r"(\d+\.\d*)\\dot\s*\{?\s*(\d)\s*\}?(?:(\d*)\\dot\s*\{?\s*(\d)\s*\}?)?(?![\d\\])")
_GOES_ON = re.compile(r"(?<![\d.])(\d+\.)(\d{2,60}?)\s*(?:\\l?dots(?![A-Za-z])|\.\.\.|…)$")
_FOLLOWS = re.compile(
    r"\\(?:implies|Rightarrow|Longrightarrow|Leftrightarrow|iff|therefore|Longleftrightarrow)(?![A-Za-z])"
)
_RELATES = re.compile(r"[=<>]|\\(?:le|ge|ne)(?![A-Za-z])")
_SOLVED = re.compile(r"\s*\\?[A-Za-z]\w*\s*(?:[=<>]|\\le|\\ge)\s*-?[^-+A-Za-z=]*")


def respell(text: str) -> str:
    r"""A normalised answer with rarer notations in the common one.

    >>> [respell(text) for text in (r"0.\dot{3}", r"0.1\dot{2}3\dot{4}", r"0.3636...", "]-2,3]", "1011 (base 2)")]
    ['0.\\overline{3}', '0.1\\overline{234}', '0.\\overline{36}', '(-2,3]', '1011_{2}']
    """
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    if "dot" in text or text.endswith(("...", "…")):
        text = _DOTTED.sub(lambda m: f"{m[1]}\\overline{{{m[2]}{m[3] or ''}{m[4] or ''}}}", text)
        text = _GOES_ON.sub(lambda m: m[1] + _repeating(m[2], m[0][len(m[1]) + len(m[2]) :]), text)
    return _turned(text) if "]" in text or "[" in text else text


def conclusion(text: str) -> str:
    r"""What an equation leads to: the part behind the last arrow, where what stands before it is to be solved.

    >>> conclusion(r"2x+1=15 \implies x=7"), conclusion(r"x=7 \implies x=8")
    ('x=7', 'x=7 \\implies x=8')
    """
    parts = _FOLLOWS.split(text)
    before = [part.strip() for part in parts[:-1] if part.strip()]
    led = all(_RELATES.search(part) and re.search("[A-Za-z]", part) and not _solved(part) for part in before)
    return parts[-1].strip() if len(parts) > 1 and led and parts[-1].strip() else text


def _solved(relation: str) -> bool:
    """Whether it says what a name is, so that what is behind an arrow would be a second answer."""
    return _SOLVED.fullmatch(re.sub(r"\\(?:frac|sqrt|pi|cdot|times)(?![A-Za-z])", " ", relation)) is not None


def _repeating(digits: str, rest: str) -> str:
    """Digits that go on, with the block that repeats at least twice at their end under a line; else as they are."""
    for period in range(1, len(digits) // 2 + 1):
        block = digits[-period:]
        start = len(digits)
        while start >= period and digits[start - period : start] == block:
            start -= period
        if len(digits) - start >= 2 * period:
            while start and digits[start - 1] == digits[start + period - 1]:
                start -= 1
            return f"{digits[:start]}\\overline{{{digits[start : start + period]}}}"
    return digits + rest


def _turned(text: str) -> str:
    """`]a,b[` as `(a,b)`, in each part of a union; other brackets as they are."""
    parts = re.split(r"(\\cup(?![A-Za-z]))", text)
    for place in range(0, len(parts), 2):
        found = _OPEN_INTERVAL.fullmatch(parts[place].strip())
        if found and (found[1] == "]" or found[3] == "["):
            parts[place] = f"{'(' if found[1] == ']' else '['}{found[2]}{')' if found[3] == '[' else ']'}"
    return "".join(parts)
