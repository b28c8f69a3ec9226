"""Ridge regression kept up step by step, as contextual bandits need it: inverse, estimate, width, posterior draw.

A model is one array [2D+3, D]: the inverse A^-1 of A = ridge I + sum x x^T in its first D rows, then the moment
b = sum reward x, theta = A^-1 b, a draw of theta, and D rows to work in. `models` [M, 2D+3, D] holds M of them, m says
which; features x [A, D], row a.
"""

from __future__ import annotations

import numpy as np

from onepolicy.tabular.bandits.random import Floats, Stream, compiled, gaussian


@compiled
def observe(models: Floats, m: int, x: Floats, a: int, reward: float) -> None:
    """One observation (x[a], reward) added to a model, in place, in O(D^2).

    A^-1 -= (A^-1 x)(A^-1 x)^T / (1 + x^T A^-1 x).
    Source: Sherman and Morrison 1950; Li et al. 2010 (arXiv 1003.0146), algorithm 1, lines 12 and 13.
    """
    size = x.shape[1]
    along = size + 3
    scale = 1.0
    for i in range(size):
        models[m, along, i] = 0.0
        for j in range(size):
            models[m, along, i] += models[m, i, j] * x[a, j]
        scale += x[a, i] * models[m, along, i]
    for i in range(size):
        models[m, size, i] += reward * x[a, i]
        for j in range(size):
            models[m, i, j] -= models[m, along, i] * models[m, along, j] / scale
    for i in range(size):
        models[m, size + 1, i] = 0.0
        for j in range(size):
            models[m, size + 1, i] += models[m, i, j] * models[m, size, j]


@compiled
def upper_bound(models: Floats, m: int, x: Floats, a: int, alpha: float) -> float:
    """theta . x[a] + alpha sqrt(x[a]^T A^-1 x[a])."""
    size = x.shape[1]
    mean, square = 0.0, 0.0
    for i in range(size):
        mean += models[m, size + 1, i] * x[a, i]
        for j in range(size):
            square += x[a, i] * models[m, i, j] * x[a, j]
    return mean + alpha * np.sqrt(max(square, 0.0))


@compiled
def draw(models: Floats, m: int, scale: float, stream: Stream) -> None:
    """A model's theta drawn from N(A^-1 b, scale^2 A^-1), by the Cholesky factor of A^-1."""
    size = models.shape[2]
    drawn, factor = size + 2, size + 3
    for i in range(size):
        models[m, drawn, i] = models[m, size + 1, i]
        for j in range(i + 1):
            left = models[m, i, j]
            for k in range(j):
                left -= models[m, factor + i, k] * models[m, factor + j, k]
            models[m, factor + i, j] = np.sqrt(max(left, 1e-300)) if i == j else left / models[m, factor + j, j]
    for j in range(size):
        z = scale * gaussian(stream)
        for i in range(j, size):
            models[m, drawn, i] += models[m, factor + i, j] * z


@compiled
def prediction(models: Floats, m: int, x: Floats, a: int) -> float:
    """x[a] times a model's drawn theta."""
    total = 0.0
    for i in range(x.shape[1]):
        total += models[m, x.shape[1] + 2, i] * x[a, i]
    return total
