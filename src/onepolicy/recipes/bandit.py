"""Compare bandit agents on the same arms: `onepolicy bandit --arms 0.3,0.5,0.6 --agents ucb,thompson`.

In: what agents and arms are called on the command line, the table, the curves. The agents are `tabular.bandits`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from onepolicy.errors import ConfigError, nearest
from onepolicy.recipes.loop import require_positive, run_directory
from onepolicy.run.files import replace_text
from onepolicy.run.report import Report
from onepolicy.tabular.bandits import (
    EXP3,
    KLUCB,
    UCB1,
    Agent,
    Bandit,
    BernoulliArms,
    BernoulliThompson,
    Curves,
    DecayingEpsilonGreedy,
    EpsilonGreedy,
    GaussianArms,
    GaussianThompson,
    GradientBandit,
    gaussian_testbed,
    greedy,
    optimistic,
    run,
)
from onepolicy.tabular.draw import Curve, curves_figure, curves_table

AGENTS: dict[str, tuple[Callable[[], Agent], Callable[[float], Agent], str]] = {
    "greedy": (greedy, lambda initial: greedy(initial=initial), "initial value"),
    "epsilon-greedy": (EpsilonGreedy, EpsilonGreedy, "epsilon"),
    "decaying-epsilon-greedy": (DecayingEpsilonGreedy, DecayingEpsilonGreedy, "scale / step"),
    "optimistic": (optimistic, lambda initial: optimistic(initial=initial), "initial value"),
    "ucb": (UCB1, UCB1, "c"),
    "kl-ucb": (KLUCB, KLUCB, "c"),
    "thompson": (BernoulliThompson, lambda prior: BernoulliThompson(prior, prior), "prior count"),
    "gaussian-thompson": (GaussianThompson, lambda noise: GaussianThompson(noise=noise), "noise"),
    "gradient": (GradientBandit, GradientBandit, "step size"),
    "exp3": (EXP3, EXP3, "gamma"),
}
"""Agents by name: with their own constant, with the one given after a colon, and what that is."""
POINTS = 500
"""Points of a curve at most."""


@dataclass(frozen=True)
class Config:
    """Bandit agents side by side on the same arms, over many runs."""

    arms: str = "testbed"
    """testbed (ten Gaussian arms, new ones each run), testbed:N, means of Bernoulli arms such as 0.3,0.5, or
    gaussian:MEANS."""
    agents: str = "greedy,epsilon-greedy:0.01,epsilon-greedy:0.1,optimistic,ucb:2,gradient"
    """Names with commas between; a constant after a colon, such as ucb:2."""
    steps: int = 1000
    """Pulls a run."""
    runs: int = 2000
    """Runs of each agent."""
    walk: float = 0.0
    """Standard deviation of the random walk the arms' means make at each step; 0 for arms that stay."""
    seed: int = 0
    """Seed of everything random; all agents meet the same arms."""
    out: str = ""
    """Directory; empty for the next free runs/bandit-N."""

    def __post_init__(self) -> None:
        require_positive(self, "steps", "runs")


PRESETS: dict[str, Config] = {}


