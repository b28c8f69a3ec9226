"""Tabular control on the cliff against gymnasium: environment and learner together, steps a second on one core.

1. SARSA, Q-learning and Expected SARSA of onepolicy (alpha 0.5, epsilon 0.1, 500 episodes a run), world and learner in
   one compiled loop, one thread, compiled before the clock starts. Goal: 10 million steps a second.
2. gymnasium's CliffWalking-v1: `step` alone with random actions, as `make` gives it and without its wrappers.
3. Q-learning in plain Python with a numpy table on that world, the loop of the tutorials; the same settings.
4. The same learner through onepolicy's path for gymnasium worlds, and SARSA with tile coding on mountain car.
Runs are interleaved; rates are medians by wall clock, and by CPU time, which other work disturbs less.
Then the 10-armed testbed of tabular_bandits.py, unless `--no-bandits`. Writes results/tabular.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import gymnasium
import numpy as np

import tabular_bandits
from common import RESULTS, Record, interleaved, machine, ratios, table, write_json
from onepolicy.tabular import control
from onepolicy.tabular.control import ControlResult, Settings
from onepolicy.tabular.control.gym import learn_gym
from onepolicy.tabular.control.tiles import MOUNTAIN_CAR, sarsa_lambda_tiles
from onepolicy.tabular.worlds.gridworlds import cliff

ALPHA, EPSILON, EPISODES = 0.5, 0.1, 500
GOAL = 10e6
"""Steps a second on one core that the three learners must reach."""
LEARNERS = {
    "SARSA": control.sarsa,
    "Q-learning": control.q_learning,
    "Expected SARSA": control.expected_sarsa,
    "double Q-learning": control.double_q_learning,
}
PEERS = ("gymnasium's step", "plain Q-learning on gymnasium")
MUST = ("SARSA", "Q-learning", "Expected SARSA")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each side, interleaved")
    parser.add_argument("--runs", type=int, default=400, help="runs of 500 episodes in one measurement of ours")
    parser.add_argument("--steps", type=int, default=200_000, help="steps of a measurement of gymnasium's")
    parser.add_argument("--no-bandits", action="store_true", help="leave the 10-armed testbed out")
    parser.add_argument("--out", default=str(RESULTS / "tabular.json"), help="where the JSON goes")
    arguments = parser.parse_args()
    if min(arguments.repeats, arguments.runs, arguments.steps) < 1:
        parser.error("--repeats, --runs and --steps are at least 1")
    record: Record = {"machine": machine("numpy", "numba", "gymnasium"), "threads": 1}
    record |= {"alpha": ALPHA, "epsilon": EPSILON, "episodes": EPISODES, "runs": arguments.runs}
    sides = sides_of(arguments.runs, arguments.steps)
    record["sides"] = interleaved(sides, arguments.repeats, "cliff:")
    record["summary"] = summary(record["sides"])
    print(report(record["summary"]))
    if not arguments.no_bandits:
        record["bandits"] = tabular_bandits.measure(arguments.repeats)
        print(tabular_bandits.report(record["bandits"]))
    write_json(arguments.out, record)


def sides_of(runs: int, steps: int) -> dict[str, Callable[[], Record]]:
    """What is measured, by name."""
    world, settings = cliff(), Settings(episodes=EPISODES, alpha=ALPHA, epsilon=EPSILON, runs=runs, threads=1)
    sides: dict[str, Callable[[], Record]] = {
        name: partial(ours, partial(learner, world, settings)) for name, learner in LEARNERS.items()
    }
    car = Settings(episodes=100, alpha=0.5 / 8, epsilon=0.0, runs=max(runs // 40, 1), threads=1)
    sides["mountain car, SARSA on 8 tilings"] = partial(ours, partial(sarsa_lambda_tiles, MOUNTAIN_CAR, car, lam=0.0))
    few = Settings(episodes=max(steps // 400, 1), alpha=ALPHA, epsilon=EPSILON)
    sides["our Q-learning on gymnasium"] = partial(
        ours, partial(learn_gym, gymnasium.make("CliffWalking-v1"), few, rule="q-learning")
    )
    sides["gymnasium's step"] = partial(stepping, gymnasium.make("CliffWalking-v1"), steps)
    sides["gymnasium's step, no wrappers"] = partial(stepping, gymnasium.make("CliffWalking-v1").unwrapped, steps)
    sides["plain Q-learning on gymnasium"] = partial(plain, gymnasium.make("CliffWalking-v1"), steps)
    return sides


def ours(learn: Callable[[], ControlResult]) -> Record:
    """One call of a learner; its own clock leaves the compiler out, as does the first, uncounted, small call."""
    started = time.process_time()
    found = learn()
    return {
        "steps": found.steps,
        "seconds": found.seconds,
        "cpu_seconds": time.process_time() - started,
        "last_returns": float(found.returns[:, -100:].mean()),
    }


def stepping(env: gymnasium.Env, steps: int) -> Record:
    """Random actions, drawn before the clock starts."""
    actions = np.random.default_rng(0).integers(0, 4, steps).tolist()
    env.reset(seed=0)
    started, cpu = time.perf_counter(), time.process_time()
    for action in actions:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
    return {"steps": steps, "seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}


def plain(env: gymnasium.Env, steps: int) -> Record:
    """Q-learning as a beginner writes it, for a number of steps."""
    rng, q = np.random.default_rng(0), np.zeros((48, 4))
    state, _ = env.reset(seed=0)
    started, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        action = int(rng.integers(4)) if rng.random() < EPSILON else int(np.argmax(q[state]))
        following, reward, terminated, truncated, _ = env.step(action)
        target = reward + (0.0 if terminated else np.max(q[following]))
        q[state, action] += ALPHA * (target - q[state, action])
        state = env.reset()[0] if terminated or truncated else following
    return {"steps": steps, "seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}


def summary(sides: dict[str, list[Record]]) -> Record:
    """The numbers of the table."""
    rate = {name: median(r["steps"] / r["seconds"] for r in records) for name, records in sides.items()}
    cpu = {name: median(r["steps"] / r["cpu_seconds"] for r in records) for name, records in sides.items()}
    seconds = {name: [r["seconds"] / r["steps"] for r in records] for name, records in sides.items()}
    times = {name: {peer: ratios(seconds[peer], seconds[name]) for peer in PEERS} for name in LEARNERS}
    return {
        "steps_per_second": rate,
        "steps_per_cpu_second": cpu,
        "times_faster": times,
        "goal": GOAL,
        "goal_reached": all(rate[name] >= GOAL for name in MUST),
    }


def report(found: Record) -> str:
    """The table."""
    rows = []
    for name, rate in found["steps_per_second"].items():
        ratio = [f"{each['median']:,.0f}" for each in found["times_faster"].get(name, {}).values()] or ["", ""]
        rows.append((name, f"{rate:,.0f}", f"{found['steps_per_cpu_second'][name]:,.0f}", *ratio))
    head = ("cliff, one thread", "steps/s", "steps/CPU s", "x gymnasium's step", "x plain Q-learning")
    reached = "reached" if found["goal_reached"] else "NOT reached"
    return f"{table(head, rows)}\nGoal of {found['goal']:,.0f} steps a second for {', '.join(MUST)}: {reached}."


if __name__ == "__main__":
    main()
