"""Preference rows: every form read, every fault named, tokens where they belong."""

from __future__ import annotations

import pytest
import torch

from onepolicy.data.demonstrations import read_jsonl
from onepolicy.data.preferences import grid, judged, judged_example, ranked_example, ranking, token_inputs
from onepolicy.data.tokenizer import char_tokenizer
from onepolicy.errors import DataError

USER = {"role": "user", "content": "1+1="}


def said(text):
    return {"role": "assistant", "content": text}


def test_the_forms_of_a_pair_are_one():
    """TRL's explicit and implicit prompt, texts and messages, and a ranking of two."""
    rows = [
        {"prompt": "1+1=", "chosen": "2", "rejected": "3"},
        {"prompt": [USER], "chosen": [said("2")], "rejected": [said("3")]},
        {"chosen": [USER, said("2")], "rejected": [USER, said("3")]},
        {"prompt": "1+1=", "answers": ["2", "3"], "ranks": [1, 2]},
    ]
    assert len({str(ranking(row)) for row in rows}) == 1
    assert ranking({**rows[0], "margin": 0.5}).margin == 0.5


def test_a_ranking_s_pairs_skip_ties():
    found = ranking({"prompt": "p", "completions": ["a", "b", "c", "d"], "ranks": [2, 1, 2, 4]})
    assert set(found.pairs()) == {(1, 0), (1, 2), (1, 3), (0, 3), (2, 3)}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "equal but ranked apart"),
        ({"chosen": [USER, said("2")], "rejected": [USER, said("2")]}, "chosen and rejected are equal"),
        ({"chosen": [USER, said("2")], "rejected": [said("3")]}, "no common beginning"),
        ({"chosen": "a", "rejected": "b"}, "there is no prompt"),
        ({"prompt": "p", "chosen": "", "rejected": "b"}, "answer 0 is empty"),
        ({"prompt": "p", "chosen": "a", "rejected": " \n"}, "answer 1 is empty"),
        ({"prompt": "p", "answers": ["a", "b", "c"], "ranks": [1, 2]}, "2 ranks for 3 answers"),
        ({"prompt": "p", "answers": ["a", "b"], "ranks": [1, float("nan")]}, "expected numbers"),
        ({"prompt": "p", "answers": ["a", "b"], "ranks": [1, True]}, "ranks has True"),
        ({"prompt": "p", "answers": ["a", "b"], "ranks": [1, 1]}, "all answers are ties"),
        ({"prompt": "p", "answers": ["a"], "ranks": [1]}, "at least 2"),
        ({"prompt": "p", "answers": ["a", "b"], "ranks": [1, 2], "scores": [1, 2]}, "none of these forms"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": -1}, "margin is -1"),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "a prompt is neither"),
        ({"prompt": "p", "chosen": [{"role": "assistant"}], "rejected": "b"}, "expected role and content"),
        ({"question": "p"}, "none of these forms"),
    ],
)
def test_a_bad_row_is_refused_with_its_line_and_reason(tmp_path, row, reason):
    import json

    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"prompt": "p", "chosen": "a", "rejected": "b"}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=rf"line 2: .*{reason}"):
        read_jsonl(path, ranking)
    assert len(read_jsonl(path, ranking, "drop").rows) == 1


def test_judgements():
    found = judged({"prompt": "1+1=", "completion": "2", "label": True})
    assert found.good
    assert found.answer[0]["content"] == "2"
    for row in ({"prompt": "p", "completion": "a"}, {"prompt": "p", "completion": "a", "label": 1}):
        with pytest.raises(DataError, match="label"):
            judged(row)
    with pytest.raises(DataError, match="wrote nothing"):
        judged({"prompt": "p", "completion": "", "label": False})


def test_tokens_of_the_answer_are_actions_and_those_of_earlier_turns_are_not():
    tokenizer = char_tokenizer("0123456789+=")
    talk = [USER, said("2"), {"role": "user", "content": "2+2="}]
    found = ranked_example(tokenizer, ranking({"prompt": talk, "chosen": "4", "rejected": "22"}), 64)
    ends = []
    for (tokens, acts), text in zip(found.examples, ("4", "22"), strict=True):
        written = [token for token, act in zip(tokens, acts, strict=True) if act]
        assert tokenizer.decode(written[:-1]) == text
        ends.append(written[-1])
    assert set(ends) == {tokenizer.eos_token_id}
    example, good = judged_example(tokenizer, judged({"prompt": "1+1=", "completion": "3", "label": False}), 64)
    assert not good
    assert sum(example[1]) == 2
    with pytest.raises(DataError, match="longer"):
        ranked_example(tokenizer, ranking({"prompt": "1+1=", "chosen": "2" * 70, "rejected": "3"}), 64)


def test_rankings_of_unequal_size_side_by_side():
    tokenizer = char_tokenizer("0123456789+=")
    rows = [
        {"prompt": "1+1=", "chosen": "2", "rejected": "33"},
        {"prompt": "1+2=", "answers": ["3", "4", "5"], "ranks": [1, 3, 3]},
    ]
    examples, place, rank, present = grid([ranked_example(tokenizer, ranking(row), 64) for row in rows])
    assert place.tolist() == [[0, 1, 0], [2, 3, 4]]
    assert rank.tolist() == [[1, 2, 0], [1, 3, 3]]
    assert present.tolist() == [[True, True, False], [True, True, True]]
    inputs = token_inputs(examples, pad_id=tokenizer.pad_token_id)
    assert inputs.attention.sum(-1).tolist() == [len(tokens) for tokens, _ in examples]
    for row, (tokens, acts) in enumerate(examples):
        assert inputs.tokens[row][inputs.attention[row]].tolist() == tokens
        assert inputs.is_action[row][: len(acts)].tolist() == acts
    assert inputs.tokens.dtype == torch.int64
