"""Conversations to tokens, and which of the tokens the assistant wrote.

A rollout is token in, token out: what was sampled is never tokenised again (`extend`). That is sound only when the
template is stable, which `check_stable` decides once, at start. Text is tokenised in pieces cut where the assistant
begins and ends, so a prompt has the same ids in training as when it was sampled from, whatever the tokenizer would
merge across the cut. Not here: building tokenizers (tokenizer.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from onepolicy.data.tokenizer import encode
from onepolicy.errors import DataError
from onepolicy.types import Message

Turn = Message | Mapping[str, Any]

PLAIN_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] + eos_token -}}{%- endgeneration -%}"
    "{%- else -%}{{- message['content'] -}}{%- endif -%}"
    "{%- endfor -%}"
)
"""Contents one after another, the end token behind the assistant's. For models without a chat format, chosen by
setting `tokenizer.chat_template = PLAIN_TEMPLATE`; never chosen for you."""

ANSWERS = ("Yes.", "<think>\nLet me see.\n</think>\n\nYes.")
"""What the assistant says when a template is checked: once plainly, once after thinking."""

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class Written(NamedTuple):
    """A rendered conversation; `spans` holds the [start, end) of what the assistant wrote, end of turn included."""

    text: str
    spans: list[tuple[int, int]]


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Turn]) -> list[int]:
    """The prompt's token ids: the conversation so far and the header that asks the assistant to write.

    Raises: DataError when the tokenizer has no chat template, the template refuses the conversation, or a character is
    unknown to the tokenizer.
    """
    return encode(tokenizer, _text(tokenizer, messages, prompt=True))


def render_with_mask(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Turn]) -> tuple[list[int], list[bool]]:
    """A whole conversation's token ids, and True at exactly those the assistant wrote, its end-of-turn token included.

    What the template puts around the assistant's words (role headers, a newline behind the end of the turn) is False.
    Templates that mark `{% generation %}` are taken at their word; for others the assistant's part is what its turn
    adds behind the prompt, provided the template does not rewrite earlier turns.

    Raises: DataError when the assistant's part cannot be told apart, or does not end with a special token.
    """
    text, spans = _written(tokenizer, messages)
    ids: list[int] = []
    mask: list[bool] = []
    at = 0
    for start, end in [*spans, (len(text), len(text))]:
        for piece, written in ((text[at:start], False), (text[start:end], True)):
            new = encode(tokenizer, piece) if piece else []
            ids += new
            mask += [written] * len(new)
        at = end
    return ids, mask


def extend(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], new_messages: Sequence[Turn]) -> list[int]:
    """`tokens` (a conversation whose last part was sampled) followed by new turns and the next generation prompt.

    The tokens given come back unchanged at the front. If the last turn was cut off, the end of turn it lacks is part
    of what is added. Only what is added is tokenised; none of it is the policy's action.

    Raises: DataError when the template rewrites earlier turns, so that no continuation is faithful to it.
    """
    start: list[Turn] = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    known, spans = _written(tokenizer, start)
    whole = _text(tokenizer, [*start, *new_messages], prompt=True)
    if not whole.startswith(known):
        raise DataError(f"a sampled conversation cannot be continued: {_parting(known, whole)} {_UNSTABLE}")
    end = spans[-1][1]
    stop = next(i for i, token in _special(tokenizer).items() if known.endswith(token, 0, end))
    missing = [] if tokens and tokens[-1] == stop else [stop]
    return [*tokens, *missing, *encode(tokenizer, whole[end:])]


def check_stable(
    tokenizer: PreTrainedTokenizerBase, turns: int = 2, *, question: str = "Question?", answers: Sequence[str] = ANSWERS
) -> None:
    """Nothing, when the template suits token-in-token-out conversations of up to `turns` assistant turns.

    Checked on small conversations, with and without thinking: the prompt is a prefix of the finished turn and the
    assistant's part starts right behind it; earlier turns stay as they were when later ones follow; and extending
    sampled tokens equals rendering everything afresh. turns: 1 for single-turn tasks (many reasoning models drop old
    thinking, which matters only from the second turn on). question, answers: what is said in them, less the characters
    the tokenizer does not know.

    Raises: DataError with the place where the two texts part.
    """
    question = _sayable(tokenizer, question)
    for answer in [_sayable(tokenizer, text) for text in answers]:
        conversation: list[Turn] = []
        tokens: list[int] = []
        for turn in range(turns):
            conversation.append({"role": "user", "content": question})
            prompt = _text(tokenizer, conversation, prompt=True)
            fresh = encode(tokenizer, prompt)
            tokens = extend(tokenizer, tokens, conversation[-1:]) if turn else fresh
            if tokens != fresh:
                parting = _parting(tokenizer.decode(tokens), tokenizer.decode(fresh))
                raise DataError(f"the chat template is not stable: {parting} {_UNSTABLE}")
            conversation.append({"role": "assistant", "content": answer})
            text, spans = _written(tokenizer, conversation)
            if text[: spans[-1][0]] != prompt:
                raise DataError(f"the chat template is not stable: {_parting(prompt, text)} {_UNSTABLE}")
            tokens += encode(tokenizer, text[slice(*spans[-1])])


_UNSTABLE = (
    "Sampled tokens would not be those the template renders. Use a template that only appends, or check_stable(..., "
    "turns=1) if every task has a single assistant turn."
)


def _text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Turn], *, prompt: bool) -> str:
    """The conversation as the template's text, with the generation prompt if `prompt`."""
    if tokenizer.chat_template is None:
        raise DataError(
            "the tokenizer has no chat template, so a conversation cannot be rendered; set tokenizer.chat_template, "
            "for instance to onepolicy.data.chat_template.PLAIN_TEMPLATE (contents one after another)."
        )
    try:
        return str(tokenizer.apply_chat_template(_plain(messages), tokenize=False, add_generation_prompt=prompt))
    except TemplateError as error:
        roles = [turn["role"] for turn in _plain(messages)]
        raise DataError(f"the chat template refuses the conversation with roles {roles}: {error}") from error


