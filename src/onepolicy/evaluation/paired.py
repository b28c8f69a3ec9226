"""Two models on the same problems: the difference with its interval, and how likely chance alone would make it.

What makes a problem hard cancels in a difference on the same problem, so this is much sharper than two intervals side
by side. Not here: runs of several seeds (stats.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom

from onepolicy.errors import DataError
from onepolicy.evaluation.stats import Interval, paired_difference

EXACT = 14
"""Problems that differ up to which all 2^n signs are tried instead of drawn."""
DRAWS = 20_000


@dataclass(frozen=True)
class Paired:
    """A minus B on the problems both were judged on.

    name: of what was compared. a, b: the means. difference: of the means, with its bootstrap interval over problems.
    wins, losses: problems on which A scored more, or less. p: two-sided, by `test`. left_out: problems that one of the
    two lacks or that could not be judged.
    """

    name: str
    problems: int
    a: float
    b: float
    difference: Interval
    wins: int
    losses: int
    p: float
    test: str
    left_out: int = 0

    def text(self) -> str:
        """One line."""
        out = f", {self.left_out} left out" if self.left_out else ""
        return (
            f"{self.name}: {100 * self.a:.1f} % against {100 * self.b:.1f} %, difference {self.difference.percent()}, "
            f"better on {self.wins} and worse on {self.losses} of {self.problems} problems{out}, "
            f"p = {self.p:.3g} ({self.test})"
        )


def compare(name: str, a: Mapping[str, float], b: Mapping[str, float], *, seed: int = 0) -> Paired:
    """A against B, each problem id -> score (a verdict, or a share of right samples); NaN could not be judged.

    Verdicts of 0 and 1 are tested by McNemar's exact test, shares by permutation of signs.
    Raises: DataError when the two share no judged problem.
    """
    shared = [key for key in a if key in b and not np.isnan(a[key]) and not np.isnan(b[key])]
    if not shared:
        raise DataError(f"{name}: the two share no problem that was judged in both; evaluate them on the same set.")
    first, second = np.array([a[key] for key in shared]), np.array([b[key] for key in shared])
    wins, losses = int((first > second).sum()), int((first < second).sum())
    binary = bool(np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all())
    p = mcnemar(wins, losses) if binary else sign_permutation(first - second, seed=seed)
    return Paired(
        name=name,
        problems=len(shared),
        a=float(first.mean()),
        b=float(second.mean()),
        difference=paired_difference(first, second, seed=seed),
        wins=wins,
        losses=losses,
        p=p,
        test="McNemar, exact" if binary else "sign permutation",
        left_out=len(set(a) | set(b)) - len(shared),
    )


def mcnemar(wins: int, losses: int) -> float:
    """The two-sided p of `wins` against `losses` when each is as likely.

    2 P(X <= min(wins, losses)), X ~ Binomial(wins + losses, 1/2), at most 1.
    Source: McNemar 1947; the exact form of Fagerland, Lydersen and Laake 2013, section 2.

    >>> mcnemar(5, 0)
    0.0625
    """
    n = wins + losses
    return min(1.0, float(2 * binom.cdf(min(wins, losses), n, 0.5))) if n else 1.0


def sign_permutation(differences: ArrayLike, *, draws: int = DRAWS, seed: int = 0) -> float:
    """The two-sided p of a mean of paired differences [n] when the sign of each is a coin's.

    All 2^n signs for up to 14 differences that are not 0, else `draws` at random, the observed one counted among them.
    Source: Fisher 1935, section 21; Phipson and Smyth 2010 for (hits + 1) / (draws + 1).

    >>> sign_permutation([0.5, 0.25, 0.125])
    0.25
    """
    d = np.asarray(differences, dtype=np.float64)
    d = d[d != 0]
    if d.size == 0:
        return 1.0
    observed = abs(d.sum()) * (1 - 1e-12)
    if d.size <= EXACT:
        signs = 1 - 2 * ((np.arange(2**d.size)[:, None] >> np.arange(d.size)) & 1)
        return float((np.abs(signs @ d) >= observed).mean())
    rng = np.random.default_rng(seed)
    rows = max(1, (1 << 22) // d.size)
    hits = 0
    for start in range(0, draws, rows):
        signs = 1 - 2 * rng.integers(2, size=(min(rows, draws - start), d.size))
        hits += int((np.abs(signs @ d) >= observed).sum())
    return (hits + 1) / (draws + 1)


def holm(p: Sequence[float]) -> list[float]:
    """The p-values corrected for their number, in the order given.

    Sorted p_(1) <= ... <= p_(m): max over j <= i of min(1, (m - j + 1) p_(j)). Source: Holm 1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    found = [0.0] * len(p)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        found[place] = highest
    return found
