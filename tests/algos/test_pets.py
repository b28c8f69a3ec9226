"""Planning in MBPO's model as a run: what is done when, resume, seeds as alone, what is left, and what is refused."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import onepolicy as op
from onepolicy.acting.planning import PlanningPolicy
from onepolicy.algos import pets
from onepolicy.cli import main
from onepolicy.data.replay import Replay
from onepolicy.errors import ConfigError, ModelError
from onepolicy.recipes import off_policy, side_by_side
from onepolicy.recipes.off_policy_config import DEFAULTS, PLANNING, PRESETS, pets_of, starting_point
from onepolicy.recipes.off_policy_options import MbpoOptions, PlanOptions
from onepolicy.run.run import Run

SMALL = replace(
    PLANNING, env="Pendulum-v1", steps=60, learning_starts=20, eval_every=40, eval_episodes=1, save_every=10,
    capacity=100, seeds=2, num_envs=2, plan=PlanOptions(use=True, horizon=3, samples=8, elites=2, rounds=1),
    mbpo=MbpoOptions(model_every=20, model_steps=3, model_hidden=(8,), members=3, elites=2),
)  # fmt: skip


class Recorder:
    """Stands for learner, planner and explorer, and writes down what is asked of it; the first seed's episodes have 3
    steps, the memory holds 4 transitions."""

    def __init__(self, config):
        self.said, self.steps, self.metrics, self.config = [], 0, {}, config
        self.planner, self.model = self, SimpleNamespace(optimizer=SimpleNamespace(steps=0))
        self.replay = Replay((0, 1), 4, 1, 2, 1, gamma=0.9)

    def explore(self, steps):
        return steps

    def step(self, choose):
        assert choose == self.steps
        self.steps += 1
        obs, no = np.zeros((2, 1, 2), np.float32), np.zeros((2, 1), bool)
        self.replay.add(obs, obs[..., :1], obs[..., 0], obs, no, np.array([[self.steps % 3 == 0], [False]]))

    def passed(self, every):
        return self.steps % every == 0

    def learn(self, lived):
        self.said.append(("model", self.steps, len(lived)))
        self.model.optimizer.steps += 1

    def forget(self, over):
        if over.any():
            self.said.append(("forget", self.steps, over.tolist()))


def test_the_model_is_learnt_and_plans_are_forgotten_when_they_should_be():
    """Learnt as soon as it may be, then at multiples of 4; plans end with the first seed's episodes, round the memory's
    end too."""
    found, ended = Recorder(pets.Config(learning_starts=2, model_every=4)), []

    def after(steps, metrics):
        ended.append(steps)
        return steps == 9

    pets.fit(found, found, steps=100, after_step=after)
    assert ended == list(range(1, 10))
    over = [[True], [False]]
    assert found.said == [
        ("model", 2, 2), ("forget", 3, over), ("model", 4, 4), ("forget", 6, over), ("model", 8, 4),
        ("forget", 9, over),
    ]  # fmt: skip


def state(directory):
    """The last checkpoint's sums and the metrics, as bytes."""
    manifest = json.loads((directory / "checkpoints/step-60/MANIFEST.json").read_text())
    return manifest["files"], (directory / "metrics.jsonl").read_bytes()


@pytest.fixture(autouse=True)
def log_every_step(monkeypatch):
    monkeypatch.setattr(side_by_side, "LOG_EVERY", 1)
    monkeypatch.setattr(off_policy, "finish", lambda *_: "")


def test_a_killed_run_goes_on_to_the_same_end(tmp_path, monkeypatch):
    """Model, plans, memory, random streams and metrics, killed before the model was learnt and after."""
    config = replace(SMALL, eval_every=0, plan=replace(SMALL.plan, particles=2))
    off_policy.main(replace(config, out=str(tmp_path / "whole")))
    whole, save = state(tmp_path / "whole"), Run.save
    for last in (10, 50):
        place = tmp_path / f"killed-{last}"

        def dying(self, step, *, last=last, **parts):
            save(self, step, **parts)
            if step == last:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Run, "save", dying)
            with pytest.raises(KeyboardInterrupt):
                off_policy.main(replace(config, out=str(place)))
        off_policy.main(replace(config, out=str(place)), resume=place)
        assert state(place) == whole


def test_several_seeds_are_the_runs_they_would_be_alone(tmp_path):
    """Every number logged of seed 6 beside seed 5."""
    off_policy.main(replace(SMALL, seed=5, steps=40, save_every=0, out=str(tmp_path / "both")))
    off_policy.main(replace(SMALL, seed=6, seeds=1, steps=40, save_every=0, out=str(tmp_path / "alone")))
    both, single = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open()] for name in ("both", "alone")
    )
    assert len(both) == len(single) > 15
    assert {"plan/worth", "plan/std", "model/error", "eval/return"} <= set(single[-1])
    for among, own in zip(both, single, strict=True):
        for name, value in own.items():
            if name != "step":
                assert among[f"seed6/{name}"] == pytest.approx(value, rel=1e-3, abs=1e-3), (own["step"], name)


