"""The finite MDP: what a list of transitions becomes, its four storages, and its file."""

from __future__ import annotations

import re
import zipfile
from contextlib import suppress
from fractions import Fraction
from functools import cache

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tabular.conftest import as_mdp, forest, puterman, random_rational

from onepolicy.errors import ConfigError, DataError
from onepolicy.tabular import layouts
from onepolicy.tabular.build import from_function, from_grid
from onepolicy.tabular.layouts import with_layout
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.planning import METHODS, plan
from onepolicy.tabular.storage import Generated, Padded, Rows, Table, available_memory, require_memory, storage_bytes

NAMES = ["state_names", "action_names"]
FIELDS = ("row_ptr", "ptr", "successors", "probabilities", "rewards", "transition_rewards", "terminal", "start")


def same(one: MDP, two: MDP) -> None:
    """All arrays and names are equal, and of one kind."""
    for field, a, b in zip(FIELDS, one.csr(), two.csr(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=field)
        assert a.dtype == b.dtype, field
    for name in NAMES:
        assert getattr(one, name) == getattr(two, name)
    np.testing.assert_array_equal(one.row_labels, two.row_labels)


def three() -> MDP:
    """State 0 has two actions, 1 has one, 2 ends; the rewards of (0, 0) differ by successor."""
    return MDP.from_coo(
        [0, 0, 0, 1], [0, 0, 1, 0], [1, 2, 2, 0], [0.25, 0.75, 1.0, 1.0], [4.0, 8.0, 3.0, -1.0], num_states=3,
        state_names=["hall", "garden", "street"], action_names=["open", "leave"], start=0,
    )  # fmt: skip


@numba.njit
def drift(s, a, k):
    """0 .. 3; a + 1 steps to the right with 3/4 and a reward of the state it leads to, else stays; 4 ends."""
    return (min(s + a + 1, 4), 0.75, float(min(s + a + 1, 4))) if k == 0 else (s, 0.25, 0.0)


def test_the_arrays_of_a_small_model():
    """Row (0, 0) earns 4 / 4 + 8 * 3 / 4 = 7."""
    mdp = three()
    csr = mdp.csr()
    assert csr.row_ptr.tolist() == [0, 2, 3, 3]
    assert csr.ptr.tolist() == [0, 2, 3, 4]
    assert csr.successors.tolist() == [1, 2, 2, 0]
    assert csr.probabilities.tolist() == [0.25, 0.75, 1, 1]
    assert csr.rewards.tolist() == [7, 3, -1]
    assert csr.transition_rewards.tolist() == [4, 8, 3, -1]
    assert csr.terminal.tolist() == [False, False, True]
    assert csr.start.tolist() == [1, 0, 0]
    assert (csr.successors.dtype, csr.row_ptr.dtype) == (np.int32, np.int64)


def test_what_is_asked_of_a_model():
    mdp = three()
    assert (mdp.num_states, mdp.num_rows) == (3, 3)
    assert [mdp.num_actions(s) for s in range(3)] == [2, 1, 0]
    assert [mdp.state_name(s) for s in range(3)] == ["hall", "garden", "street"]
    assert forest().state_name(2) == "2"
    assert mdp.csr() is mdp.csr()
    assert mdp.row_ptr.tolist() == with_layout(mdp, "padded").row_ptr.tolist() == [0, 2, 3, 3]
    assert mdp.reachable().all()
    island = MDP.from_coo([0, 1], [0, 0], [0, 0], [1.0, 1.0], 0.0, num_states=2, state_names=["port", "isle"], start=0)
    assert island.reachable().tolist() == [True, False]
    with pytest.raises(DataError, match="State isle cannot be reached"):
        island.check_reachable()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 3), st.booleans(), st.randoms())
def test_the_order_of_the_transitions_does_not_matter(seed, states, actions, ending, random):
    model = random_rational(seed, states, actions, ending=ending)
    entries = [(s, a, t, float(p), float(r)) for (s, a), row in model.items() for t, (p, r) in row.items()]
    mdp = as_mdp(model, states)
    random.shuffle(entries)
    same(mdp, MDP.from_coo(*map(np.array, zip(*entries)), num_states=states))
    csr = mdp.csr()
    for k, (s, a) in enumerate(sorted(model)):
        part = slice(csr.ptr[k], csr.ptr[k + 1])
        assert csr.row_ptr[s] + a == k
        assert csr.successors[part].tolist() == sorted(model[s, a])
        assert csr.rewards[k] == pytest.approx(float(sum(p * r for p, r in model[s, a].values())), abs=1e-14)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9), st.integers(-9, 9)), min_size=1, max_size=8))
