"""Local tokenizers with the chat templates of well-known model families."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from onepolicy.data.tokenizer import char_tokenizer

CHARACTERS = "".join(map(chr, range(32, 127))) + "\n"

CHATML = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)

CHATML_MARKED = (
    "{%- for message in messages -%}{{- '<|im_start|>' + message['role'] + '\n' -}}"
    "{%- if message['role'] == 'assistant' -%}{%- generation -%}{{- message['content'] + '<|im_end|>\n' -}}"
    "{%- endgeneration -%}{%- else -%}{{- message['content'] + '<|im_end|>\n' -}}{%- endif -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)

LLAMA3 = (
    "{{- '<|begin_of_text|>' -}}{%- for message in messages -%}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' -}}"
    "{{- message['content'] | trim + '<|eot_id|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}{%- endif -%}"
)

QWEN3 = (
    "{%- for message in messages -%}{%- set content = message['content'] -%}"
    "{%- if message['role'] == 'assistant' and not loop.last and '</think>' in content -%}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') -%}{%- endif -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' + content + '<|im_end|>\n' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)

R1 = (
    "{%- for message in messages -%}{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n<think>\n' -}}{%- endif -%}"
)

TEMPLATES = {"chatml": CHATML, "chatml-marked": CHATML_MARKED, "llama3": LLAMA3, "qwen3": QWEN3, "r1": R1}
CONTROL = ["<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


def with_template(tokenizer, name):
    tokenizer.add_special_tokens({"extra_special_tokens": [*tokenizer.extra_special_tokens, *CONTROL]})
    tokenizer.chat_template = TEMPLATES[name]
    tokenizer.eos_token = "<|eot_id|>" if name == "llama3" else "<|im_end|>"
    return tokenizer


@pytest.fixture
def chat():
    """chat(template name): a character tokenizer with that family's control tokens and template."""
    return lambda name: with_template(char_tokenizer(CHARACTERS), name)


@pytest.fixture(scope="session")
def merging():
    """merging(template name): a byte-pair tokenizer that merges newlines with what follows, as real ones do."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<pad>"],
        show_progress=False,
    )
    core.train_from_iterator(["\n\n"] * 50 + ["Yes"] * 20 + ["Question"] * 10, trainer)
    text = core.to_str()

    def build(name):
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(text), pad_token="<pad>", clean_up_tokenization_spaces=False
        )
        tokenizer.add_tokens([AddedToken("<think>"), AddedToken("</think>")])
        return with_template(tokenizer, name)

    return build
