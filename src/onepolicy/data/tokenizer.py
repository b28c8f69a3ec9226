"""Tokenizers: characters or byte-level BPE made on the spot, any Hugging Face one, and encoding that never loses text.

In: `char_tokenizer`, `bpe_tokenizer`, `load_tokenizer`, `encode`, `end_tokens`. Not here: chat
templates (`chat_template.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from onepolicy.errors import ConfigError, DataError, ModelError

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
FIM = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
"""Sentinels of fill-in-the-middle."""

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt"),
    *("spiece.model", "sentencepiece.bpe.model", "tiktoken.model", "tekken.json"),
)
"""A directory with none of these has no tokenizer; transformers would silently make one without a vocabulary."""

CHAR_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] + eos_token -}}{%- endgeneration -%}"
    "{%- else -%}{{- message['content'] -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
"""Role token, content, and `<eos>` after what the assistant wrote; `{% generation %}` marks the assistant's part."""


def char_tokenizer(characters: Iterable[str], special: Sequence[str] = TAGS) -> PreTrainedTokenizerFast:
    """A Hugging Face tokenizer whose tokens are single characters, plus `special` strings as one token each.

    Ids: `<pad>` 0, `<eos>` 1, `<unk>` 2, the role tokens, `special` in order, then the characters sorted. Control
    tokens (`<pad>`, `<eos>`, `<unk>`, roles) disappear in `decode(..., skip_special_tokens=True)`; `special` stays, for
    verifiers read it. It carries a chat template and saves, loads and pads like any other.

    Raises: DataError for an entry of `characters` longer than one character, and for none at all.

    >>> tokenizer = char_tokenizer("0123456789+= ")
    >>> ids = encode(tokenizer, "<think>1+1=2</think>")
    >>> len(ids), tokenizer.decode(ids)
    (7, '<think>1+1=2</think>')
    """
    characters = sorted(set(characters))
    long = [c for c in characters if len(c) != 1]
    if long or not characters:
        raise DataError(
            f"characters holds {long[0]!r}; every entry must be one character. Put longer strings into special=(...)."
            if long
            else "characters is empty; a character tokenizer needs at least one. Pass the characters of your data."
        )
    control = (PAD, EOS, UNK, *ROLES)
    vocabulary = list(dict.fromkeys((*control, *special, *characters)))
    core = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token=UNK))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    core.decoder = decoders.Fuse()
    return _fast(core, control, special)


def bpe_tokenizer(texts: Iterable[str], vocab_size: int, special: Sequence[str] = TAGS) -> PreTrainedTokenizerFast:
    """A Hugging Face tokenizer of byte-level byte-pair encoding, trained on the texts: no text is unknown to it.

    Ids: `<pad>` 0, `<eos>` 1, the role tokens, `special`, the 256 bytes, then merges by rank. Spaces go with the word
    behind, digits and punctuation are apart (GPT-2's pattern). vocab_size: all of it, special tokens included.

    Raises: ConfigError when vocab_size leaves no room for a merge.
    """
    control = (PAD, EOS, *ROLES)
    least = 256 + len(control) + len(special)
    if vocab_size <= least:
        raise ConfigError(f"vocab_size is {vocab_size}; bytes and special tokens take {least}. Set it above that.")
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*control, *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return _fast(core, control, special)


def made_tokenizer(file: str | Path, special: Sequence[str] = TAGS) -> PreTrainedTokenizerFast:
    """A tokenizer that was made on the spot, again from its `tokenizer.json`: the same to the byte when saved."""
    core = Tokenizer.from_file(str(file))
    unknown = () if core.token_to_id(UNK) is None else (UNK,)
    return _fast(core, (PAD, EOS, *unknown, *ROLES), special)


def _fast(core: Tokenizer, control: Sequence[str], special: Sequence[str]) -> PreTrainedTokenizerFast:
    """The core with its special tokens and the chat template of tiny models."""
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    core.add_tokens([AddedToken(token, special=False, normalized=False) for token in special])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK if UNK in control else None,
        extra_special_tokens=list(ROLES),
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAR_TEMPLATE
    return tokenizer


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The token ids of `text`, nothing added in front or behind.

    Raises: DataError naming the characters the tokenizer does not know, instead of an unknown-token in their place.
    """
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    unknown = tokenizer.unk_token_id
    if unknown is not None and unknown in ids and str(tokenizer.unk_token) not in text:
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        lost = sorted({text[a:b] for i, (a, b) in zip(ids, offsets) if i == unknown})
        raise DataError(
            f"the tokenizer does not know {', '.join(map(repr, lost))} in {text[:60]!r}; "
            "every character must be in its vocabulary. Add them to char_tokenizer(characters=...) or clean the data."
        )
    return ids


def load_tokenizer(path_or_id: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a local directory or on the Hugging Face hub, ready for training.

    A tokenizer without a pad token pads with its end token: padding is masked everywhere, so its id has no effect.
    Raises: ModelError when there is no tokenizer, or it has no end token (generation would never stop).
    """
    local = Path(path_or_id).is_dir()
    name = f"the {'directory' if local else 'hub id or directory'} {str(path_or_id)!r}"
    fix = "Expected tokenizer.json or its like; write it there with tokenizer.save_pretrained(directory)."
    if local and not any((Path(path_or_id) / file).is_file() for file in TOKENIZER_FILES):
        raise ModelError(f"there is no tokenizer in {name}. {fix}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path_or_id), trust_remote_code=False, local_files_only=local)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"no tokenizer could be loaded from {name}: {first_line(error)} {fix}") from error
    if len(tokenizer.get_vocab()) <= len(tokenizer.all_special_ids):
        raise ModelError(f"the tokenizer in {name} has no vocabulary beside its special tokens. {fix}")
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer in {name} has no end token (eos_token is None), so a completion could never stop. Set "
            "tokenizer.eos_token to the token that ends a turn and save it again."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> None:
    """Nothing, when every id of the tokenizer has a row in the model's embedding of `vocab_size` rows.

    Raises: ModelError when the tokenizer can produce ids the model has no embedding for.
    """
    largest = max(tokenizer.get_vocab().values())
    if largest >= vocab_size:
        raise ModelError(
            f"the tokenizer produces ids up to {largest} but the model's vocabulary has {vocab_size} entries; "
            "use the tokenizer the model was trained with, or call model.resize_token_embeddings"
            f"({largest + 1}) and train the new rows."
        )


def end_tokens(tokenizer: PreTrainedTokenizerBase, generation_config: Any = None) -> tuple[int, ...]:
    """The ids that end a completion: the tokenizer's end token and those a generation config lists, sorted."""
    ids = {int(tokenizer.eos_token_id)} if tokenizer.eos_token_id is not None else set()
    more = None if generation_config is None else generation_config.eos_token_id
    if more is not None:
        ids |= {int(i) for i in (more if isinstance(more, list | tuple) else [more])}
    return tuple(sorted(ids))


def first_line(error: BaseException) -> str:
    """The first line of an error's text, ended by a full stop."""
    text = (str(error) or type(error).__name__).strip().splitlines()[0].rstrip()
    return text if text.endswith(".") else text + "."
