r"""Words, sentences and paragraphs as IFEval's checkers count them, without nltk.

The authors count words with `\w+`, sentences with nltk's English Punkt model, and words in capitals with nltk's
Treebank tokenizer. The rules are written down here, from their definition: Punkt's decision for a full stop rests on
its abbreviations and on which words it has seen written small; its abbreviations are all here, of its 14,700 words
written small the ordinary ones. So a full stop after an abbreviation or an initial is read alike when an ordinary
word, a number or a name follows, and may be read otherwise before a rare word with a capital.
Source: Kiss and Strunk 2006, Unsupervised Multilingual Sentence Boundary Detection, section 4; Zhou et al. 2023
(arXiv 2311.07911).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

WORD = re.compile(r"\w+")

_ABBREVIATIONS = frozenset(
    """a.a a.c a.d a.g a.h a.m a.m.e a.s a.t adm ala ariz aug ave b.f b.v bros c c.i.t c.o.m.b c.v calif chg cie co
    col colo conn corp cos ct d d.c d.h d.w dec dr e e.f e.h e.l e.m f f.g f.j feb fla fri ft g g.d g.f g.k ga gen
    h h.c h.f h.m i.m.s ill inc j.b j.c j.j j.k j.p j.r jan jr k kan ky l l.a l.f l.p lt ltd m m.b.a m.d.c m.j maj
    messrs mg mich minn mr mrs ms n n.c n.d n.h n.j n.m n.v n.y nev nov oct ok okla ore p p.a.m p.m pa ph.d prof r
    r.a r.h r.i r.j r.k r.t rep reps s s.a s.a.y s.c s.g s.p.a s.s sen sep sept sr st sw t t.j tenn tues u.k u.n
    u.s u.s.a u.s.s.r v va vs vt w w.c w.r w.va w.w wash wed wis yr""".split()  # noqa: SIM905
)
"""Words that end in a full stop without ending a sentence, in Punkt's English model."""

_STARTERS = frozenset(
    """most he since so both these it nevertheless this indeed however instead under similarly some though while when in
    despite although nonetheless thus there if the nor separately moreover but they yet many according sales among
    meanwhile even i""".split()  # noqa: SIM905
)
"""Words that begin a sentence after an abbreviation, if they have a capital."""

_SMALL = frozenset(
    """able above ad allowed already altogether always amount animals anything appear apply bag become begin being
    besides better between body boxes build came cannot caught cause choose collect complete contains cost covered
    create currently dark difference different direct does dollars double drink early earn eight either else
    enough entire equal equally eventually ever exact exactly example except exercise explain extra eye fact feet
    files fill final finally finish fish follow following friend furthermore gave girl gives goes going ground
    hear her here him hold horse hot hour hours hundred idea important include including increased individual
    inside instead into items language laugh learn least letters list listen lot lunch mean meters mind minute
    months moon moreover morning mother need needs normally note nothing number object ocean older otherwise
    overall page pages particular pass per percent person piece pieces plain planted play playing please points
    problem product provide pull put question questions rain ran received remember repeating response right round
    runs sadly same saw season seconds seem sentence separate similar simple sing sit size slow snow so sometimes
    soon specific spend spent stand starting step still stood such suddenly surface tall teach ten them therefore
    think though thought thousand through throughout throw together tomorrow took true try trying turn ultimately
    unfortunately unless upon us uses using very wait walk wants warm weeks weight went were whether which whole
    whom within without words wrapped writing written yes yesterday yet your""".split()  # noqa: SIM905
)
"""Ordinary words that Punkt's model has seen written small and never with a capital inside a sentence."""

_EITHER = frozenset(
    """a about add additional after again against age all also although among an and another answer any are around as
    at average away b back be because been before below best blue book books both bought bring building but by can
    change children city come could country cut data day days decided did do down during each earth eat end even
    every face fall family far feel few find fire first five food for form found four free friends from front full
    game general get gets give go gold good got government great green group grow had half hand hard has have he
    head heart help high his home hope house how however if in information interest is island it its job just keep
    kind king know land large last late later law lead leave left less let letter life light like line little live
    local long look love low made make making man many mark may me meanwhile might mile minutes miss money month
    more most mountain move much music must my name names near never new next night no north not notice now of off
    often old on once one only open or order other our out over own paper park part party pay people perhaps
    picture place plan plant point poor possible power press price produce public quick reach read real red
    request rest road rock room rule run said say school science sea second see sells set several share she ship
    short should show side since six sleep small some song sound south space special star start state stay stop
    story street strong students study sun sure table take takes talk tell test than that the their then there
    these they thing third this those three time times to today told too top total toward town travel tree twice
    two under unit until up use used usual usually voice want war was watch water way we week well west what wheel
    when where while white who why will wind with wonder wood word work works world would write year years you
    young""".split()  # noqa: SIM905
)
"""Ordinary words that it has seen written small, and with a capital inside a sentence as well."""

