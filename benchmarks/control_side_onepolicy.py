"""onepolicy's side of control_vs_sb3.py: run as ALGORITHM WORLD STEPS SEED [SETTINGS] OUT, with the preset of that
name. SETTINGS are JSON and replace the preset's.

A training of one step comes first: it imports torch and the curves' library, as stable-baselines3's side does before
its clock starts.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import onepolicy as op
from common import write_json
from control_rows import examine
from onepolicy.run.journal import read_lines


def main(algo: str, world: str, steps: int, seed: int, own: dict[str, Any], out: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        op.train(
            algo,
            env=world,
            steps=1,
            eval_every=0,
            eval_episodes=1,
            save_every=0,
            out=str(Path(folder) / "imports"),
            **own,
        )
        started = time.process_time()
        report = op.train(
            algo, env=world, steps=steps, seed=seed, eval_every=0, eval_episodes=1, save_every=0, out=str(run), **own
        )
        seconds = time.process_time() - started
        done = max(int(line["step"]) for line in read_lines(run / "metrics.jsonl"))
    act = report.policy.greedy()
    returns = examine(world, lambda obs: np.asarray(act(obs)))
    write_json(out, {"returns": returns, "seconds": seconds, "steps": done})


if __name__ == "__main__":
    settings = json.loads(sys.argv[5]) if len(sys.argv) > 6 else {}
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), settings, sys.argv[-1])
