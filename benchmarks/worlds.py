"""Steps a second of classic control: ours, batched, beside gymnasium's own SyncVectorEnv, the same random actions.

Run: .venv/bin/python benchmarks/worlds.py. Prints a table and writes benchmarks/results/worlds.json. What is
timed is `step` alone: N copies, resets within the step, observations as float32 arrays (ours as tensors besides).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from common import RESULTS, Record, interleaved, machine, ratios, table, write_json
from onepolicy.envs.classic import WORLDS, dynamics_of
from onepolicy.envs.vector import Discrete, make

COPIES = (1, 8, 256)
SECONDS = 0.5
"""Played at least, in one measurement."""
BATCH = 64
"""Vector steps between looks at the clock."""


def actions_for(env_id: str, copies: int) -> list[Any]:
    """BATCH random actions for all copies, as numpy arrays."""
    rng, space = np.random.default_rng(0), dynamics_of(env_id).actions
    if isinstance(space, Discrete):
        return list(rng.integers(0, space.n, (BATCH, copies)))
    return list(rng.uniform(space.low, space.high, (BATCH, copies, space.dim)).astype(np.float32))


def rate(step: Callable[[Any], Any], actions: list[Any], copies: int) -> Record:
    """Steps of single copies a second, and seconds for a vector step; the first BATCH of them are not counted."""
    for action in actions:
        step(action)
    played, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < SECONDS:
        for action in actions:
            step(action)
        played += len(actions)
    return {"steps_per_second": played * copies / passed, "seconds_per_vector_step": passed / played}


def ours(env_id: str, copies: int) -> Record:
    """Our world."""
    env = make(env_id, copies, 0)
    return rate(env.step, [torch.from_numpy(a) for a in actions_for(env_id, copies)], copies)


def theirs(env_id: str, copies: int) -> Record:
    """gymnasium's, reset within the step too."""
    one = [lambda: gymnasium.make(env_id, disable_env_checker=True)] * copies
    env = SyncVectorEnv(one, autoreset_mode=AutoresetMode.SAME_STEP)
    env.reset(seed=0)
    found = rate(env.step, actions_for(env_id, copies), copies)
    env.close()
    return found


def main() -> None:
    """Measure every world at every number of copies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "worlds.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    record: Record = {"machine": machine("gymnasium", "numpy", "numba", "torch"), "worlds": []}
    rows = []
    for env_id in WORLDS:
        for copies in COPIES:
            sides = {
                "onepolicy": lambda env_id=env_id, copies=copies: ours(env_id, copies),
                "gymnasium": lambda env_id=env_id, copies=copies: theirs(env_id, copies),
            }
            runs = interleaved(sides, options.repeats, f"{env_id} x {copies}")
            took = {name: [run["seconds_per_vector_step"] for run in each] for name, each in runs.items()}
            times = ratios(took["gymnasium"], took["onepolicy"])
            record["worlds"].append({"env": env_id, "copies": copies, "runs": runs, "times_faster": times})
            best = {name: max(run["steps_per_second"] for run in each) for name, each in runs.items()}
            rows.append(
                [
                    env_id,
                    str(copies),
                    *(f"{best[name]:,.0f}" for name in sides),
                    f"{times['median']:.1f} [{times['min']:.1f}, {times['max']:.1f}]",
                ]
            )
    write_json(options.out, record)
    head = ["World", "copies", "onepolicy, steps/s", "gymnasium, steps/s", "times faster"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
