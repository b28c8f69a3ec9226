"""A language model made on the spot learns to calculate: a few worked examples first, then reinforcement learning.

    python examples/301_grpo_arithmetic.py
    python examples/301_grpo_arithmetic.py --steps 20 --warm-steps 100

Every problem of the exam is one that training never shows. The command that does the same, with more to say:
onepolicy train grpo --level 2 --problems.train-size 3000 --problems.style totals
"""

from __future__ import annotations

import argparse
import json

import onepolicy as op


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--level", type=int, default=2, help="difficulty: 1 is 3+5=, 2 is 3+5-9=, see docs/tasks.md")
    parser.add_argument("--warm-steps", type=int, default=250, help="optimizer steps on worked examples")
    parser.add_argument("--steps", type=int, default=100, help="rollouts of reinforcement learning")
    parser.add_argument("--prompts", type=int, default=32, help="prompts a rollout; each gets 8 completions")
    parser.add_argument("--exam", type=int, default=256, help="held-out problems")
    parser.add_argument("--out", default="", help="run directory; empty for the next free runs/grpo-N")
    given = parser.parse_args()

    # A field of a group is written with two underscores: warm__steps is --warm.steps on the command line.
    report = op.train(
        "grpo",
        preset="arithmetic",
        level=given.level,
        steps=given.steps,
        prompts=given.prompts,
        group_size=8,
        warm__steps=given.warm_steps,
        warm__demonstrations=500,
        problems__train_size=3000,
        problems__style="totals",
        exam__size=given.exam,
        eval_every=max(1, given.steps // 5),
        machine__threads=1,
        out=given.out,
    )
    print(report.text)

    # metrics.jsonl holds every step: what the sampler earned, and how far the policy has moved.
    with (report.run_dir / "metrics.jsonl").open(encoding="utf-8") as file:
        steps = [line for line in map(json.loads, file) if "rollout/score" in line]
    for line in (steps[0], steps[-1]):
        print(
            f"step {line['step']}: mean score {line['rollout/score']:.2f}, groups with nothing to teach "
            f"{line['rollout/zero_variance']:.0%}, truncated {line['rollout/truncated']:.0%}"
        )

    # The problem as the task set writes it; the answer is whatever the model says, token by token.
    task = op.load_task_set("arithmetic", "test", level=given.level, n=1).tasks[0]
    said = report.policy.complete(task.messages, max_tokens=32)
    print(f"{task.messages[-1].content} {said}   (right: {task.answer}, score {task.verifier(task, said).value})")


if __name__ == "__main__":
    main()
