"""Configurations: exact round trips, and every mistake a user can make named with its fix."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.errors import ConfigError
from onepolicy.run.config import (
    apply_overrides,
    choose_preset,
    config_hash,
    differences,
    from_json,
    parse_args,
    to_json,
)


@dataclass(frozen=True)
class Optim:
    """A nested configuration."""

    lr: float = 1e-3
    fused: bool = False


@dataclass(frozen=True)
class Config:
    """A small experiment."""

    learning_rate: float = 1e-4
    """Step size."""
    steps: int = 100
    """Optimizer steps."""
    whiten: bool = True
    """Whether advantages are whitened."""
    arch: Literal["qwen3", "llama"] = "qwen3"
    """Shape of the model."""
    cap: float | None = None
    """Largest length, or none."""
    names: tuple[str, ...] = ("a", "b")
    """Task sets."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Adam's decay rates."""
    optim: Optim = Optim()
    """The optimizer."""
    weights: dict[str, float] = field(default_factory=dict)
    """Reward weights."""
    out: str = ""
    """Run directory."""

    def __post_init__(self):
        if self.steps < 1:
            raise ConfigError(f"steps is {self.steps}; it counts something and is at least 1. Set steps >= 1.")


PRESETS = {"small": Config(steps=10), "large": Config(steps=1000, arch="llama")}


@settings(deadline=None)
@given(
    st.builds(
        Config,
        learning_rate=st.floats(allow_nan=False),
        steps=st.integers(1, 2**60),
        whiten=st.booleans(),
        cap=st.none() | st.floats(allow_nan=False),
        names=st.lists(st.text(), max_size=3).map(tuple),
        betas=st.tuples(st.floats(0, 1), st.floats(0, 1)),
        optim=st.builds(Optim, lr=st.floats(0, 1), fused=st.booleans()),
        weights=st.dictionaries(st.text(), st.floats(-1, 1), max_size=2),
    )
)
def test_json_gives_back_the_same_configuration(config):
    """Infinities too, which JSON lacks; tuples stay tuples, nested dataclasses stay dataclasses."""
    import json

    assert from_json(Config, json.loads(json.dumps(to_json(config), allow_nan=False))) == config


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"learning_rte": 1.0}, "learning_rte is not a field.*Did you mean 'learning_rate'"),
        ({"optim": {"lrr": 1.0}}, r"optim\.lrr is not a field.*Did you mean 'lr'"),
        ({"steps": 1.5}, "steps is 1.5, a float; expected a whole number"),
        ({"steps": "ten"}, "steps is 'ten', a str; expected a whole number"),
        ({"steps": float("inf")}, "expected a whole number"),
        ({"steps": True}, "steps is True, a bool"),
        ({"whiten": 1}, "whiten is 1, a int; expected True or False"),
        ({"arch": "llamma"}, "arch is 'llamma', expected one of qwen3, llama.*Did you mean 'llama'"),
        ({"cap": "none"}, "cap is 'none', a str; expected a number"),
        ({"names": "a"}, "names is 'a', a str; expected a list"),
        ({"names": [1]}, r"names\[0\] is 1"),
        ({"betas": [0.9]}, "expected 2 items"),
        ({"weights": [1]}, "weights is .*expected a mapping"),
        ({"optim": 3}, "optim is 3, a int; expected a Optim"),
        ({"steps": 0}, "Set steps >= 1"),
    ],
)
def test_from_json_names_the_field_and_the_fix(values, words):
    with pytest.raises(ConfigError, match=words):
        from_json(Config, values)


def test_from_json_misses_a_field_without_default():
    @dataclass(frozen=True)
    class Needy:
        """A configuration with a required field."""

        model: str

    with pytest.raises(ConfigError, match="model is missing"):
        from_json(Needy, {})


def test_overrides_reach_nested_fields_and_keep_the_rest():
    config = apply_overrides(Config, PRESETS["large"], {"optim.lr": 1, "optim.fused": True, "steps": 1e3, "cap": 2})
    assert config == Config(steps=1000, arch="llama", optim=Optim(1.0, True), cap=2.0)
    assert isinstance(config.optim.lr, float)
    with pytest.raises(ConfigError, match="Did you mean 'steps'"):
        apply_overrides(Config, None, {"stesp": 3})
    with pytest.raises(ConfigError, match=r"lr is not a field.*Did you mean 'optim\.lr'"):
        apply_overrides(Config, None, {"lr": 3})
    with pytest.raises(ConfigError, match="names a part of steps"):
        apply_overrides(Config, None, {"steps.lr": 3})


