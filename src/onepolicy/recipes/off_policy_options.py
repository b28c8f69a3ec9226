"""Groups of settings of learning from memory, each one algorithm's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onepolicy.core.check import fraction


@dataclass(frozen=True)
class DqnOptions:
    """What is DQN's own; on the command line `--dqn.dueling`."""

    double: bool = True
    """The online network chooses the next action, the target values it."""
    dueling: bool = False
    """Two streams: the value of the state, and of each action above the mean."""
    priority: float = 0.0
    """Exponent of the error in the chance to be drawn; 0 draws all alike, the paper's is 0.6."""
    priority_beta: float = 0.4
    """Exponent of the weights that make up for it, at the start; it is 1 at the end of the training."""
    epsilon_end: float = 0.05
    """Share of random actions at the end of the fall from 1."""
    epsilon_fraction: float = 0.1
    """Share of the training within which epsilon falls."""

    def __post_init__(self) -> None:
        for name in ("priority", "priority_beta", "epsilon_end", "epsilon_fraction"):
            fraction(name, getattr(self, name))


@dataclass(frozen=True)
class Td3Options:
    """What is TD3's and DDPG's own; on the command line `--td3.noise`. Actions run from -1 to 1 in its units."""

    noise: float = 0.1
    """Std of what is added to an action to explore."""
    drifting: bool = False
    """It is an Ornstein-Uhlenbeck process, which wanders off and slowly returns."""
    target_noise: float = 0.2
    """Std of what is added to the target's action."""
    target_clip: float = 0.5
    """Bound of what is added to the target's action."""
    critics: int = 2
    """Critics, whose least counts."""
    delay: int = 2
    """Updates of the critics for each of the actor and the targets."""


@dataclass(frozen=True)
class SacOptions:
    """What is SAC's own; on the command line `--sac.temperature`."""

    temperature: float | None = None
    """What a nat of entropy is worth, in reward; None learns it."""
    target_entropy: float | None = None
    """Entropy that a learnt temperature aims at, nats, of actions from -1 to 1; None for -1 a number of an action."""
    hold: int = 1
    """Steps for which a world's noise is kept when it plays, so that exploration pushes one way for a while."""
    entropy_share: float = 0.98
    """Numbered actions: the entropy aimed at without target_entropy, as a share of that of drawing all legal alike."""
    critics: Literal["min", "mean"] = "min"
    """Numbered actions: which of the two critics counts, the lesser or their mean."""
    q_clip: float | None = None
    """Numbered actions: reward units the critics may move from their slow copies; None for no bound."""
    entropy_penalty: float = 0.0
    """Numbered actions: weight on half the squared change of entropy against the slow copy of the actor."""


@dataclass(frozen=True)
class MbpoOptions:
    """What is MBPO's own; on the command line `--mbpo.model-every`. It learns to act as SAC does."""

    model_every: int = 50
    """Steps between trainings of the world model."""
    model_steps: int = 200
    """The model's optimizer steps each time."""
    model_lr: float = 1e-3
    """The model's learning rate."""
    model_hidden: tuple[int, ...] = (128, 128)
    """Widths of the model's networks."""
    members: int = 7
    """The model's networks."""
    elites: int = 5
    """How many of them, those with the least error on held-out transitions, are imagined with."""
    width: int = 400
    """Imagined episodes side by side, a multiple of elites."""
    kept: int = 20
    """Trainings of the model for which what was imagined is remembered."""
    length: int = 1
    """Imagined steps in a row, at the start."""
    final_length: int = 1
    """Imagined steps in a row from lengthen_until on; it grows linearly in between."""
    lengthen_until: int = 1
    """Steps until final_length is reached."""
    real_share: float = 0.05
    """Part of a batch that was lived, not imagined."""


@dataclass(frozen=True)
class PlanOptions:
    """MBPO's planning mode (PETS): the world model is searched at every step; on the command line `--plan.use`."""

    use: bool = False
    """Whether actions are planned in the model, and no policy is learnt."""
    horizon: int = 15
    """Steps that a plan has."""
    samples: int = 200
    """Plans that are tried in each round of the search."""
    elites: int = 20
    """The best of them, around which the next round tries."""
    rounds: int = 4
    """Rounds of the search."""
    keep: float = 0.1
    """How much of a round's mean and deviation stays in the next."""
    std: float = 0.5
    """Deviation of the actions in the first round; they run from -1 to 1."""
    carry: bool = True
    """The search begins at the last plan, moved on by a step; else at 0."""
    particles: int = 0
    """Rollouts of a plan by each of the model's elites, with their noise; 0 for one by their means."""
