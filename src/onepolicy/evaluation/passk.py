"""What k samples of a problem say beyond pass@k: that all are right, and which answer they agree on.

pass@k and maj@k themselves are in `evaluation/stats.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from numpy.typing import ArrayLike

from onepolicy.evaluation.stats import Array, all_of_k


def pass_hat_k(n: ArrayLike, correct: ArrayLike, k: int) -> Array:
    """The probability that all of k samples are right, estimated without bias from `correct` right of n.

    pass^k = C(c, k) / C(n, k) = prod_{i=0}^{k-1} (c - i) / (n - i), elementwise: how reliable a policy is, where pass@k
    says what it can reach. Raises: DataError for k outside 1..n or correct outside 0..n.
    Source: Yao et al. 2024 (tau-bench, arXiv 2406.12045), section 4.1.

    >>> pass_hat_k(4, [1, 3, 4], 2)
    array([0. , 0.5, 1. ])
    """
    return all_of_k(n, correct, k)


def most_voted(answers: Sequence[str | None], correct: Sequence[bool]) -> tuple[str | None, int]:
    """(the answer with the most votes, its votes); (None, 0) without votes.

    All right samples vote together, under the first of their writings; of tied answers the one that came first.

    >>> most_voted(["7", "8", "7.0", None], [True, False, True, False])
    ('7', 2)
    """
    keys = [("right", "") if right else ("wrong", answer) for answer, right in zip(answers, correct, strict=True)]
    voting = [(key, answer) for key, answer in zip(keys, answers) if key[1] is not None]
    if not voting:
        return None, 0
    key, votes = Counter(key for key, _ in voting).most_common(1)[0]
    return next((answer for other, answer in voting if other == key), None), votes