def test_presets_are_chosen_by_name_and_a_misspelt_one_offers_the_nearest():
    assert choose_preset(Config, PRESETS, None) == Config()
    assert choose_preset(Config, {"default": PRESETS["small"]}, None).steps == 10
    with pytest.raises(ConfigError, match=r"'smal' is not a preset.*Did you mean 'small'"):
        choose_preset(Config, PRESETS, "smal")
    with pytest.raises(ConfigError, match="There are no presets"):
        choose_preset(Config, {}, "small")


def test_the_command_line_reads_every_type():
    line = "--preset large --learning-rate 1e-4 --steps=50_000 --no-whiten --cap 2 --names x y --betas 0.8 0.9"
    config = parse_args(Config, PRESETS, [*line.split(), "--optim.lr", "3e-4", "--optim.fused", "--out", "runs/x y"])
    expected = {"learning_rate": 1e-4, "steps": 50_000, "whiten": False, "cap": 2.0, "names": ("x", "y")}
    expected |= {"betas": (0.8, 0.9), "optim": Optim(3e-4, True), "out": "runs/x y", "arch": "llama"}
    assert config == Config(**expected)
    assert parse_args(Config, PRESETS, ["--learning_rate", "-1.5", "--cap", "None"]).learning_rate == -1.5


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--learning-rte 1", "--learning-rte is not an option.*Did you mean '--learning-rate'"),
        ("--optim.lrr 1", "Did you mean '--optim.lr'"),
        ("--lr 1", "Did you mean '--optim.lr'"),
        ("--fusd", "Did you mean '--optim.fused'"),
        ("--presets small", "Did you mean '--preset'"),
        ("--preset smal", "Did you mean 'small'"),
        ("--preset", "--preset has no value"),
        ("--steps ten", r"(?s)--steps.*ten"),
        ("--arch gpt", "(?s)gpt.*arch.*qwen3"),
        ("--whiten True", "takes no value. Write --whiten or --no-whiten"),
        ("--optim.fused=1", r"Write --optim\.fused or --optim\.no-fused"),
        ("stray", "Unrecognized options: stray"),
        ("--steps", "(?i)missing"),
        (
            "--steps 0",
            "^steps is 0; it counts something and is at least 1. Set steps >= 1. See onepolicy train x --help",
        ),
        ("--optim.lr x", "^--optim.lr: could not convert string to float: 'x'. See onepolicy train x --help"),
    ],
)
def test_the_command_lines_mistakes_are_config_errors(line, words):
    with pytest.raises(ConfigError, match=words):
        parse_args(Config, PRESETS, line.split(), prog="onepolicy train x")


def test_help_lists_presets_and_the_fields_words(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_args(Config, PRESETS, ["--help"])
    said = capsys.readouterr().out
    assert stopped.value.code == 0
    for words in ("--preset NAME", "small, large", "Step size.", "--whiten, --no-whiten"):
        assert words in said


def test_the_hash_is_of_the_experiment_not_of_its_place():
    """A moved run resumes; any other field is another experiment."""
    base = to_json(Config())
    assert config_hash(to_json(Config(out="elsewhere"))) == config_hash(base)
    assert config_hash(dict(reversed(base.items()))) == config_hash(base)
    assert config_hash(to_json(Config(steps=101))) != config_hash(base)
    assert differences(base, to_json(Config(steps=101, out="x"))) == ["steps: 100 -> 101"]
    assert differences({"a": 1}, {"b": None}) == ["a: 1 -> absent", "b: absent -> None"]


def test_a_value_without_json_form_is_refused():
    @dataclass(frozen=True)
    class Odd:
        """Holds what JSON cannot."""

        what: object = print

    with pytest.raises(ConfigError, match="Store its name instead"):
        to_json(Odd())


def test_paths_are_text_in_json():
    @dataclass(frozen=True)
    class Placed:
        """Has a path."""

        where: Path = Path("a/b")

    assert to_json(Placed()) == {"where": "a/b"}
    assert from_json(Placed, {"where": "c"}) == Placed(Path("c"))


def test_the_light_modules_load_no_torch():
    """The command starts fast: config, metrics, doctor, run and plots are imported without torch."""
    names = ["config", "metrics", "doctor", "run", "plots", "report", "progress"]
    code = (
        "import sys\n" + "\n".join(f"import onepolicy.run.{name}" for name in names) + "\nprint('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"
