"""A program judged from the command line: what each test gave, what was expected, how long it took."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from onepolicy.errors import ConfigError, DataError
from onepolicy.recipes.verify import Judgement, known, required, task_of
from onepolicy.tasks.code import FENCED, CodeVerifier, last_block
from onepolicy.tasks.code_tests import CodeTest, read_tests, split_asserts
from onepolicy.tasks.sandbox import Result, Stdin, default_sandbox
from onepolicy.tasks.sandbox_languages import language_of

SHOWN = 20
"""Tests shown at most."""


def code(options: Mapping[str, str]) -> Judgement:
    """`--answer TEXT --tests TESTS [--language L] [--function F] [--mode all|share]`.

    The answer is a completion with a fenced block, or a program. Tests: assert statements, or JSON as in a data file.
    """
    known(options, "answer", "tests", "language", "function", "mode")
    answer, mode = required(options, "answer"), options.get("mode", "all")
    if mode not in ("all", "share"):
        raise ConfigError(f"--mode is {mode!r}; it is all (every test or nothing) or share (of tests passed).")
    tests = read(required(options, "tests"), options.get("function", ""))
    verifier = CodeVerifier(
        mode="share" if mode == "share" else "all", language=language_of(options.get("language", "python"))
    )
    task = task_of(verifier, "", tests=tuple(tests))
    text = answer if last_block(answer) is not None or "```" in answer else FENCED.write("", answer)
    score = verifier(task, text)
    if score.error is not None:
        return Judgement(score)
    results = verifier.results(task, text)
    lines = [(f"test {i}", _line(test, result)) for i, (test, result) in enumerate(zip(tests, results), start=1)]
    box = default_sandbox().backend
    head = [("sandbox", f"{box.name.split()[0]}: {', '.join(box.layers)}")]
    return Judgement(score, tuple(head + lines[:SHOWN] or [("program", "none found")]))


def read(text: str, function: str) -> list[CodeTest]:
    """Tests as JSON or as assert statements. Raises: ConfigError saying what is wrong with them."""
    try:
        if text.lstrip().startswith("["):
            return read_tests(json.loads(text), function)
        return split_asserts(text)
    except (DataError, ValueError, RecursionError) as error:
        raise ConfigError(f"--tests: {error}") from error


def _line(test: CodeTest, result: Result) -> str:
    got: Any = result.stdout if isinstance(test.given, Stdin) else result.value
    said = (
        f"gave {got!r}" if result.cause == "ok" else f"{result.cause}: {result.stderr.strip().splitlines()[-1:] or ''}"
    )
    verdict = "passed" if test.passed(result) else "failed"
    return f"{verdict} in {1000 * result.seconds:.0f} ms, {said[:120]}, expected {test.expected!r}"[:240]
