"""What a run of learning from memory is told: its fields, their defaults by algorithm, presets by world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from onepolicy.acting.planning import PlanAhead
from onepolicy.algos import dqn, mbpo, pets, sac, td3
from onepolicy.core.cem import Search
from onepolicy.core.check import fraction
from onepolicy.envs.atari import PREFIX
from onepolicy.envs.vector import AtariOptions, WorldOptions
from onepolicy.errors import ConfigError, nearest
from onepolicy.learning import world_model
from onepolicy.nn.state_noise import SdeOptions
from onepolicy.recipes.loop import require_count, require_positive
from onepolicy.recipes.off_policy_options import DqnOptions, MbpoOptions, PlanOptions, SacOptions, Td3Options

Algo = Literal["dqn", "ddpg", "td3", "sac", "mbpo"]


@dataclass(frozen=True)
class Config:
    """Learning from replayed transitions. Steps are environment steps of one seed, counted over its worlds."""

    algo: Algo = "dqn"
    """The algorithm."""
    env: str = "CartPole-v1"
    """The world: any id that gymnasium knows."""
    world: WorldOptions = field(default_factory=WorldOptions)
    """How it is played and seen: processes, stacked frames, Atari."""
    steps: int = 100_000
    """Steps to train each seed for."""
    num_envs: int = 1
    """Worlds each seed plays side by side."""
    gamma: float = 0.99
    """Discount."""
    n_step: int = 1
    """Rewards summed up before the value of what follows counts."""
    capacity: int = 1_000_000
    """Transitions each seed remembers."""
    batch_size: int = 32
    """Transitions in an update."""
    learning_starts: int = 100
    """Steps before the first update; they are random."""
    train_every: int = 4
    """Steps between updates."""
    gradient_steps: int = 1
    """Updates each time; 0 for as many as steps were played since."""
    target_every: int = 10_000
    """DQN: steps between moves of the target network."""
    tau: float = 1.0
    """How far the target moves, in (0, 1]; 1 copies."""
    dqn: DqnOptions = field(default_factory=DqnOptions)
    """DQN: double, dueling, priorities, exploration."""
    td3: Td3Options = field(default_factory=Td3Options)
    """TD3 and DDPG: noises, critics, delay."""
    sac: SacOptions = field(default_factory=SacOptions)
    """SAC and MBPO: temperature."""
    sde: SdeOptions = field(default_factory=SdeOptions)
    """SAC: noise that depends on the state (gSDE)."""
    mbpo: MbpoOptions = field(default_factory=MbpoOptions)
    """MBPO: the world model, what is imagined."""
    plan: PlanOptions = field(default_factory=PlanOptions)
    """MBPO: planning in the model instead of a policy."""
    lr: float = 1e-4
    """Learning rate."""
    schedule: Literal["constant", "linear"] = "constant"
    """Of the learning rate: constant, or linearly to 0 at the end."""
    max_grad_norm: float = 10.0
    """Bound on each seed's gradient's 2-norm; 0 for none."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the layers; for images, of those after the convolutions."""
    eval_every: int = 10_000
    """Steps between evaluations; 0 for one at the end."""
    eval_episodes: int = 100
    """Whole episodes of an evaluation, played greedily."""
    stop_at_return: float | None = None
    """Training ends once an evaluation's mean return, of several seeds each one's, is as high; None for never."""
    video: int = 0
    """Steps between videos of a greedy episode, and one at the end, below videos/ in the run directory; 0 for none."""
    save_every: int = 50_000
    """Steps between checkpoints, the memory included; 0 for one at the end."""
    seed: int = 0
    """Seed of everything random; with several seeds, the first."""
    seeds: int = 1
    """How many seeds to train, side by side in one process, each as it would alone."""
    threads: int = 1
    """CPU threads of torch; small networks are slower with more."""
    out: str = ""
    """Run directory; empty for the next free runs/<algo>-<n>."""

    def __post_init__(self) -> None:
        require_positive(
            self,
            "steps",
            "num_envs",
            "n_step",
            "capacity",
            "train_every",
            "target_every",
            "eval_episodes",
            "seeds",
            "threads",
        )
        require_count(self, "learning_starts", "gradient_steps", "eval_every", "save_every", "video")
        fraction("gamma", self.gamma)
        if self.dqn.priority > 0 and self.algo != "dqn":
            raise ConfigError(f"dqn.priority is {self.dqn.priority}; {self.algo} draws all transitions alike.")
        if self.sde.use and self.algo != "sac":
            raise ConfigError(
                f"sde.use with {self.algo}; noise that depends on the state is SAC's, ppo's and a2c's here."
            )
        if self.plan.use and self.algo != "mbpo":
            raise ConfigError(f"plan.use with {self.algo}; only mbpo learns a model to plan in. Train mbpo.")
        dqn_of(self), td3_of(self), sac_of(self), mbpo_of(self), pets_of(self)
        if self.algo == "mbpo" and self.n_step != 1:
            raise ConfigError(f"n_step is {self.n_step}; a world model learns single steps. Set n_step to 1.")

    @property
    def each_time(self) -> int:
        """Updates each time."""
        return self.gradient_steps or max(self.train_every, self.num_envs)

    @property
    def updates(self) -> int:
        """Updates of the whole run."""
        return max(1, (self.steps - self.learning_starts) // max(self.train_every, self.num_envs)) * self.each_time


def dqn_of(config: Config) -> dqn.Config:
    """What DQN decides. Raises: ConfigError for a value out of its range."""
    return dqn.Config(
        batch_size=config.batch_size,
        double=config.dqn.double,
        dueling=config.dqn.dueling,
        learning_starts=config.learning_starts,
        train_every=config.train_every,
        gradient_steps=config.each_time,
        target_every=config.target_every,
        tau=config.tau,
        epsilon_end=config.dqn.epsilon_end,
        epsilon_steps=round(config.dqn.epsilon_fraction * config.steps),
        beta=config.dqn.priority_beta,
        beta_steps=config.steps,
    )


def td3_of(config: Config) -> td3.Config:
    """What TD3 decides. Raises: ConfigError for a value out of its range."""
    return td3.Config(
        batch_size=config.batch_size,
        learning_starts=config.learning_starts,
        train_every=config.train_every,
        gradient_steps=config.each_time,
        tau=config.tau,
        noise=config.td3.noise,
        drifting=config.td3.drifting,
        target_noise=config.td3.target_noise,
        target_clip=config.td3.target_clip,
        critics=config.td3.critics,
        delay=config.td3.delay,
    )


def sac_of(config: Config) -> sac.Config:
    """What SAC decides. Raises: ConfigError for a value out of its range."""
    return sac.Config(
        batch_size=config.batch_size,
        learning_starts=config.learning_starts,
        train_every=config.train_every,
        gradient_steps=config.each_time,
        tau=config.tau,
        temperature=config.sac.temperature,
        target_entropy=config.sac.target_entropy,
        hold=config.sac.hold,
        sde=config.sde,
        entropy_share=config.sac.entropy_share,
        critics=config.sac.critics,
        q_clip=config.sac.q_clip,
        entropy_penalty=config.sac.entropy_penalty,
    )


def mbpo_of(config: Config) -> mbpo.Config:
    """What MBPO decides beside SAC. Raises: ConfigError for a value out of its range."""
    return mbpo.Config(
        batch_size=config.batch_size,
        learning_starts=max(config.learning_starts, 2),
        gradient_steps=config.each_time,
        real_share=config.mbpo.real_share,
        model_every=config.mbpo.model_every,
        model_steps=config.mbpo.model_steps,
        length=config.mbpo.length,
        final_length=config.mbpo.final_length,
        lengthen_until=config.mbpo.lengthen_until,
    )


def pets_of(config: Config) -> pets.Config:
    """What planning in MBPO's model decides. Raises: ConfigError for a value out of its range."""
    own = config.plan
    search = Search(population=own.samples, elites=own.elites, rounds=own.rounds, keep=own.keep)
    return pets.Config(
        learning_starts=max(config.learning_starts, 2),
        model_every=config.mbpo.model_every,
        model_steps=config.mbpo.model_steps,
        plan=PlanAhead(
            horizon=own.horizon,
            search=search,
            std=own.std,
            carry=own.carry,
            particles=own.particles,
            gamma=config.gamma,
        ),
    )


def world_model_of(config: Config) -> world_model.Config:
    """What MBPO's model is."""
    own = config.mbpo
    return world_model.Config(members=own.members, elites=own.elites, hidden=own.model_hidden, lr=own.model_lr)


PLAIN = Td3Options(target_noise=0.0, critics=1, delay=1)
"""DDPG: TD3 without its three ideas."""
_ACTOR = Config(
    env="Pendulum-v1", batch_size=256, train_every=1, tau=0.005, lr=1e-3, max_grad_norm=0.0, hidden=(400, 300)
)
DEFAULTS: dict[str, Config] = {
    # stable-baselines3 2.9 defaults, but double
    "dqn": Config(),
    # stable-baselines3 2.9 defaults, but the zoo's noise
    "ddpg": replace(_ACTOR, algo="ddpg", td3=PLAIN),
    "td3": replace(_ACTOR, algo="td3"),
    # stable-baselines3 2.9 defaults
    "sac": replace(_ACTOR, algo="sac", lr=3e-4, hidden=(256, 256)),
}
# ours: SAC as above in a small network, ten updates a step
DEFAULTS["mbpo"] = replace(
    DEFAULTS["sac"], algo="mbpo", steps=5000, lr=1e-3, hidden=(64, 64), learning_starts=200, gradient_steps=10,
    eval_every=200, eval_episodes=20, save_every=1000, capacity=100_000,
)  # fmt: skip
PLANNING = replace(DEFAULTS["mbpo"], plan=PlanOptions(use=True), gamma=1.0, eval_every=500, eval_episodes=5)
"""Where mbpo begins with plan.use; an evaluation plans at each of its steps, which takes its time."""
PRESETS: dict[str, Config] = {
    # rl-baselines3-zoo hyperparams/dqn.yml, but double
    "dqn/CartPole-v1": replace(
        DEFAULTS["dqn"], steps=50_000, lr=2.3e-3, batch_size=64, capacity=100_000, learning_starts=1000,
        target_every=10, train_every=256, gradient_steps=128,
        dqn=DqnOptions(epsilon_fraction=0.16, epsilon_end=0.04), hidden=(256, 256),
    ),
    "dqn/MountainCar-v0": replace(
        DEFAULTS["dqn"], env="MountainCar-v0", steps=120_000, lr=4e-3, batch_size=128, capacity=10_000,
        learning_starts=1000, gamma=0.98, target_every=600, train_every=16, gradient_steps=8,
        dqn=DqnOptions(epsilon_fraction=0.2, epsilon_end=0.07), hidden=(256, 256),
    ),
    "dqn/LunarLander-v3": replace(
        DEFAULTS["dqn"], env="LunarLander-v3", steps=100_000, lr=6.3e-4, batch_size=128, capacity=50_000,
        learning_starts=0, target_every=250, train_every=4, gradient_steps=0,
        dqn=DqnOptions(epsilon_fraction=0.12, epsilon_end=0.1), hidden=(256, 256),
    ),
    "dqn/Acrobot-v1": replace(
        DEFAULTS["dqn"], env="Acrobot-v1", steps=100_000, lr=6.3e-4, batch_size=128, capacity=50_000,
        learning_starts=0, target_every=250, train_every=4, gradient_steps=0,
        dqn=DqnOptions(epsilon_fraction=0.12, epsilon_end=0.1), hidden=(256, 256),
    ),
    # rl-baselines3-zoo hyperparams/sac.yml
    "sac/Pendulum-v1": replace(DEFAULTS["sac"], steps=20_000, lr=1e-3),
    # ours
    "mbpo/Pendulum-v1": replace(
        DEFAULTS["mbpo"], steps=1000, gradient_steps=20, eval_every=100,
        mbpo=MbpoOptions(model_hidden=(64, 64), final_length=10, lengthen_until=500),
    ),
    "mbpo/Pendulum-v1-plan": replace(
        PLANNING, steps=1000, eval_every=200, mbpo=MbpoOptions(model_hidden=(64, 64)),
        plan=PlanOptions(use=True, horizon=20, samples=60, elites=6, rounds=2),
    ),
    "sac/MountainCarContinuous-v0": replace(
        DEFAULTS["sac"], env="MountainCarContinuous-v0", steps=50_000, capacity=50_000, batch_size=512, train_every=32,
        gradient_steps=32, gamma=0.9999, tau=0.01, learning_starts=0, sac=SacOptions(temperature=0.1),
        sde=SdeOptions(use=True, log_std=-3.67), hidden=(64, 64),
    ),
    "sac/BipedalWalker-v3": replace(
        DEFAULTS["sac"], env="BipedalWalker-v3", steps=500_000, lr=7.3e-4, capacity=300_000, gamma=0.98, tau=0.02,
        train_every=64, gradient_steps=64, learning_starts=10_000, sde=SdeOptions(use=True, log_std=-3.0),
        hidden=(400, 300),
    ),
    "sac/LunarLanderContinuous-v3": replace(
        DEFAULTS["sac"], env="LunarLanderContinuous-v3", steps=500_000, lr=7.3e-4, schedule="linear", tau=0.01,
        learning_starts=10_000, hidden=(400, 300),
    ),
}  # fmt: skip
ATARI = replace(
    DEFAULTS["dqn"], env=PREFIX, world=WorldOptions(frame_stack=4), steps=10_000_000, capacity=100_000,
    learning_starts=100_000, target_every=1000, dqn=DqnOptions(epsilon_fraction=0.1, epsilon_end=0.01), hidden=(512,),
    eval_every=250_000, eval_episodes=10, save_every=1_000_000,
)  # fmt: skip
"""rl-baselines3-zoo's dqn.yml for every game, but double and with ALE's sticky actions; steps of four frames each."""
GAMES = ("Pong", "Breakout", "BeamRider", "Qbert", "Seaquest", "SpaceInvaders")
"""Atari's games that the zoo publishes scores of."""
PRESETS |= {f"dqn/ALE/{_game}-v5": replace(ATARI, env=f"ALE/{_game}-v5") for _game in GAMES}
# Mnih et al. 2015, extended data table 1, but Adam with the zoo's learning rate for its centred RMSprop: a million
# transitions (7.1 GB), single Q, no sticky actions, no FIRE pressed for it
PRESETS["dqn/ALE/Pong-v5-nature"] = replace(
    ATARI, env="ALE/Pong-v5", steps=50_000_000, capacity=1_000_000, learning_starts=50_000, target_every=40_000,
    dqn=DqnOptions(double=False, epsilon_fraction=0.02, epsilon_end=0.1),
    world=WorldOptions(frame_stack=4, atari=AtariOptions(sticky=0.0, fire_reset=False)),
)  # fmt: skip
MUJOCO = ("HalfCheetah-v5", "Ant-v5", "Hopper-v5", "Walker2d-v5", "Humanoid-v5", "Swimmer-v5")
"""MuJoCo's worlds that the zoo has rows of, then of their v4."""
for _env in MUJOCO:
    _long = 2_000_000 if _env == "Humanoid-v5" else 1_000_000
    _far = 0.999 if _env == "Swimmer-v5" else 0.99
    PRESETS[f"sac/{_env}"] = replace(DEFAULTS["sac"], env=_env, steps=_long, gamma=_far, learning_starts=10_000)
for _algo in ("ddpg", "td3"):  # rl-baselines3-zoo hyperparams/ddpg.yml and td3.yml, which are alike
    _start = DEFAULTS[_algo]
    for _env, _steps in (("Pendulum-v1", 20_000), ("LunarLanderContinuous-v3", 300_000)):
        PRESETS[f"{_algo}/{_env}"] = replace(
            _start, env=_env, steps=_steps, gamma=0.98, capacity=200_000, learning_starts=10_000
        )
    PRESETS[f"{_algo}/MountainCarContinuous-v0"] = replace(
        _start, env="MountainCarContinuous-v0", steps=300_000, td3=replace(_start.td3, noise=0.5, drifting=True)
    )
    for _env in MUJOCO:
        _long = 2_000_000 if _env == "Humanoid-v5" else 1_000_000
        _far = 0.9999 if _env == "Swimmer-v5" else 0.99
        PRESETS[f"{_algo}/{_env}"] = replace(_start, env=_env, steps=_long, gamma=_far, learning_starts=10_000)


def starting_point(algorithm: str, fields: Mapping[str, Any]) -> Config:
    """The preset for an algorithm and the world among `fields`, or else the algorithm's defaults; those with plan.use
    have presets and defaults of their own.

    Raises: ConfigError for an unknown algorithm, offering the nearest.
    """
    if algorithm not in DEFAULTS:
        raise ConfigError(f"{algorithm!r} does not learn from memory. {nearest(algorithm, DEFAULTS)}")
    env = fields.get("env", DEFAULTS[algorithm].env)
    if algorithm == "dqn" and env.startswith(PREFIX):
        return replace(ATARI, env=env)
    if algorithm == "mbpo" and str(fields.get("plan.use")) == "True":
        return PRESETS.get(f"mbpo/{env}-plan", replace(PLANNING, env=env))
    return PRESETS.get(f"{algorithm}/{env}", replace(DEFAULTS[algorithm], env=env))
