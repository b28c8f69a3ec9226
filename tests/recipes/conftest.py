"""Runs of the language recipes small enough for seconds, and ways to kill them."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from onepolicy.data.tokenizer import char_tokenizer
from onepolicy.nn.language import ModelShape, build_model, save_model
from onepolicy.recipes import grpo, sft
from onepolicy.recipes.language import PRINTABLE
from onepolicy.recipes.options import ExamOptions, Machine, ProblemOptions, Tiny, Update, WarmStart
from onepolicy.run.manifest import saved_steps, step_path
from onepolicy.run.run import Run
from onepolicy.tasks import letters

REWARDS = '''
import time

def digits(prompts, completions, **columns):
    """The share of digits: untrained models differ in it, so every group has variance."""
    return [sum(c.isdigit() for c in text) / 12 for text in completions]

def slow(prompts, completions, **columns):
    time.sleep(0.3)
    return digits(prompts, completions)

def short(prompts, completions, **columns):
    return [0.0]

def never(prompts, completions, **columns):
    return [None] * len(completions)

def broken(prompts, completions, **columns):
    raise RuntimeError("no licence")

def patchy(prompts, completions, **columns):
    """Every kind of number that is none, on the first completions of each rollout."""
    values = digits(prompts, completions)
    if len(values) > 1:
        values[:3] = [None, float("nan"), float("inf")]
    return values

def picky(prompts, completions, **columns):
    """Raises on some completions, judges the others."""
    if any("+" in text for text in completions):
        raise ValueError("a plus")
    return digits(prompts, completions)
'''


@pytest.fixture(autouse=True)
def no_pictures(request, monkeypatch):
    """Drawing is most of a tiny run and is tested in tests/run; `pictures` in a test's name keeps it. Nor fsync."""
    monkeypatch.setattr("os.fsync", lambda handle: None)
    if "pictures" not in request.node.name:
        monkeypatch.setattr("onepolicy.run.report.curves", lambda *_: None)


@pytest.fixture(scope="session")
def reward_directory(tmp_path_factory):
    """A directory with the module `tiny_rewards`."""
    directory = tmp_path_factory.mktemp("rewards")
    (directory / "tiny_rewards.py").write_text(REWARDS)
    return directory


@pytest.fixture
def own_rewards(reward_directory, monkeypatch):
    """Makes `tiny_rewards:digits` and the others importable."""
    monkeypatch.syspath_prepend(str(reward_directory))


@pytest.fixture
def tiny_grpo(tmp_path, own_rewards):
    """tiny_grpo(name, **fields): a GRPO configuration of 4 steps of a moment each, in tmp_path/name."""

    def make(name="run", **fields):
        config = grpo.Config(
            reward="tiny_rewards:digits",
            level=2,
            steps=4,
            prompts=3,
            group_size=4,
            max_tokens=12,
            lr=3e-3,
            save_every=1,
            eval_every=2,
            out=str(tmp_path / name),
            tiny=Tiny(context=64),
            problems=ProblemOptions(train_size=40, style="totals"),
            update=Update(warmup_steps=0),
            exam=ExamOptions(size=6),
            machine=Machine(threads=1, slots=16),
        )
        return replace(config, **fields)

    return make


@pytest.fixture
def tiny_sft(tmp_path):
    """tiny_sft(name, **fields): an SFT configuration of 4 steps of a moment each, in tmp_path/name."""

    def make(name="run", **fields):
        config = sft.Config(
            level=2,
            demonstrations=20,
            steps=4,
            batch_size=6,
            warmup_steps=1,
            max_tokens=8,
            save_every=1,
            eval_every=2,
            out=str(tmp_path / name),
            tiny=Tiny(context=64),
            problems=ProblemOptions(train_size=40, style="totals"),
            exam=ExamOptions(size=6),
            machine=Machine(threads=1, slots=16),
        )
        return replace(config, **fields)

    return make


@pytest.fixture
def warm():
    """A warm start of three steps."""
    return WarmStart(steps=3, demonstrations=20, batch_size=6)


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory):
    """model_directory(arch): a random model of an architecture, saved by transformers with its tokenizer; shared."""
    made = {}

    def make(arch):
        if arch not in made:
            tokenizer = char_tokenizer(PRINTABLE)
            shape = ModelShape(width=32, depth=2, heads=2, mlp=48)
            ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
            model = build_model(shape, len(tokenizer), context=320, arch=arch, seed=3, **ids)
            made[arch] = save_model(model, tokenizer, tmp_path_factory.mktemp(arch) / "model")
        return made[arch]

    return make


class Killed(BaseException):
    """What `kill_at` raises: nothing in the house catches it."""


class Deadly:
    """A checkpoint part whose saving is the end."""

    def save_to(self, directory):
        raise Killed

    def load_from(self, directory):
        raise AssertionError("a half-written checkpoint was loaded")


@pytest.fixture
def kill_at(monkeypatch):
    """kill_at(step, place): a context in which a run dies when it has come to that place of that step.

    place: "sample", "log" or "save", with "before" or "after"; or "in save", half of the checkpoint written.
    """

    @contextmanager
    def context(step, place):
        when, name = place.split()
        whole = getattr(Run, name)

        def dying(run, at, *rest, **parts):
            if at == step and when == "before":
                raise Killed
            if at == step and when == "in":
                parts = {**parts, "zz": Deadly()}
            whole(run, at, *rest, **parts)
            if at == step and when == "after":
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Run, name, dying)
            with pytest.raises(Killed):
                yield

    return context


@pytest.fixture(scope="session")
def digests():
    """digests(run directory): the sha256 of everything that must be the same in a resumed run."""

    def sha256(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def all_of(directory):
        directory = Path(directory)
        newest = step_path(directory / "checkpoints", saved_steps(directory / "checkpoints")[0])
        files = [directory / "metrics.jsonl", directory / "samples.jsonl"]
        files += [path for path in newest.rglob("*") if path.is_file() and path.name != "MANIFEST.json"]
        files += [path for path in (directory / "model").rglob("*") if path.is_file()]
        found = {str(path.relative_to(directory)): sha256(path) for path in files if path.exists()}
        assert "model/model.safetensors" in found or any("reward_model/model" in name for name in found)
        assert any(name.endswith("learner.safetensors") for name in found)
        return found

    return all_of


@pytest.fixture
def resume_through(kill_at):
    """resume_through(main, config, deaths): the run, killed at each (step, place) in turn and resumed, to its end."""

    def run(main, config, deaths):
        for number, death in enumerate(deaths):
            with kill_at(*death):
                main(config, resume=Path(config.out) if number else None)
        return main(config, resume=Path(config.out))

    return run


@pytest.fixture(scope="session")
def letters_model(tmp_path_factory):
    """A language model that has seen a few demonstrations of the letters, as a directory."""
    place = tmp_path_factory.mktemp("letters")
    demos = place / "demos.jsonl"
    demos.write_text("".join(json.dumps(row) + "\n" for row in letters.demonstration_rows(60)))
    config = sft.Config(
        tasks="letters", data=str(demos), steps=12, batch_size=16, lr=3e-3, warmup_steps=0, max_tokens=4,
        out=str(place / "sft"), tiny=Tiny(context=32), exam=ExamOptions(size=2), machine=Machine(threads=1),
    )  # fmt: skip
    sft.main(config)
    return str(place / "sft" / "model")