def test_measuring_changes_nothing_that_is_learnt(tmp_path):
    for often in (30, 0):
        off_policy.main(replace(SMALL, seeds=1, eval_every=often, out=str(tmp_path / str(often))))
    assert state(tmp_path / "30")[0] == state(tmp_path / "0")[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("pets") / "run"
    off_policy.main(replace(SMALL, out=str(place), save_every=0))
    return place


def test_what_is_left_plans_in_the_world_s_units(run):
    policy = op.load(run).policy
    assert isinstance(policy.inner, PlanningPolicy)
    obs = np.array([0.5, 0.5, 1.0], np.float32)
    first, second = policy.act(obs), policy.act(obs)
    assert first.shape == (1,)
    assert np.abs([first, second]).max() <= 2.0
    policy.forget()
    assert [policy.act(obs), policy.act(obs)] == [first, second]  # a new episode begins as the first did
    assert policy.act(np.stack([obs] * 3)).shape == (3, 1)
    drawn = policy.act(obs, stochastic=True, rng=torch.Generator().manual_seed(0))
    assert drawn == policy.act(obs, stochastic=True, rng=torch.Generator().manual_seed(0))
    scores = [op.evaluate(op.load(run).policy, episodes=2).returns for _ in range(2)]
    assert scores[0] == scores[1]


def test_it_is_not_exported(run, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onepolicy.recipes.export import export

    with pytest.raises(ModelError, match=r"a policy that plans cannot be exported.*train mbpo without plan.use"):
        export(op.load(run).policy, tmp_path / "policy.onnx")
    assert not (tmp_path / "policy.onnx").exists()


def test_where_planning_begins():
    preset = PRESETS["mbpo/Pendulum-v1-plan"]
    assert starting_point("mbpo", {"plan.use": "True"}) == preset
    assert starting_point("mbpo", {"plan.use": True, "env": "Pendulum-v1"}) == preset
    assert starting_point("mbpo", {"plan.use": "True", "env": "Other-v0"}) == replace(PLANNING, env="Other-v0")
    assert starting_point("mbpo", {"plan.use": False}) == PRESETS["mbpo/Pendulum-v1"]
    assert PLANNING.plan.use
    assert not DEFAULTS["mbpo"].plan.use
    found = pets_of(replace(SMALL, plan=replace(SMALL.plan, keep=0.3, std=0.7, carry=False, particles=3), gamma=0.9))
    assert (found.plan.search.keep, found.plan.std, found.plan.carry, found.plan.particles) == (0.3, 0.7, False, 3)
    assert (found.plan.gamma, found.plan.horizon, found.plan.search.population) == (0.9, 3, 8)


def test_the_command_plans_from_its_own_preset(tmp_path):
    """`--plan.use` alone, with values before and after it; what is not given is the planning preset's."""
    line = "train mbpo --steps 12 --learning-starts 6 --plan.use --plan.horizon 2 --plan.samples 4 --plan.elites 2"
    main([*line.split(), "--eval-every", "0", "--eval-episodes", "1", "--out", str(tmp_path / "run")])
    config = Run.open(tmp_path / "run").config
    preset = PRESETS["mbpo/Pendulum-v1-plan"]
    assert (config["plan"]["use"], config["plan"]["samples"], config["plan"]["rounds"]) == (True, 4, preset.plan.rounds)
    assert (config["gamma"], config["env"], config["learning_starts"]) == (1.0, "Pendulum-v1", 6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"algo": "sac"}, "plan.use with sac; only mbpo learns a model"),
        ({"plan": PlanOptions(use=True, horizon=0)}, "horizon is 0"),
        ({"plan": PlanOptions(use=True, samples=4, elites=5)}, "elites is 5 of 4 samples"),
        ({"plan": PlanOptions(use=True, rounds=0)}, "rounds is 0"),
        ({"n_step": 3}, "n_step is 3"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        replace(SMALL, **changes)


def test_worlds_that_cannot_be_planned_in_are_refused(tmp_path):
    place = tmp_path / "run"
    with pytest.raises(ConfigError, match="has numbered actions, 2 of them; this algorithm takes real numbers"):
        off_policy.main(replace(SMALL, env="CartPole-v1", out=str(place)))
    assert not place.exists()


@pytest.mark.slow
def test_it_swings_the_pendulum_up_within_600_steps(tmp_path):
    """Two seeds by the preset: below -1,000 before anything is learnt, above -350 after 400 steps that were planned."""
    config = replace(PRESETS["mbpo/Pendulum-v1-plan"], steps=600, seeds=2, eval_every=0, eval_episodes=4)
    off_policy.main(replace(config, out=str(tmp_path / "run")))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert lines[0]["eval/return"] < -1000
    assert min(lines[-1][f"seed{k}/eval/return"] for k in range(2)) > -350
