"""`onepolicy verify code`: the verdict on a program, test by test, and its exit code."""

from __future__ import annotations

import pytest

from onepolicy.errors import ConfigError
from onepolicy.recipes.verify import main

PROGRAM = "def f(x):\n    return x * x"


def test_a_program_is_judged_test_by_test(capsys):
    tests = "assert f(2) == 4\nassert f(3) == 9"
    assert main(["code", "--answer", PROGRAM, "--tests", tests]) == 0
    said = capsys.readouterr().out
    assert said.startswith("right\n")
    assert "test 2" in said
    assert "gave 9, expected 9" in said
    assert main(["code", "--answer", f"```python\n{PROGRAM}\n```", "--tests", "assert f(2) == 5"]) == 1
    assert "gave 4, expected 5" in capsys.readouterr().out


def test_texts_other_languages_and_shares(capsys):
    tests = '[{"input": "", "output": "hi"}, {"input": "", "output": "ho"}]'
    source = '#include <stdio.h>\nint main() { puts("hi"); }'
    assert main(["code", "--answer", source, "--tests", tests, "--language", "c", "--mode", "share"]) == 1
    assert "passed=0.5" in capsys.readouterr().out
    assert main(["code", "--answer", "x = (", "--tests", "assert f(1) == 1"]) == 1
    assert "compile" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--answer", "x"], "--tests is missing"),
        (["--answer", "x", "--tests", "import os"], "--tests: 'import os' is no assert"),
        (["--answer", "x", "--tests", "[1"], "--tests: "),
        (["--answer", "x", "--tests", "assert f(1)", "--mode", "most"], "--mode is 'most'"),
        (["--answer", "x", "--tests", "assert f(1)", "--language", "cobol"], "Unknown language"),
        (["--answer", "x", "--test", "assert f(1)"], "Did you mean 'tests'"),
    ],
)
def test_what_cannot_be_asked(options, words):
    with pytest.raises(ConfigError, match=words.replace("[", r"\[")):
        main(["code", *options])
