"""The KL of each rollout's updates of PPO with a KL penalty and of TRPO, against the target or bound they were given.

Presets of CartPole-v1 and Pendulum-v1; the KL is KL(old || new) over the rollout, nats, as logged (`policy/kl`): TRPO's
exact, PPO's the mean of (r - 1) - log r over what was drawn. PPO has rollouts of 1,024 steps, minibatches of 256,
five epochs, so that each is logged. Writes results/kl_bound.json and docs/figures/kl_bound.png.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

import onepolicy as op
from common import FOLDER, RESULTS, Record, machine, table, write_json
from onepolicy.recipes.callbacks import Event
from onepolicy.recipes.control_config import starting_point

SEEDS = 2
STEPS = 20_000
RUNS: dict[str, dict[str, Any]] = {
    "ppo, penalty": {
        "target_kl": 0.01, "penalty": 1.0, "num_envs": 4, "n_steps": 256, "batch_size": 256, "epochs": 5,
        "schedule": "constant",
    },
    "trpo": {},
}  # fmt: skip
WORLDS = ("CartPole-v1", "Pendulum-v1")
FIGURE = FOLDER.parent / "docs" / "figures" / "kl_bound.png"


def main() -> None:
    about = machine("torch", "numpy", "gymnasium")
    found = {
        f"{name}, {world}": [kls(name.partition(",")[0], world, options, seed) for seed in range(SEEDS)]
        for world in WORLDS
        for name, options in RUNS.items()
    }
    bound = 0.01
    rows = {name: summary(runs, bound) for name, runs in found.items()}
    write_json(RESULTS / "kl_bound.json", {"machine": about, "bound": bound, "steps": STEPS, "rows": rows})
    draw(found, bound)
    head = ["", "rollouts", "median KL", "90th percentile", "largest", "rollouts above the bound"]
    lines = [
        [
            name, str(row["rollouts"]), f"{row['median']:.4f}", f"{row['p90']:.4f}", f"{row['max']:.4f}",
            f"{100 * row['above']:.1f} %",
        ]
        for name, row in rows.items()
    ]  # fmt: skip
    print(table(head, lines))


def kls(algo: str, world: str, options: dict[str, Any], seed: int) -> Record:
    """Environment steps and KL of each rollout of a run."""
    start = starting_point(algo, {"env": world})
    steps, kl = list[int](), list[float]()
    logged = logs_everything(steps, kl)
    with tempfile.TemporaryDirectory() as folder:
        op.train(
            algo, env=world, seed=seed, steps=min(STEPS, start.steps), eval_every=0, eval_episodes=1, save_every=0,
            out=str(Path(folder) / "run"), callbacks=[logged], **options,
        )  # fmt: skip
    return {"steps": steps, "kl": kl}


def logs_everything(steps: list[int], kl: list[float]) -> Any:
    """A callback that keeps the KL of each line that is logged."""

    def keep(event: Event) -> None:
        if "policy/kl" in event.metrics:
            steps.append(event.step)
            kl.append(float(event.metrics["policy/kl"]))

    return keep


def summary(runs: list[Record], bound: float) -> Record:
    """Of all seeds' rollouts, the first tenth of each run, in which PPO looks for its coefficient, apart."""
    kl = sorted(value for run in runs for value in run["kl"][len(run["kl"]) // 10 :])
    return {
        "rollouts": len(kl), "median": median(kl), "p90": kl[int(0.9 * len(kl))], "max": kl[-1],
        "above": sum(value > bound for value in kl) / len(kl), "runs": runs,
    }  # fmt: skip


def draw(found: dict[str, list[Record]], bound: float) -> None:
    """A panel for each algorithm and world, a line for each seed."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(8.0, 5.0), layout="constrained", sharey=True)
    for axis, (name, runs) in zip(axes.flat, found.items(), strict=True):
        for run in runs:
            axis.plot(run["steps"], run["kl"], linewidth=0.7)
        axis.axhline(bound, color="black", linewidth=0.9, linestyle="--")
        axis.set(title=name, xlabel="environment steps", ylabel="KL(old || new), nats", yscale="log")
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=120)


if __name__ == "__main__":
    main()
