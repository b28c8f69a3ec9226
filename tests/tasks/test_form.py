"""Tags, JSON with a schema, regular expressions: by hand, and what must be refused."""

from __future__ import annotations

import pickle
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.errors import ConfigError
from onepolicy.tasks.base import conversation
from onepolicy.tasks.form import MAX_JSON, SIDES, JsonVerifier, RegexVerifier, TagVerifier, read_json, side_of
from onepolicy.types import Score, Task

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"$ref": "#/$defs/years"}},
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"years": {"type": "integer", "minimum": 0}},
}


def score(verifier, text, **meta):
    return verifier(Task("t", conversation("Go."), "", verifier, meta), text)


@pytest.mark.parametrize(
    ("text", "kept", "tags"),
    [
        ("<think>a</think><answer>b</answer>", 1, 1),
        ("<think></think>\n<answer>b</answer>", 1, 1),
        ("<think>a</think><answer> </answer>", 0, 1),
        ("<think>a</think><answer>b</answer>.", 0, 1),
        ("<answer>b</answer><think>a</think>", 0, 1),
        ("<think>a</think>b", 0, 0.5),
        ("<think>a<answer>b</answer>", 0, 0.75),
        ("<think>a</think><think><answer>b</answer>", 0, 0.75),
        ("", 0, 0),
    ],
)
def test_the_tags_by_hand(text, kept, tags):
    assert score(TagVerifier(), text) == Score(kept, {"format": kept, "tags": tags})
    assert score(TagVerifier("tags"), text).value == tags


def test_an_empty_answer_may_be_allowed():
    assert score(TagVerifier(filled=False), "<think>a</think><answer></answer>").value == 1
    with pytest.raises(ConfigError, match="exact"):
        TagVerifier("exakt")


@pytest.mark.parametrize(
    ("text", "json", "schema"),
    [
        ('{"name": "a"}', 1, 1),
        ('<think>{"x": 1}</think>\n```json\n{"name": "a", "age": 3}\n```', 1, 1),
        ('```\n{"name": "a"}\n```', 1, 1),
        ('{"name": "a", "age": -1}', 1, 0),
        ('{"name": "a", "age": 1.5}', 1, 0),
        ('{"age": 3}', 1, 0),
        ('{"name": "a", "extra": 1}', 1, 0),
        ('"a"', 1, 0),
        ('{"name": "a", "name": "b"}', 0, 0),
        ('{"name": "a", "age": NaN}', 0, 0),
        ('{"name": "a", "age": Infinity}', 0, 0),
        ("{'name': 'a'}", 0, 0),
        ('Here it is: {"name": "a"}', 0, 0),
        ('{"name": "a"} {"name": "b"}', 0, 0),
        ('{"name": __import__("os").getcwd()}', 0, 0),
        ("", 0, 0),
        ("```json\n```", 0, 0),
        ("[" * 100_000, 0, 0),
        ('{"name": "' + "a" * MAX_JSON + '"}', 0, 0),
        ('{"name": "a", "age": ' + "9" * 5000 + "}", 0, 0),
    ],
)
def test_json_by_hand(text, json, schema):
    assert score(JsonVerifier(SCHEMA), text) == Score(schema, {"json": json, "schema": schema})


def test_why_a_value_does_not_fit():
    verifier = JsonVerifier(SCHEMA)
    assert verifier.explain('{"name": "a"}') == ""
    assert verifier.explain('{"name": "a", "age": "x"}') == "$.age: 'x' is not of type 'integer'"
    assert "'name' is repeated" in verifier.explain('{"name": "a", "name": "b"}')
    assert "nested too deep" in verifier.explain("[" * 90_000)


def test_json_without_a_schema_and_only_containers():
    assert score(JsonVerifier(), "3").value == 1
    assert score(JsonVerifier(containers=True), "3").value == 0
    assert score(JsonVerifier(containers=True), "[3]").value == 1
    assert score(JsonVerifier(False), "[3]").value == 0


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"$ref": "https://example.com/schema.json"}, "only references within it"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "only references within it"),
        ({"allOf": [{"$dynamicRef": "other.json#x"}]}, "only references within it"),
        ({"type": "objekt"}, "not a JSON Schema, at"),
        ({"minimum": "3"}, "not a JSON Schema, at"),
        ([], "must be an object"),
        ("x", "must be an object"),
    ],
)
def test_a_schema_that_cannot_judge_is_refused(schema, words):
    with pytest.raises(ConfigError, match=words):
        JsonVerifier(schema)


