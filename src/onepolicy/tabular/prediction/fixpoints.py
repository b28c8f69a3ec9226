"""Where linear prediction ends up, computed from the model: the exact fixpoints, errors and distributions.

A *chain* is a model under a policy: P [S, S] between the states that are not terminal, r [S]. What terminates leaves,
so rows of P may sum to less than 1, and a terminal state has no row and no value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.sparse.csgraph import breadth_first_order
from scipy.sparse.linalg import splu

from onepolicy.errors import ConfigError, DataError
from onepolicy.tabular.features import Features, to_sparse
from onepolicy.tabular.prediction.learners import within_unit
from onepolicy.tabular.simulate import row_probabilities

if TYPE_CHECKING:
    from onepolicy.tabular.mdp import MDP

Array = NDArray[np.float64]


class Chain(NamedTuple):
    """A Markov reward process: P [S, S] (CSR) among non-terminal states, expected rewards r [S], start [S]."""

    transitions: sparse.csr_matrix
    rewards: Array
    start: Array


def chain_of(mdp: MDP, policy: ArrayLike | None = None) -> Chain:
    """The chain of a model under a policy: actions [S], probabilities [K], or None for uniform."""
    csr = mdp.csr()
    states, pi = len(csr.terminal), row_probabilities(csr, policy)
    rows = np.repeat(np.arange(states), np.diff(csr.row_ptr))
    act = sparse.csr_matrix((pi, (rows, np.arange(len(pi)))), shape=(states, len(pi)))
    stay = csr.probabilities * ~csr.terminal[csr.successors]
    step = sparse.csr_matrix((stay, csr.successors, csr.ptr), shape=(len(pi), states))
    return Chain((act @ step).tocsr(), act @ csr.rewards, np.asarray(csr.start, dtype=np.float64))


def chain_values(chain: Chain, discount: float) -> Array:
    """v = r + gamma P v, [S]; 0 for terminal states."""
    return _solve(chain, within_unit("discount", discount), chain.rewards)


def visit_distribution(chain: Chain) -> Array:
    """The share of its time that an episode spends in each state, [S]: eta = start + P^T eta, normalised.

    Raises: DataError where the episode cannot end. Source: Sutton and Barto 2018, box of section 9.2.
    """
    eta = _solve(chain, 1.0, chain.start, back=True)
    return eta / eta.sum()


def stationary_distribution(chain: Chain) -> Array:
    """mu = P^T mu, sum 1, of a chain that never ends and has one recurrent class, [S].

    Raises: DataError where it can end or has several classes.
    """
    p = chain.transitions
    if not np.allclose(np.asarray(p.sum(axis=1)).ravel(), 1.0, atol=1e-9):
        raise DataError("The chain can end, so it has no stationary distribution. Take visit_distribution.")
    system = (sparse.identity(p.shape[0]) - p.T).tolil()
    system[0, :] = 1.0
    right = np.zeros(p.shape[0])
    right[0] = 1.0
    try:
        mu = splu(system.tocsc()).solve(right)
    except RuntimeError as problem:
        raise DataError(
            "The chain has several recurrent classes, so its stationary distribution is not one."
        ) from problem
    return np.maximum(mu, 0.0) / np.maximum(mu, 0.0).sum()


def td_system(
    chain: Chain, features: Features, weighting: ArrayLike, discount: float, *, lam: float = 0.0
) -> tuple[Array, Array]:
    """(A [d, d], b [d]) of TD(lambda)'s mean update w += alpha (b - A w).

    A = X^T D (I - gamma lam P)^-1 (I - gamma P) X, b = X^T D (I - gamma lam P)^-1 r, D = diag(weighting).
    weighting [S]: how often each state is updated, normalised here; emphases for emphatic TD.
    Source: Tsitsiklis and Van Roy 1997; Sutton and Barto 2018, equations 9.11 and 12.2.
    """
    x, d = _weighted(chain, features, weighting)
    drop = x - within_unit("discount", discount) * (chain.transitions @ x)
    solved = _solve(chain, discount * within_unit("lam", lam), np.column_stack([drop, chain.rewards]))
    return x.T @ (d[:, None] * solved[:, :-1]), x.T @ (d * solved[:, -1])


def td_fixpoint(
    chain: Chain, features: Features, weighting: ArrayLike, discount: float, *, lam: float = 0.0, ridge: float = 0.0
) -> Array:
    """The w [d] where TD(lambda) and LSTD(lambda) end: A w = b of `td_system`. For lam 0 also the minimum of the
    projected Bellman error, which GTD2 and TDC go down.

    ridge is added to A's diagonal. Raises: DataError for a singular A (rank named) without ridge.
    """
    matrix, vector = td_system(chain, features, weighting, discount, lam=lam)
    return solved("The TD fixpoint", matrix, vector, ridge)


def mc_fixpoint(
    chain: Chain, features: Features, weighting: ArrayLike, discount: float, *, ridge: float = 0.0
) -> Array:
    """The w [d] nearest to v, min ||X w - v||_D: where gradient and least-squares Monte Carlo end.

    Raises: DataError for dependent features without ridge.
    """
    x, d = _weighted(chain, features, weighting)
    values = chain_values(chain, discount)
    return solved("The Monte Carlo fixpoint", x.T @ (d[:, None] * x), x.T @ (d * values), ridge)


def bellman_fixpoint(
    chain: Chain, features: Features, weighting: ArrayLike, discount: float, *, ridge: float = 0.0
) -> Array:
    """The w [d] of the least mean square Bellman error, min ||r + gamma P X w - X w||_D.

    Not learnable from samples without a second, independent successor. Source: Sutton and Barto 2018, section 11.5.
    """
    x, d = _weighted(chain, features, weighting)
    drop = x - within_unit("discount", discount) * (chain.transitions @ x)
    return solved("The Bellman fixpoint", drop.T @ (d[:, None] * drop), drop.T @ (d * chain.rewards), ridge)


def emphasis(chain: Chain, weighting: ArrayLike, discount: float, *, lam: float = 0.0, interest: float = 1.0) -> Array:
    """The mean emphasis m(s) of emphatic TD, [S]: m = lam d i + (1 - lam) f with f = d i + gamma P^T f, d = weighting.

    P is the target policy's; d, how often the behaviour is in each state, is normalised.
    Source: Sutton, Mahmood and White 2016, section 4.
    """
    d = _distribution(chain, weighting) * interest
    follow_on = _solve(chain, within_unit("discount", discount), d, back=True)
    return within_unit("lam", lam) * d + (1.0 - lam) * follow_on


def value_error(values: ArrayLike, truth: ArrayLike, weighting: ArrayLike) -> float:
    """sqrt(VE) = ||v - truth||_D, D normalised. Source: Sutton and Barto 2018, equation 9.1."""
    d = np.asarray(weighting, dtype=np.float64)
    return float(np.sqrt(np.sum(d * (np.asarray(values) - np.asarray(truth)) ** 2) / d.sum()))


def bellman_error(chain: Chain, values: ArrayLike, weighting: ArrayLike, discount: float) -> float:
    """sqrt(BE) = ||r + gamma P v - v||_D. Source: Sutton and Barto 2018, equation 11.19."""
    v = np.asarray(values, dtype=np.float64)
    return value_error(chain.rewards + discount * (chain.transitions @ v), v, weighting)


def projected_bellman_error(
    chain: Chain, features: Features, weights: ArrayLike, weighting: ArrayLike, discount: float
) -> float:
    """sqrt(PBE) = ||Pi (r + gamma P X w - X w)||_D, Pi the projection on the features by D; 0 at the TD fixpoint.

    Source: Sutton and Barto 2018, equation 11.22.
    """
    x, d = _weighted(chain, features, weighting)
    v = x @ np.asarray(weights, dtype=np.float64)
    delta = chain.rewards + discount * (chain.transitions @ v) - v
    root = np.sqrt(d)
    fitted = np.linalg.lstsq(root[:, None] * x, root * delta, rcond=None)[0]
    return float(np.linalg.norm(root * (x @ fitted)))


def _weighted(chain: Chain, features: Features, weighting: ArrayLike) -> tuple[Array, Array]:
    x = to_sparse(features).toarray()
    if len(x) != len(chain.rewards):
        raise ConfigError(f"features has {len(x)} states and the model {len(chain.rewards)}; give every state.")
    return x, _distribution(chain, weighting)


def _distribution(chain: Chain, weighting: ArrayLike) -> Array:
    d = np.asarray(weighting, dtype=np.float64)
    if d.shape != chain.rewards.shape or not np.all(d >= 0) or not d.sum() > 0:
        raise ConfigError(f"weighting has shape {d.shape}; it needs [{len(chain.rewards)}] numbers >= 0, not all 0.")
    return d / d.sum()


def _solve(chain: Chain, factor: float, right: Array, *, back: bool = False) -> Array:
    """(I - factor P)^-1 right, with P^T if back; right [S] or [S, n]."""
    p = chain.transitions
    if factor == 1.0:
        _check_end(p)
    system = (sparse.identity(p.shape[0]) - factor * (p.T if back else p)).tocsc()
    return np.asarray(splu(system).solve(np.asarray(right)))


def _check_end(p: sparse.csr_matrix) -> None:
    """Raises: DataError that names a state from which the chain never ends."""
    size = p.shape[0]
    ends = np.asarray(p.sum(axis=1)).ravel() < 1.0 - 1e-12
    reverse = sparse.vstack([p.T, sparse.csr_matrix(ends.astype(np.float64))])
    graph = sparse.hstack([reverse, sparse.csr_matrix((size + 1, 1))]).tocsr()
    reached = np.zeros(size + 1, dtype=np.bool_)
    reached[breadth_first_order(graph, size, return_predecessors=False)] = True
    if not reached.all():
        raise DataError(
            f"From state {int(np.argmin(reached))} the chain never ends, so that values at discount 1 and visits are "
            "infinite. Take a discount below 1, or a policy that ends."
        )


def solved(name: str, matrix: Array, vector: Array, ridge: float) -> Array:
    """w of (A + ridge I) w = b. Raises: DataError, with the rank, for a singular A without ridge; ConfigError for
    a negative or infinite ridge."""
    if not 0.0 <= ridge < np.inf:
        raise ConfigError(f"ridge is {ridge}; it must be >= 0 and finite.")
    rank = int(np.linalg.matrix_rank(matrix)) if ridge == 0.0 else len(vector)
    if rank < len(vector):
        raise DataError(
            f"{name}'s matrix has rank {rank} of {len(vector)}: some features never occur, or they depend on each "
            "other. Set ridge > 0, say 1e-6, drop features, or take more data."
        )
    return np.asarray(np.linalg.solve(matrix + ridge * np.eye(len(vector)), vector), dtype=np.float64)
