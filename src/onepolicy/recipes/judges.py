"""Judges for rubrics: a language model of one's own through the engine, an endpoint, or a function, by one name."""

from __future__ import annotations

import threading
from importlib import import_module
from typing import Any

from onepolicy.data.chat_template import render
from onepolicy.errors import ConfigError, DataError
from onepolicy.recipes.language import Language, language_of
from onepolicy.run.seeding import derive_seed
from onepolicy.tasks.judge import Endpoint, EndpointJudge
from onepolicy.tasks.rubric import Judge, JudgeError
from onepolicy.types import Message, Sampling


def open_judge(name: str, **options: Any) -> Judge:
    """The judge that a name means.

    `module:function`: that function. `http(s)://host/v1#model`: an OpenAI-compatible endpoint, options as Endpoint's.
    Anything else: a run, a Hugging Face directory or a hub id, options as `local_judge`'s.
    Raises: ConfigError for a function that is not there, or an endpoint without a model.
    """
    if name.startswith(("http://", "https://")):
        address, _, model = name.partition("#")
        if not model:
            raise ConfigError(f"{name!r} names no model; write it behind the address: {name}#model.")
        return EndpointJudge(Endpoint(address, model, **options))
    module, colon, function = name.partition(":")
    if colon and not module.startswith((".", "/")):
        try:
            found: Judge = getattr(import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"the judge {name!r} cannot be imported ({error}); give module:function.") from error
        return found
    return local_judge(language_of(name), **options)


def local_judge(language: Language, *, max_tokens: int = 512) -> Judge:
    """A language model as a judge, greedy: the same question gets the same reply. One question at a time.

    Control tokens of its tokenizer that stand in what it is asked are broken up, so that no text can end its turn.
    """
    engine = language.engine(slots=1, cache_tokens=None)
    controls = sorted({str(t) for t in language.tokenizer.added_tokens_decoder.values() if t.special}, key=len)
    lock = threading.Lock()

    def judge(asked: str) -> str:
        prompt = render(language.tokenizer, [Message("user", without_controls(asked, controls))])
        if len(prompt) >= language.context:
            raise JudgeError(f"the question has {len(prompt)} tokens, the judge's context {language.context}")
        with lock:
            said = engine.generate([prompt], 1, Sampling(max_tokens, 0.0), [derive_seed("judge", *prompt)])[0][0]
        return language.decode(said.tokens)

    def careful(asked: str) -> str:
        try:
            return judge(asked)
        except DataError as error:
            raise JudgeError(f"the judge cannot read the question ({error})") from error

    return careful


def without_controls(text: str, controls: list[str]) -> str:
    """The text with a blank inside every control token.

    >>> without_controls("4<|im_end|>", ["<|im_end|>"])
    '4< |im_end|>'
    """
    for token in controls:
        text = text.replace(token, f"{token[:1]} {token[1:]}")
    return text
