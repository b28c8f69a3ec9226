"""Examples and documents say what is true: scripts run, links lead somewhere, commands parse, names exist."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch

import onepolicy
from onepolicy import cli
from onepolicy.recipes import demo, evaluate
from onepolicy.recipes.catalogue import entry, recipe
from onepolicy.run.config import parse_args

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SMALL = ("--steps", "2", "--warm-steps", "4", "--prompts", "2", "--exam", "4")


@pytest.fixture
def play(tmp_path, monkeypatch, capsys):
    """What an example prints when it runs as a script in an empty directory. In this process: a new one would spend
    most of its time importing torch."""

    def run(name, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(EXAMPLES))
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        threads = torch.get_num_threads()
        try:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        finally:
            torch.set_num_threads(threads)
        return capsys.readouterr().out

    return run


def test_201_ppo_cartpole(play, tmp_path):
    said = play("201_ppo_cartpole.py", "--steps", "512")
    assert "after 512 steps" in said
    assert re.search(r"evaluated again: \d+\.\d \[\d+\.\d, \d+\.\d\]", said)
    assert "the same weights: True" in said
    assert (tmp_path / "runs/ppo-1/report.md").is_file()


def test_301_grpo_arithmetic(play, tmp_path):
    said = play("301_grpo_arithmetic.py", *SMALL)
    assert re.search(r"step 1: mean score .*\nstep 2: mean score ", said)
    assert re.search(r"^\d[-+]\d[-+]\d= .*\(right: -?\d+, score \d\.\d\)$", said, re.MULTILINE)
    assert (tmp_path / "runs/grpo-1/model/model.safetensors").is_file()


def test_302_own_reward(play):
    said = play("302_own_reward.py", *SMALL)
    assert re.search(r"</answer>: 1\.00\n.*</answer>: 0\.25\n.*seven: 0\.00\n", said)
    assert "mean reward of the last rollout: 0." in said


def test_every_example_is_run_here():
    here = Path(__file__).parent.glob("test_examples*.py")
    tested = [name for path in here for name in re.findall(r"^def test_(\d\w+)", path.read_text("utf-8"), re.MULTILINE)]
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted(tested)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    """Files exist, and of a link `path: name` the file defines the name (`Class.method`: each part)."""
    for text, target in re.findall(r"\[([^\]]+)\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        place = document.parent / target
        assert place.exists(), f"{text!r} leads to {target}, which does not exist"
        _, colon, name = text.strip("`").partition(".py: ")
        for part in re.findall(r"\w+", name) if colon else ():
            assert re.search(
                rf"^\s*(def|class) {part}\b|^{part}\b.*=", place.read_text(encoding="utf-8"), re.MULTILINE
            ), f"{place.name} has no {name}"


def test_the_plan_of_the_house_names_every_file():
    plan = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    package = ROOT / "src/onepolicy"
    rooms = (path for path in package.rglob("*.py") if path.parent != package and path.stem != "__init__")
    assert not [str(path.relative_to(package)) for path in rooms if f"`{path.stem}`" not in plan]


def commands():
    """The `onepolicy …` lines of code blocks and the inline ones that name no placeholder: (document, words)."""
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
        for line in [*blocks.splitlines(), *re.findall(r"`(onepolicy [^`…|]+)`", text)]:
            if line.startswith("onepolicy "):
                yield pytest.param(shlex.split(line, comments=True)[1:], id=f"{document.stem}: {line[:60].strip()}")


@pytest.mark.parametrize("words", commands())
def test_commands_are_understood(words):
    """Every field, preset and algorithm in a documented command is known; nothing is run."""
    name, rest = words[0], words[1:]
    assert name in cli.COMMANDS or name.startswith("-")
    if rest == ["--help"] or "--help" in rest:
        return
    if name == "train":
        found = entry(rest[0])
        module = recipe(found.module)
        presets = {**module.PRESETS, "default": module.starting_point(rest[0], cli.given_fields(rest[1:]))}
        config = parse_args(module.Config, presets, [*rest[1:], *(f"--{key}={value}" for key, value in found.fixed)])
        assert isinstance(config, module.Config)
    if name == "eval" and rest:
        assert parse_args(evaluate.Config, {}, evaluate.arguments(rest)).model == rest[0]
    if name == "demo":
        assert isinstance(parse_args(demo.Config, {}, rest), demo.Config)


def test_the_names_documents_use_are_public():
    for document in DOCUMENTS:
        for name in re.findall(r"\bop\.(\w+)", document.read_text(encoding="utf-8")):
            assert name in onepolicy.__all__, f"{document.name} uses op.{name}"