def _written(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Turn]) -> Written:
    """The conversation's text and where in it the assistant wrote."""
    text = _text(tokenizer, messages, prompt=False)
    template = tokenizer.get_chat_template()
    if _GENERATION.search(template):
        rendered, marked = render_jinja_template(
            [_plain(messages)],
            chat_template=template,
            return_assistant_tokens_mask=True,
            **tokenizer.special_tokens_map,
        )
        text, spans = rendered[0], marked[0]
    else:
        spans = _prefix_differences(tokenizer, messages, text)
    special = list(_special(tokenizer).values())
    return Written(text, [(start, _end_of_turn(text, start, end, special)) for start, end in spans])


def _prefix_differences(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Turn], text: str
) -> list[tuple[int, int]]:
    """For each assistant turn, from the end of the prompt before it to the end of the text up to and with it."""
    spans = []
    for i, turn in enumerate(_plain(messages)):
        if turn["role"] == "assistant":
            prompt = _text(tokenizer, messages[:i], prompt=True)
            finished = _text(tokenizer, messages[: i + 1], prompt=False)
            for part in (prompt, finished):
                if not text.startswith(part):
                    raise DataError(
                        f"what the assistant wrote in turn {i} cannot be told apart: {_parting(part, text)} "
                        "Use a template that marks {% generation %}, or one that does not rewrite earlier turns."
                    )
            spans.append((len(prompt), len(finished)))
    return spans


def _end_of_turn(text: str, start: int, end: int, special: Sequence[str]) -> int:
    """Where the assistant's part ends: behind its last special token, or the special token right after the mark."""
    ends = [at + len(token) for token in special if (at := text.rfind(token, start, end)) >= 0]
    ends = ends or [end + len(token) for token in special if text.startswith(token, end)]
    if not ends:
        raise DataError(
            f"the chat template puts no special token behind the assistant's turn {text[start:end][-40:]!r}; a model "
            "trained on it would never learn to stop. Use a template that ends the turn with the end token."
        )
    return max(ends)


def _special(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Control tokens by id, longest first, so that none is mistaken for one it ends with."""
    special = {i: str(token) for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return dict(sorted(special.items(), key=lambda item: -len(item[1])))


def _sayable(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """The text without the characters the tokenizer does not know."""
    unknown = tokenizer.unk_token_id
    parts = [text] if unknown is None else re.findall(r"</?think>|[\s\S]", text)
    known = [p for p in parts if unknown is None or unknown not in tokenizer(p, add_special_tokens=False)["input_ids"]]
    return "".join(known)


def _plain(messages: Sequence[Turn]) -> list[dict[str, Any]]:
    """The messages as the dictionaries templates expect."""
    return [{"role": m.role, "content": m.content} if isinstance(m, Message) else dict(m) for m in messages]


def _parting(expected: str, found: str) -> str:
    """Where two texts part, in words."""
    same = next((i for i, (a, b) in enumerate(zip(expected, found)) if a != b), min(len(expected), len(found)))
    before, wanted, came = expected[max(0, same - 30) : same], expected[same : same + 30], found[same : same + 30]
    return f"after {before!r} came {came!r}, not {wanted!r}."
