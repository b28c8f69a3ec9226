"""Reward models: K-wise against pairwise on real solutions of GSM8K at equal compute; the letters against the truth.

    python benchmarks/reward_model.py gsm8k --data TRAIN.jsonl --solutions example_model_solutions.jsonl
    python benchmarks/reward_model.py letters

gsm8k: a tiny model is pretrained on the training problems and their solutions, and becomes a reward model from rankings
of model solutions (right before wrong), by the K-wise loss and by single pairs. A step has as many texts either way, 4
of a ranking or 2 of a pair, and the steps are as many: equal texts through the model.
letters: preset `letters`, a model made on the spot; its held-out accuracy beside what the true reward reaches on the
same labels. Three seeds each; an interval of a mean is over seeds (t), one of a model over held-out rankings.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from itertools import combinations, permutations
from math import exp
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from common import RESULTS, machine, table, write_json
from onepolicy.recipes.scoring import trained_reward_model
from onepolicy.tasks import letters as true_letters

T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Student's t, two-sided 95 %, by the number of seeds."""


def main() -> None:
    """Run what was asked for and write its JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["gsm8k", "letters"])
    parser.add_argument("--data", default="", help="GSM8K's train.jsonl")
    parser.add_argument("--solutions", default="", help="example_model_solutions.jsonl")
    parser.add_argument("--work", default="runs/benchmark-reward-model", help="where the runs go; finished ones stay")
    parser.add_argument("--forms", nargs="+", default=["k-wise", "pairwise"], help="letters: which losses")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=0, help="gsm8k: optimizer steps; 0 is one pass over the rankings")
    parser.add_argument("--epochs", type=float, default=1.0, help="gsm8k: passes over the pretraining text")
    given = parser.parse_args()
    record = {
        "machine": machine("torch", "transformers"),
        "command": " ".join(Path(word).name for word in sys.argv[1:]),
    }
    record |= gsm8k(given) if given.what == "gsm8k" else letters(given)
    write_json(RESULTS / f"reward_model_{given.what}.json", record)


def gsm8k(given: argparse.Namespace) -> dict[str, Any]:
    """Pretraining, rankings, and both forms for every seed."""
    work = Path(given.work)
    base, rankings = work / "pretrain", work / "rankings"
    make("data", "make", "gsm8k-rankings", given.solutions, "--out", rankings)
    train(base, "pretrain", "--preset", "gsm8k", "--data", given.data, "--epochs", given.epochs, "--save-every", 50)
    size = sum(1 for _ in (rankings / "rankings.jsonl").open())
    steps = given.steps or -(-size // 16)
    found: dict[str, list[dict[str, Any]]] = {"k-wise": [], "pairwise": []}
    for seed in range(given.seeds):
        for form, batch in (("k-wise", 16), ("pairwise", 32)):
            out = work / f"gsm8k-{form}-{seed}"
            fields = ["--data", rankings / "rankings.jsonl", "--eval-data", rankings / "rankings_test.jsonl"]
            fields += ["--form", form, "--batch-size", batch, "--steps", steps, "--lr", 1e-3, "--warmup-steps", 5]
            fields += ["--bad-rows", "drop", "--eval-every", max(1, steps // 4), "--machine.threads", 1]
            train(out, "reward-model", "--model", base, "--seed", seed, *fields)
            found[form].append(measured(out))
    rows = [[form, *summary(runs)] for form, runs in found.items()]
    print(table(["form", "texts", "pair accuracy, mean of seeds", "95 %", "each seed", "pair loss, nats"], rows))
    pretrained = lines(base)[-1]
    print(f"pretrained: {pretrained['eval/nll']:.3f} nats a token, {pretrained['eval/bits_per_byte']:.3f} bits a byte")
    known = baselines(rankings)
    print(
        "without a model, on all held-out pairs: " + ", ".join(f"{name} {share:.3f}" for name, share in known.items())
    )
    return {"runs": found, "steps": steps, "pretrained": pretrained, "baselines": known}


def baselines(rankings: Path) -> dict[str, float]:
    """Held-out pairs that are right by: the longer solution; the writer with more right solutions in the other file."""
    train, test = (lines_of(rankings / f"rankings{end}.jsonl") for end in ("", "_test"))
    scores: dict[str, list[float]] = {}
    for row in train:
        for writer, score in zip(row["writers"], row["scores"], strict=True):
            scores.setdefault(writer, []).append(score)
    longer, writer = [], []
    for row in test:
        value = [mean(scores[name]) for name in row["writers"]]
        size = [len(answer) for answer in row["answers"]]
        for good, bad in permutations(range(len(size)), 2):
            if row["scores"][good] > row["scores"][bad]:
                longer.append(compared(size[good], size[bad]))
                writer.append(compared(value[good], value[bad]))
    return {"longer": mean(longer), "writer": mean(writer)}


def compared(good: float, bad: float) -> float:
    """1 where the first is larger, 1/2 where equal."""
    return 1.0 if good > bad else 0.5 if good == bad else 0.0


def letters(given: argparse.Namespace) -> dict[str, Any]:
    """The preset on 40,000 rankings of 8, once each, for every seed and form; data of its own for every seed.

    A step has 128 texts either way. What the true reward reaches on the same held-out labels stands beside.
    """
    work = Path(given.work)
    found: dict[str, list[dict[str, Any]]] = {form: [] for form in given.forms}
    for seed in range(given.seeds):
        data = work / f"letters-data-{seed}"
        if not (data / "manifest.json").is_file():
            make("data", "make", "letters", "--rankings", 40_000, "--k", 8, "--seed", seed, "--out", data)
        truth = json.loads((data / "manifest.json").read_text())
        for form in given.forms:
            out, batch = work / f"letters-{form}-{seed}", {"k-wise": 16, "pairwise": 64}[form]
            files = ["--data", data / "rankings.jsonl", "--eval-data", data / "rankings_test.jsonl"]
            fields = ["--form", form, "--batch-size", batch, "--seed", seed, "--eval-every", 500, "--save-every", 500]
            train(out, "reward-model", "--preset", "letters", *fields, *files)
            found[form].append(compared_with_truth(out, data / "rankings_test.jsonl", truth))
    rows = []
    for form, runs in found.items():
        share = [run["of_the_best"] for run in runs]
        rows.append([form, *summary(runs), ", ".join(f"{x:.4f}" for x in share), f"{mean(share):.4f}"])
    head = ["form", "texts", "pair accuracy", "95 %", "each seed", "pair loss", "of the best, each seed", "mean"]
    print(table(head, rows))
    return {"runs": found}


def compared_with_truth(out: Path, test: Path, truth: dict[str, Any]) -> dict[str, Any]:
    """A run beside the truth: its accuracy over that of the true reward on the same labels, and without their noise.

    expected_accuracy: its accuracy if every held-out pair were labelled anew, again and again; order: how many pairs
    whose true rewards differ it puts in their order.
    """
    rows = lines_of(test)
    scorer = trained_reward_model(str(out))
    expected, order = [], []
    for row in rows:
        score = scorer.score(row["prompt"], row["answers"])
        value = [true_letters.reward(row["prompt"], answer) for answer in row["answers"]]
        for i, j in combinations(range(len(value)), 2):
            sign = 1.0 if score[i] > score[j] else -1.0
            expected.append(1.0 / (1.0 + exp(-sign * (value[i] - value[j]))))
            if value[i] != value[j]:
                order.append(float(sign * (value[i] - value[j]) > 0))
    run = measured(out)
    best = true_letters.true_accuracy(rows)
    return {
        **run,
        "best": best,
        "of_the_best": run["eval/pair_accuracy"] / best,
        "expected_accuracy": mean(expected),
        "best_expected": true_letters.best_accuracy(rows),
        "order": mean(order),
        "truth": truth,
    }


def make(*words: object) -> None:
    """A command of onepolicy. Raises: SystemExit when it fails."""
    command = [sys.executable, "-c", "from onepolicy.cli import main; main()", *map(str, words)]
    print("onepolicy", *words, file=sys.stderr, flush=True)
    if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
        raise SystemExit(f"failed: {' '.join(command)}")


def train(out: Path, algorithm: str, *fields: object) -> None:
    """A run that is finished stays, one that was cut off goes on."""
    if (out / "report.md").is_file():
        return
    if (out / "checkpoints").is_dir():
        make("resume", out)
        return
    make("train", algorithm, *fields, "--out", out)


def measured(out: Path) -> dict[str, Any]:
    """The run's last line, the accuracies on the way, and the texts that went through the model."""
    found, config = lines(out), json.loads((out / "config.json").read_text())
    config = config.get("config", config)
    texts = len(found) * config["batch_size"] * (answers_of(config["data"]) if config["form"] == "k-wise" else 2)
    kept = {name: value for name, value in found[-1].items() if name.startswith("eval/")}
    curve = [[line["step"], line["eval/pair_accuracy"]] for line in found if "eval/pair_accuracy" in line]
    return {**kept, "texts": texts, "curve": curve}


def answers_of(path: str) -> int:
    """Answers of a file's first ranking."""
    with Path(path).open(encoding="utf-8") as file:
        return len(json.loads(file.readline())["answers"])


def lines(out: Path) -> list[dict[str, Any]]:
    """A run's metrics."""
    return lines_of(out / "metrics.jsonl")


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def summary(runs: list[dict[str, Any]]) -> list[str]:
    """Cells of a table: texts, mean accuracy, its interval over seeds, each seed with its own interval, mean loss."""
    each = [run["eval/pair_accuracy"] for run in runs]
    half = T_95[len(each)] * stdev(each) / len(each) ** 0.5 if len(each) > 1 else float("nan")
    spread = ", ".join(
        f"{r['eval/pair_accuracy']:.3f} [{r['eval/pair_accuracy_low']:.3f}, {r['eval/pair_accuracy_high']:.3f}]"
        for r in runs
    )
    loss = mean(run["eval/pair_loss"] for run in runs)
    return [str(runs[0]["texts"]), f"{mean(each):.4f}", f"+- {half:.4f}", spread, f"{loss:.4f}"]


if __name__ == "__main__":
    main()
