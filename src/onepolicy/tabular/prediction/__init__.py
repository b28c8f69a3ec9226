"""What a policy is worth in each state, learnt from its episodes: tables and linear features, one update a method.

learners.py: Monte Carlo and temporal differences; linear.py: what stays sound off-policy; least_squares.py: no step
size; fixpoints.py: where each ends, from the model; expected.py: the updates without noise.
"""

from __future__ import annotations

from onepolicy.tabular.prediction.learners import (
    Estimate,
    Problem,
    every_visit_mc,
    first_visit_mc,
    importance_ratios,
    lambda_return_td,
    lambda_returns,
    n_step_returns,
    n_step_td,
    n_step_td_weighted_target,
    offline_td_lambda,
    td0,
    td_lambda,
    td_lambda_replacing,
    true_online_td,
)
from onepolicy.tabular.prediction.least_squares import least_squares_mc, lstd
from onepolicy.tabular.prediction.linear import emphatic_td, gtd2, tdc

__all__ = [
    "Estimate",
    "Problem",
    "emphatic_td",
    "every_visit_mc",
    "first_visit_mc",
    "gtd2",
    "importance_ratios",
    "lambda_return_td",
    "lambda_returns",
    "least_squares_mc",
    "lstd",
    "n_step_returns",
    "n_step_td",
    "n_step_td_weighted_target",
    "offline_td_lambda",
    "td0",
    "td_lambda",
    "td_lambda_replacing",
    "tdc",
    "true_online_td",
]
