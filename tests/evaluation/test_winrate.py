"""Win rates by hand, with answers that could not be judged."""

import numpy as np
import pytest

from onepolicy.errors import DataError
from onepolicy.evaluation.winrate import win_rate


def test_by_hand():
    """Prompt 0: 2 against (1, 2): 1 and 1/2. Prompt 1: (0, 3) against (1, 1): 0 and 1. Prompt 2: unjudged."""
    nan = float("nan")
    found = win_rate([[2.0, nan], [0.0, 3.0], [nan, nan]], [[1.0, 2.0], [1.0, 1.0], [0.0, 0.0]])
    assert found.value == pytest.approx((0.75 + 0.5) / 2)
    assert found.low == pytest.approx(0.5)
    assert found.high == pytest.approx(0.75)


def test_equal_policies_win_half_and_order_is_reversed_by_exchange():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(300, 3)), rng.normal(size=(300, 2)) + 0.5
    assert win_rate(a, a).value == pytest.approx(0.5)
    assert win_rate(a, b).value == pytest.approx(1 - win_rate(b, a).value)
    assert win_rate(b, a).low > 0.5


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(DataError, match=r"\(2, 1\) and \(1, 1\)"):
        win_rate([[1.0], [2.0]], [[1.0]])
    with pytest.raises(DataError, match="no prompt has an answer"):
        win_rate([[float("nan")]], [[1.0]])
