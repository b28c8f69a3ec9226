"""Episodes of a trained controller as a video: played in gymnasium's own world, whose pictures are written as mp4.

Worlds that we step in batches are gymnasium's to the bit, so that it is the same world that is seen.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from onepolicy.acting.player import Player
from onepolicy.errors import ConfigError

FRAMES_PER_SECOND = 30
MOST_STEPS = 10_000
"""Steps after which an episode that does not end is cut."""


@dataclass(frozen=True)
class Video:
    """What was written: where, the episodes' undiscounted returns, and their steps."""

    path: Path
    returns: tuple[float, ...]
    lengths: tuple[int, ...]

    def __str__(self) -> str:
        returns = ", ".join(f"{value:.1f}" for value in self.returns)
        return f"{self.path} ({len(self.returns)} episode{'s' * (len(self.returns) > 1)}, return {returns})"


def record(
    player: Player, path: str | Path, *, episodes: int = 1, seed: int = 0, stochastic: bool = False, fps: int = 0
) -> Video:
    """Plays whole episodes, the k-th from a reset with `seed + k`, and writes what is seen to an mp4 file.

    stochastic: actions are drawn, not the best. fps: pictures a second, 0 for the world's own.
    Raises: ConfigError without the packages, for a world that has no pictures, and for a file that cannot be written.
    """
    if episodes < 1:
        raise ConfigError(f"episodes is {episodes}; a video shows at least 1. Set episodes >= 1.")
    writer_of = _writer()
    world = _open(player.env_id)
    path, returns, lengths = Path(path), list[float](), list[int]()
    rate = fps or int(world.metadata.get("render_fps") or FRAMES_PER_SECOND)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with writer_of(str(path), fps=rate, macro_block_size=2) as writer:
            for episode in range(episodes):
                player.forget()
                total, length = 0.0, 0
                for picture, reward in _frames(world, player, seed + episode, stochastic=stochastic):
                    writer.append_data(picture)
                    total, length = total + reward, length + 1
                returns.append(total)
                lengths.append(length - 1)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be written ({error}). Give a file name that ends in .mp4.") from error
    finally:
        world.close()
    return Video(path, tuple(returns), tuple(lengths))


def _frames(world: Any, player: Player, seed: int, *, stochastic: bool) -> Iterator[tuple[Any, float]]:
    """Each picture of an episode, and the reward of the step before it; the first has none."""
    obs, info = world.reset(seed=seed)
    yield _picture(world, player.env_id), 0.0
    for _ in range(MOST_STEPS):
        action = player.act(obs, stochastic=stochastic, legal=info.get("action_mask"))
        obs, reward, terminated, truncated, info = world.step(action)
        yield _picture(world, player.env_id), float(reward)
        if terminated or truncated:
            return


def _picture(world: Any, env_id: str) -> Any:
    try:
        picture = world.render()
    except gymnasium.error.DependencyNotInstalled as error:
        raise ConfigError(f'{env_id} cannot be drawn ({error}). Install: pip install "onepolicy[video]"') from error
    except Exception as error:
        raise ConfigError(f"{env_id} cannot be drawn ({type(error).__name__}: {error}).{_mujoco(env_id)}") from error
    return np.ascontiguousarray(picture, dtype=np.uint8)


def _open(env_id: str) -> Any:
    """The world with pictures. Raises ConfigError."""
    modes = gymnasium.spec(env_id).make(disable_env_checker=True).metadata.get("render_modes", [])
    if "rgb_array" not in modes:
        raise ConfigError(f"{env_id} has no pictures: its render modes are {modes}; a video needs rgb_array.")
    try:
        return gymnasium.make(env_id, render_mode="rgb_array", disable_env_checker=True)
    except Exception as error:
        raise ConfigError(f"{env_id} cannot be drawn ({type(error).__name__}: {error}).{_mujoco(env_id)}") from error


def _mujoco(env_id: str) -> str:
    """What a world of MuJoCo needs to be drawn without a screen; nothing for others."""
    entry = str(gymnasium.spec(env_id).entry_point)
    if "mujoco" not in entry:
        return ""
    now = os.environ.get("MUJOCO_GL", "not set")
    return (
        " MuJoCo draws without a screen by EGL (a GPU's driver) or OSMesa: set the environment variable MUJOCO_GL=egl "
        f"or MUJOCO_GL=osmesa before Python starts (it is {now})."
    )


def _writer() -> Any:
    """imageio's writer of mp4. Raises ConfigError with the command that installs it."""
    try:
        import imageio_ffmpeg  # type: ignore[import-untyped]  # noqa: F401
        from imageio import get_writer
    except ImportError as error:
        raise ConfigError(
            f'a video needs imageio and ffmpeg ({error}). Install them: pip install "onepolicy[video]"'
        ) from error
    return get_writer
