"""Overlap of a text with references: BLEU, chrF and TER by sacrebleu, ROUGE-1, -2 and -L by definition; in [0, 1].

Sentence-level scores, as a reward needs them; a corpus-level score is another thing and belongs to evaluation.
`signature` says exactly what was computed; write it beside a figure.
Sources: Papineni et al. 2002 (BLEU); Popović 2015 (chrF); Snover et al. 2006 (TER); Post 2018 (arXiv 1804.08771,
signatures); Lin 2004 (ROUGE).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from onepolicy.errors import ConfigError, nearest
from onepolicy.tasks.form import Side, check_side, side_of
from onepolicy.types import Score, Task

Metric = Literal["bleu", "chrf", "chrf++", "ter", "rouge1", "rouge2", "rougeL"]
METRICS: tuple[Metric, ...] = ("bleu", "chrf", "chrf++", "ter", "rouge1", "rouge2", "rougeL")

TOKENIZERS = ("13a", "intl", "zh", "char", "none")
"""BLEU's tokenizers that need nothing more to be installed or fetched."""

MAX_TEXT = 20_000
"""Characters of an answer at most; a longer one scores 0 and is not looked at."""

MAX_TER_WORDS = 100
"""Words of an answer and of a reference at most for TER, whose time grows with their cube on repetitive text."""

_WORD = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_]+")


@dataclass(frozen=True)
class OverlapVerifier:
    """How far a reply overlaps with a task's references, as value and as part under the metric's name.

    metric: one of METRICS; TER is an error rate, its reward is 1 - min(1, TER). References: the task's answer and those
    in meta["references"]; ROUGE takes the best, the others what sacrebleu makes of several. side: which part of the
    completion. tokenize: of BLEU. lowercase: ignore case. threshold: None pays the score, a number pays 1 from it on.

    Raises: ConfigError for an unknown metric, side or tokenizer, or a threshold outside (0, 1].
    """

    metric: Metric = "chrf"
    side: Side = "answer"
    tokenize: str = "13a"
    lowercase: bool = False
    threshold: float | None = None

    def __post_init__(self) -> None:
        check_side(self.side)
        if self.metric not in METRICS:
            raise ConfigError(f"Unknown metric {self.metric!r}. {nearest(str(self.metric), METRICS)}")
        if self.tokenize not in TOKENIZERS:
            raise ConfigError(f"Unknown tokenizer {self.tokenize!r}. {nearest(str(self.tokenize), TOKENIZERS)}")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ConfigError(f"threshold is {self.threshold}; it must be in (0, 1], or None to pay the score itself.")

    @property
    def isolated(self) -> bool:
        """Whether it belongs into the worker pool: TER does, which takes seconds on repetitive text."""
        return self.metric == "ter"

    @property
    def signature(self) -> str:
        """What is computed: sacrebleu's signature, or ROUGE's settings in its manner."""
        if self.metric.startswith("rouge"):
            return f"{self.metric}|refs:best|f1|case:lc|stem:no|tok:word"
        scorer = _scorer(self.metric, self.tokenize, self.lowercase)
        scorer.sentence_score("a", ["a"])
        return re.sub(r"nrefs:\d+\|", "", f"{self.metric}|{scorer.get_signature()}")

    def __call__(self, task: Task, text: str) -> Score:
        references = references_of(task)
        if not references:
            return Score(
                None, {self.metric: None}, "gold: no reference; put one into the answer or meta['references']."
            )
        reply = side_of(text, self.side).strip()
        overlap = 0.0
        words = MAX_TER_WORDS if self.metric == "ter" else MAX_TEXT
        if any(len(reference.split()) > words for reference in references):
            return Score(None, {self.metric: None}, f"gold: a reference has more than {words} words, too many for TER.")
        if reply and len(reply) <= MAX_TEXT and len(reply.split()) <= words:
            overlap = self._overlap(reply, references)
        value = overlap if self.threshold is None else float(overlap >= self.threshold)
        return Score(value, {self.metric: overlap})

    def _overlap(self, reply: str, references: list[str]) -> float:
        if self.metric.startswith("rouge"):
            return ROUGE[self.metric](reply, references)
        score = _scorer(self.metric, self.tokenize, self.lowercase).sentence_score(reply, references).score / 100
        return min(1.0, max(0.0, 1 - score if self.metric == "ter" else score))


def references_of(task: Task) -> list[str]:
    """A task's references that are not blank: its answer, then meta["references"]."""
    given = task.meta.get("references", ())
    more = [one for one in given if isinstance(one, str)] if isinstance(given, list | tuple) else []
    return [one.strip() for one in (task.answer, *more) if one.strip()]


@lru_cache(maxsize=32)
def _scorer(metric: str, tokenize: str, lowercase: bool) -> Any:
    from sacrebleu.metrics import BLEU, CHRF, TER

    if metric == "bleu":
        return BLEU(tokenize=tokenize, lowercase=lowercase, effective_order=True)
    if metric == "ter":
        return TER(case_sensitive=not lowercase)
    return CHRF(lowercase=lowercase, word_order=2 if metric == "chrf++" else 0)


def words_of(text: str) -> list[str]:
    """ROUGE's words: runs of letters and digits in lower case, characters of scripts without blanks."""
    return _WORD.findall(text.lower())


def rouge_n(reply: str, references: Sequence[str], n: int) -> float:
    """ROUGE-N as F1, the best over the references.

    With c the clipped count of common n-grams: precision c / n-grams of the reply, recall c / those of the reference.
    Source: Lin 2004, section 2; F1 instead of recall, which a long reply would win.

    >>> rouge_n("the cat sat", ["the cat ran off"], 1)
    0.5714285714285714
    """
    own = _grams(words_of(reply), n)
    return max((_f1((own & other).total(), own.total(), other.total()) for other in _each(references, n)), default=0.0)


def rouge_l(reply: str, references: Sequence[str]) -> float:
    """ROUGE-L as F1 of the longest common subsequence, over the whole texts, the best over the references.

    Source: Lin 2004, section 3.1, with beta 1.

    >>> rouge_l("police kill the gunman", ["police killed the gunman"])
    0.75
    """
    own = words_of(reply)
    return max(
        (_f1(common_subsequence(own, other), len(own), len(other)) for other in map(words_of, references)), default=0.0
    )


def common_subsequence(one: Sequence[str], two: Sequence[str]) -> int:
    """The length of the longest common subsequence, by the bits of one integer a row.

    Source: Hyyrö 2004, Bit-parallel LCS-length computation revisited.

    >>> common_subsequence("abcbdab", "bdcaba")
    4
    """
    places: dict[str, int] = {}
    for i, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << i
    full = (1 << len(one)) - 1
    row = full
    for word in two:
        hits = row & places.get(word, 0)
        row = ((row + hits) | (row - hits)) & full
    return len(one) - row.bit_count()


def _grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _each(references: Sequence[str], n: int) -> list[Counter[tuple[str, ...]]]:
    return [_grams(words_of(reference), n) for reference in references]


def _f1(common: int, own: int, other: int) -> float:
    return 2 * common / (own + other) if common else 0.0


def _rouge_1(reply: str, references: Sequence[str]) -> float:
    return rouge_n(reply, references, 1)


def _rouge_2(reply: str, references: Sequence[str]) -> float:
    return rouge_n(reply, references, 2)


ROUGE: dict[str, Callable[[str, Sequence[str]], float]] = {"rouge1": _rouge_1, "rouge2": _rouge_2, "rougeL": rouge_l}
"""ROUGE by name."""
