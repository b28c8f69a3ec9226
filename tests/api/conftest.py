"""Runs of a moment each that the command and the library are tried on; made once."""

from __future__ import annotations

import shutil
import sys

import pytest
import torch

from onepolicy.cli import main

SMALL = {
    "ppo": "--steps 64 --num-envs 2 --n-steps 16 --batch-size 16 --epochs 1 --eval-episodes 2 --eval-every 0",
    "sft": "--level 1 --steps 2 --batch-size 4 --exam.size 4 --max-tokens 8 --tiny.context 32 --machine.threads 1",
}


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """Threads of torch and the path of modules, which recipes change."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """made(algorithm): a finished run of it, shared; not to be changed."""
    place = tmp_path_factory.mktemp("runs")

    def run(algorithm):
        out = place / algorithm
        if not out.exists():
            main(["train", algorithm, *SMALL[algorithm].split(), "--out", str(out)])
        return out

    return run


@pytest.fixture
def copied(made, tmp_path):
    """copied(algorithm): a copy of such a run, to be changed."""
    return lambda algorithm: shutil.copytree(made(algorithm), tmp_path / algorithm)
