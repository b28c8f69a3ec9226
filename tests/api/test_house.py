"""The package's public face: versions, and what importing it costs."""

import subprocess
import sys

import onepolicy


def test_version_is_a_release_number():
    major, minor, patch = onepolicy.__version__.split(".")
    assert (int(major), int(minor), int(patch)) >= (0, 1, 0)


def test_import_loads_no_torch():
    code = "import onepolicy, sys; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"
