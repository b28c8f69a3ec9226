"""Pictures say what the arrays say: numbers, arrows of all best actions, walls, bands, bars."""

import io

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import t

from onepolicy.errors import ConfigError, DataError
from onepolicy.tabular.draw import (
    UNMET,
    WALL,
    Curve,
    ValueMap,
    best_actions,
    curves_figure,
    curves_table,
    mean_curve,
    regret_curve,
    value_map,
    value_map_figure,
    value_map_table,
)
from onepolicy.tabular.worlds import make
from onepolicy.tabular.worlds.mazes import maze


@pytest.fixture
def course():
    """The course's grid drawn with its undiscounted values; those of its rows: reward + V(next)."""
    world = make("course-grid")
    value = np.array([7, 8, 0, 8, 9, 10, 9, 10, 0.0])
    model = world.csr()
    return world, value_map(world, value, (3, 3), model.rewards + value[model.successors])


def shown(table, *, color=False):
    out = io.StringIO()
    Console(file=out, width=120, force_terminal=color, color_system="truecolor" if color else None).print(table)
    return out.getvalue()


def texts(figure):
    """What is written where in a figure's map: (column, row) -> text."""
    return {tuple(int(x) for x in text.get_position()): text.get_text() for text in figure.axes[0].texts}


def test_a_value_map_as_text(course):
    assert shown(value_map_table(course[1], "optimum")).splitlines() == [
        "      optimum       ".rstrip() + " " * 7,
        "┌────┬─────┬───────┐",
        "│7.00│8.00 │ Fail  │",
        "│ →↓ │  ↓  │       │",
        "├────┼─────┼───────┤",
        "│8.00│9.00 │ 10.00 │",
        "│ →↓ │ →↓  │   ↓   │",
        "├────┼─────┼───────┤",
        "│9.00│10.00│Success│",
        "│ →  │  →  │       │",
        "└────┴─────┴───────┘",
    ]


