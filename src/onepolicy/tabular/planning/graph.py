"""What a model's graph says about ending: who can, where one can stay for ever, and merging states that are one.

An *end component* is a set of states with at least one row each, closed under those rows and strongly connected by
them: there a policy can stay for ever. Source: de Alfaro 1997, Formal verification of probabilistic systems, section 3.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from onepolicy.tabular.jit import jit
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.storage import Bools, Csr, Floats, Ints, Policy, Rows


def row_states(csr: Csr) -> Ints:
    """The state of each row [K]."""
    return np.repeat(np.arange(len(csr.terminal)), np.diff(csr.row_ptr))


def joined(rows: Rows, terminal: Bools, advantage: Floats, least: float) -> tuple[Bools, Policy]:
    """The states from which rows of advantage [K] >= least can end [S], and a policy of such rows that does, surely.

    Each state takes, of the rows that may lead to a state that ends already, the one of the greatest advantage. If all
    states end, every one has a chance of coming nearer the end, so that the policy ends with probability 1.
    """
    ends, policy = terminal.copy(), np.zeros(len(terminal), dtype=np.int32)
    backwards = True
    while _join(rows, advantage, least, ends, policy, backwards):
        backwards = not backwards
    return ends, policy


def lingering(rows: Rows, terminal: Bools, near: Bools) -> bool:
    """Whether some policy of the rows `near` [K] stays for ever in states that are not terminal."""
    inside = ~terminal
    backwards = True
    while _leave(rows, near, inside, backwards):
        backwards = not backwards
    return bool(inside.any())


def end_components(csr: Csr, alive: Bools) -> tuple[Ints, Bools]:
    """The maximal end components of the rows `alive` [K]: a label for each state [S] (-1: in none), and their rows."""
    states, here = len(csr.terminal), row_states(csr)
    lengths = np.diff(csr.ptr)
    source = np.repeat(here, lengths)
    while alive.any():
        used = np.repeat(alive, lengths)
        label = _strong(source[used], csr.successors[used], states)
        stays = np.minimum.reduceat(label[csr.successors] == label[source], csr.ptr[:-1])
        if np.array_equal(alive & stays, alive):
            inside = np.zeros(states, dtype=np.bool_)
            inside[here[alive]] = True
            return np.where(inside, label, -1).astype(np.int64), alive
        alive = alive & stays
    return np.full(states, -1, dtype=np.int64), alive


def recurrent_class(csr: Csr, stuck: Bools) -> Ints:
    """States of `stuck` [S], a set no row leaves, that all lead to one another and nowhere else."""
    here = row_states(csr)
    source = np.repeat(here, np.diff(csr.ptr))
    used = stuck[source]
    states = len(stuck)
    label = _strong(source[used], csr.successors[used], states)
    leaves = np.zeros(states, dtype=np.bool_)
    leaves[label[source[used & (label[source] != label[csr.successors])]]] = True
    first = np.flatnonzero(stuck & ~leaves[label])[0]
    return np.flatnonzero(label == label[first])


def _strong(source: Ints, successors: NDArray[np.int32], states: int) -> NDArray[np.int32]:
    """The strongly connected component of each state [S]."""
    graph = sparse.coo_array((np.ones(len(source), dtype=np.int8), (source, successors)), shape=(states, states))
    return np.asarray(sparse.csgraph.connected_components(graph, directed=True, connection="strong")[1])


class Merged(NamedTuple):
    """A model in which each set of states is one, and where each state went [S]."""

    mdp: MDP
    place: Ints


def merged_states(mdp: MDP, label: Ints, inner: Bools) -> Merged:
    """States of one label (-1: alone) made one, with all their rows but the inner ones [K]."""
    csr = mdp.csr()
    states = mdp.num_states
    key = np.where(label < 0, states + np.arange(states), label)
    _, place = np.unique(key, return_inverse=True)
    here = place[row_states(csr)]
    keep = np.flatnonzero(~inner)
    keep = keep[np.argsort(here[keep], kind="stable")]
    lengths = np.diff(csr.ptr)[keep]
    ptr = np.concatenate([[0], np.cumsum(lengths)])
    picked = np.arange(ptr[-1]) - np.repeat(ptr[:-1], lengths) + np.repeat(csr.ptr[keep], lengths)
    count = int(place.max()) + 1
    row_ptr = np.concatenate([[0], np.cumsum(np.bincount(here[keep], minlength=count))]).astype(np.int64)
    successors = place[csr.successors[picked]].astype(np.int32)
    rows = Rows(row_ptr, ptr.astype(np.int64), successors, csr.probabilities[picked], csr.rewards[keep])
    terminal = np.zeros(count, dtype=np.bool_)
    terminal[place[mdp.terminal]] = True
    return Merged(MDP(rows, terminal, np.bincount(place, weights=mdp.start, minlength=count).astype(np.float64)), place)


@jit
def _join(rows: Rows, advantage: Floats, least: float, ends: Bools, policy: Policy, backwards: bool) -> bool:
    """One pass of `joined`; whether it found any."""
    found, states = False, len(ends)
    for i in range(states):
        s = states - 1 - i if backwards else i
        if ends[s]:
            continue
        best = -np.inf
        for k in range(rows.row_ptr[s], rows.row_ptr[s + 1]):
            if advantage[k] < least or (ends[s] and advantage[k] <= best):
                continue
            for i_ in range(rows.ptr[k], rows.ptr[k + 1]):
                if ends[rows.successors[i_]] and rows.successors[i_] != s:
                    ends[s], found = True, True
                    best, policy[s] = advantage[k], k - rows.row_ptr[s]
                    break
    return found


@jit
def _leave(rows: Rows, near: NDArray[np.bool_], inside: Bools, backwards: bool) -> bool:
    """One pass of `lingering`: states out of which every row of `near` may lead are out themselves."""
    found, states = False, len(inside)
    for i in range(states):
        s = states - 1 - i if backwards else i
        if not inside[s]:
            continue
        stays = False
        for k in range(rows.row_ptr[s], rows.row_ptr[s + 1]):
            if near[k] and not stays:
                stays = True
                for j in range(rows.ptr[k], rows.ptr[k + 1]):
                    if not inside[rows.successors[j]]:
                        stays = False
                        break
        if not stays:
            inside[s], found = False, True
    return found
