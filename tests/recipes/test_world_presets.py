"""Presets of Atari's games and MuJoCo's worlds: the zoo's numbers, and that each kind plays and learns for a moment."""

from dataclasses import replace

import pytest
import torch

import onepolicy as op
from onepolicy import cli
from onepolicy.envs.vector import make
from onepolicy.errors import ConfigError
from onepolicy.nn.mlp import NetworkOptions
from onepolicy.nn.policies import GaussianPolicy
from onepolicy.recipes import control, control_config, off_policy, off_policy_config

ON, OFF = control_config.PRESETS, off_policy_config.PRESETS
SMALL_ON = {"steps": 32, "num_envs": 2, "n_steps": 8, "batch_size": 8, "epochs": 2, "eval_every": 0, "save_every": 0}
SMALL_OFF = {"steps": 40, "capacity": 64, "learning_starts": 24, "batch_size": 8, "eval_every": 0, "save_every": 0}


@pytest.fixture(autouse=True)
def nothing_evaluated(monkeypatch):
    """A whole greedy episode takes longer than these runs."""
    for recipe in (control, off_policy):
        monkeypatch.setattr(recipe, "finish", lambda *_: "")


def test_ppos_mujoco_rows_are_the_zoos():
    """hyperparams/ppo.yml: ReLU, no orthogonal weights, log_std -2, 256-256; vf_coef is on the squared error there."""
    cheetah, hopper = ON["ppo/HalfCheetah-v5"], ON["ppo/Hopper-v5"]
    for preset in (cheetah, hopper, ON["ppo/Humanoid-v5"]):
        assert preset.network == NetworkOptions(activation="relu", orthogonal=False)
        assert (preset.log_std, preset.hidden, preset.norm_obs, preset.norm_reward) == (-2.0, (256, 256), True, True)
    assert (cheetah.lr, cheetah.clip, cheetah.epochs, cheetah.gamma, cheetah.lam) == (2.0633e-5, 0.1, 20, 0.98, 0.92)
    assert (hopper.value_coef / 2, hopper.batch_size, hopper.max_grad_norm) == (0.835671, 32, 0.7)
    env = make("Hopper-v5", 1, 0)
    policy = control.policy_of(hopper, env)
    assert isinstance(policy, GaussianPolicy)
    assert policy.networks.body.options.activation == "relu"
    assert policy.log_std.detach().tolist() == [-2.0] * 3


def test_ataris_rows_are_the_zoos():
    """hyperparams/{dqn,ppo,a2c}.yml under `atari`; a game without a row of its own has the same."""
    dqn, ppo, a2c = OFF["dqn/ALE/Pong-v5"], ON["ppo/ALE/Pong-v5"], ON["a2c/ALE/Pong-v5"]
    assert (dqn.capacity, dqn.lr, dqn.batch_size, dqn.learning_starts, dqn.target_every, dqn.train_every) == (
        100_000, 1e-4, 32, 100_000, 1000, 4,
    )  # fmt: skip
    assert (dqn.dqn.epsilon_fraction, dqn.dqn.epsilon_end) == (0.1, 0.01)
    assert (ppo.num_envs, ppo.n_steps, ppo.epochs, ppo.batch_size, ppo.lr, ppo.clip) == (8, 128, 4, 256, 2.5e-4, 0.1)
    assert (a2c.num_envs, a2c.entropy_coef, a2c.value_coef, a2c.a2c.optimizer) == (16, 0.01, 0.5, "rmsprop-tf")
    for preset in (dqn, ppo, a2c):
        assert (preset.world.frame_stack, preset.hidden, preset.steps) == (4, (512,), 10_000_000)
        assert preset.world.atari.sticky == 0.25
    start = off_policy_config.starting_point("dqn", {"env": "ALE/Freeway-v5"})
    assert start == replace(dqn, env="ALE/Freeway-v5")
    assert control_config.starting_point("ppo", {"env": "ALE/Freeway-v5"}) == replace(ppo, env="ALE/Freeway-v5")


@pytest.mark.parametrize("name", ["ppo/HalfCheetah-v5", "sac/Hopper-v5"])
def test_mujoco_learns_for_a_moment(name, tmp_path, monkeypatch):
    """Finite losses and a policy that acts, as `--preset` and a few fields would have it."""
    pytest.importorskip("mujoco")
    recipe, presets, small = (control, ON, SMALL_ON) if name in ON else (off_policy, OFF, SMALL_OFF)
    few = {"eval_episodes": 1, "hidden": (16, 16)}
    monkeypatch.setattr(recipe, "play", lambda *_: Played())
    report = recipe.main(replace(presets[name], out=str(tmp_path / "run"), **small, **few))
    obs = make(name.split("/")[1], 2, 0).obs
    action, _ = report.policy.act(obs)
    assert torch.isfinite(action).all()


@pytest.mark.parametrize(
    "name", ["dqn/ALE/Pong-v5", "ppo/ALE/Breakout-v5", pytest.param("a2c/ALE/Breakout-v5", marks=pytest.mark.slow)]
)
def test_atari_learns_for_a_moment(name, tmp_path, monkeypatch):
    """From 84 x 84 x 4 bytes through the Nature network; the run is loaded again and acts the same."""
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    recipe, presets, small = (control, ON, SMALL_ON) if name in ON else (off_policy, OFF, SMALL_OFF)
    few = {"eval_episodes": 1, "hidden": (16,)}
    monkeypatch.setattr(recipe, "play", lambda *_: Played())
    report = recipe.main(replace(presets[name], out=str(tmp_path / "run"), **small, **few))
    obs = make(name.partition("/")[2], 1, 0, presets[name].world).obs
    assert obs.shape == (1, 4 * 84 * 84)
    loaded = op.load(tmp_path / "run").policy
    assert loaded.greedy()(obs.numpy()).tolist() == report.policy.greedy()(obs.numpy()).tolist()


class Played:
    """An evaluation that was not played."""

    def metrics(self):
        return {"eval/return": 0.0, "eval/return_low": 0.0, "eval/return_high": 0.0, "eval/length": 0.0}


def test_options_of_worlds_and_networks_are_fields_of_the_command(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "ppo", "--env", "ALE/Pong-v5", "--help"])
    shown = capsys.readouterr().out
    for flag in ("--world.workers", "--world.frame-stack", "--world.atari.sticky", "--network.activation", "--a2c."):
        assert flag in shown
    with pytest.raises(ConfigError, match=r"network\.activation is 'relu' with trpo"):
        control_config.Config(algo="trpo", network=NetworkOptions(activation="relu"))
