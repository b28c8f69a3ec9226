"""A conversation with a trained model on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onepolicy.data.chat_template import render
from onepolicy.errors import DataError
from onepolicy.recipes.language import Language, is_run, language_of
from onepolicy.run.run import Run
from onepolicy.tasks.base import makes_problems
from onepolicy.types import Generator, Message

NEW = "/new"
"""What a user writes to begin a new conversation."""


def talk(model: str, *, max_tokens: int, temperature: float) -> None:
    """Ask and answer until an empty line or end of input.

    The conversation is kept, as far as the context reaches; a model trained here on single questions gets each question
    alone. A line that the tokenizer cannot write is said so, and the conversation goes on.
    """
    language, alone = language_of(model), knows_single_questions(model)
    generator = language.engine(slots=1, cache_tokens=None)
    how = "Each question stands alone, as in its training" if alone else f"{NEW} begins a new conversation"
    print(f"Ask; an empty line ends. {how}.")
    turns: list[Message] = []
    while line := _line():
        if line == NEW:
            turns = []
            continue
        asked = Message("user", line)
        try:
            if turns and room(language, [*turns, asked]) < 1:
                print(f"(The conversation fills the model's context of {language.context} tokens; a new one begins.)")
                turns = []
            text, is_cut = answer(language, generator, [*turns, asked], max_tokens=max_tokens, temperature=temperature)
        except DataError as error:
            print(f"({error})")
            continue
        turns = [] if alone else [*turns, asked, Message("assistant", text)]
        print(text + (f" (cut off: the context of {language.context} tokens is full)" if is_cut else ""))


def knows_single_questions(model: str) -> bool:
    """Whether a run, or a model inside a run's directory, was trained on single questions, not on conversations."""
    place = Path(model)
    for directory in (place, *place.parents[:3]):
        if is_run(directory):
            trained = Run.open(directory)
            return not (trained.recipe == "sft" and trained.config["data"] and makes_problems(trained.config["tasks"]))
    return False


def answer(
    language: Language, generator: Generator, turns: Sequence[Message], *, max_tokens: int, temperature: float
) -> tuple[str, bool]:
    """The reply to the last of the turns, and whether the end of the context cut it off.

    Raises: DataError when the turns leave no room for a reply, or the tokenizer cannot write them.
    """
    left = room(language, turns)
    if left < 1:
        raise DataError(f"the question leaves no room in the model's context of {language.context} tokens; be shorter.")
    said = language.reply(generator, turns, max_tokens=max_tokens, temperature=temperature)
    return language.decode(said.tokens), said.stop == "length" and len(said.tokens) == left


def room(language: Language, turns: Sequence[Message]) -> int:
    """Tokens that the context leaves for a reply."""
    return language.context - len(render(language.tokenizer, turns))


def _line() -> str:
    """The next line without blanks around it; "" at the end of the input."""
    try:
        return input("> ").strip()
    except EOFError:
        return ""
