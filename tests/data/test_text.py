"""Documents as chunks: nothing is lost, nothing is predicted twice; sources by weight; the middle moved to the end."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepolicy.data.corpus import TextStream
from onepolicy.data.fim import FIM, Infilling, infilled, sentinels
from onepolicy.data.mixture import Source
from onepolicy.data.text import Chunk, chunks, documents, utf8_bytes, weighted_files
from onepolicy.data.tokenizer import TAGS, bpe_tokenizer, char_tokenizer, encode, load_tokenizer
from onepolicy.errors import ConfigError, DataError

CHARS = char_tokenizer("abcdefgh 日本é", (*TAGS, *FIM))
BPE = bpe_tokenizer(["abc abd abe 日本 café 12 12"] * 20, 275, (*TAGS, *FIM))


@given(st.lists(st.text("abcdefgh 日本é", min_size=1), min_size=1), st.integers(8, 20), st.sampled_from([CHARS, BPE]))
def test_every_token_is_predicted_once(texts, size, tokenizer):
    """One behind the other, the chunks' tokens but the first are the documents', an end token behind each."""
    found = chunks(tokenizer, texts, size)
    predicted = [token for chunk in found for token in chunk.tokens[1:]]
    end = tokenizer.eos_token_id
    assert predicted == [token for text in texts for token in [*encode(tokenizer, text), end]]
    assert "".join(chunk.text for chunk in found) == "".join(texts)
    assert max(len(chunk.tokens) for chunk in found) <= size
    before = end
    for chunk in found:
        assert chunk.tokens[0] == before
        before = chunk.tokens[-1]


def test_files_and_fields(tmp_path):
    page, rows = tmp_path / "a.txt", tmp_path / "b.jsonl"
    page.write_text("one\ntwo\n\n\nthree\n")
    rows.write_text(json.dumps({"q": "1+1?", "a": "2"}) + "\n")
    assert documents(page) == ["one\ntwo", "three"]
    assert documents(page, parts="whole") == ["one\ntwo\n\n\nthree"]
    assert documents(rows, field="q+a") == ["1+1?\n2"]
    with pytest.raises(DataError, match=r"line 1: field 'text' is missing; the row has a, q"):
        documents(rows)
    assert utf8_bytes(["é日", "a"]) == 2 + 3 + 1
    for text, message in (
        ("a.txt:x", "the weight 'x' is not a number"),
        ("a.txt:0", "weights are above 0"),
        ("a.txt:1,b.txt", "weights to some files only"),
        ("a.txt,a.txt", "each once"),
        ("", "at least one"),
    ):
        with pytest.raises(ConfigError, match=message):
            weighted_files(text)


def test_a_trained_tokenizer_loses_nothing(tmp_path):
    """Byte-level: text it never saw comes back; ids stay when saved; control tokens vanish in decoding, tags do not."""
    text = "naïve → 日本 <think>abd 512</think>"
    ids = encode(BPE, text)
    assert BPE.decode(ids) == text
    assert len(BPE) == 275
    assert BPE.decode([*ids, BPE.eos_token_id], skip_special_tokens=True) == text
    assert len(encode(BPE, "12")) == 2  # digits stay apart
    assert encode(BPE, "abc ")[0] >= 256  # a merge was learnt
    BPE.save_pretrained(tmp_path)
    assert encode(load_tokenizer(tmp_path), text) == ids
    with pytest.raises(ConfigError, match="bytes and special tokens take 269"):
        bpe_tokenizer(["a"], 269, (*TAGS, *FIM))


@pytest.mark.parametrize("tokenizer", [CHARS, BPE], ids=["characters", "bpe"])
def test_the_middle_moves_to_the_end(tokenizer):
    """By hand: "abc de" cut into "ab", "c ", "de"."""
    known = sentinels(tokenizer)
    end = tokenizer.eos_token_id
    ab, c, de = (encode(tokenizer, part) for part in ("ab", "c ", "de"))
    pre, suf, mid = known.prefix, known.suffix, known.middle
    psm = [end, pre, *ab, suf, *de, mid, *c, end]
    assert infilled(tokenizer, "abc de", (2, 4), "psm", known) == (psm, len(c))
    spm = [end, pre, suf, *de, mid, *ab, *c, end]
    assert infilled(tokenizer, "abc de", (2, 4), "spm", known) == (spm, len(c))
    with pytest.raises(ConfigError, match="none of the sentinels"):
        sentinels(char_tokenizer("ab"))


def test_the_share_that_is_infilled():
    """Of 4000 chunks 10 % within three standard errors (1.4 %), each a whole text again when put back together."""
    moves = Infilling(CHARS, sentinels(CHARS), 0.1, 0.5, context=40)
    rng = np.random.default_rng(0)
    chunk = chunks(CHARS, ["abc def gh"], 40)[0]
    forms = {"psm": 0, "spm": 0, "plain": 0}
    pre, suf, mid = (CHARS.decode([i]) for i in (moves.known.prefix, moves.known.suffix, moves.known.middle))
    for _ in range(4000):
        tokens, is_action = moves(chunk, rng)
        assert is_action == [False] + [True] * (len(tokens) - 1)
        said = CHARS.decode(tokens[1:-1])
        if pre not in said:
            forms["plain"] += 1
            assert tokens == chunk.tokens
        elif said.startswith(pre + suf):
            forms["spm"] += 1
            suffix, rest = said.removeprefix(pre + suf).split(mid)
            assert rest + suffix == "abc def gh"
        else:
            forms["psm"] += 1
            prefix, rest = said.removeprefix(pre).split(suf)
            suffix, middle = rest.split(mid)
            assert prefix + middle + suffix == "abc def gh"
    assert 400 - 57 < forms["psm"] + forms["spm"] < 400 + 57
    assert 0.35 < forms["psm"] / (forms["psm"] + forms["spm"]) < 0.65
    short = Infilling(CHARS, moves.known, 1.0, 0.5, context=14)  # 10 characters and 5 more do not fit
    assert short(chunk, rng) == chunk.example
    assert short.middles([chunk], rng) == []
    tokens, is_action = moves.middles([chunk], rng)[0]
    place = tokens.index(moves.known.middle)
    assert is_action == [False] * (place + 1) + [True] * (len(tokens) - place - 1)


def chunk_of(token, size):
    return Chunk([1] + [token] * (size - 1), "")


def test_sources_by_weight_and_the_same_after_a_stop():
    """Chunks of 4 and 8 tokens, weights 3 to 1: of 960 tokens 720 and 240. A stream at a saved place goes on alike."""

    def stream():
        sources = [Source("a", [chunk_of(2, 4)] * 5, 3.0), Source("b", [chunk_of(3, 8)] * 7, 1.0)]
        return TextStream(
            sources, 96, seed=1, change=lambda chunk, rng: ([*chunk.tokens[:-1], int(rng.integers(99))], [])
        )

    whole = stream()
    assert whole.tokens == 5 * 4 + 7 * 8
    batches = [whole.next() for _ in range(10)]
    taken = {token: sum(len(t) for batch in batches for t, _ in batch if t[1] == token) for token in (2, 3)}
    assert taken == {2: 720, 3: 240}
    assert all(sum(len(tokens) for tokens, _ in batch) == 96 for batch in batches)
    first = stream()
    assert [first.next() for _ in range(4)] == batches[:4]
    again = stream()
    again.load_state_dict(first.state_dict())
    assert [again.next() for _ in range(6)] == batches[4:]
    other = TextStream([Source("c", [chunk_of(2, 4)], 1.0)], 8, seed=1)
    with pytest.raises(DataError, match=r"the sources are \['c'\]"):
        other.load_state_dict(first.state_dict())
    with pytest.raises(ConfigError, match="batch_tokens is 0"):
        TextStream([], 0, seed=1)
