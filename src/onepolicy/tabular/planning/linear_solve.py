"""The linear equations of a policy, (I - discount P_pi) v = r_pi, with as little as the model's size allows.

Large models are solved by BiCGSTAB, compiled: a pass reads the policy's rows where they are stored, adds up the scalar
products on its way, and is shared as sweeps are. scipy's takes its products from BLAS, whose threads wait by spinning.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import sparse
from scipy.sparse import linalg

from onepolicy.tabular.jit import jit
from onepolicy.tabular.planning import kernels
from onepolicy.tabular.planning.kernels import U, backup, num_actions
from onepolicy.tabular.planning.solution import Work
from onepolicy.tabular.planning.sweeps import Sweeps
from onepolicy.tabular.storage import Floats, Policy, Storage

DENSE_UP_TO = 1000
"""States up to which the dense solver is the fastest and the most exact."""
SHARE = 1e-2
"""What a Krylov solve leaves of a residual: policy iteration needs no more before it changes the policy."""
MOST = 1000
"""Steps of a Krylov solve, of two passes each."""
BROKEN = 1e-16
"""The cosine of the residual and its shadow from which on their recursion says nothing more."""
LOST = 1e-13
"""The part of a residual's norm, at its greatest, that rounding may have left in x."""
SUMS = {"reassoc", "contract"}
"""What a compiler may do to a sum of products: add it up several at a time."""
Pair = tuple[float, float]


def correction(sweeps: Sweeps, residual: Floats, policy: Policy, work: Work, *, share: float) -> Floats:
    """x of (I - discount P_pi) x = residual, exact for small models, else with a residual `share` times as large.

    With residual T_pi v - v, v + x is V^pi. Where `work` is over, or steps or digits are used up, x is what there is.
    """
    n = sweeps.num_states
    residual = np.where(sweeps.mdp.terminal, 0.0, residual)
    if n > DENSE_UP_TO:
        x, left = bicgstab(sweeps, residual, policy, work, share=share)
        return x if left <= share or work.over() else gmres(sweeps, residual, policy, work, share=share)
    work.sweeps += sweeps.share
    return np.asarray(np.linalg.solve(np.eye(n) - sweeps.discount * policy_matrix(sweeps, policy).toarray(), residual))


def bicgstab(sweeps: Sweeps, residual: Floats, policy: Policy, work: Work, *, share: float) -> tuple[Floats, float]:
    """x of (I - discount P_pi) x = residual (0 in terminal states), and how much of the residual's norm is left.

    At most `share` is, unless `work` is over, the steps are used up, or the residual grew until its digits were lost.
    Where the recursion breaks down it begins again with what is left; where nothing was gained, x is the residual,
    which is one sweep's step. Source: van der Vorst 1992.
    """

    def total(kernel: Callable[..., Pair], *given: object) -> Pair:
        found = sweeps.run(lambda first, last: kernel(first, last, *given), sweeps.num_states)
        return sum(one for one, _ in found), sum(two for _, two in found)

    def image(v: Floats, out: Floats, other: Floats) -> Pair:
        work.sweeps += sweeps.share
        return total(_image, sweeps.model, policy, sweeps.discount, v, out, other)

    x, r, shadow, p = np.zeros_like(residual), residual.copy(), residual.copy(), residual.copy()
    ap, ar = np.zeros_like(x), np.zeros_like(x)
    rho = left = start = reference = total(_products, r, r)[0]
    for _ in range(MOST):
        if left <= share**2 * start or work.over():
            break
        alpha = _ratio(rho, image(p, ap, shadow)[0])
        halfway = total(_less, r, ap, alpha)[0]
        omega = _ratio(*image(r, ar, r)) if halfway > share**2 * start else 0.0
        before, (rho, left) = rho, total(_step, x, r, shadow, p, ar, alpha, omega)
        if not left <= (share / LOST) ** 2 * start:
            break
        if abs(rho) > BROKEN * math.sqrt(left * reference) and omega != 0:
            total(_turn, p, r, ap, rho / before * alpha / omega, omega)
        else:
            shadow[:], p[:] = r, r
            rho = reference = left
    return (x, math.sqrt(left / start)) if left < start else (residual, 1.0 if start else 0.0)


