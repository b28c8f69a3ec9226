"""The text verifiers from the command line: the verdict, the exit code and the reason."""

from __future__ import annotations

import pytest

from onepolicy.errors import ConfigError, DataError
from onepolicy.recipes import verify
from onepolicy.recipes.verify_text import TEXT_KINDS


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["instructions", "--constraint", "punctuation:no_comma", "--answer", "all good"], 0, "strict  followed"),
        (["instructions", "--constraint", "punctuation:no_comma", "--answer", "a, b"], 1, "strict  not followed"),
        (
            [
                "instructions",
                "--constraint=keywords:existence",
                '--args={"keywords": ["x"]}',
                "--answer=<think>x</think>y",
            ],
            1,
            "Use the words 'x'.",
        ),
        (["tags", "--answer", "<think>a</think><answer>b</answer>"], 0, "format=1"),
        (["tags", "--answer", "b"], 1, "tags=0"),
        (["json", "--answer", '{"a": 1}'], 0, "it fits"),
        (["json", "--schema", '{"required": ["b"]}', "--answer", '{"a": 1}'], 1, "'b' is a required property"),
        (["json", "--answer", '{"a": 1, "a": 2}'], 1, "'a' is repeated"),
        (["regex", "--pattern", "[0-9]+", "--answer", "12"], 0, "match=1"),
        (["regex", "--pattern", "[0-9]+", "--answer", "no 12"], 1, "match=0"),
        (["regex", "--pattern", "[0-9]+", "--how", "search", "--answer", "no 12"], 0, "match=1"),
        (["language", "--gold", "el", "--answer", "α" * 20], 0, "language=1"),
        (["language", "--gold", "el", "--answer", "α"], 3, "skipped"),
        (["length", "--limit", "10", "--unit", "characters", "--answer", "x" * 8], 0, "length=8"),
        (["length", "--limit", "10", "--unit", "characters", "--answer", "x" * 9], 1, "penalty  -0.5"),
        (["repetition", "--n", "2", "--answer", "a b a b"], 1, "penalty  -0.5"),
        (["repetition", "--n", "2", "--answer", "a b c d"], 0, "penalty  0"),
        (["overlap", "--gold", "the cat", "--answer", "the cat"], 0, "chrf=1"),
        (["overlap", "--metric", "rouge1", "--gold", "a b", "--answer", "a c", "--threshold", "0.5"], 0, "rouge1=0.5"),
        (["overlap", "--metric", "rouge1", "--gold", "a b", "--answer", "a c"], 1, "rouge1|refs:best"),
    ],
)
def test_the_verdict_its_code_and_its_reason(argv, code, says, capsys):
    assert verify.main(argv) == code
    assert says in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["instructions", "--answer", "x"], "--constraint is missing"),
        (["instructions", "--constraint", "no_comma", "--answer", "x"], "Unknown constraint"),
        (["instructions", "--constraint", "punctuation:no_comma", "--args", "{", "--answer", "x"], "--args is no JSON"),
        (
            ["instructions", "--constraint", "punctuation:no_comma", "--args", "[]", "--answer", "x"],
            "write a JSON object",
        ),
        (["json", "--schemas", "{}", "--answer", "x"], "Did you mean 'schema'"),
        (["language", "--gold", "English", "--answer", "x"], "write 'en'"),
        (["length", "--limit", "many", "--answer", "x"], "must be a number"),
        (["overlap", "--metric", "blue", "--gold", "x", "--answer", "x"], "Did you mean 'bleu'"),
    ],
)
def test_a_mistake_is_named(argv, words):
    with pytest.raises((ConfigError, DataError), match=words):
        verify.main(argv)


def test_every_kind_is_known_to_the_command():
    assert set(TEXT_KINDS) <= set(verify.KINDS)