_NON_WORD = r"[)\";}\]*:@'({\[‘’“”«»!?]"
_CANDIDATE = re.compile(rf"[.?!](?=({_NON_WORD}|\s+(\S+)))")
_MULTI = r"(?:-{2,}|\.{2,}|(?:\.\s){2,}\.)"
_TOKEN = re.compile(
    rf"{_MULTI}|(?=[^(\"`{{\[:;&#*@)}}\]\-,])\S+?(?=\s|$|{_NON_WORD}|{_MULTI}|,(?=$|\s|{_NON_WORD}|{_MULTI}))|\S"
)
_NUMBER = re.compile(r"^-?[.,]?\d[\d,.-]*\.?$")
_INITIAL = re.compile(r"[^\W\d]\.$")
_CLOSING = re.compile(r"[\"')\]}‘’“”«»]+?(?:\s+|(?=--)|$)", re.MULTILINE)
_BLANKS = " \t\n\r\x0b\x0c"
_LONGEST = 200
"""Characters of a token that are looked at; nothing longer is an abbreviation."""


def count_words(text: str) -> int:
    r"""Runs of letters, digits and underscores: `don't` is two.

    >>> count_words("It's 3.5 km.")
    5
    """
    return sum(1 for _ in WORD.finditer(text))


def sentences(text: str) -> list[str]:
    """A text's sentences in order, closing quotes and brackets with the sentence before them.

    >>> sentences('Dr. Smith came at 5 p.m. on Monday. "Hello!" he said... Then he left.')
    ['Dr. Smith came at 5 p.m. on Monday.', '"Hello!"', 'he said... Then he left.']
    """
    return list(_sentences(text))


