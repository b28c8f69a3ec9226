"""Features by hand, by formula and by what they can represent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.errors import ConfigError
from onepolicy.tabular.features import (
    aggregation,
    fourier,
    from_matrix,
    one_hot,
    polynomial,
    radial,
    state_values,
    tile_coding,
    tile_indices,
    to_sparse,
    unit_cube,
)


def dense(features):
    return to_sparse(features).toarray()


def test_a_table_is_the_identity():
    assert np.array_equal(dense(one_hot(4)), np.eye(4))
    assert state_values(one_hot(3), [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_matrices_come_back():
    x = np.array([[1.0, 0.0, -2.0], [0.0, 0.0, 0.0]])
    assert np.array_equal(dense(from_matrix(x)), x)
    assert state_values(from_matrix(x), [1.0, 5.0, 0.5]).tolist() == [0.0, 0.0]


def test_basis_in_two_dimensions_by_hand():
    """At (1/2, 1/4), order 1, c = 00, 01, 10, 11: products 1, 1/4, 1/2, 1/8; cosines of 0, pi/4, pi/2, 3 pi/4."""
    point = [[0.5, 0.25]]
    assert dense(polynomial(point, 1)).tolist() == [[1.0, 0.25, 0.5, 0.125]]
    root = np.sqrt(0.5)
    assert dense(fourier(point, 1))[0] == pytest.approx([1.0, root, 0.0, -root], abs=1e-15)


def test_radial_features_by_hand():
    """Distance 0 gives 1, distance one width gives exp(-1/2)."""
    found = dense(radial([[0.0], [0.5]], [[0.0], [1.0]], 0.5))
    assert found == pytest.approx(np.exp([[0.0, -2.0], [-0.5, -0.5]]))


def test_tiles_by_hand():
    """One dimension, 2 tiles, 2 tilings: the second is shifted by half a tile; tiles 0-2 and 3-5."""
    found = tile_indices([[0.0], [0.2], [0.3], [0.5], [0.8], [1.0]], tiles=2, tilings=2)
    assert found.tolist() == [[0, 3], [0, 3], [0, 4], [1, 4], [1, 5], [1, 5]]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3).flatmap(
        lambda k: st.tuples(
            st.lists(st.lists(st.floats(0, 1), min_size=k, max_size=k), min_size=1, max_size=6),
            st.integers(1, 5),
            st.integers(1, 6),
        )
    )
)
def test_tiles_against_a_loop(case):
    """Every state has one tile a tiling, found by counting the borders below it along each dimension."""
    points, tiles, tilings = case
    found = tile_indices(points, tiles=tiles, tilings=tilings)
    assert dense(tile_coding(points, tiles=tiles, tilings=tilings)).sum() == len(points) * tilings
    for s, point in enumerate(points):
        for j in range(tilings):
            expected = j * (tiles + 1) ** len(point)
            for axis, p in enumerate(point):
                shift = (j * (2 * axis + 1) % tilings) / tilings
                borders = [b - shift for b in range(1, tiles + 1) if b - shift < tiles]
                expected += sum(p * tiles >= border - 1e-12 for border in borders) * (tiles + 1) ** axis
            if all(abs((p * tiles * tilings) - round(p * tiles * tilings)) > 1e-9 for p in point):
                assert found[s, j] == expected


def test_near_points_share_more_tiles_than_far_ones():
    index = tile_indices([[0.45, 0.45], [0.48, 0.48], [0.55, 0.45], [0.9, 0.9]], tiles=4, tilings=8)
    shared = (index[1:] == index[0]).sum(axis=1)
    assert 8 > shared[0] > shared[1] > shared[2] == 0


def test_points_are_scaled_to_the_cube():
    found = unit_cube([[-1.2, 0.0], [0.6, 0.07]], low=[-1.2, -0.07], high=[0.6, 0.07])
    assert found == pytest.approx(np.array([[0.0, 0.5], [1.0, 1.0]]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: state_values(one_hot(3), np.zeros(4)), r"weights has shape \(4,\)"),
        (lambda: aggregation([0.5, 1.0]), "integers"),
        (lambda: aggregation([-1, -1]), "groups"),
        (lambda: from_matrix([1.0, 2.0]), r"x has shape \(2,\)"),
        (lambda: from_matrix([[np.nan]]), "finite"),
        (lambda: fourier([[1.5]], 2), "unit_cube"),
        (lambda: polynomial([[0.5]], -1), "order is -1"),
        (lambda: tile_coding([[0.5]], tiles=0, tilings=2), "tiles is 0"),
        (lambda: radial([[0.5]], [[0.1, 0.2]], 1.0), "dimensions"),
        (lambda: radial([[0.5]], [[0.1]], 0.0), "width is 0"),
        (lambda: unit_cube([1.0, 1.0]), "low < high"),
        (lambda: unit_cube([0.0, 3.0], 0.0, 1.0), r"in \[0, 1\]"),
    ],
)
def test_wrong_features_are_named(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
