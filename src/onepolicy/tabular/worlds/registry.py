"""The worlds by name: what each is, its customary discount, and the grid to draw its values on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

from onepolicy.errors import ConfigError, nearest
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.worlds import baird, classics, games, garnet, gridworlds, mazes, toytext, walks


@dataclass(frozen=True)
class World:
    """One world of `WORLDS`.

    build: the function that makes it; its docstring is the documentation. title: one line. discount: the customary
    one; 1 where episodes are undiscounted; None where the criterion is the average reward. shape: (rows, columns) of
    the grid its states are cells of, or None. options: arguments that this name sets. horizon: steps, where that is
    the customary criterion. time_limit: steps after which the gymnasium environment of this model truncates.
    """

    build: Callable[..., MDP]
    title: str
    discount: float | None
    shape: tuple[int, int] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    horizon: int | None = None
    time_limit: int | None = None


WORLDS: dict[str, World] = {
    "course-grid": World(gridworlds.course_grid, "the course's 3x3 grid, Success +10, Fail -10", 0.9, (3, 3)),
    "grid-4x4": World(gridworlds.gridworld_4x4, "4x4 gridworld, -1 a move to one of two corners", 1.0, (4, 4)),
    "grid-5x5": World(gridworlds.gridworld_5x5, "5x5 gridworld with two jumps, without end", 0.9, (5, 5)),
    "cliff": World(gridworlds.cliff, "cliff walking", 1.0, (4, 12)),
    "cliff-slippery": World(gridworlds.cliff, "cliff walking on ice", 1.0, (4, 12), {"slippery": True}),
    "windy": World(gridworlds.windy, "windy gridworld, 4 moves", 1.0, (7, 10)),
    "windy-king": World(gridworlds.windy, "windy gridworld, king's moves", 1.0, (7, 10), {"king": True}),
    "windy-king-stay": World(
        gridworlds.windy, "windy gridworld, king's moves or none", 1.0, (7, 10), {"king": True, "stay": True}
    ),
    "open-grid": World(gridworlds.open_grid, "an open grid of any size, moves slip", 0.99, (10, 10)),
    "mushroom-grid": World(gridworlds.mushroom_grid, "MushroomRL's 2x2 grid", 0.95, (2, 2)),
    "dyna-maze": World(mazes.maze, "the Dyna maze, or any drawn as text", 0.95, (6, 9)),
    "blocking-maze": World(mazes.blocking_maze, "a wall whose gap moves away", 0.95, (6, 9)),
    "shortcut-maze": World(mazes.shortcut_maze, "a wall that gets a second gap", 0.95, (6, 9)),
    "frozenlake": World(toytext.frozen_lake, "frozen lake 4x4", 0.99, (4, 4), time_limit=100),
    "frozenlake-8x8": World(toytext.frozen_lake, "frozen lake 8x8", 0.99, (8, 8), {"map": "8x8"}, time_limit=200),
    "taxi": World(toytext.taxi, "taxi: fetch a passenger, bring him home", 0.99, time_limit=200),
    "blackjack": World(games.blackjack, "blackjack, a natural is any 21", 1.0),
    "blackjack-sab": World(games.blackjack, "blackjack, a natural wins", 1.0, options={"rules": "sab"}),
    "blackjack-natural": World(games.blackjack, "blackjack, a natural pays 1.5", 1.0, options={"rules": "natural"}),
    "gambler": World(games.gambler, "the gambler's problem", 1.0),
    "jacks-car-rental": World(classics.jacks_car_rental, "Jack's car rental", 0.9, (21, 21)),
    "access-control": World(classics.access_control, "access control of a queue", None, (11, 4)),
    "forest": World(classics.forest, "forest management: wait or cut", 0.9),
    "small": World(classics.small, "pymdptoolbox' two states", 0.9),
    "puterman-two-state": World(classics.puterman_two_state, "Puterman's two states", 0.95),
    "puterman-inventory": World(classics.puterman_inventory, "Puterman's stock of 0 to 3", 1.0, horizon=3),
    "walk-5": World(walks.random_walk, "random walk, 5 states", 1.0),
    "walk-19": World(walks.random_walk, "random walk, 19 states", 1.0, options={"states": 19, "left": -1.0}),
    "walk-1000": World(
        walks.random_walk,
        "random walk, 1000 states, 100 neighbours",
        1.0,
        options={"states": 1000, "neighbours": 100, "left": -1.0},
    ),
    "short-corridor": World(walks.short_corridor, "corridor with switched actions", 1.0),
    "aliased-corridor": World(walks.aliased_corridor, "the course's corridor with two states that look alike", 0.9),
    "maximisation-bias": World(walks.maximisation_bias, "two states, the wrong one with noisy rewards", 1.0),
    "baird": World(baird.baird, "Baird's counterexample", baird.DISCOUNT),
    "garnet": World(garnet.garnet, "random model, successors anywhere", 0.99),
    "local": World(garnet.local, "random model, successors nearby", 0.99),
}
"""Name -> world. Continuous: mountain_car.py."""


def make(name: str, **options: Any) -> MDP:
    """The world of this name; options: arguments of its function, before those that the name sets.

    Raises: ConfigError for an unknown world or option, with the nearest one that exists; and what the function raises.

    >>> make("frozenlake", slippery=False).num_states
    16
    """
    world = get(name)
    known = signature(world.build).parameters
    for option in options:
        if option not in known:
            has = nearest(option, known) if known else "It has none."
            raise ConfigError(f"{option!r} is no option of the world {name!r}. {has}")
    return world.build(**{**world.options, **options})


def get(name: str) -> World:
    """The entry of this name.

    Raises: ConfigError for an unknown one, with the nearest that exists.
    """
    if name not in WORLDS:
        raise ConfigError(f"There is no world {name!r}. {nearest(name, WORLDS)}")
    return WORLDS[name]


def grid_shape(name: str, **options: Any) -> tuple[int, int] | None:
    """(rows, columns) of the grid whose cells are the states of `make(name, **options)`, or None if they are no grid.

    >>> grid_shape("cliff"), grid_shape("open-grid", rows=3), grid_shape("taxi")
    ((4, 12), (3, 10), None)
    """
    world = get(name)
    if world.shape is None:
        return None
    given = {**world.options, **options}
    rows, cols = world.shape
    drawn = given.get("map", given.get("text"))
    if drawn is not None:
        lines = drawn
        if isinstance(drawn, str):
            lines = toytext.MAPS.get(drawn, drawn.strip("\n").split("\n"))
        return len(lines), len(lines[0])
    if "cars" in given:
        return given["cars"] + 1, given["cars"] + 1
    if "servers" in given:
        return given["servers"] + 1, cols
    return given.get("rows", rows), given.get("cols", cols)
