r"""Formulas as trees: a tokenizer and a recursive descent over what short LaTeX answers are written in.

Numbers are exact. What the grammar does not know (sums, integrals, limits, set builders) raises `Unread`; nothing is
guessed, nothing left over is ignored, nothing is evaluated. Length and nesting are bounded by `math_text.too_hard`.
"""

from __future__ import annotations

import re
from fractions import Fraction

from onepolicy.tasks.math_formula import EULER, IMAGINARY, INFINITY, PI, Call, Formula, Number, Symbol, Unread
from onepolicy.tasks.math_text import FUNCTION_NAMES

MAX_DEPTH = 60
"""Calls of the grammar inside one another at most."""
MAX_DIGITS = 400
"""Digits of one number at most."""
MAX_TENS = 400
"""Powers of ten in a number's own notation (`1e99`) at most."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+(?![A-Za-z\d.]))?)|(?P<command>\\[A-Za-z]+|\\.)"
    r"|(?P<space>\s)|(?P<other>\S))"
)
_WORDS = (*FUNCTION_NAMES, "infinity", "infty", "pi", "inf", "oo", "binom", "frac", "theta", "alpha", "beta", "lambda")
_GREEK_NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi omega "
    "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega hbar ell odot partial nabla Re Im aleph "
    "vartheta varrho varsigma"
)
_GREEK = set(_GREEK_NAMES.split())
_ACCENTS = {"dot", "ddot", "vec", "bar", "hat", "tilde", "overline", "widehat", "widetilde", "underline"}
_OPAQUE = set("fghFGHPQRSTWIuvyxV\\delta\\phi\\psi\\Gamma\\Phi\\Psi")
_TRIGONOMETRIC = {"sin", "cos", "tan", "cot", "sec", "csc"}
_INVERSE = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "sinh": "arcsinh", "cosh": "arccosh", "tanh": "arctanh"}
_SPELLINGS = {"arsinh": "arcsinh", "arcosh": "arccosh", "artanh": "arctanh"}
_PAIRS = {"(": ")", "[": "]", "{": "}", "\\{": "\\}"}
_ROUND = {"\\lfloor": ("\\rfloor", "floor"), "\\lceil": ("\\rceil", "ceil")}


def parse(text: str) -> Formula:
    r"""The tree of a normalised formula. Raises: Unread, saying what was not understood.

    >>> parse(r"1\frac{1}{2}") == parse(r"1+\frac12")
    True
    """
    return _Parser(text).whole()


def tokens_of(text: str) -> list[str]:
    """The tokens of a formula; runs of letters are cut into known words and single letters."""
    tokens: list[str] = []
    place = 0
    text = text.strip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            break
        token = match["number"] or match["command"] or match["other"] or ""
        place = match.end()
        if token.isalpha():
            word = next((word for word in _WORDS if text.startswith(word, place - 1)), token)
            if len(word) > 1:
                place, token = place - 1 + len(word), f"\\{word}"
        if token.strip():
            tokens.append(token)
    return tokens


def read_literal(token: str) -> Number:
    """A number token, exactly. Raises: Unread for more digits or powers of ten than are read."""
    mantissa, _, power = token.lower().partition("e")
    if len(mantissa) > MAX_DIGITS or len(power) > 5 or (power and abs(int(power)) > MAX_TENS):
        raise Unread("a number of too many digits")
    value = Fraction(mantissa.rstrip(".") or "0")
    return Number(value * Fraction(10) ** int(power or 0), token)


class _Parser:
    """One formula's tokens and how far they are read."""

    def __init__(self, text: str) -> None:
        self.tokens = tokens_of(text)
        self.place = 0
        self.depth = 0
        self.bars = 0
        self.trigonometric = 0

    def whole(self) -> Formula:
        if not self.tokens:
            raise Unread("nothing")
        formula = self.sum()
        if self.place < len(self.tokens):
            raise Unread(f"unexpected {self.peek()!r}")
        return formula

    def peek(self, ahead: int = 0) -> str:
        place = self.place + ahead
        return self.tokens[place] if place < len(self.tokens) else ""

    def next(self) -> str:
        token = self.peek()
        self.place += 1
        return token

    def take(self, token: str) -> bool:
        found = self.peek() == token
        self.place += found
        return found

    def expect(self, token: str) -> None:
        if not self.take(token):
            raise Unread(f"{token!r} is missing before {self.peek()!r}")

    def signs(self) -> bool:
        """Whether the signs that stand here make a minus."""
        minus = False
        while self.peek() in ("+", "-"):
            minus ^= self.next() == "-"
        return minus

    def sum(self) -> Formula:
        terms: list[Formula] = []
        while not terms or self.peek() in ("+", "-"):
            minus = self.signs()
            term = self.product()
            terms.append(_negative(term) if minus else term)
        return terms[0] if len(terms) == 1 else Call("add", tuple(terms))

    def product(self) -> Formula:
        over = [self.powered()]
        under: list[Formula] = []
        while True:
            token = self.peek()
            if token in ("\\cdot", "\\times", "/", "\\div", ":"):
                self.next()
                minus = self.signs()
                factor = self.powered()
                (over if token in ("\\cdot", "\\times") else under).append(_negative(factor) if minus else factor)
            elif self.starts_factor():
                self.beside(over, apart=bool(under))
            else:
                break
        left = over[0] if len(over) == 1 else Call("mul", tuple(over))
        if not under:
            return left
        return Call("div", (left, under[0] if len(under) == 1 else Call("mul", tuple(under))))

    def beside(self, factors: list[Formula], *, apart: bool = False) -> None:
        """Read what follows without a sign as one more factor, or as the fraction of a mixed number.

        apart: a division stands before, so that a number here starts no mixed one.
        """
        left = factors[-1]
        whole = (
            isinstance(left, Number) and left.value.denominator == 1 and left.text.lstrip("-").isdigit() and not apart
        )
        if whole and self.peek() == "\\frac":
            factor = self.powered()
            if _proper(factor):
                factors[-1] = Call("add", (left, factor))
            else:
                factors.append(factor)
            return
        digits = self.peek()[:1].isdigit() or self.peek()[:1] == "."
        if not digits or self.tokens[self.place - 1] in (")", "}", "]", "|", "!") or self.peek(1) == "^":
            factors.append(self.powered())
            return
        if not (whole and self.peek(1) == "/" and self.peek(2).isdigit()):
            raise Unread("two numbers side by side")
        over = self.powered()
        self.expect("/")
        fraction = Call("div", (over, self.powered()))
        if not _proper(fraction):
            raise Unread("two numbers side by side")
        factors[-1] = Call("add", (left, fraction))

    def starts_factor(self) -> bool:
        token = self.peek()
        if token == "|":
            return self.bars == 0
        if token in ("(", "[", "{", "\\{") or token[:1].isalnum() or token[:1] == ".":
            return True
        return (
            token.startswith("\\") and token[1:2].isalpha() and token not in ("\\rfloor", "\\rceil", "\\end", "\\bmod")
        )

    def powered(self) -> Formula:
        base = self.postfixed()
        if self.take("^"):
            return Call("pow", (base, self.script()))
        return base

    def postfixed(self) -> Formula:
        formula = self.primary()
        if self.take("!"):
            formula = Call("fact", (formula,))
        if self.peek() in ("%", "\\%"):
            self.next()
            formula = Call("div", (formula, Number(Fraction(100))))
        if self.take("\\degree") and self.trigonometric:
            formula = Call("div", (Call("mul", (formula, PI)), Number(Fraction(180))))
        return formula

    def script(self) -> Formula:
        """What stands behind `^` or a command without braces: a group, a signed number, or one token."""
        if self.peek() in ("+", "-"):
            return _negative(self.script()) if self.signs() else self.script()
        if self.peek() == "\\frac" or self.peek() in ("{", "("):
            return self.primary()
        return self.postfixed() if self.peek().startswith("\\") else self.primary()

    def argument(self) -> Formula:
        """A braced group, or one digit, letter or command, as TeX reads it."""
        token = self.peek()
        if token[:1].isdigit() and len(token) > 1 and token.isdigit():
            self.tokens[self.place] = token[1:]
            return read_literal(token[0])
        return self.primary()

    def group(self) -> Formula:
        closing = _PAIRS[self.next()]
        bars, self.bars = self.bars, 0
        inner = self.sum()
        self.expect(closing)
        self.bars = bars
        return inner

    def primary(self) -> Formula:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unread("too deeply nested")
        formula = self.first(self.peek())
        self.depth -= 1
        return formula

    def first(self, token: str) -> Formula:
        if token in _PAIRS:
            return self.group()
        if token == "|":
            return self.absolute()
        self.next()
        if token[:1].isdigit() or token[:1] == ".":
            return self.number(token)
        if token.isalpha():
            return self.symbol(token)
        if token.startswith("\\"):
            return self.command(token[1:])
        raise Unread(f"unexpected {token!r}" if token else "it ends too early")

    def number(self, token: str) -> Formula:
        number = read_literal(token)
        if self.peek() == "\\overline" and "." in token and "e" not in token.lower():
            self.next()
            digits = self.braced()
            if not digits.isdigit() or len(digits) > 40:
                raise Unread("an overline over no digits")
            places = len(token.partition(".")[2])
            repeated = Fraction(int(digits), 10 ** len(digits) - 1) / 10**places
            return Number(number.value + repeated)
        if self.peek() == "_":
            raise Unread("a number with an index")
        return number

    def absolute(self) -> Formula:
        self.expect("|")
        self.bars += 1
        inner = self.sum()
        self.bars -= 1
        self.expect("|")
        return Call("abs", (inner,))

    def command(self, name: str) -> Formula:
        name = _SPELLINGS.get(name, name)
        if name == "frac":
            over = self.argument()
            return Call("div", (over, self.argument()))
        if name == "binom":
            upper = self.argument()
            return Call("binom", (upper, self.argument()))
        if name == "sqrt":
            return self.root()
        if f"\\{name}" in _ROUND:
            closing, operation = _ROUND[f"\\{name}"]
            inner = self.sum()
            self.expect(closing)
            return Call(operation, (inner,))
        if name in FUNCTION_NAMES:
            return self.function(name)
        if name == "pi":
            return PI
        if name in ("infty", "infinity", "inf", "oo"):
            return INFINITY
        if name in _GREEK:
            return self.symbol(f"\\{name}")
        if name in _ACCENTS:
            return self.symbol(f"{name}({self.braced()})" if self.peek() == "{" else f"{name}({self.next()})")
        if name == "text":
            return self.symbol(f"text({self.braced().strip()})")
        raise Unread(f"\\{name} is not read")

    def root(self) -> Formula:
        if self.take("["):
            degree = self.sum()
            self.expect("]")
            return Call("root", (self.argument(), degree))
        return Call("sqrt", (self.argument(),))

    def function(self, name: str) -> Formula:
        base: Formula | None = None
        power: Formula | None = None
        while self.peek() in ("_", "^"):
            if self.next() == "_":
                base = self.argument()
            else:
                power = self.script()
        self.trigonometric += name in _TRIGONOMETRIC
        inner = self.primary() if self.peek() in ("(", "{", "|", "[") else self.bare_argument()
        self.trigonometric -= name in _TRIGONOMETRIC
        if power == _negative(Number(Fraction(1), "1")) and name in _INVERSE:
            name, power = _INVERSE[name], None
        if name == "log":
            arguments: tuple[Formula, ...] = (inner, base or Number(Fraction(10), "10"))
        elif base is not None:
            raise Unread(f"\\{name} with an index")
        else:
            arguments = (inner,)
        if name == "lg":
            name, arguments = "log", (inner, Number(Fraction(10), "10"))
        applied = Call("pow", (EULER, inner)) if name == "exp" else Call(name, arguments)
        return applied if power is None else Call("pow", (applied, power))

    def bare_argument(self) -> Formula:
        """The argument of a function without brackets: factors side by side, up to a sign or the next function."""
        minus = self.signs()
        factors = [self.powered()]
        while self.starts_factor() and self.peek()[1:] not in FUNCTION_NAMES and self.peek() not in ("(", "["):
            self.beside(factors)
        inner = factors[0] if len(factors) == 1 else Call("mul", tuple(factors))
        while self.peek() == "/" and self.peek(1).isdigit():
            self.next()
            inner = Call("div", (inner, self.powered()))
        return _negative(inner) if minus else inner

    def symbol(self, name: str) -> Formula:
        while self.peek() in ("_", "'"):
            name += self.next()
            if name.endswith("_"):
                index = self.braced() if self.peek() == "{" else self.next()
                name += index.replace(" ", "")
        if name in ("e", "i"):
            return EULER if name == "e" else IMAGINARY
        if self.peek() == "(" and self.peek(2) == ")" and (name in _OPAQUE or self.peek(1)[:1].isdigit()):
            inside = self.peek(1)
            if inside[:1].isalnum() or inside[1:] in _GREEK:
                self.place += 3
                return self.symbol(f"{name}({inside})")
        return Symbol(name)

    def braced(self) -> str:
        """The tokens of a group as text, or one token."""
        if not self.take("{"):
            return self.next()
        words: list[str] = []
        depth = 1
        while self.place < len(self.tokens):
            token = self.next()
            depth += (token == "{") - (token == "}")
            if depth == 0:
                return "".join(words)
            words.append(token)
        raise Unread("a brace is not closed")


def _negative(formula: Formula) -> Formula:
    if isinstance(formula, Number) and formula.value >= 0 and not formula.text.startswith("-"):
        return Number(-formula.value, f"-{formula.text}" if formula.text else "")
    return Call("neg", (formula,))


def _proper(fraction: Formula) -> bool:
    """Whether a formula is a fraction of whole numbers between 0 and 1."""
    if not (isinstance(fraction, Call) and fraction.name == "div"):
        return False
    over, under = fraction.args
    if not (isinstance(over, Number) and isinstance(under, Number)):
        return False
    return over.text.isdigit() and under.text.isdigit() and 0 < over.value < under.value
