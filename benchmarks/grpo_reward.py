"""The reward of the GRPO benchmark, the same function on both sides, in the form both take."""

from __future__ import annotations

from typing import Any


def share_of_digits(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """Digits per character of each completion; 0 for an empty one."""
    return [sum(c.isdigit() for c in text) / max(1, len(text)) for text in completions]
