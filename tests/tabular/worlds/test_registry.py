"""The registry: every world is built, its grid has as many cells as states, wrong names are answered."""

import re
from pathlib import Path

import numpy as np
import pytest

from onepolicy.errors import ConfigError
from onepolicy.tabular.worlds import WORLDS, grid_shape, make


@pytest.mark.parametrize("name", list(WORLDS))
def test_every_world_is_a_model(name):
    world, model = WORLDS[name], make(name).csr()
    np.testing.assert_allclose(np.add.reduceat(model.probabilities, model.ptr[:-1]), 1.0, rtol=1e-12)
    assert model.start.sum() == pytest.approx(1.0)
    assert not model.start[model.terminal].any()
    assert (np.diff(model.row_ptr) == 0).tolist() == model.terminal.tolist()
    if world.shape is not None:
        assert world.shape[0] * world.shape[1] == len(model.terminal)
    assert world.build.__doc__
    assert world.title
    assert world.discount is None or 0 < world.discount <= 1


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("frozenlake", {"map": "8x8"}, (8, 8)),
        ("frozenlake", {"map": ["SFF", "FFG"]}, (2, 3)),
        ("frozenlake-8x8", {"map": "SF\nFG"}, (2, 2)),
        ("dyna-maze", {"text": "S..\n..G"}, (2, 3)),
        ("open-grid", {"rows": 3}, (3, 10)),
        ("jacks-car-rental", {"cars": 4}, (5, 5)),
        ("access-control", {"servers": 3}, (4, 4)),
    ],
)
def test_the_grid_follows_the_options(name, options, shape):
    assert grid_shape(name, **options) == shape
    assert make(name, **options).num_states == shape[0] * shape[1]


def test_options_reach_the_world():
    assert make("windy-king", stay=True).csr().row_ptr[1] == 9
    assert make("walk-19", states=7).num_states == 9


def test_the_page_of_the_worlds_has_each_with_its_size():
    page = (Path(__file__).resolve().parents[3] / "docs/algorithms/worlds.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| \[`\w+\.py: (\w+)`\].* \| (\d+) \| (\d+) \| (.+) \|$", page, re.MULTILINE)
    assert [row[0] for row in rows] == list(WORLDS)
    for name, function, states, pairs, discount in rows:
        world, mdp = WORLDS[name], make(name)
        assert (function, int(states), int(pairs)) == (world.build.__name__, mdp.num_states, mdp.num_rows)
        plain = "average" if world.discount is None else f"{world.discount:g}"
        assert discount == (f"{world.horizon} steps" if world.horizon else plain)


def test_wrong_names():
    with pytest.raises(ConfigError, match=r"There is no world 'frozen-lake'\. Did you mean 'frozenlake'"):
        make("frozen-lake")
    with pytest.raises(ConfigError, match=r"'slipery' is no option of the world 'cliff'\. Did you mean 'slippery'"):
        make("cliff", slipery=True)
    with pytest.raises(ConfigError, match="It has none"):
        make("small", size=3)
