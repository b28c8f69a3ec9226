"""Speed of control against stable-baselines3: the same worlds, hyperparameters, network and batch, one thread a side.

    python benchmarks/control_speed_vs_sb3.py [--repeats 3] [--rows dqn/CartPole-v1 …]

A row is a training of the zoo's settings (control_rows.py) for a number of environment steps, without evaluation; both
sides run in turn, each in a process of its own, on an idle machine, and a ratio is of the two runs next to each other.
PPO and DQN are measured in environment steps a second over the whole training, the random first steps included. SAC,
TD3 and DDPG in updates a second: seconds of a training less those of one that ends as learning begins. Ratios above 1
are in onepolicy's favour. Writes results/control_speed_vs_sb3.json, where rows that are not asked for stay as they are.
"""

from __future__ import annotations

import argparse
import json
import sys
from statistics import median
from typing import Any

from common import FOLDER, RESULTS, Record, machine, peer_python, run_side, table, write_json

OURS = "control_side_onepolicy.py"
ROWS: dict[str, tuple[int, int]] = {
    "ppo/CartPole-v1": (0, 100_000),
    "ppo/Acrobot-v1": (0, 131_072),
    "ppo/HalfCheetah-v5": (0, 40_960),
    "ppo/Hopper-v5": (0, 40_960),
    "a2c/CartPole-v1": (0, 50_000),
    "trpo/CartPole-v1": (0, 50_000),
    "dqn/CartPole-v1": (0, 50_000),
    "dqn/MountainCar-v0": (0, 40_000),
    "sac/Pendulum-v1": (100, 2_100),
    "td3/Pendulum-v1": (10_000, 12_000),
    "ddpg/Pendulum-v1": (10_000, 12_000),
    "sac/HalfCheetah-v5": (10_000, 11_500),
}
"""Steps left out of the time, and steps in all."""
OWN: dict[str, dict[str, Any]] = {"dqn": {"dqn__double": False}}
"""What our side is told so that both do the same work: stable-baselines3 has no double DQN."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    arguments = parser.parse_args()
    about = machine("torch", "numpy", "gymnasium")
    sides = {
        "onepolicy": (sys.executable, OURS),
        "sb3": (str(peer_python("sb3", FOLDER / "requirements-sb3.txt")), "control_side_sb3.py"),
    }
    place = RESULTS / "control_speed_vs_sb3.json"
    found: dict[str, Record] = json.loads(place.read_text())["rows"] if place.is_file() else {}
    for row in arguments.rows:
        speeds: dict[str, list[float]] = {side: [] for side in sides}
        for repeat in range(arguments.repeats):
            for side, (python, script) in sides.items():
                speeds[side].append(speed(python, script, row, repeat))
        found[row] = summary(row, speeds)
        print(row, found[row]["ratio"], flush=True)
        write_json(place, {"machine": about, "rows": found})
    print(report(found))


def speed(python: str, script: str, row: str, seed: int) -> float:
    """Steps a second of one training beyond those that are left out."""
    first, last = ROWS[row]
    long = train(python, script, row, last, seed)
    if not first:
        return float(long["steps"] / long["seconds"])
    short = train(python, script, row, first, seed)
    return float((long["steps"] - short["steps"]) / (long["seconds"] - short["seconds"]))


def train(python: str, script: str, row: str, steps: int, seed: int) -> Record:
    """One training: its steps and its seconds."""
    algo, world = row.split("/")
    own = [json.dumps(OWN[algo])] if algo in OWN and script == OURS else []
    return run_side(python, FOLDER / script, algo, world, str(steps), str(seed), *own, threads=1)


def summary(row: str, speeds: dict[str, list[float]]) -> Record:
    """Medians, and the ratio of neighbouring runs with its least and greatest."""
    ratios = [mine / other for mine, other in zip(speeds["onepolicy"], speeds["sb3"], strict=True)]
    return {
        "counted": "updates" if ROWS[row][0] else "environment steps",
        "onepolicy": median(speeds["onepolicy"]),
        "sb3": median(speeds["sb3"]),
        "ratio": median(ratios),
        "least": min(ratios),
        "greatest": max(ratios),
    }


def report(rows: dict[str, Record]) -> str:
    """The table."""
    lines = [
        [
            name,
            row["counted"],
            f"{row['onepolicy']:,.0f}",
            f"{row['sb3']:,.0f}",
            f"{row['ratio']:.2f} ({row['least']:.2f} to {row['greatest']:.2f})",
        ]
        for name, row in rows.items()
    ]
    return table(["", "a second", "onepolicy", "stable-baselines3", "ratio"], lines)


if __name__ == "__main__":
    main()
