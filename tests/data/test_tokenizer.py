"""Character tokenizers, loading any tokenizer, and encoding that loses nothing."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import huggingface_hub.constants
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from onepolicy.data.tokenizer import (
    TAGS,
    char_tokenizer,
    check_vocabulary,
    encode,
    end_tokens,
    load_tokenizer,
)
from onepolicy.errors import DataError, ModelError
from onepolicy.nn.language import ModelShape, build_model, save_model

ALPHABET = "0123456789+-*() =\n\tabcé日"
TOKENIZER = char_tokenizer(ALPHABET)


@given(st.text(alphabet=ALPHABET))
def test_decoding_undoes_encoding_and_every_character_is_a_token(text):
    ids = encode(TOKENIZER, text)
    assert len(ids) == len(text)
    assert TOKENIZER.decode(ids) == text


@given(st.lists(st.sampled_from([*ALPHABET, *TAGS, "<eos>", "<|user|>"]), max_size=20))
def test_special_strings_are_one_token_each_among_characters(parts):
    ids = encode(TOKENIZER, "".join(parts))
    assert [TOKENIZER.convert_ids_to_tokens(i) for i in ids] == parts
    assert TOKENIZER.decode(ids) == "".join(parts)


def test_skipping_control_tokens_keeps_the_tags_a_verifier_reads():
    ids = encode(TOKENIZER, "<|assistant|><think>1+1</think><answer>2</answer><eos>")
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "<think>1+1</think><answer>2</answer>"


def test_ids_are_fixed_by_the_characters_alone():
    again = char_tokenizer(reversed(ALPHABET * 2))
    assert again.get_vocab() == TOKENIZER.get_vocab()
    assert (TOKENIZER.pad_token_id, TOKENIZER.eos_token_id, TOKENIZER.unk_token_id) == (0, 1, 2)
    assert len(TOKENIZER) == len(set(ALPHABET)) + len(TAGS) + 7


def test_an_unknown_character_is_named_not_replaced():
    with pytest.raises(DataError, match=r"does not know '\?', 'Z' in '1\+Z=\?'"):
        encode(TOKENIZER, "1+Z=?")
    assert encode(TOKENIZER, "<unk>") == [2]


def test_saved_and_loaded_it_is_the_same_tokenizer(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    text = "<think>1+1=2\n</think> é日<eos>"
    for loaded in (load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert loaded.get_vocab() == TOKENIZER.get_vocab()
        assert loaded.chat_template == TOKENIZER.chat_template
        assert encode(loaded, text) == encode(TOKENIZER, text)
        assert loaded.decode(encode(loaded, text), skip_special_tokens=True) == text.removesuffix("<eos>")


def test_it_pads_like_any_other():
    batch = TOKENIZER(["1+1", "2"], padding=True, return_tensors="pt")
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["input_ids"][1, 1:].tolist() == [0, 0]


def test_characters_must_be_characters():
    with pytest.raises(DataError, match="'ab'; every entry must be one character"):
        char_tokenizer(["a", "ab"])
    with pytest.raises(DataError, match="empty"):
        char_tokenizer("")


def test_a_tokenizer_without_pad_token_pads_with_its_end_token(tmp_path):
    save_with(tmp_path, pad_token=None)
    loaded = load_tokenizer(tmp_path)
    assert loaded.pad_token_id == loaded.eos_token_id == 1


def test_a_tokenizer_without_end_token_is_refused(tmp_path):
    save_with(tmp_path, eos_token=None)
    with pytest.raises(ModelError, match="has no end token"):
        load_tokenizer(tmp_path)


def save_with(directory, **change):
    """The character tokenizer saved with some special tokens changed."""
    tokens = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"} | change
    PreTrainedTokenizerFast(tokenizer_object=TOKENIZER.backend_tokenizer, **tokens).save_pretrained(directory)


@pytest.mark.parametrize("arch", ["qwen3", "llama", "gpt2"])
def test_a_model_directory_without_tokenizer_is_refused(arch, tmp_path):
    """transformers itself would make up a tokenizer with an empty vocabulary for some architectures."""
    shape = ModelShape(width=8, depth=1, heads=1, mlp=8)
    model = build_model(shape, 9, context=8, arch=arch, pad_token_id=0, eos_token_id=1)
    save_model(model, None, tmp_path)
    with pytest.raises(ModelError, match="there is no tokenizer in the directory"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Qwen2Tokenizer"}))
    with pytest.raises(ModelError, match="tokenizer"):
        load_tokenizer(tmp_path)


def test_a_broken_tokenizer_file_and_an_unreachable_hub_id_are_refused(tmp_path, monkeypatch):
    TOKENIZER.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(ModelError, match=re.escape(str(tmp_path))):
        load_tokenizer(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(ModelError, match="no-such"):
        load_tokenizer("nobody/no-such")


def test_a_model_too_small_for_the_tokenizer_is_refused():
    largest = len(TOKENIZER) - 1
    check_vocabulary(TOKENIZER, largest + 1)
    with pytest.raises(ModelError, match=f"ids up to {largest} but the model's vocabulary has {largest} entries"):
        check_vocabulary(TOKENIZER, largest)


def test_end_tokens_join_the_tokenizers_and_the_generation_configs():
    assert end_tokens(TOKENIZER) == (1,)
    assert end_tokens(TOKENIZER, SimpleNamespace(eos_token_id=None)) == (1,)
    assert end_tokens(TOKENIZER, SimpleNamespace(eos_token_id=7)) == (1, 7)
    assert end_tokens(TOKENIZER, SimpleNamespace(eos_token_id=[9, 1])) == (1, 9)
