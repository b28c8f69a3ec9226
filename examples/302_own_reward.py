"""Reinforcement learning with a reward of your own: here, how near an answer comes, not only whether it is right.

    python examples/302_own_reward.py
    python examples/302_own_reward.py --steps 5 --warm-steps 50

A reward function has TRL's form, f(prompts, completions, **columns) -> list[float | None]: one number for each
completion, None where it does not apply. The columns are the task's answer, task_id and meta. The command finds it by
name: onepolicy train grpo --reward module:function
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import onepolicy as op
from onepolicy.tasks.functions import as_reward
from onepolicy.tasks.rewards import extract_tag


def closeness(
    prompts: Sequence[str], completions: Sequence[str], answer: Sequence[str], **columns: object
) -> list[float]:
    """1 for the right number, less the farther away, 0 for no number in an answer tag."""
    return [_near(extract_tag(text, "answer"), gold) for text, gold in zip(completions, answer, strict=True)]


def _near(said: str | None, gold: str) -> float:
    try:
        return 1.0 / (1.0 + abs(int(said or "") - int(gold)))
    except ValueError:
        return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--warm-steps", type=int, default=250, help="optimizer steps on worked examples")
    parser.add_argument("--steps", type=int, default=100, help="rollouts of reinforcement learning")
    parser.add_argument("--prompts", type=int, default=32, help="prompts a rollout; each gets 8 completions")
    parser.add_argument("--exam", type=int, default=256, help="held-out problems")
    parser.add_argument("--out", default="", help="run directory; empty for the next free runs/grpo-N")
    given = parser.parse_args()

    # Try a reward function on a task before training with it; as_reward names every way it can be wrong.
    task = op.load_task_set("arithmetic", "test", level=2, n=1).tasks[0]
    judge = as_reward(closeness)
    for text in (f"<answer>{task.answer}</answer>", f"<answer>{int(task.answer) + 3}</answer>", "seven"):
        print(f"{task.messages[-1].content} {text}: {judge(task, text).value:.2f}")

    report = op.train(
        "grpo",
        preset="arithmetic",
        level=2,
        reward=f"{Path(__file__).stem}:closeness",
        steps=given.steps,
        prompts=given.prompts,
        warm__steps=given.warm_steps,
        warm__demonstrations=500,
        problems__train_size=3000,
        problems__style="totals",
        exam__size=given.exam,
        eval_every=max(1, given.steps // 5),
        machine__threads=1,
        out=given.out,
    )
    # The exam still counts right answers: a reward can be gamed, the verifier of the task set is not trained on.
    print(report.text)
    print(f"mean reward of the last rollout: {report.metrics['rollout/reward']:.2f}")


if __name__ == "__main__":
    main()
