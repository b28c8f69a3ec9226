"""MBPO: what a batch is made of, when what is learnt, and that a run goes on exactly where it was killed."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from onepolicy.algos import mbpo
from onepolicy.data.replay import Replay
from onepolicy.errors import ConfigError
from onepolicy.recipes import off_policy
from onepolicy.recipes.off_policy_config import DEFAULTS, MbpoOptions
from onepolicy.run.run import Run


def filled(value, count=50):
    replay = Replay((0, 1), 100, 1, 2, 1, gamma=0.9)
    for _ in range(count):
        obs, no = np.full((2, 1, 2), value, np.float32), np.zeros((2, 1), bool)
        replay.add(obs, obs[..., :1], obs[..., 0], obs, no, no)
    return replay


@pytest.mark.parametrize(("share", "lived"), [(0.0, 0), (0.05, 1), (0.5, 10), (1.0, 20)])
def test_a_batch_has_its_share_of_what_was_lived(share, lived):
    batch = mbpo.mixed(filled(1.0), filled(2.0), 20, share)
    assert batch.obs.shape == (2, 20, 2)
    assert (batch.obs[..., 0] == 1.0).sum(1).tolist() == [lived, lived]
    assert torch.equal(batch.reward, batch.obs[..., 0])
    assert batch.row.shape == (2, 20)


def test_before_anything_is_imagined_all_is_lived():
    assert (mbpo.mixed(filled(1.0), filled(2.0, 0), 20, 0.05).obs == 1.0).all()


class Recorder:
    """Stands for agent, model, imagination and explorer, and writes down what is asked of it."""

    def __init__(self):
        self.said, self.steps, self.metrics = [], 0, {}
        self.replay, self.dynamics = filled(1.0), None

    def explore(self, steps):
        return f"choice at {steps}"

    def step(self, choose):
        self.steps += 1

    def passed(self, every):
        return self.steps % every == 0

    def train(self, replay, steps):
        self.said.append(("model", self.steps, steps))
        return {"model/loss": torch.zeros(2)}

    def play(self, dynamics, choose, replay, length):
        self.said.append(("imagine", choose, length))
        return {}

    def update(self, batch):
        self.said.append(("update", self.steps))


def test_what_is_learnt_when():
    all_of_it = Recorder()
    config = mbpo.Config(
        learning_starts=3, gradient_steps=2, model_every=4, model_steps=7, length=1, final_length=3, lengthen_until=4
    )
    ended = []

    def after(steps, metrics):
        ended.append((steps, sorted(metrics)))
        return steps == 4

    mbpo.fit(all_of_it, all_of_it, all_of_it, all_of_it, config, steps=100, after_step=after)
    assert all_of_it.said == [
        ("update", 3), ("update", 3), ("model", 4, 7), ("imagine", "choice at 3", 3), ("update", 4), ("update", 4),
    ]  # fmt: skip
    assert ended == [(1, []), (2, []), (3, []), (4, ["model/loss"])]


SMALL = replace(
    DEFAULTS["mbpo"], steps=60, learning_starts=20, gradient_steps=2, batch_size=16, eval_every=20, eval_episodes=1,
    save_every=10, capacity=100, hidden=(8,), seeds=2,
    mbpo=MbpoOptions(model_every=20, model_steps=3, model_hidden=(8,), members=3, elites=2, width=10, final_length=2),
)  # fmt: skip


def test_a_killed_run_goes_on_to_the_same_end(tmp_path, monkeypatch):
    """Networks, optimizers, both memories, random streams and metrics, killed after 30 and 50 steps."""
    off_policy.main(replace(SMALL, out=str(tmp_path / "whole")))
    whole = state(tmp_path / "whole")
    for at in (30, 50):
        place = tmp_path / f"killed-{at}"
        with monkeypatch.context() as patch:
            save = Run.save

            def save_and_die(self, step, at=at, save=save, **parts):
                save(self, step, **parts)
                if step == at:
                    raise KeyboardInterrupt

            patch.setattr(Run, "save", save_and_die)
            with pytest.raises(KeyboardInterrupt):
                off_policy.main(replace(SMALL, out=str(place)))
        off_policy.main(replace(SMALL, out=str(place)), resume=place)
        assert state(place) == whole


def state(directory):
    """The last checkpoint's sums and the metrics, as bytes."""
    manifest = json.loads((directory / "checkpoints/step-60/MANIFEST.json").read_text())
    return manifest["files"], (directory / "metrics.jsonl").read_bytes()


def test_bad_settings():
    with pytest.raises(ConfigError, match="model_every is 0"):
        mbpo.Config(model_every=0)
    with pytest.raises(ConfigError, match="final_length is 1, length 3"):
        mbpo.Config(length=3)
    with pytest.raises(ConfigError, match="real_share is 2"):
        mbpo.Config(real_share=2.0)
    with pytest.raises(ConfigError, match="n_step is 3; a world model learns single steps"):
        replace(SMALL, n_step=3)
    with pytest.raises(ConfigError, match="width is 9 with 2 elites"):
        off_policy.main(replace(SMALL, mbpo=replace(SMALL.mbpo, width=9)))
