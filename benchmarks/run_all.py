"""Every benchmark, one after the other; what `make bench` runs. Names on the command line choose some.

control_vs_sb3 takes many hours, preferences and rlhf some ten minutes a seed; they are run only by name, keep every
finished run and go on where they were.

Each prints a table and writes results/NAME.json. Run them on an idle machine: they use its cores one at a time.
"""

from __future__ import annotations

import subprocess
import sys

from common import FOLDER

ALONE = ("planning.py", "preferences.py", "rlhf.py", "tabular.py", "worlds.py")
"""Benchmarks whose peers are in their own environment, or whose targets are absolute."""
LONG = ("control_vs_sb3", "preferences", "rlhf")


def main(chosen: list[str]) -> int:
    """The number of benchmarks that failed."""
    scripts = {path.stem: path for path in sorted([*FOLDER.glob("*_vs_*.py"), *(FOLDER / name for name in ALONE)])}
    unknown = [name for name in chosen if name not in scripts]
    if unknown:
        print(f"unknown benchmark {unknown[0]!r}; there are {', '.join(scripts)}.", file=sys.stderr)
        return 2
    failed = []
    for name in chosen or [name for name in scripts if name not in LONG]:
        print(f"\n== {name}", flush=True)
        if subprocess.run([sys.executable, str(scripts[name])], check=False).returncode:
            failed.append(name)
    print(f"\n{len(failed)} failed: {', '.join(failed)}" if failed else "\nall done")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
