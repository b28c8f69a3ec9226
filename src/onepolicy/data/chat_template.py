"""Conversations to tokens, and which of the tokens the assistant wrote.

A rollout is token in, token out: what was sampled is never tokenised again (`extend`). That is only sound when the
template is stable: `check_stable` decides it once, at start. Not here: building tokenizers (tokenizer.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from onepolicy.data.tokenizer import encode
from onepolicy.types import Message

Turn = Message | Mapping[str, Any]


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Turn]) -> list[int]:
    """The prompt's token ids: the conversation so far and the header that asks the assistant to write.

    Raises: DataError when the tokenizer has no chat template, or a character is unknown to it.
    """
    return encode(tokenizer, _text(tokenizer, messages, generation_prompt=True))


def _text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Turn], *, generation_prompt: bool) -> str:
    """The conversation as the template's text."""
    turns = [{"role": m.role, "content": m.content} if isinstance(m, Message) else dict(m) for m in messages]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation_prompt)
    return str(text)