def test_a_value_map_as_a_figure(course, tmp_path):
    figure = value_map_figure(course[1], "optimum")
    written = texts(figure)
    assert len(written) == 9
    assert (written[0, 0], written[1, 0], written[2, 1], written[2, 2]) == (
        "7.00\n→↓",
        "8.00\n↓",
        "10.00\n↓",
        "Success",
    )
    (image,) = figure.axes[0].images
    drawn = image.get_array()
    assert drawn.mask.tolist() == [[False, False, True], [False] * 3, [False, False, True]]
    assert (drawn.min(), drawn.max()) == (7.0, 10.0)
    figure.savefig(tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"


def test_the_lowest_and_the_highest_value_have_the_ends_of_the_ramp(course):
    text = shown(value_map_table(course[1]), color=True)
    low = text.split("7.00")[0].rsplit("\x1b[", 1)[1]
    high = text.split("10.00")[0].rsplit("\x1b[", 1)[1]
    assert low.strip().endswith("48;2;68;1;84m")
    assert high.strip().endswith("48;2;253;231;37m")
    assert course[1].shades()[0].tolist() == [0.0, pytest.approx(1 / 3), 0.0]


def test_best_actions_by_hand(course):
    assert course[1].arrows.tolist() == [["→↓", "↓", ""], ["→↓", "→↓", "↓"], ["→", "→", ""]]
    small = make("small")
    assert best_actions(small, [1.0, 1.0 - 1e-12, 3.0, 2.0]) == ["0 1", "0"]
    coins = make("gambler", goal=4)
    assert best_actions(coins, [1.0, 0.0, 2.0, 1.0]) == ["", "1", "2", "1", ""]
    assert best_actions(make("taxi"), np.zeros(2400))[1] == "↓ ↑ → ← 4 5"


def test_walls_are_what_is_never_entered():
    world = maze("S#.\n..G")
    drawn = value_map(world, [0.5, 0, -0.25, 1, 1, 0], (2, 3))
    assert drawn.labels.tolist() == [["", WALL, ""], ["", "", "end"]]
    assert drawn.numbers()[0] == ["0.500", WALL, "-0.250"]
    assert f"│{WALL * 4} │" in shown(value_map_table(drawn))
    figure = value_map_figure(drawn)
    assert (1, 0) not in texts(figure)
    assert len(figure.axes[0].patches) == 1


def test_the_cliff_is_drawn_as_what_never_happens():
    world = make("cliff")
    drawn = value_map(world, np.arange(48.0), (4, 12), np.zeros(188))
    assert drawn.labels[3].tolist() == ["", *[UNMET] * 10, "end"]
    assert texts(value_map_figure(drawn))[1, 3] == UNMET
    assert not drawn.labels[:3].any()


def test_near_ties_are_drawn_when_asked_for():
    small = make("small")
    assert best_actions(small, [1.0, 1.0 - 1e-6, 30.0, 2.0]) == ["0", "0"]
    assert best_actions(small, [1.0, 1.0 - 1e-6, 30.0, 2.0], near=1e-6) == ["0 1", "0"]


def test_numbers_keep_three_digits_of_the_largest():
    for largest, text in ((0.02066, "0.02066"), (0.5420, "0.542"), (9.64, "9.64"), (64.709, "64.7"), (636.99, "637")):
        grid = ValueMap(np.array([[largest]]), np.array([[""]]), np.array([[""]]))
        assert float(grid.numbers()[0][0]) == pytest.approx(float(text), rel=5e-3)
        assert len(grid.numbers()[0][0].replace(".", "").lstrip("0")) >= 3
    assert ValueMap(np.zeros((1, 1)), np.array([[""]]), np.array([[""]])).numbers() == [["0"]]


def test_large_maps():
    wide = ValueMap(np.zeros((1, 31)), np.full((1, 31), ""), np.full((1, 31), ""))
    with pytest.raises(ConfigError, match="31 columns; as text 30 fit"):
        value_map_table(wide)
    large = ValueMap(np.zeros((21, 20)), np.full((21, 20), "↑"), np.full((21, 20), ""))
    assert not texts(value_map_figure(large))


def test_maps_that_do_not_fit(course):
    world = course[0]
    with pytest.raises(DataError, match=r"values have shape \(8,\) and the grid is 3 x 3; the world has 9"):
        value_map(world, np.zeros(8), (3, 3))
    with pytest.raises(DataError, match="the grid is 2 x 3"):
        value_map(world, np.zeros(9), (2, 3))
    with pytest.raises(DataError, match=r"q has shape \(9,\); the world has 28 rows"):
        best_actions(world, np.zeros(9))


def test_bands_are_students_intervals():
    runs = np.random.default_rng(0).normal(size=(7, 5))
    curve = mean_curve("runs", runs, level=0.9)
    low, high = t.interval(0.9, 6, loc=runs.mean(0), scale=runs.std(0, ddof=1) / np.sqrt(7))
    np.testing.assert_allclose(np.stack([curve.low, curve.high]), [low, high], rtol=1e-12)
    np.testing.assert_array_equal(curve.x, [1, 2, 3, 4, 5])
    assert mean_curve("one", runs[:1]).low is None
    total = regret_curve("regret", runs)
    assert total.y[-1] == pytest.approx(runs.sum() / 7)
    sums = runs.sum(axis=1)
    assert total.high[-1] - total.y[-1] == pytest.approx(t.ppf(0.975, 6) * sums.std(ddof=1) / np.sqrt(7))
    with pytest.raises(ConfigError, match=r"level is 95"):
        mean_curve("runs", runs, level=95)
    with pytest.raises(DataError, match=r"runs have shape \(5,\)"):
        mean_curve("runs", runs[0])


def test_curves_as_a_figure(tmp_path):
    x = np.arange(1.0, 11.0)
    curves = [Curve("sarsa", x, -x, -x - 1, -x + 1), Curve("bound", x, np.log(x), dashed=True)]
    figure = curves_figure(curves, y="return", levels={"optimum": -13.0}, log_x=True)
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines] == ["sarsa", "bound", "optimum"]
    assert [line.get_linestyle() for line in axes.lines] == ["-", "--", ":"]
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), np.stack([x, -x], axis=1))
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    assert (corners[:, 1].min(), corners[:, 1].max()) == (-11.0, 0.0)
    assert (axes.get_xscale(), axes.get_yscale(), axes.get_ylabel()) == ("log", "linear", "return")
    figure.savefig(tmp_path / "curves.png")
    with pytest.raises(ConfigError, match="no curve"):
        curves_figure([])


def test_curves_as_text():
    rising = Curve("rising", np.arange(8.0), np.arange(8.0), np.arange(8.0) - 0.5, np.arange(8.0) + 0.5)
    flat = Curve("flat", np.arange(3.0), np.array([0.0, np.nan, 7.0]))
    lines = [
        line.split()
        for line in shown(curves_table([rising, flat], width=8)).splitlines()
        if "flat" in line or "ris" in line
    ]
    assert lines[0] == ["rising", "0", "▁▂▃▄▅▆▇█", "7", "±", "0.5"]
    assert lines[1] == ["flat", "0", "▁", "█", "7"]
    halves = shown(curves_table([rising], width=2)).splitlines()[-2].split()
    assert halves[2] == "▁█"
    with pytest.raises(ConfigError, match="0 wide"):
        curves_table([rising], width=0)
