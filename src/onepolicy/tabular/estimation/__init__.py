"""What an expectation is, from samples of another distribution: estimates with intervals, and what they rest on.

Of single samples here and in samples.py; of a policy, from logged episodes, in episodes.py.
"""

from __future__ import annotations

from onepolicy.tabular.estimation.samples import (
    Estimate,
    bootstrap,
    covered,
    effective_sample_size,
    importance_sampling,
    log_ratio,
    log_weights,
    monte_carlo,
    normal,
    tail_index,
    weighted_importance_sampling,
)

__all__ = [
    "Estimate",
    "bootstrap",
    "covered",
    "effective_sample_size",
    "importance_sampling",
    "log_ratio",
    "log_weights",
    "monte_carlo",
    "normal",
    "tail_index",
    "weighted_importance_sampling",
]