def gmres(sweeps: Sweeps, residual: Floats, policy: Policy, work: Work, *, share: float) -> Floats:
    """x of the same equations by scipy's GMRES, which gains where BiCGSTAB does not: on long one-way walks, say."""
    out, ignored = np.empty_like(residual), np.zeros_like(residual)

    def apply(x: Floats) -> Floats:
        work.sweeps += sweeps.share
        sweeps.run(lambda first, last: _image(
            first, last, sweeps.model, policy, sweeps.discount, np.ravel(x), out, ignored
        ), sweeps.num_states)  # fmt: skip
        return out.copy()

    operator = linalg.LinearOperator((len(out), len(out)), matvec=apply, dtype=np.float64)
    x, _ = linalg.gmres(operator, residual, rtol=share, atol=0.0, restart=30, maxiter=20)
    return np.asarray(x) if np.isfinite(x).all() else residual


def _ratio(one: float, two: float) -> float:
    return one / two if two else 0.0


def policy_matrix(sweeps: Sweeps, policy: Policy) -> sparse.csr_array:
    """P_pi [S, S]."""
    n = sweeps.num_states
    ptr = np.zeros(n + 1, dtype=np.int64)
    kernels.count_chosen(sweeps.model, n, policy, ptr)
    successors, probabilities = np.empty(ptr[-1], dtype=np.int64), np.empty(ptr[-1])
    kernels.fill_chosen(sweeps.model, n, policy, ptr, successors, probabilities)
    return sparse.csr_array((probabilities, successors, ptr), shape=(n, n))


@jit(fastmath=SUMS)
def _image(
    first: int, last: int, model: Storage, policy: Policy, discount: float, v: Floats, out: Floats, other: Floats
) -> Pair:
    """out = (I - discount P_pi) v; out . other and out . out."""
    with_other, size = 0.0, 0.0
    for i in range(last - first):
        s = U(first) + U(i)
        new = v[s]
        if num_actions(model, s) > 0:
            new -= discount * backup(model, s, policy[s], v)[1]
        out[s] = new
        with_other += new * other[s]
        size += new * new
    return with_other, size


@jit(fastmath=SUMS)
def _products(first: int, last: int, one: Floats, two: Floats) -> Pair:
    """one . two, twice."""
    found = 0.0
    for s in range(first, last):
        found += one[U(s)] * two[U(s)]
    return found, found


@jit(fastmath=SUMS)
def _less(first: int, last: int, r: Floats, ap: Floats, alpha: float) -> Pair:
    """r - alpha A p; its square, and nothing."""
    left = 0.0
    for i in range(first, last):
        s = U(i)
        r[s] -= alpha * ap[s]
        left += r[s] * r[s]
    return left, 0.0


@jit(fastmath=SUMS)
def _step(
    first: int, last: int, x: Floats, r: Floats, shadow: Floats, p: Floats, ar: Floats, alpha: float, omega: float
) -> Pair:
    """x + alpha p + omega r, r - omega A r; r . shadow and r . r."""
    with_shadow, left = 0.0, 0.0
    for i in range(first, last):
        s = U(i)
        x[s] += alpha * p[s] + omega * r[s]
        new = r[s] - omega * ar[s]
        r[s] = new
        with_shadow += new * shadow[s]
        left += new * new
    return with_shadow, left


@jit
def _turn(first: int, last: int, p: Floats, r: Floats, ap: Floats, beta: float, omega: float) -> Pair:
    """p = r + beta (p - omega A p)."""
    for i in range(first, last):
        s = U(i)
        p[s] = r[s] + beta * (p[s] - omega * ap[s])
    return 0.0, 0.0
