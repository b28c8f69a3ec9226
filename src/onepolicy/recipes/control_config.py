"""What a control run is made of: its configuration, each algorithm's defaults, presets with their sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from onepolicy.core.check import fraction
from onepolicy.envs.atari import PREFIX
from onepolicy.envs.vector import WorldOptions
from onepolicy.errors import ConfigError, nearest
from onepolicy.nn.mlp import NetworkOptions
from onepolicy.nn.recurrent import Recurrent
from onepolicy.nn.state_noise import SdeOptions

Algo = Literal["reinforce", "a2c", "ppo", "trpo"]


@dataclass(frozen=True)
class A2cOptions:
    """What is A2C's own; on the command line `--a2c.optimizer rmsprop-tf`."""

    optimizer: Literal["rmsprop", "rmsprop-tf"] = "rmsprop"
    """RMSprop as torch has it, or as TensorFlow had: epsilon inside the root, the mean square from 1 on."""


@dataclass(frozen=True)
class TrpoOptions:
    """The step of TRPO's actor; on the command line `--trpo.damping 0.01`."""

    damping: float = 0.1
    """Added to the diagonal of the curvature."""
    cg_steps: int = 15
    """Conjugate gradient steps at most."""
    shrink: float = 0.8
    """Factor between two tries of the line search."""
    tries: int = 10
    """Tries of the line search at most."""


