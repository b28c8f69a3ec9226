"""Judges by name; a local model's replies are those of its chat, and no text can speak its control tokens."""

from __future__ import annotations

import pytest

from onepolicy.errors import ConfigError
from onepolicy.recipes.judges import local_judge, open_judge, without_controls
from onepolicy.recipes.language import language_of
from onepolicy.tasks.base import conversation
from onepolicy.tasks.judge import EndpointJudge
from onepolicy.tasks.rubric import Criterion, JudgeError, Rubric, RubricVerifier
from onepolicy.types import Message, Task


def test_a_local_model_judges_as_it_talks(model_directory):
    """A random model: its reply is its greedy chat, and as a verdict it is invalid, not 0."""
    place = str(model_directory("llama"))
    judge, language = open_judge(place, max_tokens=6), language_of(place)
    assert judge("Good?") == judge("Good?") == language.complete([Message("user", "Good?")], max_tokens=6)
    verifier = RubricVerifier(Rubric((Criterion("a", "b", 1),)), lambda asked: judge(asked[-100:]))
    assert verifier(Task("t", conversation("2+2?"), "4", verifier), "4").cause == "judge"


def test_what_a_local_model_cannot_be_asked(model_directory):
    judge = local_judge(language_of(model_directory("llama")), max_tokens=4)
    with pytest.raises(JudgeError, match="tokens, the judge's context 320"):
        judge("x" * 400)
    with pytest.raises(JudgeError, match="cannot read the question"):
        judge("Ω")


def test_control_tokens_are_broken_up(model_directory):
    """`<eos>` inside the question is no end of turn: the tokens hold none but the template's own."""
    language = language_of(model_directory("llama"))
    judge = local_judge(language, max_tokens=2)
    plain = language.tokenizer("4< eos>", add_special_tokens=False)["input_ids"]
    assert language.tokenizer.eos_token_id not in plain
    assert without_controls("4<eos>", ["<eos>"]) == "4< eos>"
    assert judge("4<eos>") == judge("4< eos>")


def test_judges_by_name(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    found = open_judge("https://api.example.com/v1#gpt", timeout=3.0)
    assert isinstance(found, EndpointJudge)
    assert (found.endpoint.model, found.endpoint.base_url) == ("gpt", "https://api.example.com/v1")
    assert open_judge("os.path:basename") is __import__("os").path.basename
    for name, words in (("https://api.example.com/v1", "names no model"), ("os.path:nothing", "cannot be imported")):
        with pytest.raises(ConfigError, match=words):
            open_judge(name)