def test_the_same_transition_is_added_up(drawn):
    """(successor, weight, reward) of one row, in twelfths and so on: probabilities add, rewards average by them."""
    total = sum(w for _, w, _ in drawn)
    t, w, r = (np.array(column) for column in zip(*drawn))
    mdp = MDP.from_coo(np.zeros(len(t), int), np.zeros(len(t), int), t, w / total, r, num_states=3)
    expected = {}
    for successor, weight, reward in drawn:
        p, earned = expected.get(successor, (Fraction(0), Fraction(0)))
        expected[successor] = (p + Fraction(weight, total), earned + Fraction(weight, total) * reward)
    csr = mdp.csr()
    assert csr.successors.tolist() == sorted(expected)
    each = [expected[s] for s in sorted(expected)]
    np.testing.assert_allclose(csr.probabilities, [float(p) for p, _ in each], rtol=1e-14)
    np.testing.assert_allclose(csr.transition_rewards, [float(e / p) for p, e in each], rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(csr.rewards, [float(sum(e for _, e in each))], rtol=1e-13, atol=1e-13)


def test_far_numbers_are_sorted_too():
    """Action 2^62 makes a key of one integer too long; it is sorted by columns, and the gap is named."""
    with pytest.raises(DataError, match=f"State 1 has an action {2**62} but no action 1"):
        MDP.from_coo([1, 0, 1], [2**62, 0, 0], [0, 1, 0], np.ones(3), 0.0, num_states=2)


def test_what_stays_in_a_terminal_state_is_dropped():
    entries = ([0, 1, 1], [0, 0, 1], [1, 1, 1], np.ones(3), [5.0, 0.0, 0.0])
    mdp = MDP.from_coo(*entries, num_states=2, terminal=[1])
    assert mdp.num_rows == 1
    assert mdp.start.tolist() == [1, 0]
    same(mdp, MDP.from_coo(*entries, num_states=2, terminal=[False, True]))
    assert MDP.from_coo(*entries, num_states=2).num_rows == 3
    impossible = MDP.from_coo([0, 1], [0, 0], [1, 0], [1.0, 0.0], [5.0, 7.0], num_states=2, terminal=[1])
    assert impossible.num_rows == 1


def test_what_cannot_happen_is_not_stored():
    mdp = MDP.from_coo([0, 0], [0, 0], [0, 1], [0.0, 1.0], [9.0, 2.0], num_states=2)
    assert mdp.csr().successors.tolist() == [1]
    assert mdp.csr().rewards.tolist() == [2]


@pytest.mark.parametrize("layout", ["rows", "padded", "table"])
def test_a_model_without_transitions_is_worth_nothing(layout):
    mdp = with_layout(MDP.from_coo([], [], [], [], [], num_states=3), layout)
    assert mdp.terminal.all()
    assert mdp.start.tolist() == pytest.approx([1 / 3] * 3)
    found = plan(mdp, 0.9)
    assert (found.value.tolist(), found.gap, found.converged) == ([0, 0, 0], 0, True)
    assert found.policy.tolist() == [-1, -1, -1]


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"state_names": ["a", "b"]}, "There are 2 state names for 3 states"),
        ({"action_names": ["a"]}, "There are 1 action names and a state with 2 actions"),
        ({"start": 3}, "start is 3; states are 0 .. 2"),
        ({"start": [0.5, 0.25, 0.0]}, "sums to 0.75"),
        ({"start": [1.5, -0.5, 0.0]}, "give a state, or probabilities [3]"),
        ({"terminal": [3]}, "terminal has states outside 0 .. 2: [3]"),
        ({"terminal": [True, False]}, "terminal has shape (2,)"),
        ({"dtype": "float16"}, "dtype is float16; probabilities are stored as float64 or float32"),
        ({"num_states": 0}, "num_states is 0; an MDP has 1 to 2^31 - 1 states"),
        ({"reward": [1.0, 2.0]}, "reward have shapes [(3,), (3,), (3,), (3,), (2,)]"),
        ({"reward": [1.0, np.nan, 2.0]}, "State 0, action 1 -> 2 has probability 1 and reward nan"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings_, words):
    given_ = {"state": [0, 0, 1], "action": [0, 1, 0], "successor": [1, 2, 0], "probability": np.ones(3), "reward": 0.0}
    with pytest.raises(DataError, match=re.escape(words)):
        MDP.from_coo(**(given_ | {"num_states": 3} | settings_))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_storages_hold_the_same_model(seed, ending):
    """Ragged to padded and back is the same; in float32 the numbers are rounded once, and stay."""
    mdp = as_mdp(random_rational(seed, 6, 3, ending=ending), 6)
    padded = with_layout(mdp, "padded")
    assert isinstance(padded.storage, Padded)
    assert padded.storage.successors.dtype == np.int32
    same(mdp, padded)
    same(mdp, with_layout(padded, "rows"))
    single = with_layout(mdp, "padded", dtype="float32")
    assert single.storage.probabilities.dtype == np.float32
    np.testing.assert_array_equal(single.csr().probabilities, mdp.csr().probabilities.astype(np.float32))
    same(single, with_layout(mdp, "rows", dtype=np.float32))
    same(single, with_layout(with_layout(single, "rows", dtype=np.float32), "padded", dtype=np.float32))


