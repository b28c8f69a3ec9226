"""What goes into a checkpoint comes out of it to the bit, and nothing that could run code goes in."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.errors import CheckpointError
from onepolicy.run.checkpoint import decode, encode, load_part, part_names, read_state, save_part


class Holder:
    """A part that is its state."""

    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def bits(value):
    """A value with tensors, arrays and floats replaced by their type, shape and bytes, so that == is bit equality."""
    if isinstance(value, torch.Tensor):
        flat = value.detach().contiguous().reshape(-1)
        return ("tensor", str(value.dtype), tuple(value.shape), flat.view(torch.uint8).numpy().tobytes())
    if isinstance(value, np.ndarray | np.generic):
        return (type(value).__name__, value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, float):
        return ("float", "nan" if math.isnan(value) else value.hex())
    if isinstance(value, list | tuple):
        return (type(value).__name__, [bits(item) for item in value])
    if isinstance(value, dict):
        return ("dict", [(type(key).__name__, bits(key), bits(item)) for key, item in value.items()])
    return (type(value).__name__, value)


def round_trip(state, directory):
    save_part(directory, "part", Holder(state))
    back = Holder(None)
    load_part(directory, "part", back)
    return back.state


def test_every_kind_of_value_survives(tmp_path):
    """Types, key order, dtypes, NaN, -0.0, infinities, integers beyond 2^53 and 2^64, numpy scalars and text arrays."""
    state = {
        "dtypes": [torch.arange(6).reshape(2, 3).to(t) for t in (
            torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
            torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool, torch.complex64,
        )],
        "odd": [torch.tensor(float("nan")), torch.tensor(-0.0), torch.zeros(0, 3), torch.tensor(2**62 + 1)],
        "numbers": [0, -1, 2**53 + 1, -(2**63), 2**200 + 1, 0.1, -0.0, 5e-324, float("nan"), float("-inf"), True, None],
        "text": ["", "né\n\u2028", "$tensor"],
        3: {"$tensor": "a name that looks like a tag", "": 1},
        (1, "x"): {2.5: "float key", None: "none key", True: "bool key"},
        "arrays": [np.arange(4, dtype=">i4"), np.array(3.5, np.float32), np.float64(0.1), np.uint64(2**64 - 1),
                   np.array(["ab", "c"]), np.array([], np.int8), np.asfortranarray(np.arange(6.0).reshape(2, 3))],
        "tuples": ((), (1,), ({"a": (2,)},)),
    }  # fmt: skip
    assert bits(round_trip(state, tmp_path)) == bits(state)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(values)
def test_any_nesting_survives_json(value):
    import json

    tensors = {}
    tree = json.loads(json.dumps(encode(value, tensors), allow_nan=False))
    assert bits(decode(tree, tensors)) == bits(value)


def test_views_and_shared_tensors_come_back_apart(tmp_path):
    """A transposed view, tied weights, a slice of a large tensor: equal values, own memory, only the bytes needed."""
    base = torch.arange(1_000_000.0)
    tied = torch.ones(3)
    state = {"view": base[:6].reshape(2, 3).t(), "a": tied, "b": tied}
    back = round_trip(state, tmp_path)
    assert bits(back) == bits(state)
    back["a"][0] = 7.0
    assert back["b"][0] == 1.0
    assert (tmp_path / "part.safetensors").stat().st_size < 1000


@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop])
def test_training_goes_on_to_the_bit_after_a_round_trip(tmp_path, make):
    """Ten steps straight equal five, save, load into fresh objects, five: model, optimizer, schedule, generator."""

    def objects():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))
        first, second = list(model[0].parameters()), list(model[2].parameters())
        optim = make([{"params": first, "lr": 0.01}, {"params": second, "lr": 0.02}])
        return model, optim, torch.optim.lr_scheduler.StepLR(optim, 3), torch.Generator().manual_seed(1)

    def train(model, optim, schedule, rng, steps):
        for _ in range(steps):
            optim.zero_grad()
            model(torch.randn(16, 4, generator=rng)).square().mean().backward()
            optim.step()
            schedule.step()

    def snapshot(model, optim, schedule, rng):
        return bits([dict(model.state_dict()), optim.state_dict(), schedule.state_dict(), rng.get_state()])

    straight = objects()
    train(*straight, 10)
    first = objects()
    train(*first, 5)
    for name, part in zip(("model", "optim", "schedule"), first):
        save_part(tmp_path, name, part)
    save_part(tmp_path, "rng", Holder({"torch": first[3].get_state()}))
    second = objects()
    for name, part in zip(("model", "optim", "schedule"), second):
        load_part(tmp_path, name, part)
    second[3].set_state(read_state(tmp_path, "rng")["torch"])
    train(*second, 5)
    assert snapshot(*second) == snapshot(*straight)
    assert part_names(tmp_path) == ["model", "optim", "rng", "schedule"]


def test_random_generators_of_python_and_numpy_go_on_where_they_were(tmp_path):
    python, numpy_rng = random.Random(3), np.random.default_rng(3)
    python.gauss(0, 1), numpy_rng.normal(size=3)
    back = round_trip({"python": python.getstate(), "numpy": numpy_rng.bit_generator.state}, tmp_path)
    python_2, numpy_2 = random.Random(), np.random.default_rng()
    python_2.setstate(back["python"])
    numpy_2.bit_generator.state = back["numpy"]
    assert [python_2.gauss(0, 1) for _ in range(3)] == [python.gauss(0, 1) for _ in range(3)]
    assert numpy_2.integers(2**60, size=3).tolist() == numpy_rng.integers(2**60, size=3).tolist()


def test_tensors_are_found_under_their_own_names(tmp_path):
    """Another program can read a module's weights from the safetensors file."""
    from safetensors.torch import load_file

    save_part(tmp_path, "model", torch.nn.Linear(2, 1))
    assert set(load_file(tmp_path / "model.safetensors")) == {"weight", "bias"}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"a": [1, {2, 3}]}, r"a\.1 is a set"),
        ({"a": print}, "a is a builtin_function_or_method"),
        ({"a": np.array([object()])}, "a is an array of object"),
        ({"a": torch.eye(2).to_sparse()}, "a is a tensor of layout"),
        ({"a": {"b": b"raw"}}, r"a\.b is a bytes"),
    ],
)
def test_what_has_no_exact_form_is_named(tmp_path, state, words):
    with pytest.raises(CheckpointError, match=words):
        save_part(tmp_path, "part", Holder(state))


def test_a_thing_without_state_is_no_part(tmp_path):
    with pytest.raises(CheckpointError, match="thing is a int, which is no checkpoint part"):
        save_part(tmp_path, "thing", 3)


def test_a_part_of_another_shape_says_so(tmp_path):
    save_part(tmp_path, "model", torch.nn.Linear(2, 1))
    with pytest.raises(CheckpointError, match=r"(?s)model of .* does not load into this Linear.*size mismatch"):
        load_part(tmp_path, "model", torch.nn.Linear(3, 1))
