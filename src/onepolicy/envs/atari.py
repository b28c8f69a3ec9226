"""Atari's games as they are learnt: skipped frames in grey, lives, sticky actions. Needs the extra `atari`.

The order is that of stable-baselines3's AtariWrapper, whose parts these are: doing nothing for a while, skipping,
episodes of one life, FIRE, the small grey screen, the sign of rewards; here the greater of two frames is taken in grey,
as Dopamine and gymnasium do. Lives and signs are for training alone: an evaluation plays whole games for their score.
Source: Mnih et al. 2015, methods; Machado et al. 2018, sections 3 and 5 (sticky actions, whole games).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, final

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onepolicy.batch import EnvStep
from onepolicy.envs.vector import AtariOptions, ControlEnv
from onepolicy.errors import ConfigError, nearest

PREFIX = "ALE/"
"""What the ids of Atari's games begin with."""
Grey = NDArray[np.uint8]


def game(env_id: str, options: AtariOptions, *, training: bool) -> Game:
    """One console with a game in it, not yet reset.

    Raises: ConfigError for a missing package, with the command that installs it, and for an unknown game.
    """
    try:
        import ale_py
        import cv2  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f'{env_id} needs {error.name}, which is not installed: pip install "onepolicy[atari]"'
        ) from error
    if env_id not in gymnasium.registry:
        gymnasium.register_envs(ale_py)
    if env_id not in gymnasium.registry:
        known = [name for name in gymnasium.registry if name.startswith(PREFIX)]
        hint = nearest(env_id, known)
        hint = hint if hint.startswith("Did") else "The ids are ALE/Pong-v5 and the like."
        raise ConfigError(f"env is {env_id!r}, which is no game of Atari's. {hint}")
    env = gymnasium.make(
        env_id,
        obs_type="grayscale",
        frameskip=1,
        repeat_action_probability=options.sticky,
        full_action_space=False,
        disable_env_checker=True,
    )
    return Game(env, options, training=training)


@final
class Game(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A game seen as [screen, screen] bytes of grey; env: the console, one frame a step.

    An episode that ended with a life goes on at the next reset by one step of doing nothing, unless that is seeded.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], options: AtariOptions, *, training: bool) -> None:
        super().__init__(env)
        self.options = options
        self.by_life = training and options.episodic_life
        console: Any = env.unwrapped
        self.console, self.ale = console, console.ale
        meanings = console.get_action_meanings()
        self.fires = options.fire_reset and len(meanings) >= 3 and meanings[1] == "FIRE"
        self.observation_space = gymnasium.spaces.Box(0, 255, (options.screen, options.screen), np.uint8)
        self.lives, self.over = 0, True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Grey, dict[str, Any]]:
        """A new game, or the next life of the one that is not over."""
        if self.by_life and not self.over and seed is None:
            screen, _, ended = self._hold(0)
            if ended:
                screen = self._begin(None)
        else:
            screen = self._begin(seed)
        if self.fires:
            screen, _, ended = self._hold(1)
            if ended:
                screen = self._begin(None)
        self.lives = self.ale.lives()
        return self._small(screen), {}

    def step(self, action: Any) -> tuple[Grey, float, bool, bool, dict[str, Any]]:
        """An action held for frame_skip frames; terminated at the game's end, or at a life's in training."""
        screen, reward, ended = self._hold(int(action))
        lives = self.ale.lives()
        lost = 0 < lives < self.lives
        self.lives = lives
        if lost and not ended and not self.by_life and self.fires:
            screen, more, ended = self._hold(1)
            reward += more
        truncated = self.over and bool(self.ale.game_truncated())
        terminated = (self.over and not truncated) or (lost and self.by_life)
        return self._small(screen), reward, terminated, truncated, {}

    def state_dict(self) -> dict[str, Any]:
        """The console with its chips and generators, the counters, and the generator of idle steps."""
        chips = np.frombuffer(self.console.clone_state(include_rng=True).__getstate__(), np.uint8).copy()
        rng = self.console.np_random.bit_generator.state
        return {"chips": chips, "rng": rng, "lives": self.lives, "over": self.over}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict, in a console that has been reset."""
        import ale_py

        self.console.restore_state(ale_py.ALEState(state["chips"].tobytes()))
        self.console.np_random.bit_generator.state = state["rng"]
        self.lives, self.over = state["lives"], state["over"]

    def _begin(self, seed: int | None) -> Grey:
        """A new game after some frames of doing nothing."""
        screen: Grey = self.env.reset(seed=seed)[0]
        self.over = False
        if self.options.noop_max:
            for _ in range(int(self.console.np_random.integers(1, self.options.noop_max + 1))):
                screen, _, terminated, truncated, _ = self.env.step(0)
                if terminated or truncated:
                    screen = self.env.reset()[0]
        return screen

    def _hold(self, action: int) -> tuple[Grey, float, bool]:
        """An action for frame_skip frames: the greater of the last two, the rewards' sum, whether the game is over."""
        reward, before, screen = 0.0, None, None
        for _ in range(self.options.frame_skip):
            before = screen
            screen, paid, terminated, truncated, _ = self.env.step(action)
            reward += float(paid)
            if terminated or truncated:
                self.over = True
                break
        assert screen is not None
        return screen if before is None else np.maximum(before, screen), reward, self.over

    def _small(self, screen: Grey) -> Grey:
        import cv2

        size = self.options.screen
        small: Grey = cv2.resize(screen, (size, size), interpolation=cv2.INTER_AREA)
        return small


@final
class Signed:
    """`env` that pays the sign of its rewards; `EnvStep.raw_reward` keeps what they were. Source: Mnih et al. 2015."""

    def __init__(self, env: ControlEnv) -> None:
        self.env, self.num_envs, self.env_id, self.actions = env, env.num_envs, env.env_id, env.actions
        self.obs_dim, self.layout = env.obs_dim, env.layout

    @property
    def obs(self) -> Tensor:
        """What to act on next."""
        return self.env.obs

    def reset(self, seed: int) -> Tensor:
        """New episodes in all copies."""
        return self.env.reset(seed)

    def step(self, action: Tensor) -> EnvStep:
        """One step of every copy."""
        step = self.env.step(action)
        return replace(step, reward=torch.sign(step.reward), raw_reward=step.reward)

    def state_dict(self) -> dict[str, Any]:
        """The world's."""
        return self.env.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict."""
        self.env.load_state_dict(state)
