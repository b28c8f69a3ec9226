"""Worlds whose optimum is known, as exact finite models: `make(name)` builds one, `WORLDS` lists them."""

from __future__ import annotations

from onepolicy.tabular.worlds.registry import WORLDS, World, grid_shape, make

__all__ = ["WORLDS", "World", "grid_shape", "make"]
