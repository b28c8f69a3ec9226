"""The equations of a policy: the compiled BiCGSTAB beside a sparse LU, where it breaks down, and where it gives up."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse import linalg

from onepolicy.tabular.layouts import with_layout
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.planning import evaluate, linear_solve, plan, sweeps
from onepolicy.tabular.planning.linear_solve import bicgstab, correction, policy_matrix
from onepolicy.tabular.planning.solution import Work
from onepolicy.tabular.planning.sweeps import Sweeps
from onepolicy.tabular.worlds.garnet import garnet, local
from onepolicy.tabular.worlds.gridworlds import open_grid

STATES = 1500


def walk(states: int, right: float) -> MDP:
    """A step costs 1, to the right with a probability, else to the left; both ends are terminal."""
    s = np.arange(1, states - 1)
    p = np.concatenate([np.full(len(s), 1 - right), np.full(len(s), right)])
    return MDP.from_coo(
        np.concatenate([s, s]), np.zeros(2 * len(s), int), np.concatenate([s - 1, s + 1]), p, -1.0, num_states=states
    )


def ring(states: int) -> MDP:
    """Round and round, 1 for leaving state 0."""
    s = np.arange(states)
    return MDP.from_coo(s, 0 * s, (s + 1) % states, np.ones(states), (s == 0) * 1.0, num_states=states)


def solved(mdp: MDP, discount: float, threads: int = 1, share: float = 1e-9) -> None:
    """BiCGSTAB's x for a random policy and right side is that of a sparse LU, and what is left is what it says."""
    rng = np.random.default_rng(3)
    policy = (rng.integers(0, 10**6, mdp.num_states) % np.maximum(1, np.diff(mdp.row_ptr))).astype(np.int32)
    right = np.where(mdp.terminal, 0.0, rng.normal(size=mdp.num_states))
    with Sweeps(mdp, discount, threads) as on, Work("test", 1e-6) as work:
        matrix = sparse.csc_array(sparse.eye_array(mdp.num_states) - discount * policy_matrix(on, policy))
        x, left = bicgstab(on, right, policy, work, share=share)
    found = np.linalg.norm(right - matrix @ x) / np.linalg.norm(right)
    assert left <= share
    assert found == pytest.approx(left, rel=0.05, abs=1e-12)
    exact = linalg.spsolve(matrix, right)
    np.testing.assert_allclose(x, exact, rtol=0, atol=2e-6 * np.abs(exact).max())
    assert (x[mdp.terminal] == 0).all()


@pytest.mark.parametrize("layout", ["rows", "padded"])
@pytest.mark.parametrize("kind", ["random", "local", "grid"])
def test_the_equations_are_solved(kind, layout):
    mdp = {
        "random": lambda: garnet(STATES, actions=3, branching=4, seed=1),
        "local": lambda: local(STATES, actions=3, branching=4, seed=1),
        "grid": lambda: open_grid(rows=40, cols=40, slip=0.2),
    }[kind]()
    solved(with_layout(mdp, layout), 0.99)


def test_it_takes_as_many_passes_as_scipys():
    """The same recursion, ended at the same half steps; rounding moves the end a little."""
    mdp = open_grid(rows=40, cols=40, slip=0.2)
    policy = np.random.default_rng(4).integers(0, 4, mdp.num_states).astype(np.int32)
    right = np.where(mdp.terminal, 0.0, np.random.default_rng(5).normal(size=mdp.num_states))
    passes = []
    with Sweeps(mdp, 0.99) as on, Work("test", 1e-6) as work:
        matrix = sparse.csr_array(sparse.eye_array(mdp.num_states) - 0.99 * policy_matrix(on, policy))
        counted = linalg.LinearOperator(matrix.shape, matvec=lambda x: passes.append(1) or matrix @ x, dtype=np.float64)
        linalg.bicgstab(counted, right, rtol=1e-4, atol=0.0)
        bicgstab(on, right, policy, work, share=1e-4)
        assert len(passes) > 15
        assert work.sweeps / on.share == pytest.approx(len(passes), rel=0.15)


def test_threads_solve_the_same_equations(monkeypatch):
    monkeypatch.setattr(sweeps, "SHARED_FROM", 1000)
    solved(garnet(STATES, actions=3, branching=4, seed=1), 0.99, threads=3)


def test_single_precision_is_solved_as_stored():
    solved(with_layout(garnet(STATES, actions=3, branching=4, seed=1), "rows", dtype="float32"), 0.99)


def test_one_reward_on_a_ring():
    """V(s) = discount^d / (1 - discount^n), d steps from state 0: the residual is orthogonal to its first image."""
    found = evaluate(ring(STATES), np.zeros(STATES, np.int64), 0.99, tolerance=1e-9)
    d = (STATES - np.arange(STATES)) % STATES
    assert found.converged
    np.testing.assert_allclose(found.value, 0.99**d / (1 - 0.99**STATES), rtol=0, atol=1e-9)


def test_a_one_way_walk_is_left_to_gmres(monkeypatch):
    """Expected steps of the gambler's ruin: s / (q - p) - n / (q - p) (1 - (q/p)^s) / (1 - (q/p)^n), p = 0.7."""
    calls = []
    gmres = linear_solve.gmres
    monkeypatch.setattr(linear_solve, "gmres", lambda *a, **k: calls.append(1) or gmres(*a, **k))
    n = STATES - 1
    found = evaluate(walk(STATES, 0.7), np.full(STATES, -1) + (np.arange(STATES) % n > 0), 1.0)
    s, p, q = np.arange(STATES), 0.7, 0.3
    steps = s / (q - p) - n / (q - p) * (1 - (q / p) ** s) / (1 - (q / p) ** n)
    assert calls
    assert found.converged
    np.testing.assert_allclose(found.value, -steps, rtol=0, atol=1e-6)


def test_a_limit_ends_the_solve():
    """A step has two passes; the limit is looked at before each step, and what there is then is nearer than nothing."""
    mdp = open_grid(rows=40, cols=40, slip=0.2)
    policy, right = np.zeros(mdp.num_states, np.int32), np.where(mdp.terminal, 0.0, -1.0)
    with Sweeps(mdp, 0.99) as on, Work("test", 1e-6, max_sweeps=10 * on.share) as work:
        x = correction(on, right, policy, work, share=1e-12)
        assert work.sweeps == pytest.approx(10 * on.share)
        matrix = sparse.eye_array(mdp.num_states) - 0.99 * policy_matrix(on, policy)
    assert np.linalg.norm(right - matrix @ x) < np.linalg.norm(right)


def test_nothing_left_to_solve_is_nothing():
    mdp = garnet(STATES, actions=1, branching=2, seed=0)
    with Sweeps(mdp, 0.9) as on, Work("test", 1e-6) as work:
        x, left = bicgstab(on, np.zeros(STATES), np.zeros(STATES, np.int32), work, share=1e-2)
    assert (x.tolist(), left, work.sweeps) == ([0.0] * STATES, 0, 0)


def test_policy_iteration_agrees_with_sweeps():
    """Within the bounds of one another, on models too large for the dense solver."""
    for mdp in (garnet(STATES, actions=3, branching=4, seed=2), local(STATES, actions=3, branching=4, seed=2)):
        one = plan(mdp, 0.99, "policy-iteration", tolerance=1e-8)
        two = plan(mdp, 0.99, "modified-policy-iteration", tolerance=1e-8)
        assert one.converged
        assert (one.lower <= two.upper).all()
        assert (two.lower <= one.upper).all()
