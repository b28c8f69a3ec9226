"""Publication of the trained weights to whatever generates with them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from onepolicy.errors import ModelError
from onepolicy.types import Generator


def publish(state: Mapping[str, Tensor], generator: Generator, version: int) -> None:
    """Give `generator` the weights `state` (parameter name -> tensor) as `version`.

    Raises: ModelError when the version does not grow, since staleness is measured by it.
    """
    if version <= generator.version and version != 0:
        raise ModelError(
            f"version {version} is not newer than the generator's {generator.version}; staleness is counted in "
            "versions. Publish with a larger number."
        )
    generator.load(state, version)
