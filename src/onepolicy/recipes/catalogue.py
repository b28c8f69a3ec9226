"""Which recipe trains which algorithm, by name; nothing heavy is imported until one is opened."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from onepolicy.errors import ConfigError, nearest


@dataclass(frozen=True)
class Entry:
    """An algorithm a user can train. module: its recipe. about: one line. fixed: fields the name decides."""

    module: str
    about: str
    fixed: tuple[tuple[str, str], ...] = ()


def _tabular(algorithm: str, about: str) -> Entry:
    return Entry("onepolicy.recipes.tabular", f"{about}, in a finite world", (("algo", algorithm),))


ALGORITHMS: dict[str, Entry] = {
    "pretrain": Entry("onepolicy.recipes.pretrain", "next-token training of a language model on text, infilling too"),
    "sft": Entry("onepolicy.recipes.sft", "supervised fine-tuning of a language model"),
    "reward-model": Entry("onepolicy.recipes.reward_model", "a reward model from pairs or rankings"),
    "dpo": Entry("onepolicy.recipes.dpo", "a language model from preferences: DPO, IPO, SimPO, ORPO, KTO; online too"),
    "rlhf": Entry("onepolicy.recipes.rlhf", "PPO on a language model against a reward model, text mixed in"),
    "grpo": Entry("onepolicy.recipes.grpo", "reinforcement learning of a language model with verifiable rewards"),
    "r1": Entry("onepolicy.recipes.r1", "DeepSeek-R1 whole: cold start, RL, rejection sampling, SFT, RL on everything"),
    "distill": Entry("onepolicy.recipes.distill", "a student learns from a teacher's opinion of what it writes"),
    "reinforce": Entry("onepolicy.recipes.control", "REINFORCE with a baseline, on control", (("algo", "reinforce"),)),
    "a2c": Entry("onepolicy.recipes.control", "advantage actor-critic, on control", (("algo", "a2c"),)),
    "ppo": Entry("onepolicy.recipes.control", "proximal policy optimisation, on control", (("algo", "ppo"),)),
    "dqn": Entry(
        "onepolicy.recipes.off_policy", "Q-learning with a network and a memory, on control", (("algo", "dqn"),)
    ),
    "trpo": Entry("onepolicy.recipes.control", "trust region policy optimisation, on control", (("algo", "trpo"),)),
    "ddpg": Entry("onepolicy.recipes.off_policy", "deterministic policy gradient, on control", (("algo", "ddpg"),)),
    "td3": Entry("onepolicy.recipes.off_policy", "twin delayed DDPG, on control", (("algo", "td3"),)),
    "sac": Entry("onepolicy.recipes.off_policy", "soft actor-critic, on control", (("algo", "sac"),)),
    "mbpo": Entry("onepolicy.recipes.off_policy", "SAC in a learnt model, or planning in it", (("algo", "mbpo"),)),
    "q-learning": _tabular("q-learning", "Q-learning"),
    "sarsa": _tabular("sarsa", "SARSA"),
    "expected-sarsa": _tabular("expected-sarsa", "expected SARSA"),
    "double-q": _tabular("double-q", "double Q-learning"),
    "n-step-sarsa": _tabular("n-step-sarsa", "n-step SARSA"),
    "sarsa-lambda": _tabular("sarsa-lambda", "SARSA(lambda)"),
    "mc-control": _tabular("mc-control", "Monte Carlo control"),
    "dyna-q": _tabular("dyna-q", "Q-learning with a learnt model"),
    "r-max": _tabular("r-max", "optimism about what is unknown"),
    "actor-critic": _tabular("actor-critic", "one-step actor-critic"),
}


def entry(algorithm: str) -> Entry:
    """The entry of an algorithm. Raises: ConfigError for an unknown name, offering the nearest."""
    if algorithm not in ALGORITHMS:
        raise ConfigError(f"{algorithm!r} is not an algorithm. {nearest(algorithm, ALGORITHMS)}")
    return ALGORITHMS[algorithm]


def recipe(module: str) -> Any:
    """A recipe's module, imported."""
    return import_module(module)


def recipe_of_run(name: str) -> Any:
    """The recipe module a run directory names. Raises: ConfigError when this version has no such recipe."""
    for found in ALGORITHMS.values():
        if found.module.rpartition(".")[2] == name:
            return recipe(found.module)
    raise ConfigError(f"the run's recipe is {name!r}, which this version of onepolicy does not have.")
