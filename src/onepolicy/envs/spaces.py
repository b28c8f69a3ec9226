"""How what gymnasium's worlds show becomes rows: of float32 numbers, or of bytes where there are images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, final

import gymnasium
import numpy as np
from gymnasium.spaces.utils import flatdim, flatten
from numpy.typing import NDArray

from onepolicy.batch import Image, Layout
from onepolicy.errors import ConfigError

SMALLEST = 5
"""Height and width from which a box of bytes is an image; a smaller one is a vector of numbers."""
Leaf = tuple[Any, Callable[[Any], Any]]
"""A space that is no Dict and no Tuple, and what finds its part in an observation."""


@final
class Rows:
    """What a world of `space` shows, as rows of `dim` numbers of type `dtype`.

    Without images, float32 as gymnasium.spaces.flatten has it. A Box of bytes or booleans from 0 on with two axes
    (height, width) or three, the least of which counts the channels (the last, where equal), is an image; then a row is
    of bytes, as `layout` says: all images of a Dict or Tuple in its order, then all else, flattened to float32 numbers
    in its order. flat: no images, whatever there is.
    Raises: ConfigError for a space of no fixed length.
    """

    def __init__(self, env_id: str, space: Any, *, flat: bool = False) -> None:
        self.space = space
        try:
            self.dim = int(flatdim(space))
        except (NotImplementedError, ValueError) as error:
            raise ConfigError(
                f"{env_id} observes {space}, which has no fixed length. Wrap it so that it observes a Box."
            ) from error
        leaves = [] if flat else list(_leaves(space, lambda obs: obs))
        self.layout: Layout | None = None
        self._images = [(*leaf, image) for leaf in leaves if (image := image_of(leaf[0])) is not None]
        self._others = [leaf for leaf in leaves if image_of(leaf[0]) is None]
        self.dtype: type[np.float32] | type[np.uint8] = np.float32
        if self._images:
            numbers = sum(int(flatdim(part)) for part, _ in self._others)
            self.layout = Layout(tuple(image for *_, image in self._images), numbers)
            self.dim, self.dtype = self.layout.width, np.uint8

    def of(self, obs: Any) -> NDArray[Any]:
        """The row [dim] of an observation. Raises: ValueError for one of another shape, or with numbers beside images
        that are not finite."""
        if self.layout is None:
            return np.asarray(flatten(self.space, obs), dtype=np.float32).reshape(self.dim)
        parts = [_channels_first(part(obs), space, image) for space, part, image in self._images]
        if self._others:
            numbers = np.concatenate(
                [np.asarray(flatten(s, part(obs)), np.float32).ravel() for s, part in self._others]
            )
            if not np.isfinite(numbers).all():
                raise ValueError(f"the numbers {numbers.tolist()} were observed; all must be finite")
            parts.append(numbers.view(np.uint8))
        return np.concatenate(parts).reshape(self.dim)


def image_of(space: Any) -> Image | None:
    """The image that a space is, or None.

    >>> image_of(gymnasium.spaces.Box(0, 255, (84, 96, 3), np.uint8))
    Image(channels=3, height=84, width=96, full=255)
    """
    if not isinstance(space, gymnasium.spaces.Box) or space.dtype not in (np.uint8, np.bool_):
        return None
    if len(space.shape) not in (2, 3) or np.any(space.low) or (space.dtype == np.bool_ and len(space.shape) == 2):
        return None
    channels, height, width = _turned(space.shape)
    if min(height, width) < SMALLEST:
        return None
    return Image(channels, height, width, max(int(space.high.max()), 1))


def _turned(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of an image's shape."""
    if len(shape) == 2:
        return (1, *shape)  # type: ignore[return-value]
    if shape[0] == min(shape) and shape[2] != min(shape):
        return shape  # type: ignore[return-value]
    return shape[2], shape[0], shape[1]


def _channels_first(image: Any, space: Any, into: Image) -> NDArray[np.uint8]:
    pixels = np.asarray(image)
    if pixels.shape != space.shape:
        raise ValueError(f"an image of shape {pixels.shape} was observed; the space says {space.shape}")
    if len(space.shape) == 3 and space.shape != (into.channels, into.height, into.width):
        pixels = pixels.transpose(2, 0, 1)
    return pixels.astype(np.uint8, copy=False).ravel()


def _leaves(space: Any, part: Callable[[Any], Any]) -> Iterator[Leaf]:
    if isinstance(space, gymnasium.spaces.Dict):
        inner: Any = space.spaces.items()
    elif isinstance(space, gymnasium.spaces.Tuple):
        inner = enumerate(space.spaces)
    else:
        yield space, part
        return
    for key, below in inner:
        yield from _leaves(below, lambda obs, key=key: part(obs)[key])  # type: ignore[misc]
