"""Worlds in processes of their own: the numbers of one process, errors with their traceback, and nobody left behind."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import gymnasium
import numpy as np
import pytest
import torch

from onepolicy.envs.gym import GymEnv
from onepolicy.envs.vector import Discrete, WorldOptions, make
from onepolicy.envs.workers import WorkerEnv
from onepolicy.errors import ConfigError, DataError
from onepolicy.recipes import control
from onepolicy.recipes.control_config import Config

TWO = WorldOptions(workers=2)
FIELDS = ("obs", "reward", "terminated", "truncated", "final_obs")


class Brittle(gymnasium.Env):
    """Counts its steps; the world seeded 3 breaks in its 4th as `how` says."""

    observation_space = gymnasium.spaces.Box(-9, 9, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, how="raise"):
        self.how = how

    def reset(self, *, seed=None, options=None):
        self.seeded, self.steps = seed, 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.seeded == 3 and self.steps == 4:
            if self.how == "raise":
                self.explode()
            if self.how == "die":
                os._exit(9)
            return np.full(1, np.nan, np.float32), 0.0, False, False, {}
        return np.full(1, self.steps, np.float32), 0.0, False, False, {}

    def explode(self):
        raise ZeroDivisionError("boiler")


@pytest.fixture
def brittle():
    def register(how):
        gymnasium.register("Brittle-v0", lambda: Brittle(how))
        return "Brittle-v0"

    yield register
    gymnasium.registry.pop("Brittle-v0", None)


def actions_for(env, rng):
    if isinstance(env.actions, Discrete):
        return torch.from_numpy(rng.integers(0, env.actions.n, env.num_envs))
    return torch.from_numpy(rng.standard_normal((env.num_envs, env.actions.dim)).astype(np.float32))


@pytest.mark.parametrize("env_id", ["Hopper-v5", pytest.param("FrozenLake-v1", marks=pytest.mark.slow)])
def test_two_workers_play_what_one_process_plays(env_id):
    """Five copies shared as 3 and 2, to the bit, over ends and resets; then saved, and gone on with on either side."""
    one, two = GymEnv(env_id, 5, 7), make(env_id, 5, 7, TWO)
    assert isinstance(two, WorkerEnv)
    assert (one.obs_dim, one.actions, one.layout) == (two.obs_dim, two.actions, two.layout)
    assert torch.equal(one.obs, two.obs)
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(60):
        action = actions_for(one, rng)
        a, b = one.step(action), two.step(action)
        for name in FIELDS:
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        ends += int(a.terminated.sum())
    assert ends > 4
    saved, same = two.state_dict(), one.state_dict()
    assert str(saved) == str(same)
    one.load_state_dict(saved)
    two.reset(100)
    two.load_state_dict(same)
    for _ in range(60):
        action = actions_for(one, rng)
        a, b = one.step(action), two.step(action)
        for name in FIELDS:
            assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert torch.equal(one.reset(3), two.reset(3))
    two.close()


def test_a_world_that_raises_is_named_with_its_step_and_traceback(brittle):
    env = make(brittle("raise"), 4, 0, WorldOptions(workers=1))
    for _ in range(3):
        env.step(torch.zeros(4, dtype=torch.int64))
    with pytest.raises(DataError) as raised:
        env.step(torch.zeros(4, dtype=torch.int64))
    words = str(raised.value)
    assert "Brittle-v0 raised ZeroDivisionError in world 3 after 3 steps, at action 0: boiler" in words
    assert "in explode" in words
    assert not [worker for worker in env._workers if worker.process.poll() is None]


@pytest.mark.slow
def test_a_worker_that_dies_is_named_with_its_worlds(brittle):
    env = make(brittle("die"), 4, 0, TWO)
    for _ in range(3):
        env.step(torch.zeros(4, dtype=torch.int64))
    with pytest.raises(DataError, match=r"worker 1, which played worlds 2 to 3 of Brittle-v0, died with exit code 9"):
        env.step(torch.zeros(4, dtype=torch.int64))


@pytest.mark.slow
def test_what_cannot_be_made_says_why_as_in_one_process():
    with pytest.raises(ConfigError, match="Did you mean 'FrozenLake-v1'"):
        make("FrozenLak-v1", 2, 0, WorldOptions(workers=1))


def test_workers_that_would_be_slower_or_none_are_refused():
    with pytest.raises(ConfigError, match=r"workers is 2; all copies of CartPole-v1 are one batch"):
        make("CartPole-v1", 2, 0, TWO)
    with pytest.raises(ConfigError, match="workers is -1"):
        WorldOptions(workers=-1)


def alive(pid):
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks processes up in /proc")
def test_workers_do_not_outlive_a_parent_that_was_killed():
    """Nor one that is in a step which never ends."""
    code = """
        import gymnasium, time, torch
        from onepolicy.envs.vector import WorldOptions, make
        class Stuck(gymnasium.Env):
            observation_space = gymnasium.spaces.Box(-9, 9, (1,))
            action_space = gymnasium.spaces.Discrete(2)
            def reset(self, *, seed=None, options=None):
                return self.observation_space.low, {}
            def step(self, action):
                while True:
                    time.sleep(0.05)
                return self.observation_space.low, 0.0, False, False, {}
        gymnasium.register("Stuck-v0", Stuck)
        env = make("Stuck-v0", 2, 0, WorldOptions(workers=1))
        print(*[worker.process.pid for worker in env._workers], flush=True)
        env.step(torch.zeros(2, dtype=torch.int64))
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 1
    assert all(map(alive, pids))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 60
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(alive, pids))


@pytest.mark.slow
def test_a_run_with_workers_is_the_run_without(tmp_path, monkeypatch):
    """PPO on Hopper, two rollouts with updates and an evaluation: the lines of the log are the same to the byte."""
    monkeypatch.setattr(control, "finish", lambda *_: "")
    small = {"env": "Hopper-v5", "steps": 256, "num_envs": 4, "n_steps": 32, "batch_size": 64, "eval_episodes": 2}
    for workers in (0, 2):
        options = WorldOptions(workers=workers)
        control.main(Config(**small, world=options, out=str(tmp_path / str(workers))))
    alone, shared = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("0", "2"))
    assert alone == shared
