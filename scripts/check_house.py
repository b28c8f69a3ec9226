"""Checks of the house that no linter makes: file length, imports that work and stay light, no repeated code."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 400
SIMILAR_LINES = 10
FOLDERS = ("src", "tests", "benchmarks", "scripts", "examples")
EXTRAS = {"peft", "datasets", "vllm", "wandb", "tensorboard", "trackio"}


def too_long() -> list[str]:
    """Files over the cap, as messages."""
    found = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            lines = path.read_text(encoding="utf-8").count("\n")
            if lines > MAX_LINES:
                found.append(f"{path.relative_to(ROOT)} has {lines} lines; the cap is {MAX_LINES}. Split it.")
    return found


def not_importable() -> list[str]:
    """Modules of the package that fail to import for any reason but a missing extra."""
    import onepolicy

    found = []
    for module in pkgutil.walk_packages(onepolicy.__path__, "onepolicy."):
        try:
            importlib.import_module(module.name)
        except ImportError as error:
            if (error.name or "").split(".")[0] not in EXTRAS:
                found.append(f"{module.name} does not import: {error}")
    return found


def slow_or_heavy() -> list[str]:
    """`import onepolicy` must load no torch and take under 0.2 s."""
    code = "import time, sys; t = time.perf_counter(); import onepolicy; s = time.perf_counter() - t\n"
    code += "print(f'{s:.3f}', 'torch' in sys.modules)"
    best = float("inf")
    for _ in range(3):
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        if out[1] == "True":
            return ["`import onepolicy` loads torch; keep the heavy imports lazy."]
        best = min(best, float(out[0]))
    return [f"`import onepolicy` takes {best:.2f} s; the limit is 0.2 s."] if best >= 0.2 else []


def repeated() -> list[str]:
    """Pairs of places in the package that share SIMILAR_LINES lines in a row; docstrings, imports, signatures aside."""
    seen: dict[tuple[str, ...], tuple[Path, int]] = {}
    found: dict[tuple[Path, Path], str] = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        lines = code_lines(path)
        for start in range(len(lines) - SIMILAR_LINES + 1):
            window = lines[start : start + SIMILAR_LINES]
            first = seen.setdefault(tuple(text for _, text in window), (path, window[0][0]))
            if first != (path, window[0][0]) and (first[0], path) not in found:
                one, two = (p.relative_to(ROOT) for p in (first[0], path))
                found[first[0], path] = (
                    f"{one}:{first[1]} and {two}:{window[0][0]} share {SIMILAR_LINES} lines or more; let one serve."
                )
    return list(found.values())


def code_lines(path: Path) -> list[tuple[int, str]]:
    """(line number, text) of the lines that count as code: no blank, comment, docstring, import or signature."""
    source = path.read_text(encoding="utf-8")
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if text or isinstance(node, ast.Import | ast.ImportFrom):
            skipped |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        elif isinstance(node, ast.FunctionDef):
            skipped |= set(range(node.lineno, node.body[0].lineno))
    numbered = enumerate(map(str.strip, source.splitlines()), start=1)
    return [(i, text) for i, text in numbered if i not in skipped and text.strip("()[]{},:") and text[0] != "#"]


def main() -> int:
    started = time.perf_counter()
    problems = too_long() + not_importable() + slow_or_heavy() + repeated()
    for problem in problems:
        print(problem)
    print(f"house: {len(problems)} problems, {time.perf_counter() - started:.1f} s")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
