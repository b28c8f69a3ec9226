"""Imported by worker processes before they divide: math-verify loaded and its parser's tables built, once for all.

Its first formula takes over a second, which would count against the first answer of every worker.
"""

from __future__ import annotations

from onepolicy.tasks.math import judge

FIRST = judge(r"\sum_{k=1}^{n} \frac{k}{2}", r"\sum_{k=1}^{n} \frac{k}{3} + 1")
"""The verdict on a pair that only math-verify reads."""
