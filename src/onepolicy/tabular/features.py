"""Features of states for linear values v(s) = w . x(s): tables, aggregation, polynomials, Fourier, RBF, tile coding.

One sparse layout for all of them, so that a table is the case of one feature a state and every learner has one
compiled loop. Points are states' coordinates scaled to the unit cube, [S, k]; `unit_cube` scales them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from onepolicy.errors import ConfigError

Array = NDArray[np.float64]


class Features(NamedTuple):
    """x(s) of S states by d features, rows of a sparse matrix: column[ptr[s]:ptr[s+1]] and value[ptr[s]:ptr[s+1]]."""

    ptr: NDArray[np.int64]
    """[S+1]"""
    column: NDArray[np.int32]
    value: Array
    size: int
    """d"""


def from_matrix(x: ArrayLike) -> Features:
    """Features given as numbers x [S, d]; zeros are not stored.

    >>> from_matrix([[1.0, 0.0], [0.5, 2.0]]).column
    array([0, 0, 1], dtype=int32)
    """
    matrix = np.asarray(x, dtype=np.float64)
    if matrix.ndim != 2 or not np.all(np.isfinite(matrix)):
        raise ConfigError(f"x has shape {matrix.shape}; features are finite numbers [states, features].")
    stored = sparse.csr_matrix(matrix)
    return Features(stored.indptr.astype(np.int64), stored.indices.astype(np.int32), stored.data, matrix.shape[1])


def to_sparse(features: Features) -> sparse.csr_matrix:
    """The matrix X [S, d], row s is x(s), as scipy's CSR."""
    shape = (len(features.ptr) - 1, features.size)
    return sparse.csr_matrix((features.value, features.column, features.ptr), shape=shape)


def state_values(features: Features, weights: ArrayLike) -> Array:
    """v_w(s) = w . x(s) of all states; weights [..., d], returns [..., S].

    Raises: ConfigError for weights of another length than the features.
    """
    w = np.asarray(weights, dtype=np.float64)
    if w.shape[-1:] != (features.size,):
        raise ConfigError(f"weights has shape {w.shape}; the features need {features.size} along the last axis.")
    return np.asarray((to_sparse(features) @ w.reshape(-1, features.size).T).T.reshape(*w.shape[:-1], -1))


def one_hot(states: int) -> Features:
    """A table: one feature for each of S states, x_i(s) = [i = s]; d = S."""
    return aggregation(np.arange(states))


def aggregation(groups: ArrayLike) -> Features:
    """State aggregation: x_i(s) = [group of s is i]; groups integers [S], -1 for a state without a feature.

    d is the largest group + 1. Source: Sutton and Barto 2018, section 9.3.

    >>> to_sparse(aggregation([-1, 0, 0, 1])).toarray().tolist()
    [[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    """
    group = np.asarray(groups)
    if group.ndim != 1 or group.dtype.kind not in "iu" or np.any(group < -1) or not np.any(group >= 0):
        raise ConfigError(
            f"groups has shape {group.shape} and dtype {group.dtype}; it needs integers >= -1, one a state."
        )
    member = group >= 0
    ptr = np.concatenate([[0], np.cumsum(member)]).astype(np.int64)
    return Features(ptr, group[member].astype(np.int32), np.ones(int(member.sum())), int(group.max()) + 1)


def unit_cube(points: ArrayLike, low: ArrayLike | None = None, high: ArrayLike | None = None) -> Array:
    """Coordinates scaled to [0, 1]: (p - low) / (high - low); points [S] or [S, k], bounds default to the extremes.

    Raises: ConfigError for a dimension of no width, or points outside the bounds.

    >>> unit_cube([1.0, 2.0, 5.0]).tolist()
    [[0.0], [0.25], [1.0]]
    """
    p = np.asarray(points, dtype=np.float64)
    p = p[:, None] if p.ndim == 1 else p
    bottom = p.min(axis=0) if low is None else np.broadcast_to(np.asarray(low, dtype=np.float64), p.shape[1:])
    top = p.max(axis=0) if high is None else np.broadcast_to(np.asarray(high, dtype=np.float64), p.shape[1:])
    if not np.all(top > bottom):
        raise ConfigError(f"low is {bottom} and high {top}; every dimension needs low < high.")
    return _in_cube((p - bottom) / (top - bottom))


