"""Conversations to tokens: who wrote what, and templates that must not rewrite the past."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.data.chat_template import PLAIN_TEMPLATE, check_stable, extend, render, render_with_mask
from onepolicy.data.tokenizer import char_tokenizer, encode
from onepolicy.errors import DataError
from onepolicy.types import Message

CHARACTERS = "".join(map(chr, range(32, 127))) + "\n"
TALK = [
    {"role": "user", "content": "1+1?"},
    {"role": "assistant", "content": "2."},
    {"role": "user", "content": "sure?"},
    {"role": "assistant", "content": "yes"},
]


def written(tokenizer, messages):
    """The assistant's spans as text."""
    tokens, mask = render_with_mask(tokenizer, messages)
    spans, current = [], []
    for token, mine in zip([*tokens, None], [*mask, False]):
        if mine:
            current.append(token)
        elif current:
            spans.append(tokenizer.decode(current))
            current = []
    return spans


def test_the_character_tokenizers_template_by_hand():
    tokenizer = char_tokenizer("0123456789+?.")
    talk = [Message("user", "1+1?"), Message("assistant", "2.")]
    assert tokenizer.decode(render(tokenizer, talk[:1])) == "<|user|>1+1?<|assistant|>"
    tokens, mask = render_with_mask(tokenizer, talk)
    assert tokenizer.decode(tokens) == "<|user|>1+1?<|assistant|>2.<eos>"
    assert mask == [False] * 6 + [True] * 3


@pytest.mark.parametrize(
    ("template", "end"),
    [("chatml", "<|im_end|>"), ("chatml-marked", "<|im_end|>"), ("llama3", "<|eot_id|>"), ("qwen3", "<|im_end|>")],
)
def test_exactly_what_the_assistant_wrote_and_its_end_of_turn_is_true(chat, template, end):
    """Role headers and the newline a ChatML template puts behind <|im_end|> are the template's, not the assistant's."""
    tokenizer = chat(template)
    assert written(tokenizer, TALK) == [f"2.{end}", f"yes{end}"]
    tokens, _ = render_with_mask(tokenizer, TALK)
    assert tokenizer.decode(tokens) == tokenizer.apply_chat_template(TALK, tokenize=False)


def test_marked_and_unmarked_templates_agree(chat):
    assert render_with_mask(chat("chatml"), TALK) == render_with_mask(chat("chatml-marked"), TALK)


def test_a_mark_that_leaves_the_end_token_out_is_completed(chat):
    tokenizer = chat("chatml-marked")
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "+ '<|im_end|>\n' -}}{%- endgeneration -%}", "-}}{%- endgeneration -%}{{- '<|im_end|>\n' -}}"
    )
    assert written(tokenizer, TALK) == ["2.<|im_end|>", "yes<|im_end|>"]


CONTENT = st.text(alphabet="ab +1?\n", min_size=1, max_size=12)


