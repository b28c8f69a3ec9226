"""What the benchmarks share: a peer's own environment, runs in processes of their own, interleaved repeats, results.

Standard library only: it is imported in the peers' environments too, where onepolicy is not installed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results"
Record = dict[str, Any]
"""What one run measured, as it stands in a JSON file."""


def peer_python(name: str, requirements: Path) -> Path:
    """The interpreter of `.venv-NAME`, an environment made from a requirements file on first use or when that changes.

    Raises: SystemExit with pip's last words when it cannot be made.
    """
    directory = FOLDER.parent / f".venv-{name}"
    python = directory / "bin" / "python"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    mark = directory / ".requirements"
    if python.exists() and mark.is_file() and mark.read_text() == digest:
        return python
    print(f"Installing {requirements.name} into {directory.name} (a few minutes)", flush=True)
    if not python.exists():
        venv.create(directory, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{requirements.name} could not be installed:\n{done.stderr[-2000:]}")
    mark.write_text(digest)
    return python


def run_side(python: Path | str, script: Path, *arguments: str, threads: int) -> Record:
    """What `script` writes as JSON to the path it gets as its last argument; its own output is shown only if it fails.

    threads: of OpenMP and the like, set before the process starts.
    Raises: SystemExit with the process's last words when it fails.
    """
    counts = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")}
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [str(python), str(script), *arguments, str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | counts | quiet)
        if done.returncode or not out.is_file():
            raise SystemExit(f"{script.name} failed ({done.returncode}):\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")
        return dict(json.loads(out.read_text(encoding="utf-8")))


def write_json(path: Path | str, record: Mapping[str, Any]) -> None:
    """A record as readable JSON."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def interleaved(sides: Mapping[str, Callable[[], Record]], repeats: int, what: str = "") -> dict[str, list[Record]]:
    """Each side's records, the sides run in turn `repeats` times so that a machine's moods meet all of them."""
    records: dict[str, list[Record]] = {name: [] for name in sides}
    for repeat in range(repeats):
        for name, run in sides.items():
            print(f"{what} {name}, run {repeat + 1} of {repeats}".strip(), file=sys.stderr, flush=True)
            records[name].append(run())
    return records


def ratios(slower: Sequence[float], faster: Sequence[float]) -> Record:
    """How many times longer the first took, pair by pair of an interleaved run: median, least and most."""
    each = [a / b for a, b in zip(slower, faster, strict=True)]
    return {"median": median(each), "min": min(each), "max": max(each)}


def machine(*packages: str) -> Record:
    """Where and when: date, cores, processor, load before the run, Python, and versions of packages installed here."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "processor": models[0] if models else platform.processor(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A text table: first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        first, *others = (
            cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths))
        )
        return "  ".join((first, *others)).rstrip()

    return "\n".join([line(head), "  ".join("-" * width for width in widths), *map(line, rows)])
