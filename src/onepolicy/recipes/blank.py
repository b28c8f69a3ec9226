"""Language models that know nothing yet: a tokenizer made of the text, and weights drawn for a shape."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from onepolicy.data.tokenizer import FIM, TAGS, bpe_tokenizer, char_tokenizer, load_tokenizer, made_tokenizer
from onepolicy.errors import ModelError
from onepolicy.nn.language import TINY, build_model, new_model
from onepolicy.nn.token_policy import TokenPolicy
from onepolicy.recipes.language import PRINTABLE, Language, check_name
from onepolicy.recipes.options import Machine, Tiny
from onepolicy.run.files import replace_text

FILE = "tokenizer.json"
"""In a run's directory: the tokenizer that was made of its text."""


class Blank(Protocol):
    """What of a configuration decides a model that knows nothing."""

    @property
    def model(self) -> str: ...

    @property
    def weights(self) -> str: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def seed(self) -> int: ...

    @property
    def tiny(self) -> Tiny: ...

    @property
    def machine(self) -> Machine: ...


def made_here(config: Blank) -> bool:
    """Whether the model's weights are drawn here. Raises: ConfigError for a misspelt preset."""
    check_name(config.model)
    return config.model in TINY or config.weights == "new"


def blank_language(config: Blank, texts: Sequence[str], resume: Path | None) -> Language:
    """A tiny preset, or a model of a Hugging Face configuration, with new weights.

    Its tokenizer is the resumed run's, that of the configuration's directory (unless vocab_size asks for another), or
    made of the texts. Raises: ModelError for a configuration that cannot be read.
    """
    tokenizer = tokenizer_of(config, texts, resume)
    ids = {"pad_token_id": int(tokenizer.pad_token_id), "eos_token_id": int(tokenizer.eos_token_id)}
    model: Any
    if config.model in TINY:
        tiny = config.tiny
        model = build_model(config.model, len(tokenizer), context=tiny.context, arch=tiny.arch, seed=config.seed, **ids)
    else:
        model = new_model(config.model, len(tokenizer), seed=config.seed, **ids)
    model.to(config.machine.device)
    return Language(model, tokenizer, TokenPolicy(model, layout=config.machine.layout), lora=False)


def tokenizer_of(config: Blank, texts: Sequence[str], resume: Path | None) -> Any:
    """The tokenizer of a model that is made here; see `blank_language`."""
    special = (*TAGS, *FIM)
    if resume is not None and (resume / FILE).is_file():
        return made_tokenizer(resume / FILE, special)
    if config.vocab_size:
        return bpe_tokenizer(texts, config.vocab_size, special)
    if config.model not in TINY:
        try:
            return load_tokenizer(config.model)
        except ModelError as error:
            raise ModelError(f"{error} Or have one made of the text: --vocab-size 4096.") from error
    return char_tokenizer({c for text in texts for c in text} | set(PRINTABLE), special)


def keep_tokenizer(config: Blank, tokenizer: Any, directory: Path) -> None:
    """The tokenizer kept in the run's directory where it was made of the text, so that a resumed run has the same."""
    if made_here(config) and (config.vocab_size or config.model in TINY):
        replace_text(directory / FILE, tokenizer.backend_tokenizer.to_str())
