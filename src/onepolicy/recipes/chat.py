"""A conversation with a trained model on the terminal."""

from __future__ import annotations

from onepolicy.data.chat_template import render
from onepolicy.errors import DataError
from onepolicy.recipes.language import Language, language_of
from onepolicy.types import Message


def talk(model: str, *, max_tokens: int, temperature: float) -> None:
    """Ask and answer until an empty line or end of input.

    Each question starts a fresh conversation for models trained on single questions; a line that the tokenizer cannot
    write is said so, and the conversation goes on.
    """
    language = language_of(model)
    print("Ask; an empty line ends.")
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            return
        if not line:
            return
        try:
            print(answer(language, line, max_tokens=max_tokens, temperature=temperature))
        except DataError as error:
            print(f"({error})")


def answer(language: Language, question: str, *, max_tokens: int, temperature: float) -> str:
    """The reply to one question, no longer than the context leaves room for."""
    room = language.context - len(render(language.tokenizer, [Message("user", question)]))
    if room < 1:
        raise DataError(f"the question leaves no room in the model's context of {language.context} tokens; be shorter.")
    return language.complete(question, max_tokens=min(max_tokens, room), temperature=temperature)
