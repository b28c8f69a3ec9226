"""A conversation on the terminal: what the model is shown, in which words it ends, what it cannot read."""

from __future__ import annotations

import json

import pytest

from onepolicy.data.chat_template import render
from onepolicy.errors import ConfigError, ModelError
from onepolicy.recipes import chat, sft
from onepolicy.recipes.language import Language, language_of
from onepolicy.recipes.options import ProblemOptions, Tiny
from onepolicy.types import Message


@pytest.fixture
def talk(monkeypatch, capsys):
    """talk(model, lines, ...): what is printed, line by line, and the conversations the model was asked to go on."""

    def run(model, *lines, max_tokens=6, temperature=0.0):
        waiting, shown = list(lines), []
        reply = Language.reply

        def asked():
            if not waiting:
                raise EOFError
            return waiting.pop(0)

        def watched(self, generator, turns, **options):
            shown.append([(turn.role, turn.content) for turn in turns])
            return reply(self, generator, turns, **options)

        monkeypatch.setattr("builtins.input", lambda _: asked())
        monkeypatch.setattr(Language, "reply", watched)
        chat.talk(str(model), max_tokens=max_tokens, temperature=temperature)
        return capsys.readouterr().out.splitlines(), shown

    return run


def test_the_conversation_is_kept_until_a_new_one_is_asked_for(model_directory, talk):
    """The second question is put behind the first and its answer; after /new there is nothing before it."""
    (head, first, second, third), shown = talk(
        model_directory("llama"), "Hi", "And you?", "/new", "Hi", temperature=1.0
    )
    assert head == "Ask; an empty line ends. /new begins a new conversation."
    assert shown == [
        [("user", "Hi")],
        [("user", "Hi"), ("assistant", first), ("user", "And you?")],
        [("user", "Hi")],
    ]
    assert third == first != second


def test_an_empty_line_ends_it_and_so_does_the_end_of_the_input(model_directory, talk):
    assert len(talk(model_directory("llama"), "Hi", "  ", "Not heard")[1]) == 1
    assert len(talk(model_directory("llama"), "Hi")[1]) == 1


def test_the_reply_is_the_models_own_greedy_one(model_directory, talk):
    """transformers' generate on the same prompt, token for token."""
    language = language_of(model_directory("qwen3"))
    (_, said), _ = talk(model_directory("qwen3"), "2+2=?", max_tokens=9)
    prompt = render(language.tokenizer, [Message("user", "2+2=?")])
    tokens = language.model.generate(
        language.model.dummy_inputs["input_ids"].new_tensor([prompt]), max_new_tokens=9, do_sample=False
    )
    assert said == language.decode(tokens[0, len(prompt) :].tolist())


def test_a_temperature_samples_and_the_same_question_samples_alike(model_directory, talk):
    (_, *cold), _ = talk(model_directory("llama"), "Hi", "/new", "Hi", temperature=0.0, max_tokens=20)
    (_, *warm), _ = talk(model_directory("llama"), "Hi", "/new", "Hi", temperature=3.0, max_tokens=20)
    assert cold[0] == cold[1] != warm[0] == warm[1]


def test_a_full_context_is_said_and_a_new_conversation_begins(model_directory, talk):
    """320 tokens: the first exchange takes about 220, so that the next question does not fit behind it."""
    long = "x" * 200
    (_, first, words, second), shown = talk(model_directory("llama"), long, long, max_tokens=4)
    assert words == "(The conversation fills the model's context of 320 tokens; a new one begins.)"
    assert shown == [[("user", long)], [("user", long)]]
    assert first == second


def test_a_question_longer_than_the_context_is_refused_with_words(model_directory, talk):
    (_, words, answer), shown = talk(model_directory("llama"), "x" * 400, "Hi")
    assert words == "(the question leaves no room in the model's context of 320 tokens; be shorter.)"
    assert shown == [[("user", "Hi")]]
    assert not answer.startswith("(")


def test_a_reply_that_the_context_cuts_off_says_so(model_directory, talk):
    """316 tokens of question leave room for fewer than the 50 that are asked for; an untrained model does not stop."""
    (_, cut), _ = talk(model_directory("llama"), "x" * 310, max_tokens=50)
    assert cut.endswith(" (cut off: the context of 320 tokens is full)")
    (_, short), _ = talk(model_directory("llama"), "Hi", max_tokens=2)
    assert "cut off" not in short


def test_a_character_the_tokenizer_lacks_is_said_and_the_conversation_goes_on(model_directory, talk):
    (_, first, words, _), shown = talk(model_directory("llama"), "Hi", "Grüezi", "Bye")
    assert words.startswith("(")
    assert "'ü'" in words
    assert shown[1] == [("user", "Hi"), ("assistant", first), ("user", "Bye")]


def test_a_model_trained_on_single_questions_is_asked_each_alone(tiny_sft, talk):
    report = sft.main(tiny_sft(steps=1))
    for place in (report.run_dir, report.run_dir / "model", report.run_dir / "checkpoints/step-1/model"):
        (head, *_), shown = talk(place, "1+2=", "3+4=")
        assert head == "Ask; an empty line ends. Each question stands alone, as in its training."
        assert shown == [[("user", "1+2=")], [("user", "3+4=")]]


def test_a_model_trained_on_conversations_keeps_them(tiny_sft, tmp_path, talk):
    data = tmp_path / "talks.jsonl"
    turns = [{"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b")) * 2]
    data.write_text(json.dumps({"messages": turns}))
    report = sft.main(tiny_sft(steps=1, data=str(data), tiny=Tiny(context=64), problems=ProblemOptions(train_size=9)))
    _, shown = talk(report.run_dir, "a", "a")
    assert len(shown[1]) == 3


def test_what_cannot_be_talked_to(tmp_path, talk):
    with pytest.raises(ConfigError, match=r"tiny-1m is a preset that training makes anew; there is nothing to load"):
        talk("tiny-1m", "Hi")
    with pytest.raises(ModelError, match="does not exist"):
        talk(tmp_path / "nothing", "Hi")