@cache
def four_storages() -> dict[str, MDP]:
    """A deterministic grid; the compiled function is that of the table."""
    mdp = from_grid("S..#\n.X..\n...G", rewards={"G": 10.0, "X": -10.0})
    table = with_layout(mdp, "table")
    following, gain = table.storage.successors, table.storage.rewards

    @numba.njit
    def outcome(s, a, k):
        return following[s, a], 1.0, gain[s, a]

    function = from_function(
        outcome, num_states=mdp.num_states, num_actions=4, num_outcomes=1, terminal=mdp.terminal, start=mdp.start
    )
    padded, single = with_layout(mdp, "padded"), with_layout(mdp, "rows", dtype="float32")
    return {"rows": mdp, "padded": padded, "table": table, "function": function, "float32": single}


@pytest.mark.parametrize("method", METHODS)
def test_storages_give_the_same_values_in_as_many_sweeps(method):
    mdps = four_storages()
    kinds = [type(mdp.storage) for mdp in mdps.values()]
    assert kinds == [Rows, Padded, Table, Generated, Rows]
    first = plan(mdps["rows"], 0.9, method)
    assert first.converged
    for other in list(mdps.values())[1:]:
        found = plan(other, 0.9, method)
        assert found.sweeps == first.sweeps
        np.testing.assert_array_equal(found.value, first.value)
        np.testing.assert_array_equal(found.policy, first.policy)


def test_a_function_becomes_arrays_with_its_rewards():
    """(3, 0): to 4 with 3/4 for 4, else nothing: 3 expected; 0 and 4 a transition."""
    function = from_function(drift, num_states=5, num_actions=[2, 2, 2, 2, 0], num_outcomes=2, start=0)
    assert function.terminal.tolist() == [False] * 4 + [True]
    for layout in ("rows", "padded"):
        stored = with_layout(function, layout)
        assert not isinstance(stored.storage, Generated)
        csr = stored.csr()
        assert csr.rewards[6] == 3
        assert csr.transition_rewards[csr.ptr[6] : csr.ptr[7]].tolist() == [4, 0]
        for field, one, other in zip(FIELDS, csr, function.csr(), strict=True):
            np.testing.assert_array_equal(one, other, err_msg=field)


def test_a_probability_that_single_precision_cannot_hold_stays_above_zero():
    entries = ([0, 0], [0, 0], [0, 1], [1.0, 1e-60], [0.0, 1.0])
    for mdp in (
        MDP.from_coo(*entries, num_states=2, dtype="float32"),
        with_layout(MDP.from_coo(*entries, num_states=2), "padded", dtype="float32"),
    ):
        csr = mdp.csr()
        assert len(csr.successors) == len(csr.transition_rewards) == 2
        assert 0 < csr.probabilities[1] < 1e-44


@pytest.mark.parametrize("layout", ["rows", "padded", "table"])
def test_a_layout_of_another_precision_is_refused(layout):
    with pytest.raises(DataError, match="dtype is int8; probabilities are stored as float64 or float32"):
        with_layout(from_grid("S.G"), layout, dtype="int8")


def test_the_memory_of_a_storage_is_that_of_its_arrays():
    mdp = from_grid("S..#\n.X..\n...G", slip=0.2)
    counts = np.diff(mdp.csr().row_ptr)
    transitions, rows = len(mdp.csr().successors), mdp.num_rows
    assert storage_bytes("rows", mdp.num_states, rows, transitions) == sum(x.nbytes for x in mdp.storage)
    for dtype, size in (("float64", 8), ("float32", 4)):
        padded = with_layout(mdp, "padded", dtype=dtype).storage
        full = mdp.num_states * counts.max()
        needed = storage_bytes("padded", mdp.num_states, full, full * padded.successors.shape[2], itemsize=size)
        assert needed == sum(x.nbytes for x in padded)
        with pytest.raises(ConfigError, match=f"A padded storage needs {needed:,} bytes"):
            with_layout(mdp, "padded", dtype=dtype, limit=needed - 1)
        with_layout(mdp, "padded", dtype=dtype, limit=needed)
    table = with_layout(from_grid("S..\n..G"), "table").storage
    assert storage_bytes("table", 6, 24, 0) == sum(x.nbytes for x in table)


