"""onepolicy: everything that acts is a policy, trained by one core, from a bandit to a language model."""

from __future__ import annotations

__version__ = "0.1.0"
