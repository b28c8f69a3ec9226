"""How often one policy's answers are worth more than another's, prompt by prompt."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from onepolicy.errors import DataError
from onepolicy.evaluation.stats import Interval, bootstrap_interval


def win_rate(ours: ArrayLike, theirs: ArrayLike) -> Interval:
    """P(our answer is worth more) + P(equal) / 2 over prompts, all pairs of a prompt's answers; 95 % over prompts.

    ours [P, n], theirs [P, m]: scores of answers to the same P prompts; NaN for one that could not be judged, left out.
    Raises: DataError for other shapes, or no prompt with a judged answer on both sides.

    >>> win_rate([[1.0], [0.0]], [[0.0], [0.0]]).value
    0.75
    """
    a, b = np.asarray(ours, float), np.asarray(theirs, float)
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b):
        raise DataError(f"scores have shapes {a.shape} and {b.shape}; expected [P, n] and [P, m], the same P prompts.")
    left, right = a[:, :, None], b[:, None, :]
    known = np.isfinite(left) & np.isfinite(right)
    wins = np.where(known, (left > right) + 0.5 * (left == right), 0.0).sum((1, 2))
    counts = known.sum((1, 2))
    if not counts.any():
        raise DataError("no prompt has an answer on both sides that could be judged; there is nothing to compare.")
    return bootstrap_interval(wins[counts > 0] / counts[counts > 0])