@settings(max_examples=30, deadline=None)
@given(contents=st.lists(CONTENT, min_size=2, max_size=6))
def test_a_prompt_has_the_same_ids_in_training_as_in_sampling(contents):
    """Every assistant turn of the masked conversation starts right behind `render` of what came before it."""
    tokenizer = char_tokenizer("ab +1?\n")
    talk = [Message(("user", "assistant")[i % 2], c) for i, c in enumerate(contents[: len(contents) // 2 * 2])]
    tokens, mask = render_with_mask(tokenizer, talk)
    for i in range(1, len(talk), 2):
        prompt = render(tokenizer, talk[:i])
        assert tokens[: len(prompt)] == prompt
        assert mask[len(prompt)]
        assert not mask[len(prompt) - 1]
    assert sum(mask) == sum(len(m.content) + 1 for m in talk[1::2])


@pytest.mark.parametrize("template", ["chatml", "chatml-marked", "llama3"])
def test_stable_templates_pass(chat, template):
    check_stable(chat(template))


@pytest.mark.parametrize("characters", ["0123456789+", "\nQuestion 01?Yes.Letmsth", CHARACTERS])
def test_stability_is_checked_with_what_the_tokenizer_can_say(characters):
    check_stable(char_tokenizer(characters))
    check_stable(char_tokenizer(characters, special=()))


def test_a_template_that_drops_old_thinking_is_an_error_that_shows_where(chat):
    with pytest.raises(DataError, match=r"not stable.*<think>") as caught:
        check_stable(chat("qwen3"))
    assert "turns=1" in str(caught.value)
    check_stable(chat("qwen3"), turns=1)


def test_the_mask_of_a_rewritten_turn_is_an_error_not_a_guess(chat):
    thinking = [TALK[0], {"role": "assistant", "content": "<think>hm</think>2."}, *TALK[2:]]
    with pytest.raises(DataError, match="turn 1 cannot be told apart"):
        render_with_mask(chat("qwen3"), thinking)
    assert written(chat("qwen3"), thinking[:2]) == ["<think>hm</think>2.<|im_end|>"]


def test_a_generation_prompt_the_finished_turn_lacks_is_an_error(chat):
    """R1-style prompts open <think> themselves; an answer stored without it would be trained one token off."""
    with pytest.raises(DataError, match="<think>"):
        check_stable(chat("r1"), turns=1)
    assert written(chat("r1"), [TALK[0], {"role": "assistant", "content": "<think>\nhm</think>2"}]) == [
        "hm</think>2<|im_end|>"
    ]


def test_a_turn_without_end_token_is_an_error(chat):
    tokenizer = chat("chatml")
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>", "").replace("<|im_start|>", "")
    with pytest.raises(DataError, match="never learn to stop"):
        check_stable(tokenizer, turns=1)


def test_no_template_is_an_error_and_the_plain_one_is_chosen_explicitly():
    tokenizer = char_tokenizer("ab")
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="PLAIN_TEMPLATE"):
        render(tokenizer, [Message("user", "a")])
    tokenizer.chat_template = PLAIN_TEMPLATE
    assert tokenizer.decode(render(tokenizer, [Message("user", "ab")])) == "ab"
    assert written(tokenizer, [Message("user", "ab"), Message("assistant", "ba")]) == ["ba<eos>"]


def test_a_conversation_the_template_refuses_is_an_error(chat):
    tokenizer = chat("chatml")
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(DataError, match=r"\['user', 'user'\].*roles must alternate"):
        render(tokenizer, [TALK[0], TALK[0]])


def test_an_unknown_character_in_a_prompt_is_named():
    with pytest.raises(DataError, match="'x'"):
        render(char_tokenizer("ab"), [Message("user", "x")])


@pytest.mark.parametrize("template", ["chatml", "chatml-marked", "llama3"])
def test_extending_keeps_what_was_sampled_and_equals_rendering(chat, template):
    tokenizer = chat(template)
    prompt = render(tokenizer, TALK[:1])
    tokens, mask = render_with_mask(tokenizer, TALK[:2])
    sampled = [t for t, mine in zip(tokens, mask) if mine]
    longer = extend(tokenizer, prompt + sampled, TALK[2:3])
    assert longer[: len(prompt + sampled)] == prompt + sampled
    assert longer == render(tokenizer, TALK[:3])
    assert extend(tokenizer, prompt + sampled[:-1], TALK[2:3]) == longer  # cut off: the end of turn is put in


def test_what_was_sampled_is_never_tokenised_again(merging):
    """The ids of "Y", "e", "s" sampled one by one stay three tokens, though the tokenizer would merge them."""
    tokenizer = merging("chatml")
    pieces = [tokenizer.convert_tokens_to_ids(c) for c in "Yes"] + [tokenizer.eos_token_id]
    assert len(encode(tokenizer, "Yes")) < 3
    prompt = render(tokenizer, TALK[:1])
    longer = extend(tokenizer, prompt + pieces, TALK[2:3])
    assert longer[: len(prompt) + 4] == prompt + pieces
    assert tokenizer.decode(longer) == tokenizer.apply_chat_template(
        [TALK[0], {"role": "assistant", "content": "Yes"}, TALK[2]], tokenize=False, add_generation_prompt=True
    )


def test_merges_across_the_start_of_the_answer_do_not_change_the_prompt(merging):
    """The header ends in a newline and the answer begins with one: tokenised whole, they would be one token."""
    tokenizer = merging("chatml")
    talk = [TALK[0], {"role": "assistant", "content": "\nYes."}]
    whole = encode(tokenizer, tokenizer.apply_chat_template(talk, tokenize=False))
    prompt = render(tokenizer, talk[:1])
    assert whole[: len(prompt)] != prompt
    tokens, mask = render_with_mask(tokenizer, talk)
    assert tokens[: len(prompt)] == prompt
    assert mask == [False] * len(prompt) + [True] * (len(tokens) - len(prompt) - 1) + [False]
    assert tokenizer.decode([t for t, m in zip(tokens, mask) if m]) == "\nYes.<|im_end|>"


def test_extending_on_a_template_that_rewrites_is_an_error(chat):
    tokenizer = chat("chatml")
    tokenizer.chat_template = "{%- if messages | length > 2 -%}{{- 'long' -}}{%- endif -%}" + tokenizer.chat_template
    with pytest.raises(DataError, match="cannot be continued: after '' came 'long"):
        extend(tokenizer, render(tokenizer, TALK[:1]), TALK[2:3])
