"""Where the public GSM8K files are, for the tests that read them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def gsm8k_files() -> Path:
    """The folder with GSM8K's train.jsonl and test.jsonl: $ONEPOLICY_SHARED/data/gsm8k, or ../shared/data/gsm8k."""
    root = Path(__file__).resolve().parents[2]
    shared = Path(os.environ.get("ONEPOLICY_SHARED", root.parent / "shared"))
    folder = shared / "data" / "gsm8k"
    if not (folder / "train.jsonl").is_file():
        pytest.skip(f"no GSM8K at {folder}; set ONEPOLICY_SHARED to the folder that has data/gsm8k")
    return folder