@dataclass(frozen=True)
class Config:
    """Policy-gradient training on control. Steps are environment steps, counted over all worlds."""

    algo: Algo = "ppo"
    """The algorithm."""
    env: str = "CartPole-v1"
    """The world: any id that gymnasium knows."""
    world: WorldOptions = field(default_factory=WorldOptions)
    """How it is played and seen: processes, stacked frames, Atari."""
    steps: int = 1_000_000
    """Steps to train for; the rollout under way is finished."""
    num_envs: int = 1
    """Worlds played side by side; in REINFORCE, the whole episodes of each update."""
    n_steps: int = 2048
    """Steps of each world in a rollout; in REINFORCE, only how many are played at a time."""
    batch_size: int = 64
    """PPO: steps in a minibatch; in TRPO, of the critic."""
    epochs: int = 10
    """PPO: passes over a rollout; in TRPO, of the critic."""
    gamma: float = 0.99
    """Discount."""
    lam: float = 0.95
    """Lambda of the generalised advantage (PPO, A2C, TRPO)."""
    lr: float = 3e-4
    """Learning rate; in TRPO, of the critic."""
    schedule: Literal["constant", "linear"] = "constant"
    """Of the learning rate and PPO's clip range: "linear" takes them to 0 at the end of training; not in REINFORCE."""
    clip: float = 0.2
    """PPO: the ratio is held within [1 - clip, 1 + clip]."""
    value_clip: float | None = None
    """PPO: reward units the critic may move in one rollout's updates; None for no bound."""
    value_coef: float = 1.0
    """Weight of the critic's loss, half the squared error; stable-baselines3's vf_coef 0.5 is 1.0 here."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    max_grad_norm: float = 0.5
    """Bound on the gradient's 2-norm; 0 for none."""
    target_kl: float | None = None
    """PPO: a rollout's updates end once the KL is 1.5 times this, or the penalty aims at it; None for never. TRPO: the
    bound on each step's KL."""
    penalty: float | None = None
    """PPO: what the coefficient of a KL penalty, which adapts to target_kl, starts from; None for the clip instead."""
    trpo: TrpoOptions = field(default_factory=TrpoOptions)
    """TRPO: the actor's step."""
    a2c: A2cOptions = field(default_factory=A2cOptions)
    """A2C: the optimizer."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the layers of actor and critic; for images, of those after the convolutions."""
    network: NetworkOptions = field(default_factory=NetworkOptions)
    """What these layers are made of."""
    recurrent: Recurrent = "none"
    """REINFORCE, A2C, PPO: what the last of the layers is, none, lstm or gru; a rollout of n_steps is learnt whole."""
    log_std: float = 0.0
    """Real-valued actions: logarithm of the standard deviation that the policy starts with."""
    sde: SdeOptions = field(default_factory=SdeOptions)
    """Real-valued actions: noise that depends on the state instead (gSDE)."""
    norm_obs: bool = False
    """Standardise observations by a running mean and variance over all worlds; evaluation uses the same, unchanged."""
    norm_reward: bool = False
    """Divide rewards by the running standard deviation of the discounted return; returns are reported of the raw."""
    eval_every: int = 10_000
    """Steps between evaluations; 0 for one at the end."""
    eval_episodes: int = 100
    """Whole episodes of an evaluation, played greedily."""
    stop_at_return: float | None = None
    """Training ends once an evaluation's mean return, of several seeds each one's, is as high; None for never."""
    video: int = 0
    """Steps between videos of a greedy episode, and one at the end, below videos/ in the run directory; 0 for none."""
    save_every: int = 50_000
    """Steps between checkpoints; 0 for one at the end."""
    seed: int = 0
    """Seed of everything random; with several seeds, the first."""
    seeds: int = 1
    """How many seeds to train, each on its own, as many at once as there are cores for."""
    threads: int = 1
    """CPU threads of torch for each seed; small networks are slower with more."""
    out: str = ""
    """Run directory; empty for the next free runs/<algo>-<n>."""

    def __post_init__(self) -> None:
        for name in ("steps", "num_envs", "n_steps", "eval_episodes", "seeds", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; there must be at least 1. Set {name} >= 1.")
        for name in ("eval_every", "save_every", "video"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it counts steps. Set it to 0 for only at the end.")
        fraction("gamma", self.gamma)
        fraction("lam", self.lam)
        if self.network.activation != "tanh" and self.algo == "trpo":
            raise ConfigError(
                f"network.activation is {self.network.activation!r} with trpo, whose curvature is that of tanh layers."
                " Use ppo."
            )
        if self.recurrent != "none" and self.algo == "trpo":
            raise ConfigError(
                f"recurrent is {self.recurrent!r} with trpo, whose curvature is that of plain layers. Use ppo."
            )
        if self.algo == "reinforce" and self.schedule != "constant":
            raise ConfigError(
                f"schedule is {self.schedule!r} with reinforce, whose number of updates is not known beforehand. "
                'Set schedule="constant".'
            )


DEFAULTS: dict[str, Config] = {
    # stable-baselines3 2.9 defaults (its vf_coef 0.5 is on the squared error, ours on half of it)
    "ppo": Config(),
    "a2c": Config(algo="a2c", num_envs=8, n_steps=5, lam=1.0, lr=7e-4),
    # sb3-contrib's defaults; its n_critic_updates are epochs
    "trpo": Config(algo="trpo", batch_size=128, lr=1e-3, max_grad_norm=0.0, target_kl=0.01),
    "reinforce": Config(algo="reinforce", num_envs=8, n_steps=64, lam=1.0, lr=3e-3),
}
RECURRENT_PPO = Config(num_envs=8, n_steps=128, batch_size=256)
"""sb3-contrib's rollouts of 128 steps, of 8 worlds so that minibatches of whole sequences can be shuffled."""
NORMALISED: dict[str, Any] = {"norm_obs": True, "norm_reward": True}
"""What the zoo's `normalize: true` is."""
WIDE: dict[str, Any] = {
    "hidden": (256, 256), "log_std": -2.0, "network": NetworkOptions(activation="relu", orthogonal=False),
}  # fmt: skip
"""The zoo's policy_kwargs of PPO for most of MuJoCo's worlds."""
GAMES = ("Pong", "Breakout", "BeamRider", "Qbert", "Seaquest", "SpaceInvaders")
"""Atari's games that the zoo publishes scores of."""
_ATARI: dict[str, Any] = {
    "world": WorldOptions(frame_stack=4), "steps": 10_000_000, "entropy_coef": 0.01, "hidden": (512,),
    "eval_every": 250_000, "eval_episodes": 10, "save_every": 1_000_000,
}  # fmt: skip
ATARI = {
    "ppo": replace(
        DEFAULTS["ppo"], num_envs=8, n_steps=128, epochs=4, batch_size=256, lr=2.5e-4, clip=0.1, schedule="linear",
        value_coef=2 * 0.5, **_ATARI,
    ),
    "a2c": replace(
        DEFAULTS["a2c"], num_envs=16, value_coef=2 * 0.25, a2c=A2cOptions(optimizer="rmsprop-tf"), **_ATARI,
    ),
}  # fmt: skip
"""The zoo's settings for every game of Atari's."""
A2C_SDE: dict[str, Any] = {
    "n_steps": 8, "lam": 0.9, "value_coef": 2 * 0.4, "schedule": "linear", "sde": SdeOptions(use=True, log_std=-2.0),
    "network": NetworkOptions(orthogonal=False), **NORMALISED,
}  # fmt: skip
"""rl-baselines3-zoo's settings of A2C for worlds of real-valued actions."""
TRPO_MUJOCO = replace(
    DEFAULTS["trpo"], num_envs=2, n_steps=1024, epochs=20, trpo=TrpoOptions(cg_steps=25), **NORMALISED
)
"""rl-baselines3-zoo's settings of TRPO for MuJoCo's worlds."""
PRESETS: dict[str, Config] = {
    # rl-baselines3-zoo hyperparams/ppo.yml
    "ppo/CartPole-v1": replace(
        DEFAULTS["ppo"], steps=100_000, num_envs=8, n_steps=32, batch_size=256, lam=0.8, gamma=0.98, epochs=20,
        lr=1e-3, clip=0.2, schedule="linear",
    ),
    # ours: the zoo's with twice the learning rate, for time rather than for steps
    "ppo/CartPole-v1-fast": replace(
        DEFAULTS["ppo"], steps=100_000, num_envs=8, n_steps=32, batch_size=256, lam=0.8, gamma=0.98, epochs=20,
        lr=2e-3, clip=0.2, schedule="linear",
    ),
    # rl-baselines3-zoo again
    "ppo/LunarLander-v3": replace(
        DEFAULTS["ppo"], env="LunarLander-v3", num_envs=16, n_steps=1024, batch_size=64, lam=0.98, gamma=0.999,
        epochs=4, entropy_coef=0.01,
    ),
    "ppo/LunarLanderContinuous-v3": replace(
        DEFAULTS["ppo"], env="LunarLanderContinuous-v3", num_envs=16, n_steps=1024, batch_size=64, lam=0.98,
        gamma=0.999, epochs=4, entropy_coef=0.01,
    ),
    "ppo/MountainCar-v0": replace(
        DEFAULTS["ppo"], env="MountainCar-v0", num_envs=16, n_steps=16, lam=0.98, epochs=4, **NORMALISED,
    ),
    "ppo/Acrobot-v1": replace(
        DEFAULTS["ppo"], env="Acrobot-v1", num_envs=16, n_steps=256, lam=0.94, epochs=4, **NORMALISED,
    ),
    "ppo/BipedalWalker-v3": replace(
        DEFAULTS["ppo"], env="BipedalWalker-v3", steps=5_000_000, num_envs=32, gamma=0.999, clip=0.18, **NORMALISED,
    ),
    "ppo/Ant-v5": replace(DEFAULTS["ppo"], env="Ant-v5", **NORMALISED),
    "ppo/Swimmer-v5": replace(
        DEFAULTS["ppo"], env="Swimmer-v5", num_envs=4, n_steps=1024, batch_size=256, lr=6e-4, lam=0.98, gamma=0.9999,
        **NORMALISED,
    ),
    "ppo/Pendulum-v1": replace(
        DEFAULTS["ppo"], env="Pendulum-v1", steps=100_000, num_envs=4, n_steps=1024, gamma=0.9, lr=1e-3,
        sde=SdeOptions(use=True, sample_freq=4),
    ),
    "ppo/MountainCarContinuous-v0": replace(
        DEFAULTS["ppo"], env="MountainCarContinuous-v0", steps=20_000, num_envs=1, n_steps=8, batch_size=256,
        gamma=0.9999, lr=7.77e-5, entropy_coef=0.00429, clip=0.1, lam=0.9, max_grad_norm=5.0, value_coef=2 * 0.19,
        sde=SdeOptions(use=True, log_std=-3.29), network=NetworkOptions(orthogonal=False), **NORMALISED,
    ),
    # value_coef is twice the zoo's vf_coef
    "ppo/HalfCheetah-v5": replace(
        DEFAULTS["ppo"], env="HalfCheetah-v5", n_steps=512, gamma=0.98, lr=2.0633e-5, entropy_coef=0.000401762,
        clip=0.1, epochs=20, lam=0.92, max_grad_norm=0.8, value_coef=2 * 0.58096, **WIDE, **NORMALISED,
    ),
    "ppo/Hopper-v5": replace(
        DEFAULTS["ppo"], env="Hopper-v5", batch_size=32, n_steps=512, gamma=0.999, lr=9.80828e-5,
        entropy_coef=0.00229519, epochs=5, lam=0.99, max_grad_norm=0.7, value_coef=2 * 0.835671, **WIDE, **NORMALISED,
    ),
    "ppo/Humanoid-v5": replace(
        DEFAULTS["ppo"], env="Humanoid-v5", steps=10_000_000, batch_size=256, n_steps=512, gamma=0.95, lr=3.56987e-5,
        entropy_coef=0.00238306, clip=0.3, epochs=5, lam=0.9, max_grad_norm=2.0, value_coef=2 * 0.431892, **WIDE,
        **NORMALISED,
    ),
    # the zoo's rows of their v2
    "ppo/InvertedDoublePendulum-v5": replace(
        DEFAULTS["ppo"], env="InvertedDoublePendulum-v5", batch_size=512, n_steps=128, gamma=0.98, lr=0.000155454,
        entropy_coef=1.05057e-6, clip=0.4, lam=0.8, value_coef=2 * 0.695929, **NORMALISED,
    ),
    "ppo/InvertedPendulum-v5": replace(
        DEFAULTS["ppo"], env="InvertedPendulum-v5", n_steps=32, gamma=0.999, lr=0.000222425, entropy_coef=1.37976e-7,
        clip=0.4, epochs=5, lam=0.9, max_grad_norm=0.3, value_coef=2 * 0.19816, **NORMALISED,
    ),
    "ppo/Reacher-v5": replace(
        DEFAULTS["ppo"], env="Reacher-v5", batch_size=32, n_steps=512, gamma=0.9, lr=0.000104019,
        entropy_coef=7.52585e-8, clip=0.3, epochs=5, lam=1.0, max_grad_norm=0.9, value_coef=2 * 0.950368,
        **NORMALISED,
    ),
    # rl-baselines3-zoo's `atari` of ppo.yml and a2c.yml, with ALE's sticky actions; steps of four frames each
    **{f"{algo}/ALE/{game}-v5": replace(ATARI[algo], env=f"ALE/{game}-v5") for game in GAMES for algo in ATARI},
    "ppo/Walker2d-v5": replace(
        DEFAULTS["ppo"], env="Walker2d-v5", batch_size=32, n_steps=512, lr=5.05041e-5, entropy_coef=0.000585045,
        clip=0.1, epochs=20, max_grad_norm=1.0, value_coef=2 * 0.871923, **NORMALISED,
    ),
    # rl-baselines3-zoo hyperparams/a2c.yml
    "a2c/CartPole-v1": replace(DEFAULTS["a2c"], steps=500_000),
    "a2c/LunarLander-v3": replace(
        DEFAULTS["a2c"], env="LunarLander-v3", steps=200_000, gamma=0.995, lr=8.3e-4, schedule="linear",
        entropy_coef=1e-5,
    ),
    # rl-baselines3-zoo hyperparams/trpo.yml
    "trpo/CartPole-v1": replace(
        DEFAULTS["trpo"], steps=100_000, num_envs=2, n_steps=512, batch_size=512, lam=0.98, epochs=20,
        trpo=TrpoOptions(damping=0.001),
    ),
    "trpo/Pendulum-v1": replace(
        DEFAULTS["trpo"], env="Pendulum-v1", steps=100_000, num_envs=2, n_steps=1024, gamma=0.9, epochs=15,
        sde=SdeOptions(use=True, sample_freq=4),
    ),
    "trpo/MountainCarContinuous-v0": replace(
        DEFAULTS["trpo"], env="MountainCarContinuous-v0", steps=50_000, num_envs=2, **NORMALISED,
        sde=SdeOptions(use=True, sample_freq=4),
    ),
    "trpo/LunarLander-v3": replace(
        DEFAULTS["trpo"], env="LunarLander-v3", steps=200_000, num_envs=2, n_steps=512, lam=0.98, epochs=15,
        trpo=TrpoOptions(damping=0.01),
    ),
    # a2c.yml again, its worlds with normalised observations and rewards
    "a2c/MountainCar-v0": replace(DEFAULTS["a2c"], env="MountainCar-v0", num_envs=16, **NORMALISED),
    "a2c/Acrobot-v1": replace(DEFAULTS["a2c"], env="Acrobot-v1", steps=500_000, num_envs=16, **NORMALISED),
    **{
        f"a2c/{env}": replace(DEFAULTS["a2c"], env=env, num_envs=1, steps=steps, gamma=gamma, **NORMALISED)
        for env, steps, gamma in (
            ("HalfCheetah-v5", 1_000_000, 0.99),
            ("Ant-v5", 1_000_000, 0.99),
            ("Hopper-v5", 1_000_000, 0.99),
            ("Walker2d-v5", 1_000_000, 0.99),
            ("Humanoid-v5", 2_000_000, 0.99),
            ("Swimmer-v5", 1_000_000, 0.9999),
        )
    },
    # value_coef is twice its vf_coef
    "a2c/Pendulum-v1": replace(DEFAULTS["a2c"], env="Pendulum-v1", gamma=0.9, **A2C_SDE),
    "a2c/LunarLanderContinuous-v3": replace(
        DEFAULTS["a2c"], env="LunarLanderContinuous-v3", steps=5_000_000, **(A2C_SDE | {"num_envs": 4}),
    ),
    "a2c/BipedalWalker-v3": replace(
        DEFAULTS["a2c"], env="BipedalWalker-v3", **(A2C_SDE | {"num_envs": 16, "lr": 9.6e-4}),
    ),
    "a2c/MountainCarContinuous-v0": replace(
        DEFAULTS["a2c"], env="MountainCarContinuous-v0", steps=100_000, num_envs=4, n_steps=100, **NORMALISED,
        sde=SdeOptions(use=True, sample_freq=16), network=NetworkOptions(orthogonal=False),
    ),
    "trpo/Acrobot-v1": replace(
        DEFAULTS["trpo"], env="Acrobot-v1", steps=100_000, num_envs=2, n_steps=1024, **NORMALISED,
    ),
    "trpo/MountainCar-v0": replace(
        DEFAULTS["trpo"], env="MountainCar-v0", steps=100_000, num_envs=2, n_steps=1024, epochs=20, **NORMALISED,
    ),
    "trpo/HalfCheetah-v5": replace(TRPO_MUJOCO, env="HalfCheetah-v5", target_kl=0.04),
    "trpo/Hopper-v5": replace(TRPO_MUJOCO, env="Hopper-v5"),
    "trpo/Walker2d-v5": replace(TRPO_MUJOCO, env="Walker2d-v5"),
    "trpo/Ant-v5": replace(TRPO_MUJOCO, env="Ant-v5"),
    "trpo/Swimmer-v5": replace(TRPO_MUJOCO, env="Swimmer-v5", gamma=0.9999),
    # ours: the zoo has no REINFORCE
    "reinforce/CartPole-v1": replace(DEFAULTS["reinforce"], steps=300_000),
}  # fmt: skip


def starting_point(algorithm: str, fields: Mapping[str, Any]) -> Config:
    """The preset for an algorithm and the world among `fields`, or else the algorithm's defaults.

    Raises: ConfigError for an unknown algorithm, offering the nearest.
    """
    if algorithm not in DEFAULTS:
        raise ConfigError(f"{algorithm!r} is not an algorithm for control. {nearest(algorithm, DEFAULTS)}")
    env = fields.get("env", DEFAULTS[algorithm].env)
    start = DEFAULTS[algorithm]
    if env.startswith(PREFIX):
        start = ATARI.get(algorithm, start)
    if algorithm == "ppo" and str(fields.get("recurrent", "none")) != "none":
        start = RECURRENT_PPO
    return PRESETS.get(f"{algorithm}/{env}", replace(start, env=env))
