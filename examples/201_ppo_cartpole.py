"""PPO learns to balance a pole: train, measure, act by hand, load again.

    python examples/201_ppo_cartpole.py
    python examples/201_ppo_cartpole.py --steps 2000

The command that does the same: onepolicy train ppo --env CartPole-v1
"""

from __future__ import annotations

import argparse
from typing import Any

import gymnasium
import torch

import onepolicy as op

ENV = "CartPole-v1"


def play(policy: Any, seed: int) -> float:
    """The return of one episode in gymnasium's own world, actions drawn from the policy."""
    world = gymnasium.make(ENV)
    rng = torch.Generator().manual_seed(seed)
    obs, _ = world.reset(seed=seed)
    total, over = 0.0, False
    while not over:
        obs, reward, terminated, truncated, _ = world.step(policy.act(obs, stochastic=True, rng=rng))
        total += float(reward)
        over = terminated or truncated
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps to train for")
    parser.add_argument("--out", default="", help="run directory; empty for the next free runs/ppo-N")
    given = parser.parse_args()

    # The fields are those of the command; what is not given comes from the preset for this world.
    report = op.train("ppo", env=ENV, steps=given.steps, out=given.out)
    print(report.text)

    # Held-out measurement: greedy episodes from new seeds, with a 95 % interval over episodes.
    found = op.evaluate(report.policy, env=ENV, episodes=100, seed=1).interval()
    print(f"evaluated again: {found.value:.1f} [{found.low:.1f}, {found.high:.1f}]")

    # act() takes observations as the world gives them, one or several, and returns what env.step takes. evaluate() says
    # an action's log-probability, the entropy and the value. The torch module itself is `inner`.
    upright = torch.zeros(4)
    action = report.policy.act(upright)
    said = report.policy.evaluate(upright, torch.tensor(action))
    print(f"upright and still: action {action}, probability {said.logp.exp():.2f}, value {said.value:.1f}")
    print(f"one episode played by hand: {play(report.policy, seed=2):.0f}")

    # A run directory is all one needs to go on later.
    again = op.load(report.run_dir)
    ours, theirs = report.policy.inner.parameters(), again.policy.inner.parameters()
    same = all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    print(f"{again.text}, loaded from {report.run_dir}: the same weights: {same}")


if __name__ == "__main__":
    main()
