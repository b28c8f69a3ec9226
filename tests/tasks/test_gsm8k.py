"""GSM8K: amounts are read as people write them, every gold answer verifies, broken rows are named."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.errors import ConfigError, DataError
from onepolicy.tasks.base import check_gold
from onepolicy.tasks.gsm8k import load, read_amount

ROWS = [
    {"question": "Clips?", "answer": "She sold 48/2 = <<48/2=24>>24.\nAll: 48+24 = <<48+24=72>>72 clips.\n#### 72"},
    {"question": "Pay?", "answer": "12/60 = $<<12/60=0.2>>0.2.\n#### 1,080"},
    {"question": "Loss?", "answer": "It fell.\n#### -3"},
]


@pytest.fixture
def path(tmp_path):
    return write(tmp_path, *ROWS)


def write(folder, *rows):
    file = folder / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(file)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("72", 72),
        (" 72. ", 72),
        ("$1,080", 1080),
        ("\\$1,080.00", 1080),
        ("$ 18", 18),
        ("-$5", -5),
        ("$-5", -5),
        ("1,234,567", 1234567),
        ("50%", 50),
        ("50\\%", 50),
        ("36/2", 18),
        ("18.50", 18.5),
        (".5", 0.5),
        ("€3", 3),
    ],
)
def test_amounts_as_people_write_them(text, value):
    assert read_amount(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "72 clips",
        "about 72",
        "7,2",
        "1,08",
        "12,34,567",
        "1 080",
        "72 or 73",
        "7 2",
        "--5",
        "$-+5",
        "-$-5",
        "1e3",
        "$",
        "%",
        ".",
        "9" * 3000,
    ],
)
def test_what_is_no_single_number_is_none(text):
    assert read_amount(text) is None


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40) | st.text("0123456789,.$%-+/ \\", max_size=20))
def test_any_text_is_a_number_or_none(text):
    read_amount(text)


@settings(max_examples=100, deadline=None)
@given(st.integers(-(10**9), 10**9))
def test_every_way_to_write_an_integer_is_the_same_number(n):
    for text in (str(n), f"{n:,}", f"{n}.0", f"{n:,}.00", f"{n}%", f"${n}", f"{2 * n}/2"):
        assert read_amount(text) == n, text


def test_a_file_becomes_tasks_whose_gold_verifies(path):
    tasks = load("test", path=path)
    assert check_gold(tasks).verified == 3
    assert [t.meta["level"] for t in tasks] == [2, 1, 0]
    assert [t.answer for t in tasks] == ["72", "1,080", "-3"]
    assert [m.role for m in tasks.tasks[0].messages] == ["system", "user"]
    assert tasks.counts == {"rows": 3, "dropped": 0, "tasks": 3}
    bare = load("test", path=path, system="", n=1)
    assert [m.content for m in bare.tasks[0].messages] == ["Clips?"]


@pytest.mark.parametrize(
    ("read", "text", "right"),
    [
        ("tag", "<think>48+24</think><answer>$1,080</answer>", True),
        ("tag", "<answer>1080.00</answer>", True),
        ("tag", "<answer>1080 or 1081</answer>", False),
        ("tag", "<answer>1080</answer><answer>1081</answer>", False),
        ("tag", "<think><answer>1080</answer></think>", False),
        ("tag", "The answer is 1080", False),
        ("tag", "#### 1080", False),
        ("hash", "So\n#### 1,080", True),
        ("hash", "#### 1080 #### 1080", False),
        ("hash", "The answer is 1080", False),
        ("last", "The answer is $1,080.", True),
        ("last", "1080, no: 1081", False),
        ("last", "one thousand", False),
        ("tag", "<answer>__import__('os')</answer>", False),
    ],
)
def test_where_the_answer_is_read(path, read, text, right):
    task = load("test", path=path, read=read).tasks[1]
    assert task.verifier(task, text).parts["correct"] == right


@pytest.mark.parametrize("read", ["tag", "hash", "last"])
def test_demonstrations_are_the_data_set_s_solutions_without_calculator_marks(path, read):
    tasks = load("train", path=path, read=read)
    texts = [talk[-1].content for talk in tasks.demonstrations(3, seed=0)]
    assert all("<<" not in text for text in texts)
    assert any("She sold 48/2 = 24." in text for text in texts)
    assert any("1080" in text for text in texts)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "?", "answer": "no mark"}, "0 '####'"),
        ({"question": "?", "answer": "#### 1 #### 2"}, "2 '####'"),
        ({"question": "?", "answer": "#### many"}, "'many' is not a number"),
        ({"question": "", "answer": "#### 1"}, "field 'question'"),
        ({"question": "?"}, "no field 'answer'"),
    ],
)
def test_a_broken_row_stops_or_is_dropped_and_listed(tmp_path, row, reason):
    path = write(tmp_path, ROWS[0], row, ROWS[1])
    with pytest.raises(DataError, match="row 2") as caught:
        load("train", path=path)
    assert reason in str(caught.value)
    tasks = load("train", path=path, on_error="drop")
    assert tasks.counts == {"rows": 3, "dropped": 1, "tasks": 2}
    assert len(tasks.dropped) == 1
    assert reason in tasks.dropped[0]


def test_unknown_ways_to_read_offer_the_nearest(path):
    with pytest.raises(ConfigError, match="'last'"):
        load("test", path=path, read="lats")


def test_all_8792_gold_answers_verify(gsm8k_files):
    counts = [check_gold(load(split, path=str(gsm8k_files / f"{split}.jsonl"))) for split in ("train", "test")]
    assert [(one.checked, one.verified) for one in counts] == [(7473, 7473), (1319, 1319)]


def test_a_gold_answer_off_by_one_fails_for_every_test_problem(gsm8k_files):
    tasks = load("test", path=str(gsm8k_files / "test.jsonl"))
    wrong = [
        t.verifier(t, f"<think></think><answer>{read_amount(t.answer) + 1}</answer>").parts["correct"] for t in tasks
    ]
    assert sum(wrong) == 0


def test_real_model_solutions_are_judged_as_their_publishers_did(gsm8k_files):
    """GSM8K publishes 4 x 1,319 model solutions with `is_correct`; what follows `A:` goes through our verifier."""
    file = gsm8k_files / "example_model_solutions.jsonl"
    gold = load("test", path=str(gsm8k_files / "test.jsonl"))
    by_question = {t.messages[-1].content.strip(): t for t in gold}
    agree = 0
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        task = by_question[row["question"].strip()]
        for model in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
            answer = row[model]["solution"].rpartition("A:")[2].strip()
            judged = task.verifier(task, f"<answer>{answer}</answer>").parts["correct"] == 1
            agree += judged == row[model]["is_correct"]
    assert agree == 4 * 1319