def polynomial(points: ArrayLike, order: int) -> Features:
    """x_c(s) = prod_j s_j^{c_j} for all exponents c in {0 .. n}^k; points [S, k] in the unit cube, d = (n+1)^k.

    Source: Sutton and Barto 2018, equation 9.17.

    >>> to_sparse(polynomial([[0.5]], 3)).toarray().tolist()
    [[1.0, 0.5, 0.25, 0.125]]
    """
    p = _in_cube(points)
    return from_matrix(np.prod(p[:, None, :] ** _exponents(order, p.shape[1]), axis=2))


def fourier(points: ArrayLike, order: int) -> Features:
    """x_c(s) = cos(pi c . s) for all c in {0 .. n}^k; points [S, k] in the unit cube, d = (n+1)^k.

    Source: Sutton and Barto 2018, equation 9.18; Konidaris, Osentoski and Thomas 2011.
    """
    p = _in_cube(points)
    return from_matrix(np.cos(np.pi * (p @ _exponents(order, p.shape[1]).T)))


def radial(points: ArrayLike, centres: ArrayLike, width: float) -> Features:
    """x_i(s) = exp(-|s - c_i|^2 / (2 width^2)); points [S, k], centres [d, k], width in the points' unit.

    Source: Sutton and Barto 2018, section 9.5.5.
    """
    p, c = np.atleast_2d(np.asarray(points, dtype=np.float64)), np.atleast_2d(np.asarray(centres, dtype=np.float64))
    if p.shape[1] != c.shape[1]:
        raise ConfigError(f"points have {p.shape[1]} dimensions and centres {c.shape[1]}; they must agree.")
    if not width > 0:
        raise ConfigError(f"width is {width}; a radial feature needs a width > 0.")
    square = np.sum((p[:, None, :] - c[None, :, :]) ** 2, axis=2)
    return from_matrix(np.exp(-square / (2.0 * width**2)))


def tile_coding(points: ArrayLike, *, tiles: int, tilings: int) -> Features:
    """x_i(s) = 1 for the one tile of each tiling that s falls in: `tilings` ones a state.

    points [S, k] in the unit cube; a tile is 1/tiles wide; tiling j is shifted by j (1, 3, 5, ...) / tilings of a
    tile, so that it needs tiles + 1 of them along every dimension; d = tilings (tiles + 1)^k, without hashing.
    Source: Sutton and Barto 2018, section 9.5.4 (the displacement of Miller and Glanz 1996).
    """
    index = tile_indices(points, tiles=tiles, tilings=tilings)
    states, dims = index.shape[0], np.asarray(points).shape[1]
    ptr = np.arange(states + 1, dtype=np.int64) * tilings
    size = tilings * (tiles + 1) ** dims
    return Features(ptr, index.reshape(-1).astype(np.int32), np.ones(index.size), size)


def tile_indices(points: ArrayLike, *, tiles: int, tilings: int) -> NDArray[np.int64]:
    """The active tile of each tiling, integers [S, tilings]; see `tile_coding`."""
    if tiles < 1 or tilings < 1:
        raise ConfigError(f"tiles is {tiles} and tilings {tilings}; tile coding needs at least 1 of each.")
    p = _in_cube(points)
    dims = p.shape[1]
    shift = (np.arange(tilings)[:, None] * (2 * np.arange(dims) + 1) / tilings) % 1.0
    cell = np.floor(p[:, None, :] * tiles + shift).astype(np.int64)
    # the upper face belongs to the last tile that the unit cube has any of
    cell = np.minimum(cell, np.where(shift > 0, tiles, tiles - 1))
    place = (tiles + 1) ** np.arange(dims)
    return np.asarray((cell * place).sum(axis=2) + np.arange(tilings) * (tiles + 1) ** dims)


def _exponents(order: int, dims: int) -> NDArray[np.int64]:
    if order < 0:
        raise ConfigError(f"order is {order}; a basis needs an order >= 0.")
    return np.stack(np.meshgrid(*[np.arange(order + 1)] * dims, indexing="ij"), axis=-1).reshape(-1, dims)


def _in_cube(points: ArrayLike) -> Array:
    p = np.asarray(points, dtype=np.float64)
    if p.ndim != 2 or not np.all((p >= -1e-12) & (p <= 1 + 1e-12)):
        raise ConfigError(f"points has shape {p.shape}; it needs [states, dimensions] in [0, 1]. Use unit_cube first.")
    return p
