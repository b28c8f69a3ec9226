"""Gymnasium worlds in processes of their own, as one `ControlEnv`: the same numbers as in this process, on more cores.

Each worker plays its share of the copies as a `GymEnv`; what they see comes back through shared memory, the rest
through a pipe. A worker ends when it is told to, when its pipe closes, and within a second of its parent's death,
however that died. In: starting, stepping, saving, ending them. Not in: what a step is (gym.py).
Workers are started as programs, not forked: a fork of a process with threads may hang, and a script needs no
`if __name__ == "__main__"` this way.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, final

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onepolicy.batch import EnvStep
from onepolicy.envs.gym import GymEnv
from onepolicy.envs.saving import load_copies
from onepolicy.envs.vector import WorldOptions
from onepolicy.errors import ConfigError, DataError, OnePolicyError

PATIENCE = 5.0
"""Seconds a worker has to end after it was told to."""
POLL = 1.0
"""Seconds between a worker's looks at whether its parent lives."""


@final
class WorkerEnv:
    """`num_envs` copies of gymnasium's world `env_id` shared by `options.workers` processes; else as `GymEnv`.

    Copy i is seeded `seed + i` wherever it is played, and a saved state is that of a GymEnv, so that either goes on
    where the other stopped.
    Raises: ConfigError as GymEnv, and for a registered world that cannot be sent to another process; DataError for
    whatever a copy raises, with its traceback, and for a worker that died.
    """

    def __init__(self, env_id: str, num_envs: int, seed: int, options: WorldOptions, *, training: bool = False) -> None:
        self.env_id, self.num_envs, self.seed = env_id, num_envs, seed
        self.restarts = self.steps = 0
        place = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self._shared: IO[bytes] = tempfile.TemporaryFile(dir=place)  # noqa: SIM115 - closed with the workers
        shares = np.array_split(np.arange(num_envs), min(options.workers, num_envs))
        self._shares = [slice(int(share[0]), int(share[-1]) + 1) for share in shares]
        self._workers: list[_Worker] = []
        self.close = weakref.finalize(self, _close, self._workers, self._shared)
        told = (env_id, options, training, seed, _spec(env_id), sys.path)
        for share in self._shares:
            self._workers.append(_Worker(share, self._shared.fileno()))
        self._tell(*(("make", (*told, share.start, share.stop - share.start)) for share in self._shares))
        self.obs_dim, dtype, self.layout, self.actions = self._hear()[0]
        self._obs, self._final = _arrays(self._shared, num_envs, self.obs_dim, dtype)
        self._tell(*[("share", num_envs)] * len(self._workers))
        self._hear()

    @property
    def obs(self) -> Tensor:
        """What to act on next, [N, D] float32 or uint8."""
        return torch.from_numpy(self._obs.copy())

    def reset(self, seed: int) -> Tensor:
        """New episodes in all copies, copy i seeded `seed + i`; the first observations [N, D]."""
        self.seed = seed
        self._tell(*(("reset", seed + share.start) for share in self._shares))
        self._hear()
        return self.obs

    def step(self, action: Tensor) -> EnvStep:
        """One step of every copy. action: as GymEnv's."""
        chosen = action.numpy()
        if len(chosen) != self.num_envs:
            raise ConfigError(f"{len(chosen)} actions for {self.num_envs} copies of {self.env_id}; give one each.")
        self._tell(*(("step", chosen[share]) for share in self._shares))
        reward, terminated, truncated = (torch.from_numpy(np.concatenate(part)) for part in zip(*self._hear()))
        self.steps += 1
        return EnvStep(self.obs, reward, terminated, truncated, torch.from_numpy(self._final.copy()))

    def state_dict(self) -> dict[str, Any]:
        """As GymEnv's."""
        self._tell(*[("save", None)] * len(self._workers))
        states = self._hear()
        obstacle = next((state["obstacle"] for state in states if state["obstacle"] is not None), None)
        layers = None if obstacle else [layer for state in states for layer in state["layers"]]
        own = {name: getattr(self, name) for name in ("seed", "restarts", "steps")}
        return own | {"obs": self._obs.copy(), "obstacle": obstacle, "layers": layers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict. Where a state could not be saved: a warning that says so, and new episodes."""
        load_copies(self, state, self._put_back)

    def _put_back(self, state: dict[str, Any]) -> None:
        seed, steps = state["seed"], state["steps"]
        parts = [(state["layers"][share], state["obs"][share], seed + share.start, steps) for share in self._shares]
        self._tell(*(("load", part) for part in parts))
        self._hear()
        self.seed = seed

    def _tell(self, *messages: tuple[str, Any]) -> None:
        for worker, message in zip(self._workers, messages, strict=True):
            with contextlib.suppress(OSError):  # hearing says why
                worker.pipe.send(message)

    def _hear(self) -> list[Any]:
        """Each worker's answer. Raises what one of them raised, after which all are closed."""
        found = []
        for number, worker in enumerate(self._workers):
            try:
                kind, answer = worker.pipe.recv()
            except (EOFError, OSError):
                kind, answer = "died", worker.process.wait()
            if kind != "fine":
                self.close()
            if kind == "died":
                share = worker.share
                raise DataError(
                    f"worker {number}, which played worlds {share.start} to {share.stop - 1} of {self.env_id}, died "
                    f"with exit code {answer} after {self.steps} steps. Look for the cause in the environment, or for "
                    "memory that ran out."
                )
            if kind != "fine":
                name, message, trace = answer
                raise (ConfigError(message) if name == "ConfigError" else DataError(f"{message}\n{trace}".rstrip()))
            found.append(answer)
        return found


class _Worker:
    """A process and our end of its pipe. share: the worlds it plays."""

    def __init__(self, share: slice, shared: int) -> None:
        self.share = share
        self.pipe, theirs = Pipe()
        numbers = (theirs.fileno(), shared, os.getpid())
        self.process = subprocess.Popen(
            [sys.executable, "-m", "onepolicy.envs.workers", *map(str, numbers)],
            pass_fds=numbers[:2],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # a key that interrupts the parent is the parent's to answer
        )
        theirs.close()


def _close(workers: Sequence[_Worker], shared: IO[bytes]) -> None:
    for worker in workers:
        worker.pipe.close()
    for worker in workers:
        try:
            worker.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
    shared.close()


def _spec(env_id: str) -> bytes | None:
    """What was registered under an id, for a process that has not registered it; None where nothing was."""
    if env_id not in gymnasium.registry:
        return None
    import cloudpickle  # type: ignore[import-untyped]

    try:
        found: bytes = cloudpickle.dumps(gymnasium.registry[env_id])
    except Exception as error:
        raise ConfigError(f"{env_id} cannot be sent to a worker: {error}. Register it in a module, by name.") from error
    return found


def _arrays(shared: IO[bytes], worlds: int, dim: int, dtype: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """The rows to act on next and the final ones, [N, D] each, in the memory that all processes share."""
    size = worlds * dim * np.dtype(dtype).itemsize
    os.ftruncate(shared.fileno(), 2 * size)
    both = np.frombuffer(mmap.mmap(shared.fileno(), 2 * size), dtype).reshape(2, worlds, dim)
    return both[0], both[1]


class _Server:
    """A worker's side: its copies, and where their rows go."""

    def __init__(self, shared: IO[bytes]) -> None:
        self.shared = shared
        self.env: Any = None

    def make(self, told: tuple[Any, ...]) -> Any:
        env_id, options, training, seed, spec, path, first, count = told
        sys.path[:] = path
        if spec is not None and env_id not in gymnasium.registry:
            import cloudpickle

            gymnasium.registry[env_id] = cloudpickle.loads(spec)
        self.env = GymEnv(env_id, count, seed + first, options, training=training, first=first)
        self.share_of = slice(first, first + count)
        return self.env.obs_dim, self.env.rows.dtype, self.env.layout, self.env.actions

    def share(self, worlds: int) -> None:
        obs, final = _arrays(self.shared, worlds, self.env.obs_dim, self.env.rows.dtype)
        self.obs, self.final = obs[self.share_of], final[self.share_of]
        self.obs[:] = self.env.obs.numpy()

    def reset(self, seed: int) -> None:
        self.obs[:] = self.env.reset(seed).numpy()

    def step(self, action: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        step = self.env.step(torch.from_numpy(action))
        self.obs[:], self.final[:] = step.obs.numpy(), step.final_obs.numpy()
        return step.reward.numpy(), step.terminated.numpy(), step.truncated.numpy()

    def save(self, _: None) -> dict[str, Any]:
        return self.env.state_dict()  # type: ignore[no-any-return]

    def load(self, state: tuple[Any, ...]) -> None:
        layers, obs, seed, self.env.steps = state
        self.env.put_back({"layers": layers, "obs": obs, "seed": seed})
        self.obs[:] = obs


def _watch(parent: int) -> None:
    """Ends this process once its parent is gone, even in the midst of a step that does not end."""
    while os.getppid() == parent:
        time.sleep(POLL)
    os._exit(1)


def serve(pipe: int, shared: int, parent: int) -> None:
    """A worker's life."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    connection, server = Connection(pipe), _Server(os.fdopen(shared, "r+b"))
    while True:
        try:
            name, told = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = ("fine", getattr(server, name)(told))
        except Exception as error:  # noqa: BLE001 - the parent raises it
            known = isinstance(error, OnePolicyError)
            cause = error.__cause__ or error
            trace = "".join(traceback.format_exception(cause))
            answer = ("raised", (type(error).__name__, str(error) if known else repr(error), trace))
        with contextlib.suppress(OSError):
            connection.send(answer)


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:]))
