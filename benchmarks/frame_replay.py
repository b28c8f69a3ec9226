"""What a memory of a million Atari transitions takes: the process's peak, the time of draws, of a checkpoint.

Run: .venv/bin/python benchmarks/frame_replay.py [--steps N]. Prints a table and writes results/frame_replay.json.
Frames are Breakout's own, of a random player, over and over; 84 x 84 in stacks of four, eight worlds. The target is a
peak under 8 GB (10^9 bytes), the process with torch and the games included.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from common import RESULTS, machine, write_json
from onepolicy.data.frames import FrameReplay
from onepolicy.envs.vector import WorldOptions, make

WORLDS, STACK, BATCH, LIMIT = 8, 4, 32, 8e9
PLAYED = 500
"""Steps of each world whose frames are used again and again."""


def peak() -> float:
    """The most memory this process has had so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def seconds(what: object, *arguments: object) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    what(*arguments)  # type: ignore[operator]
    return time.perf_counter() - started


def main() -> None:
    """Fills the memory past its capacity, draws from it, saves and loads it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000, help="capacity in transitions")
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    env = make("ALE/Breakout-v5", WORLDS, 0, WorldOptions(frame_stack=STACK), training=True)
    rng, seen = np.random.default_rng(0), []
    obs = env.obs.numpy()
    for _ in range(PLAYED):
        action = rng.integers(0, env.actions.n, WORLDS)
        step = env.step(torch.from_numpy(action))
        ended = (step.terminated.numpy(), step.truncated.numpy())
        newest = step.final_obs.numpy()[:, -84 * 84 :]
        seen.append((obs[:, -84 * 84 :].copy(), action, step.reward.numpy(), newest.copy(), *ended))
        obs = step.obs.numpy()
    before = peak()
    memory = FrameReplay((0,), steps, WORLDS, env.obs_dim, gamma=0.99, stack=STACK)
    row, next_row = np.zeros((2, 1, WORLDS, env.obs_dim), np.uint8)
    started = time.perf_counter()
    rounds = steps * 11 // 10 // WORLDS
    for k in range(rounds):
        frame, action, reward, newest, terminated, truncated = seen[k % PLAYED]
        row[0, :, -84 * 84 :], next_row[0, :, -84 * 84 :] = frame, newest
        memory.add(row, action[None], reward[None], next_row, terminated[None], truncated[None])
    filling = time.perf_counter() - started
    draws = [seconds(memory.sample, BATCH) for _ in range(500)]
    filled, folder = peak(), Path(tempfile.mkdtemp())
    saving = seconds(memory.save_to, folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    loading = seconds(memory.load_from, folder)
    shutil.rmtree(folder)
    found = {
        "transitions": len(memory),
        "peak_gb": peak() / 1e9,
        "peak_before_saving_gb": filled / 1e9,
        "process_before_gb": before / 1e9,
        "arrays_gb": memory.nbytes / 1e9,
        "adds_per_second": rounds * WORLDS / filling,
        "draw_ms": float(np.median(draws)) * 1e3,
        "save_seconds": saving,
        "load_seconds": loading,
        "checkpoint_gb": size / 1e9,
    }
    for name, value in found.items():
        print(f"{name:<24}{value:>14,.3f}")
    if steps >= 1_000_000:
        print("target: a peak under 8 GB:", "reached" if found["peak_gb"] * 1e9 < LIMIT else "MISSED")
        write_json(RESULTS / "frame_replay.json", {"machine": machine(), "found": found})


if __name__ == "__main__":
    main()
