"""The linear equations of a policy, (I - discount P_pi) v = r_pi, with as little as the model's size allows."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse import linalg

from onepolicy.tabular.planning import kernels
from onepolicy.tabular.planning.solution import Work
from onepolicy.tabular.planning.sweeps import Sweeps
from onepolicy.tabular.storage import Floats, Policy

DENSE_UP_TO = 1000
"""States up to which the dense solver is the fastest and the most exact."""
SHARE = 1e-2
"""What a Krylov solve leaves of a residual: policy iteration needs no more before it changes the policy."""


def correction(sweeps: Sweeps, residual: Floats, policy: Policy, work: Work, *, share: float) -> Floats:
    """x of (I - discount P_pi) x = residual, exact for small models, else with a residual `share` times as large.

    With residual T_pi v - v, v + x is V^pi.
    """
    n = sweeps.num_states
    residual = np.where(sweeps.mdp.terminal, 0.0, residual)
    if n <= DENSE_UP_TO:
        work.sweeps += sweeps.share
        return np.asarray(
            np.linalg.solve(np.eye(n) - sweeps.discount * policy_matrix(sweeps, policy).toarray(), residual)
        )
    zero, moved = np.zeros(n), np.empty(n)
    sweeps.follow(zero, moved, policy)
    rewards = moved.copy()

    def apply(x: Floats) -> Floats:
        sweeps.follow(np.ascontiguousarray(x).reshape(-1), moved, policy)
        work.sweeps += sweeps.share
        return np.asarray(x.reshape(-1) - (moved - rewards))

    operator = linalg.LinearOperator((n, n), matvec=apply, dtype=np.float64)
    x, info = linalg.bicgstab(operator, residual, rtol=share, atol=0.0, maxiter=1000)
    if info == 0 and np.isfinite(x).all():
        return np.asarray(x)
    x, info = linalg.gmres(operator, residual, rtol=share, atol=0.0, restart=30, maxiter=20)
    return np.asarray(x) if np.isfinite(x).all() else residual


def policy_matrix(sweeps: Sweeps, policy: Policy) -> sparse.csr_array:
    """P_pi [S, S]."""
    n = sweeps.num_states
    ptr = np.zeros(n + 1, dtype=np.int64)
    kernels.count_chosen(sweeps.model, n, policy, ptr)
    successors, probabilities = np.empty(ptr[-1], dtype=np.int64), np.empty(ptr[-1])
    kernels.fill_chosen(sweeps.model, n, policy, ptr, successors, probabilities)
    return sparse.csr_array((probabilities, successors, ptr), shape=(n, n))
