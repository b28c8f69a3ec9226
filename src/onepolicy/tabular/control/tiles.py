"""SARSA(lambda) with tile coding in a world of real-valued states, such as mountain car.

The world is two compiled functions that work on an array of its state's coordinates, so that any world fits in the
same loop; tiles are those of features.py, computed as the state moves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit

from onepolicy.errors import ConfigError
from onepolicy.tabular.control.linear import Trace
from onepolicy.tabular.control.settings import ControlResult, Rates, Record, Settings, blank, fraction, rates_of
from onepolicy.tabular.control.step import Floats, Ints, choose
from onepolicy.tabular.control.traces import credit, forget, mark
from onepolicy.tabular.jit import jit
from onepolicy.tabular.simulate import Streams, spread, streams, uniform
from onepolicy.tabular.worlds import mountain_car


class Continuous(NamedTuple):
    """A world of real-valued states. begin, advance: compiled by numba.

    begin(state, u): writes a first state to `state` [k], from one uniform number. advance(state, action) -> (reward,
    terminated): one step, in place. low, high [k]: bounds of the coordinates. actions: how many there are.
    """

    begin: Callable[[Floats, float], None]
    advance: Callable[[Floats, int], tuple[float, bool]]
    low: Floats
    high: Floats
    actions: int


class Tiles(NamedTuple):
    """Tile coding of the box low .. high: as `features.tile_coding` on the unit cube. shift [tilings, k] of a tile."""

    low: Floats
    high: Floats
    shift: Floats
    tiles: int


@jit
def _car_begins(state: Floats, u: float) -> None:
    state[0], state[1] = mountain_car.start(u)


@jit
def _car_moves(state: Floats, action: int) -> tuple[float, bool]:
    state[0], state[1], reward, ended = mountain_car.step(state[0], state[1], action)
    return reward, ended


MOUNTAIN_CAR = Continuous(_car_begins, _car_moves, mountain_car.LOW, mountain_car.HIGH, mountain_car.ACTIONS)


def tiles_of(low: Floats, high: Floats, *, tiles: int, tilings: int) -> Tiles:
    """Tile coding of a box. Raises: ConfigError for less than one tile or tiling, or a dimension of no width."""
    if tiles < 1 or tilings < 1:
        raise ConfigError(f"tiles is {tiles} and tilings {tilings}; tile coding needs at least 1 of each.")
    bottom, top = np.array(low, dtype=np.float64), np.array(high, dtype=np.float64)
    if not np.all(top > bottom):
        raise ConfigError(f"low is {bottom} and high {top}; every dimension needs low < high.")
    shift = (np.arange(tilings)[:, None] * (2 * np.arange(len(bottom)) + 1) / tilings) % 1.0
    return Tiles(bottom, top, shift, tiles)


@jit
def active_tiles(coding: Tiles, state: Floats, out: Ints) -> None:
    """Writes the active tile of each tiling to `out` [tilings], numbered as `features.tile_indices` does."""
    dims = state.shape[0]
    for tiling in range(coding.shift.shape[0]):
        index, place = 0, 1
        for k in range(dims):
            shift = coding.shift[tiling, k]
            unit = (state[k] - coding.low[k]) / (coding.high[k] - coding.low[k])
            cell = int(np.floor(unit * coding.tiles + shift))
            index += min(cell, coding.tiles if shift > 0.0 else coding.tiles - 1) * place
            place *= coding.tiles + 1
        out[tiling] = tiling * place + index


def sarsa_lambda_tiles(
    world: Continuous, settings: Settings, *, lam: float, tiles: int = 8, tilings: int = 8, trace: Trace = "replacing"
) -> ControlResult:
    """Semi-gradient SARSA(lambda) on tile coding: w += alpha delta z, with one weight for each tile and action.

    alpha is the step of one weight: a share a of the error is removed by alpha = a / tilings. initial_q: what every
    state's value begins at; reward_std, alpha_power: must be 0. `q` [R, d A]: the weights, a tile's actions together.
    Raises: ConfigError for lam outside [0, 1], no tiles, or a setting named above.
    Source: Sutton and Barto 2018, sections 10.1 (lam 0) and 12.7, binary features with replacing traces.
    """
    fraction("lam", lam)
    coding = tiles_of(world.low, world.high, tiles=tiles, tilings=tilings)
    record, rates = blank_tiles(coding, settings, world.actions), rates_of(settings)
    seeds, extra = streams(settings.seed, settings.runs), (float(lam), trace == "replacing")

    def play(first: int, last: int) -> None:
        tile_runs(first, last, world.begin, world.advance, coding, world.actions, rates, seeds, record, *extra)

    play(0, 0)
    started = time.perf_counter()
    spread(play, settings.runs, settings.threads)
    row_ptr = np.arange(0, record.q.shape[1] + 1, world.actions)
    return ControlResult(record.q, row_ptr, *record[1:], time.perf_counter() - started, {})


def blank_tiles(coding: Tiles, settings: Settings, actions: int) -> Record:
    """The record before the first step, a weight for each tile and action: together they say initial_q.

    Raises: ConfigError for settings that tiles do not have.
    """
    if settings.alpha_power != 0.0 or np.any(np.asarray(settings.reward_std) != 0.0):
        raise ConfigError("alpha_power and reward_std belong to finite models. Leave them at 0.")
    tilings, dims = coding.shift.shape
    record = blank(settings, actions * tilings * (coding.tiles + 1) ** dims)
    record.q[:] /= tilings
    return record


@jit
def tile_values(weights: Floats, tiles: Ints, q: Floats) -> None:
    """Writes q(s, a) = sum of the active tiles' weights to q [A]."""
    for a in range(q.shape[0]):
        q[a] = 0.0
        for tile in tiles:
            q[a] += weights[tile * q.shape[0] + a]