@lru_cache(maxsize=64)
def _sentences(text: str) -> tuple[str, ...]:
    """`sentences`, remembered: several constraints and variants ask for those of one reply."""
    found = []
    carried = 0
    spans = list(_spans(text))
    for i, (start, end) in enumerate(spans):
        start += carried
        carried = 0
        if i + 1 < len(spans) and (closing := _CLOSING.match(text[slice(*spans[i + 1])])):
            end = spans[i + 1][0] + len(closing[0].rstrip())
            carried = closing.end()
            found.append(text[start:end])
        elif text[start:end]:
            found.append(text[start:end])
    return tuple(found)


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Where sentences start and end, before closing marks are given to the sentence they close."""
    last = 0
    for found, context in _candidates(text):
        if _breaks(context):
            yield last, found.end()
            last = found.start(2) if found[2] else found.end()
    yield last, len(text.rstrip())


def _candidates(text: str) -> Iterator[tuple[re.Match[str], str]]:
    """Possible ends with the word before and what comes after; of several in one word, the last."""
    start = stop = 0
    before: re.Match[str] | None = None
    for found in _CANDIDATE.finditer(text):
        blank = max((text.rfind(one, stop, found.start()) for one in _BLANKS), default=-1)
        begin = blank + 1 if blank > stop else start
        if before is not None and stop <= begin:
            yield before, text[start:stop] + before[0] + before[1]
        before, start, stop = found, begin, found.start()
    if before is not None:
        yield before, text[start:stop] + before[0] + before[1]


def _breaks(context: str) -> bool:
    """Whether a sentence ends within a context: a token that ends one has another after it."""
    if len(context) > 2 * _LONGEST:
        context = context[-2 * _LONGEST :]
    tokens = [token for line in context.split("\n") for token in _TOKEN.findall(line)]
    return any(_ends(one, following) for one, following in pairwise(tokens))


def _ends(token: str, following: str) -> bool:
    """Whether a token ends its sentence, given the next (Kiss and Strunk, sections 4.1 to 4.3)."""
    if token in ("?", "!", "."):
        return True
    ellipsis = token.endswith("..") and not token.strip(".")
    if not token.endswith(".") or (token.endswith("..") and not ellipsis):
        return False
    bare = token[:-1].lower()
    known = not ellipsis and (bare in _ABBREVIATIONS or bare.rpartition("-")[2] in _ABBREVIATIONS)
    initial = _INITIAL.match(token) is not None
    ends = not ellipsis and not known
    if (known or ellipsis) and not initial:
        ends = _starts(following) is True or (following[0].isupper() and _kind(following) in _STARTERS)
    if initial or _NUMBER.match(token):
        starts = _starts(following)
        if starts is False or (starts is None and initial and following[0].isupper() and not _seen_small(following)):
            return False
    return ends


def _kind(token: str) -> str:
    """A token in lower case, without the full stop that would end a sentence."""
    kind = token.lower()
    return kind[:-1] if kind.endswith(".") and len(kind) > 1 and kind[:-1] not in _ABBREVIATIONS else kind


def _seen_small(token: str) -> bool:
    kind = _kind(token)
    return kind != "i" and (kind in _SMALL or kind in _EITHER or kind in _STARTERS)


def _starts(token: str) -> bool | None:
    """Whether a token begins a sentence by how it is written; None where that does not tell."""
    if token in (";", ":", ",", ".", "!", "?"):
        return False
    if token[0].isupper() and _kind(token) in _SMALL:
        return True
    return False if token[0].islower() else None


_QUOTES = re.compile(r"[«»“”‘’„\"`]|''")
_APART = re.compile(r"[;@#$%&?!*\[\](){}<>‒-―]|--|\.{2,}|[:,](?!\d)")
_LAST_STOP = re.compile(r"(?<!\.)\.[\])}>'\s]*$")
_CLITIC = re.compile(r"(?<=[^' ])('(?:[sSmMdD]|ll|LL|re|RE|ve|VE)?|n't|N'T)(?= |$)")
_CONTRACTED = re.compile(
    r"(?i)\b(?:(can)(not)|(d)('ye)|(gim)(me)|(gon)(na)|(got)(ta)|(lem)(me)|(more)('n)|(wan)(na))\b"
)


def capital_words(text: str) -> int:
    """Tokens all of whose letters are capitals, with at least one, as the Treebank tokenizer cuts them.

    A word with a hyphen is one, a contraction two.

    >>> capital_words("A WELL-KNOWN fact: IT'S true, NASA said. I CANNOT.")
    8
    """
    return sum(token.isupper() for sentence in sentences(text) for token in _treebank(sentence))


def _treebank(sentence: str) -> list[str]:
    """A sentence's tokens, as far as their capitals go: marks without letters may be cut otherwise or left out."""
    sentence = _APART.sub(" ", _QUOTES.sub(" ", sentence))
    sentence = _LAST_STOP.sub(" ", sentence)
    sentence = _CLITIC.sub(r" \1", " ".join(sentence.split()))
    return _CONTRACTED.sub(lambda found: " ".join(part for part in found.groups() if part), sentence).split()


def contains_word(text: str, word: str) -> bool:
    """Whether a word or phrase stands in a text by itself, in capitals or not."""
    return count_phrase(text, word) > 0


def count_phrase(text: str, phrase: str) -> int:
    """How often a phrase stands by itself in a text, in capitals or not; `cat` is not in `concatenate`."""
    return len(re.findall(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, flags=re.IGNORECASE))


def paragraphs(text: str) -> list[str]:
    """What stands between empty lines, stripped; nothing empty.

    >>> paragraphs("a b\\n\\n\\n c\\n \\nd")
    ['a b', 'c', 'd']
    """
    return [part.strip() for part in re.split(r"\n[ \t]*\n", text) if part.strip()]


def lines(text: str) -> list[str]:
    """The lines that are not blank, stripped."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def plain_words(text: str) -> list[str]:
    """A text's words in lower case, with their inner apostrophes and hyphens.

    >>> plain_words("Well-known, isn't it? 3.5")
    ['well-known', "isn't", 'it', '3', '5']
    """
    return re.findall(r"\w+(?:['’-]\w+)*", text.lower())