def test_a_schema_that_fails_on_a_value_is_no_verdict():
    """A number too large to divide: the failure is counted, not taken for a wrong answer; a loop likewise."""
    assert score(JsonVerifier({"multipleOf": 1e-300}), "1e300").state in ("invalid", "judged")
    loop = JsonVerifier({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}})
    got = score(loop, "1")
    assert (got.state, got.cause) == ("invalid", "crash")


def test_repeated_keys_are_found_at_any_depth():
    with pytest.raises(ValueError, match="'b' is repeated"):
        read_json('[{"a": {"b": 1, "c": 2, "b": 3}}]')
    assert read_json('{"a": {"b": 1}, "b": {"a": 1}}') == {"a": {"b": 1}, "b": {"a": 1}}


@pytest.mark.parametrize(
    ("verifier", "text", "value"),
    [
        (RegexVerifier(r"\d{3}-\d{4}"), " 555-1234\n", 1),
        (RegexVerifier(r"\d{3}-\d{4}"), "call 555-1234", 0),
        (RegexVerifier(r"\d{3}-\d{4}", "search"), "call 555-1234", 1),
        (RegexVerifier(r"cat", "search", forbidden=True), "a dog", 1),
        (RegexVerifier(r"cat", "search", forbidden=True), "a cat", 0),
        (RegexVerifier(r"cat", "search", forbidden=True), "", 0),
        (RegexVerifier(r"cat", "search", forbidden=True), "x" * 30_000, 0),
        (RegexVerifier(r"YES", ignore_case=True), "yes", 1),
        (RegexVerifier(r"a.b"), "a\nb", 0),
        (RegexVerifier(r"a.b", dotall=True), "a\nb", 1),
        (RegexVerifier(r"^b$", "search"), "a\nb\nc", 0),
        (RegexVerifier(r"^b$", "search", multiline=True), "a\nb\nc", 1),
        (RegexVerifier(r"\d+", side="tag"), "<think>1</think><answer>27</answer>", 1),
        (RegexVerifier(r"\d+", "search", side="answer"), "<think>1</think>no", 0),
    ],
)
def test_patterns_by_hand(verifier, text, value):
    assert score(verifier, text).value == value
    assert score(pickle.loads(pickle.dumps(verifier)), text).value == value  # noqa: S301


def test_a_pattern_that_cannot_be_read_is_refused():
    with pytest.raises(ConfigError, match="position 1"):
        RegexVerifier("a(")
    with pytest.raises(ConfigError, match="search"):
        RegexVerifier("a", "serch")
    with pytest.raises(ConfigError, match="thinking"):
        RegexVerifier("a", side="thinkin")


def test_which_of_them_belong_into_the_pool():
    assert [v.isolated for v in (TagVerifier(), JsonVerifier(), JsonVerifier(SCHEMA), RegexVerifier("a"))] == [
        False,
        False,
        True,
        True,
    ]


@settings(max_examples=80, deadline=None)
@given(st.text('{}[]":,0eE-+.ntf \n`<>/think', max_size=60) | st.text(max_size=60))
def test_no_text_makes_a_form_raise(text):
    for side in SIDES:
        side_of(text, side)
        for verifier in (
            TagVerifier(),
            JsonVerifier(SCHEMA, side),
            JsonVerifier(None, side),
            RegexVerifier("a", side=side),
        ):
            assert score(verifier, text).value in (0.0, 0.25, 0.5, 0.75, 1.0)


@pytest.mark.parametrize("unit", ["{", "[", '"', "```json\n", "`", "<answer>", '{"a":', "\\"])
def test_long_junk_takes_no_time(unit):
    started = time.process_time()
    for verifier in (TagVerifier(), JsonVerifier(SCHEMA), JsonVerifier(SCHEMA, "tag")):
        score(verifier, unit * (100_000 // len(unit)))
    assert time.process_time() - started < 0.3