# not kept on disk: numba cannot tell a function handed in again, and would add a copy in each process
@njit(nogil=True)
def tile_runs(
    first_run: int,
    last_run: int,
    begin: Callable[[Floats, float], None],
    advance: Callable[[Floats, int], tuple[float, bool]],
    coding: Tiles,
    actions: int,
    rates: Rates,
    seeds: Streams,
    record: Record,
    lam: float,
    replacing: bool,
) -> None:
    """Runs of SARSA(lambda) on tiles, whole."""
    size, decay = record.q.shape[1], rates.gamma * lam
    trace, place, listed = np.zeros(size), np.full(size, -1), np.zeros(size, np.int64)
    q, state, tiles = np.zeros(actions), np.zeros(coding.low.shape[0]), np.zeros(coding.shift.shape[0], np.int64)
    for run in range(first_run, last_run):
        stream, w = seeds[run], record.q[run]
        for episode in range(rates.epsilon.shape[0]):
            epsilon = rates.epsilon[episode]
            begin(state, uniform(stream))
            active_tiles(coding, state, tiles)
            tile_values(w, tiles, q)
            action = choose(q, 0, actions, epsilon, uniform(stream))
            total, length, ended, count = 0.0, 0, False, 0
            while not ended and length < rates.limit:
                for tile in tiles:
                    count = mark(trace, place, listed, count, tile * actions + action, 1.0, replacing)
                    record.visits[run, tile * actions + action] += 1
                before = q[action]
                reward, ended = advance(state, action)
                error = reward - before
                total += reward
                length += 1
                if not ended:
                    active_tiles(coding, state, tiles)
                    tile_values(w, tiles, q)
                    action = choose(q, 0, actions, epsilon, uniform(stream))
                    error += rates.gamma * q[action]
                count = credit(w, trace, place, listed, count, rates.alpha * error, decay)
                if not ended:
                    tile_values(w, tiles, q)
            forget(place, listed, count)
            record.returns[run, episode] = total
            record.lengths[run, episode] = length
            record.truncated[run, episode] = not ended
