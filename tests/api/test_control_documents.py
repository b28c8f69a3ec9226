"""The Python of the documents on control runs as it stands there, only shorter."""

import re
import sys
from pathlib import Path

import pytest

import onepolicy as op

DOCS = Path(__file__).resolve().parents[2] / "docs"
SHORTER = {
    "100_000": "256",
    "10_000": "256",
    "40_000": "256",
    "n_steps=1024": "n_steps=16",
    "episodes=100": "episodes=3",
    "episodes=20": "episodes=3",
    "range(1000)": "range(40)",
    ', render_mode="human"': "",
    "runs/ppo-1": "runs/watched",
}


def blocks(name):
    """The Python of a document that needs no other library, shortened."""
    found = re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), re.DOTALL)
    for code in found:
        if "stable_baselines3" not in code:
            for long, short in SHORTER.items():
                code = code.replace(long, short)
            yield code


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("onepolicy.run.report.curves", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["document"])


def test_the_python_of_from_sb3(tmp_path):
    first, second = blocks("from_sb3.md")
    said = {}
    exec(first, said)  # noqa: S102
    assert said["policy"].env_id == "CartPole-v1"
    exec(second, said)  # noqa: S102
    assert said["found"].low <= said["found"].value
    assert -2.0 <= said["action"][0] <= 2.0
    assert (tmp_path / "runs/pendulum/report.md").is_file()


def test_the_python_of_control(tmp_path, capsys):
    handed, watched = blocks("control.md")
    exec(watched, {"__name__": "document"})  # noqa: S102
    assert re.search(r"^256 .* [01]$", capsys.readouterr().out, re.MULTILINE)
    exec(handed, {"__name__": "document"})  # noqa: S102
    assert capsys.readouterr().out.startswith("CartPole-v1 Box(")
    assert op.load(tmp_path / "runs/watched").policy.env_id == "CartPole-v1"
