"""Which problems and demonstrations a language recipe takes when little is said, and that each task set trains."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from onepolicy.cli import main
from onepolicy.errors import ConfigError
from onepolicy.recipes import grpo, sft
from onepolicy.recipes.options import DEMONSTRATIONS, TRAIN_SIZE, ProblemOptions, WarmStart
from onepolicy.recipes.textual import Problems
from onepolicy.run.journal import read_lines
from onepolicy.tasks.base import INSTRUCTIONS, load_task_set, task_options

SMALL = "--steps 2 --prompts 2 --group-size 4 --max-tokens 8 --exam.size 2 --warm.steps 2 --warm.batch-size 4"
SMALL += " --machine.threads 1 --tiny.context 160 --reward tiny_rewards:digits"
STORIES = [
    {"question": f"Ann has {n} apples and buys 3. How many?", "answer": f"{n}+3=<<{n}+3={m}>>{m}.\n#### {m}"}
    for n, m in ((0, 3), (1, 4), (2, 5), (3, 6))
]


@pytest.fixture
def stories(tmp_path):
    """A GSM8K file of four rows."""
    path = tmp_path / "stories.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in STORIES))
    return path


@pytest.fixture
def train(tmp_path, own_rewards):
    """train(arguments): the directory of the run they made; rewarded are digits, which an untrained model writes."""

    def run(arguments):
        main(["train", arguments.split()[0], *SMALL.split(), *arguments.split()[1:], "--out", str(tmp_path / "run")])
        return tmp_path / "run"

    return run


def rollouts(run):
    """The samples of the rollouts, and the metrics of the steps."""
    samples = [line for line in read_lines(run / "samples.jsonl") if "exam" not in line]
    return samples, [line for line in read_lines(run / "metrics.jsonl") if line["step"]]


def test_gsm8k_trains_a_model_made_on_the_spot_without_a_word_about_styles(train, stories):
    """Its demonstrations are all the rows, its prompts the questions alone; nothing of arithmetic's style is left."""
    run = train(f"grpo --tasks gsm8k --data {stories} --eval-data {stories}")
    samples, lines = rollouts(run)
    assert {sample["prompt"] for sample in samples} <= {row["question"] for row in STORIES}
    assert [line["step"] for line in lines if line["rollout/logp_gap"] < 1e-4] == [1, 2]
    warm = json.loads((run / "warm/config.json").read_text())["config"]
    assert (warm["tasks"], warm["demonstrations"], warm["problems"]["style"]) == ("gsm8k", None, "")


def test_countdown_trains_a_model_made_on_the_spot(train):
    run = train("grpo --tasks countdown --level 1 --problems.train-size 30")
    samples, lines = rollouts(run)
    assert all(re.fullmatch(r"\d+ \d+=\d+", sample["prompt"]) for sample in samples)
    assert [line["step"] for line in lines if line["rollout/logp_gap"] < 1e-4] == [1, 2]


def test_a_level_smaller_than_the_usual_size_is_taken_whole_and_said(train):
    """180 of the 200 sums of two digits are for training, 20 held out; the demonstrations are all 180."""
    run = train("grpo --level 1 --exam.size 512")
    log = (run / "log.txt").read_text()
    assert "arithmetic/train: 180 problems, all that the level has; 20,000 would have been taken." in log
    assert "arithmetic/test: 20 problems, all that the level has; 512 would have been taken." in log
    assert "accuracy, greedy, 20 problems" in log


def test_a_level_that_has_enough_is_not_spoken_of(train):
    log = (train("grpo --level 1 --problems.train-size 20") / "log.txt").read_text()
    assert "would have been taken" not in log


def test_at_most_takes_what_there_is_and_no_more_than_asked():
    """Without it the same number is an error; the problems it takes first are the same."""
    every = load_task_set("countdown", "train", level=1, n=20_000, at_most=True)
    assert every.counts == {"asked": 20_000, "tasks": len(every)}
    assert 8000 < len(every) < 20_000
    with pytest.raises(ConfigError, match=f"gave only {len(every)} different problems for the train split; 20000 were"):
        load_task_set("countdown", "train", level=1, n=20_000)
    some = load_task_set("arithmetic", "train", level=1, n=50, at_most=True)
    assert some.tasks == load_task_set("arithmetic", "train", level=1, n=50).tasks


@pytest.mark.parametrize("recipe", [grpo, sft])
def test_where_a_configuration_starts(recipe):
    """A model that knows nothing starts from its task set's preset; one that was trained before from the defaults."""
    assert recipe.starting_point("", {}) == recipe.PRESETS["arithmetic"]
    assert recipe.starting_point("", {"tasks": "gsm8k-steps"}) == recipe.PRESETS["gsm8k-steps"]
    other = recipe.starting_point("", {"tasks": "countdown"})
    assert (other.lr, other.problems) == (recipe.PRESETS["arithmetic"].lr, ProblemOptions())
    assert recipe.starting_point("", {"model": "runs/grpo-1/model", "tasks": "gsm8k"}) == recipe.Config()


def test_the_presets_ask_for_the_usual_numbers():
    preset = grpo.PRESETS["arithmetic"]
    assert Problems.of(replace(preset, level=1)).train().counts["asked"] == TRAIN_SIZE == 20_000
    assert preset.warm.demonstrations is sft.PRESETS["arithmetic"].demonstrations is None
    assert DEMONSTRATIONS == 8000


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("tasks", ["arithmetic", "countdown", "gsm8k"])
def test_a_model_is_told_the_format_or_not_in_every_task_set(tasks, told, stories, tiny_grpo):
    data = str(stories) if tasks == "gsm8k" else ""
    config = tiny_grpo(tasks=tasks, data=data, problems=ProblemOptions(train_size=5, instructions=told))
    heads = {message.content for task in Problems.of(config).train() for message in task.messages[:-1]}
    assert heads == ({INSTRUCTIONS} if told else set())


def test_only_sets_with_styles_take_one():
    assert {name for name in ("arithmetic", "countdown", "gsm8k", "gsm8k-steps") if "style" in task_options(name)} == {
        "arithmetic",
        "countdown",
        "gsm8k-steps",
    }


@pytest.mark.parametrize("cls", [ProblemOptions, WarmStart])
def test_no_number_is_not_zero(cls):
    name = {ProblemOptions: "train_size", WarmStart: "demonstrations"}[cls]
    assert getattr(cls(), name) is None
    with pytest.raises(ConfigError, match=f"{name} is 0"):
        cls(**{name: 0})
