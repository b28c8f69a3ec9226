"""PPO on CartPole-v1 against stable-baselines3: steps a second, and time until it is solved.

Both sides train with the zoo's hyperparameters (ppo_settings.py), in a process of their own with one thread, which
suits networks this small on both sides. The clock starts after the imports and 512 steps of warming up.
1. Speed: `learn` of a fixed number of steps, no evaluation, runs interleaved. Also by CPU time, which other work on
   the machine disturbs less.
2. Time to a mean return of 475 over 100 greedy episodes, evaluated every 5,120 steps by both, five seeds each. A run
   that is not solved within 100,000 steps counts with the time it took. The time is given for training alone, with
   evaluation in 100 worlds at once on both sides, and with stable-baselines3 evaluating in one world, as its
   `EvalCallback` does unless told otherwise; and once more with our preset that has twice the zoo's learning rate,
   which is not the same work any more.
Writes results/ppo_vs_sb3.json.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from statistics import mean, median

from common import FOLDER, RESULTS, Record, interleaved, machine, peer_python, ratios, run_side, table, write_json
from ppo_settings import EPISODES, EVERY, SOLVED, ZOO

FAST = "onepolicy, fast preset"
LIMIT = 100_000
"""Steps after which a run that is not solved stops."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="runs of the speed measurement on each side")
    parser.add_argument("--steps", type=int, default=20_480, help="steps of each of them")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of the second measurement on each side")
    parser.add_argument("--out", default=str(RESULTS / "ppo_vs_sb3.json"), help="where the JSON goes")
    arguments = parser.parse_args()
    if min(arguments.repeats, arguments.seeds) < 1:
        parser.error("--repeats and --seeds are at least 1")
    where = machine("torch", "numpy", "gymnasium")
    python = peer_python("sb3", FOLDER / "requirements-sb3.txt")
    sides = {
        "onepolicy": partial(run_side, sys.executable, FOLDER / "ppo_side_onepolicy.py", threads=1),
        "sb3": partial(run_side, python, FOLDER / "ppo_side_sb3.py", threads=1),
    }
    speed = interleaved(
        {name: partial(run, "speed", "0", str(arguments.steps)) for name, run in sides.items()},
        arguments.repeats,
        "speed:",
    )
    fast = {FAST: partial(sides["onepolicy"], "solve-fast")}
    solving = {name: partial(run, "solve") for name, run in sides.items()} | fast
    solve: dict[str, list[Record]] = {name: [] for name in solving}
    for seed in range(arguments.seeds):
        once = {name: partial(run, str(seed), str(LIMIT)) for name, run in solving.items()}
        for name, records in interleaved(once, 1, f"time to {SOLVED:.0f}, seed {seed}:").items():
            solve[name] += records
    record = {"machine": where, "settings": ZOO, "episodes": EPISODES, "every": EVERY, "threads": 1}
    record |= {"speed": speed, "solve": solve, "summary": summary(speed, solve)}
    write_json(arguments.out, record)
    print(report(record["summary"]))


def summary(speed: dict[str, list[Record]], solve: dict[str, list[Record]]) -> Record:
    """The numbers of the table."""
    seconds = {name: [r["seconds"] / r["steps"] for r in records] for name, records in speed.items()}
    cpu = {name: [r["cpu_seconds"] / r["steps"] for r in records] for name, records in speed.items()}
    train = {name: [r["train"] for r in records] for name, records in solve.items()}
    many = {name: [r["train"] + r["many"] for r in records] for name, records in solve.items()}
    one = [r["train"] + r["one"] for r in solve["sb3"]]
    times = {
        "training": train,
        "evaluated in 100 worlds": many,
        "evaluated in 1 world by sb3": many | {"sb3": one},
        "training, ours with lr 2e-3": train | {"onepolicy": train[FAST]},
        "evaluated in 100 worlds, ours with lr 2e-3": many | {"onepolicy": many[FAST]},
        "evaluated in 1 world by sb3, ours with lr 2e-3": {"onepolicy": many[FAST], "sb3": one},
    }
    return {
        "steps_per_second": {name: 1 / median(each) for name, each in seconds.items()},
        "speed_ratio": ratios(seconds["sb3"], seconds["onepolicy"]),
        "steps_per_cpu_second": {name: 1 / median(each) for name, each in cpu.items()},
        "cpu_ratio": ratios(cpu["sb3"], cpu["onepolicy"]),
        "solved": {name: sum(r["solved_at"] is not None for r in rs) for name, rs in solve.items()},
        "steps_to_475": {name: median(r["solved_at"] or LIMIT for r in rs) for name, rs in solve.items()},
        "seconds_to_475": {
            how: {
                "onepolicy": mean(each["onepolicy"]),
                "sb3": mean(each["sb3"]),
                "ratio": mean(each["sb3"]) / mean(each["onepolicy"]),
            }
            for how, each in times.items()
        },
    }


def report(found: Record) -> str:
    """The table."""
    rows = []
    for what, rate, ratio in (
        ("environment steps a second", found["steps_per_second"], found["speed_ratio"]),
        ("environment steps a CPU second", found["steps_per_cpu_second"], found["cpu_ratio"]),
    ):
        span = f"{ratio['median']:.2f} [{ratio['min']:.2f}, {ratio['max']:.2f}]"
        rows.append((what, f"{rate['onepolicy']:,.0f}", f"{rate['sb3']:,.0f}", span))
    rows.append(("runs solved", str(found["solved"]["onepolicy"]), str(found["solved"]["sb3"]), ""))
    steps = found["steps_to_475"]
    rows.append(("steps to 475, median", f"{steps['onepolicy']:,.0f}", f"{steps['sb3']:,.0f}", ""))
    for how, each in found["seconds_to_475"].items():
        rows.append(
            (f"seconds to 475, {how}", f"{each['onepolicy']:.1f}", f"{each['sb3']:.1f}", f"{each['ratio']:.2f}")
        )
    return table(("PPO on CartPole-v1, one thread", "onepolicy", "sb3 2.9.2", "ratio"), rows)


if __name__ == "__main__":
    main()
