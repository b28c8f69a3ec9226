"""Best of n: how right the answer is that a judge likes best, estimated from more samples than n."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import comb

from onepolicy.errors import DataError


def best_of_n(scores: Sequence[float], values: Sequence[float], n: int) -> float:
    """The expected value of the best-scored of n of the N samples, over all C(N, n) choices of them.

    With samples in ascending order of score, sum_i v_i C(i - 1, n - 1) / C(N, n), i from 1; samples of equal score
    share their weight. scores: what the judge says. values: what counts, such as 1 for right and 0 for wrong.
    Raises: DataError for n outside 1..N, or numbers of scores and values that differ.
    Source: the unbiased estimator of Nakano et al. 2021 (WebGPT, arXiv 2112.09332), appendix I.

    >>> best_of_n([0.1, 0.9, 0.5], [1.0, 0.0, 1.0], 1), best_of_n([0.1, 0.9, 0.5], [1.0, 0.0, 1.0], 3)
    (0.6666666666666666, 0.0)
    """
    total = len(scores)
    if len(values) != total or not 1 <= n <= total:
        raise DataError(f"best of {n} of {total} scores and {len(values)} values; need 1 <= n <= N, a value a score.")
    order = sorted(range(total), key=lambda i: scores[i])
    found, below = 0.0, 0
    for _, same in groupby(order, key=lambda i: scores[i]):
        tied = [values[i] for i in same]
        chosen = comb(below + len(tied), n) - comb(below, n)
        found += chosen * sum(tied) / len(tied)
        below += len(tied)
    return found / comb(total, n)