def main(config: Config) -> Report:
    """Play them all; the report has the table, the curves of reward, optimal pulls and regret, and curves.npz.

    report.policy is None: agents differ by run. Raises: ConfigError for agents or arms that do not exist or fit.
    """
    bandit, agents = arms_of(config), agents_of(config.agents)
    directory = run_directory(config.out, "bandit")
    if directory.exists() and any(directory.iterdir()):
        raise ConfigError(f"{directory} exists and is not empty. Give --out a new directory.")
    every = next(n for n in range(max(1, config.steps // POINTS), config.steps + 1) if config.steps % n == 0)
    played = {
        name: run(bandit, agent, config.steps, config.runs, config.seed, every=every) for name, agent in agents.items()
    }
    directory.mkdir(parents=True, exist_ok=True)
    drawn = {"reward": "mean reward", "optimal": "share of optimal pulls", "regret": "cumulative regret"}
    page = Console(file=io.StringIO(), width=120, record=True)
    page.print(_table(config, played))
    pictures = []
    for what, title in drawn.items():
        curves = [_curve(name, found, what) for name, found in played.items()]
        line = next(iter(played.values()))
        if what == "regret" and line.lai_robbins is not None:
            bound = line.regret_bound()
            curves.append(Curve("Lai-Robbins", line.step.astype(np.float64), bound, dashed=True))
        curves_figure(curves, title=config.arms, x="step", y=title, log_x=what == "regret").savefig(
            directory / f"{what}.png", dpi=120
        )
        page.print(curves_table(curves, title=title))
        pictures.append(f"![{title}]({what}.png)")
    arrays = {f"{name}/{what}": getattr(found, what)().mean for name, found in played.items() for what in drawn}
    np.savez_compressed(directory / "curves.npz", allow_pickle=False, step=next(iter(played.values())).step, **arrays)
    text = page.export_text(clear=False, styles=False)
    replace_text(directory / "report.md", "\n\n".join([f"# bandit: {config.arms}", *pictures, f"```text\n{text}```\n"]))
    metrics = {f"bandit/{name}/regret": float(found.regret().mean[-1]) for name, found in played.items()}
    return Report(directory, metrics, None, f"{page.export_text(styles=Console().is_terminal)}Files: {directory}")


def agents_of(text: str) -> dict[str, Agent]:
    """The agents named, by what they were called.

    >>> agents_of("ucb:2, greedy")
    {'ucb:2': UCB1(c=2.0, step_size=None), 'greedy': EpsilonGreedy(epsilon=0.0, initial=0.0, step_size=None)}
    """
    found: dict[str, Agent] = {}
    for word in filter(None, map(str.strip, text.split(","))):
        name, colon, constant = word.partition(":")
        if name not in AGENTS:
            raise ConfigError(f"{name!r} is not a bandit agent. {nearest(name, AGENTS)}")
        plain, given, meaning = AGENTS[name]
        found[word] = given(_number(constant, f"the {meaning} of {name}")) if colon else plain()
    if not found:
        raise ConfigError(f"agents is {text!r}; name at least one of {', '.join(AGENTS)}.")
    return found


def arms_of(config: Config) -> Bandit:
    """The arms that `config.arms` describes. Raises: ConfigError for a description that is none."""
    kind, colon, rest = config.arms.partition(":")
    if kind == "testbed":
        return gaussian_testbed(int(_number(rest, "the number of arms")) if colon else 10, walk=config.walk)
    if kind == "gaussian" and colon:
        return GaussianArms([_number(word, "a mean") for word in rest.split(",")], walk=config.walk)
    if colon or not config.arms.strip()[:1].isdigit():
        raise ConfigError(f"arms is {config.arms!r}; give testbed, testbed:N, means such as 0.3,0.5, or gaussian:0,1.")
    return BernoulliArms([_number(word, "a mean") for word in config.arms.split(",")], walk=config.walk)


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{what} is {text!r}; expected a number.") from None


def _curve(name: str, found: Curves, what: str) -> Curve:
    band = getattr(found, what)()
    return Curve(name, found.step.astype(np.float64), band.mean, band.low, band.high)


def _table(config: Config, played: dict[str, Curves]) -> Table:
    """Each agent over all steps: mean reward, share of optimal pulls, regret, with 95 % intervals over runs."""
    table = Table(title=f"{config.arms}: {config.runs:,} runs of {config.steps:,} steps, means and 95 % intervals")
    for column in ("agent", "reward a step", "optimal pulls", "regret"):
        table.add_column(column, justify="left" if column == "agent" else "right")
    for name, found in played.items():
        reward = found.reward_between(1, config.steps)
        optimal, regret = found.optimal_between(1, config.steps), found.regret()
        table.add_row(
            name,
            f"{reward.mean[0]:.4f} ± {reward.high[0] - reward.mean[0]:.4f}",
            f"{optimal.mean[0]:.1%} ± {optimal.high[0] - optimal.mean[0]:.1%}",
            f"{regret.mean[-1]:.1f} ± {regret.high[-1] - regret.mean[-1]:.1f}",
        )
    return table
