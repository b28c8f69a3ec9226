"""What is kept on disk counts for the sources it was made from, those of the functions called included."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import onepolicy

PACKAGE = Path(onepolicy.__file__).parent
CALLER = """
from onepolicy.tabular.callee import one
from onepolicy.tabular.jit import jit

@jit
def two():
    return 2 * one()
"""
ASK = "from onepolicy.tabular.caller import two; print(two(), sum(two.stats.cache_hits.values()))"


@pytest.fixture
def package(tmp_path):
    """A copy of what `jit` needs, with a function that calls one of another file."""
    tabular = tmp_path / "onepolicy" / "tabular"
    tabular.mkdir(parents=True)
    (tmp_path / "onepolicy" / "__init__.py").write_text("")
    (tabular / "__init__.py").write_text("")
    shutil.copy(PACKAGE / "tabular" / "jit.py", tabular)
    (tabular / "caller.py").write_text(CALLER)
    return tabular


def said(package, value, **environment):
    """What the caller says when the callee returns `value`, and how much of its code came from the disk."""
    source = f"from onepolicy.tabular.jit import jit\n\n@jit\ndef one():\n    return {value}\n"
    if not (package / "callee.py").is_file() or (package / "callee.py").read_text() != source:
        (package / "callee.py").write_text(source)
    environment = {**os.environ, "PYTHONPATH": str(package.parents[1]), **environment}
    found = subprocess.run(
        [sys.executable, "-c", ASK], env=environment, cwd=package, capture_output=True, text=True, check=True
    )
    return [int(word) for word in found.stdout.split()]


def test_a_changed_function_is_seen_by_its_callers_in_other_files(package):
    assert said(package, 1) == [2, 0]
    assert said(package, 1) == [2, 1]
    assert said(package, 5) == [10, 0]
    assert said(package, 1) == [2, 0]


def test_where_nothing_can_be_kept_it_is_compiled_anew(package, tmp_path):
    (package / "__pycache__").write_text("a file where numba's folder would be")
    (tmp_path / "home").write_text("and no home")
    kept = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home"), "NUMBA_CACHE_DIR": ""}
    assert said(package, 3, **kept) == [6, 0]
    assert said(package, 4, **kept) == [8, 0]