def test_too_little_memory_for_a_ragged_copy_is_said():
    """drift: 5 states, 8 rows, 16 transitions, counted twice because their rewards are kept too."""
    function = from_function(drift, num_states=5, num_actions=[2, 2, 2, 2, 0], num_outcomes=2)
    needed = storage_bytes("rows", 5, 8, 32)
    with pytest.raises(ConfigError, match=f"A ragged copy of the model needs {needed} bytes and there are 100 bytes"):
        with_layout(function, "rows", limit=100)
    with_layout(function, "rows", limit=needed)
    require_memory(10, "Ten bytes", 10)
    with pytest.raises(ConfigError, match=r"Much needs 1\.00 GiB and there are 10 bytes"):
        require_memory(2**30, "Much", 10)
    assert available_memory() > 2**20


def models() -> dict[str, MDP]:
    """A model for each layout, with all that a model can have."""
    grid = from_grid("S..\n..G")
    return {
        "rows": three(), "padded": with_layout(three(), "padded"), "table": with_layout(grid, "table"),
        "labels": puterman(), "float32": with_layout(three(), "rows", dtype="float32"),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["rows", "padded", "table", "labels", "float32"])
def test_a_saved_model_is_loaded_as_it_was(kind, tmp_path):
    mdp = models()[kind]
    layouts.save(mdp, tmp_path / "kept" / "model.npz")
    again = layouts.load(str(tmp_path / "kept" / "model.npz"))
    assert type(again.storage) is type(mdp.storage)
    same(mdp, again)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["model.npz"]
    np.testing.assert_array_equal(plan(again, 0.9).value, plan(mdp, 0.9).value)


def test_a_function_is_not_saved(tmp_path):
    mdp = from_function(drift, num_states=5, num_actions=[2, 2, 2, 2, 0], num_outcomes=2)
    with pytest.raises(DataError, match=r"This model is a compiled function; save its source"):
        layouts.save(mdp, tmp_path / "model.npz")
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    layouts.save(forest(), path)

    def halfway(file, **arrays):
        file.write(b"PK\x03\x04 and then the power")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", halfway)
    with pytest.raises(KeyboardInterrupt):
        layouts.save(three(), path)
    same(layouts.load(path), forest())
    assert [each.name for each in tmp_path.iterdir()] == ["model.npz"]


def test_what_is_no_saved_model_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.npz does not exist; save an MDP there first"):
        layouts.load(tmp_path / "none.npz")
    junk = {
        "empty": b"", "text": b"probability,reward\n1,0\n", "pickle": b"\x80\x04K\x01.",
        "zip": b"PK\x03\x04" + b"\0" * 40, "header": b"\x93NUMPY\x01\x00\x10\x00",
    }  # fmt: skip
    for name, content in junk.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} is no MDP of ours"):
            layouts.load(tmp_path / name)
    with pytest.raises(DataError, match="is no MDP of ours"):
        layouts.load(tmp_path)
    np.save(tmp_path / "array.npy", np.ones(3))
    np.savez(tmp_path / "other.npz", weights=np.ones(3))
    np.savez(tmp_path / "half.npz", storage=np.array("Rows"), terminal=np.ones(3, bool), start=np.ones(3) / 3)
    for name, words in (("array.npy", ""), ("other.npz", r"\['weights'\]"), ("half.npz", r"\['start', 'terminal'\]")):
        with pytest.raises(DataError, match=f"{name} is no MDP of ours.*{words}"):
            layouts.load(tmp_path / name)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused_or_harmless(tmp_path_factory, data):
    """A file cut short, or with one byte changed, is an error of ours unless the byte is no part of the arrays."""
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    layouts.save(three(), path)
    whole = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(whole[:at])
        with pytest.raises(DataError, match="is no MDP of ours"):
            layouts.load(path)
        return
    whole[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole)
    with suppress(DataError):
        same(layouts.load(path), three())


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"successors": np.array([1, 2, 7, 0], np.int32)}, "State 0, action 1"),
        ({"probabilities": np.array([0.25, 0.5, 1.0, 1.0])}, "State 0, action 0"),
        ({"ptr": np.array([0, 2, 9, 4])}, "ptr"),
        ({"row_ptr": np.array([0, 2, 3])}, "row_ptr"),
        ({"rewards": np.array([7.0, np.inf, -1.0])}, "State 0, action 1"),
        ({"successors": np.array([1.0, 2.0, 2.0, 0.0])}, "successors"),
        ({"start": np.array([1.0, 0.0])}, "start"),
        ({"terminal": np.array([False, False, False])}, "terminal"),
        ({"transition_rewards": np.ones(3)}, "transition_rewards"),
    ],
)
def test_a_file_of_arrays_that_do_not_fit_is_refused(tmp_path, changed, words):
    """Compiled sweeps read where the arrays say; a file made by others is looked at first."""
    path = tmp_path / "model.npz"
    layouts.save(three(), path)
    with np.load(path) as file:
        np.savez(path, **(dict(file) | changed))
    assert zipfile.is_zipfile(path)
    with pytest.raises(DataError, match=f"is no MDP of ours.*{words}"):
        layouts.load(path)
