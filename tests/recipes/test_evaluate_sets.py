"""How benchmarks are asked: files, templates, examples, what ends an answer; and likelihoods through a recipe."""

from __future__ import annotations

import json

import pytest

from onepolicy.data.tokenizer import encode
from onepolicy.errors import ConfigError, DataError
from onepolicy.recipes import evaluate
from onepolicy.recipes.evaluate_sets import MATHS, QUESTION, ask, cut, examples_of, find_file, first_tokens, plain_text
from onepolicy.recipes.language import language_of
from onepolicy.tasks.base import load_task_set
from onepolicy.tasks.math_sets import MATH_FORMATS

ROWS = [
    {"question": f"{i}+{i}=?", "answer": f"{i}+{i} is <<{i}+{i}={2 * i}>>{2 * i}\n#### {2 * i}"} for i in range(1, 6)
]


@pytest.fixture
def files(tmp_path):
    (tmp_path / "gsm8k").mkdir()
    for name, rows in (("test", ROWS[:2]), ("train", ROWS[1:])):
        (tmp_path / f"gsm8k/{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


@pytest.fixture
def language(model_directory):
    return language_of(model_directory("llama"))


def asked(files, language, prompt, shots, **options):
    tasks = load_task_set("gsm8k", "test", path=str(files / "gsm8k/test.jsonl"), read="hash", system="")
    train = str(files / "gsm8k/train.jsonl")
    return ask("gsm8k", tasks, language, prompt=prompt, shots=shots, train=train, policy=options.get("policy", "stop"))


def test_plain_text_with_examples_by_hand(files, language):
    """Examples are training rows in a fixed order, worked as the data has them, never a problem of the exam (2+2=?)."""
    found = asked(files, language, "plain", 3)
    text = language.tokenizer.decode(found.render(found.tasks.tasks[0]))
    parts = text.split("\n\n")
    assert parts[-1] == "Question: 1+1=?\nAnswer:"
    assert sorted(parts[:-1]) == sorted(
        f"Question: {i}+{i}=?\nAnswer: {i}+{i} is {2 * i}\n#### {2 * i}" for i in (3, 4, 5)
    )
    assert found.stop == QUESTION.stop
    assert (found.prompt, found.shots) == ("plain", 3)
    again = asked(files, language, "plain", 2)
    assert language.tokenizer.decode(again.render(again.tasks.tasks[0])) == "\n\n".join(parts[:2] + parts[-1:])


def test_a_chat_has_its_examples_as_turns(files, language):
    """User and assistant in turn, the question last; no stop strings."""
    found = asked(files, language, "auto", 1)
    text = language.tokenizer.decode(found.render(found.tasks.tasks[0]))
    assert text.count("<|user|>") == 2
    assert text.endswith("<|user|>1+1=?<|assistant|>")
    assert (found.prompt, found.stop) == ("chat", ())
    assert asked(files, language, "auto", 0).render(found.tasks.tasks[0]) == language.render(found.tasks.tasks[0])


def test_an_answer_ends_where_the_model_goes_on_asking(files, language):
    found = asked(files, language, "plain", 0)
    tokens = encode(language.tokenizer, " so 2\n#### 2\nQuestion: 9+9=?")
    assert found.decode(tokens) == " so 2\n#### 2"
    assert cut("a\nProblem: b", ()) == "a\nProblem: b"


def test_a_plain_prompt_starts_as_the_tokenizer_starts(language):
    class Bos:
        def __call__(self, text, add_special_tokens):
            return {"input_ids": [1, 7] if add_special_tokens else [7]}

    assert first_tokens(Bos()) == [1]
    assert first_tokens(language.tokenizer) == []


def test_prompts_that_do_not_fit(files, language):
    long = [{"question": "x" * 400, "answer": "#### 1"}, ROWS[0]]
    (files / "gsm8k/test.jsonl").write_text("\n".join(map(json.dumps, long)))
    with pytest.raises(
        DataError, match=r"1 of 2 prompts .* 'gsm8k/test/1', has \d+ tokens and the model's context is 320"
    ):
        asked(files, language, "plain", 0)
    found = asked(files, language, "plain", 0, policy="drop")
    assert [task.id for task in found.tasks] == ["gsm8k/test/2"]
    assert found.tasks.dropped == ("gsm8k/test/1: prompt too long",)


def test_examples_that_are_not_there(files):
    tasks = load_task_set("gsm8k", "test", path=str(files / "gsm8k/test.jsonl"))
    with pytest.raises(ConfigError, match="no training rows to take examples from"):
        examples_of("gsm8k", tasks, 2, "")
    with pytest.raises(ConfigError, match="shots is 9; gsm8k has 3 examples"):
        examples_of("gsm8k", tasks, 9, str(files / "gsm8k/train.jsonl"))


def test_the_mathematics_examples_are_boxed(tmp_path):
    """Each ends in one box, which is what the sets read."""
    file = tmp_path / "test.jsonl"
    file.write_text(json.dumps({"problem": "1+1", "answer": "2", "solution": "\\boxed{2}", "id": 1}))
    tasks = load_task_set("math500", "test", path=str(file))
    assert examples_of("math500", tasks, 4, "") == MATHS
    boxed = [MATH_FORMATS["boxed"].extract(worked) for _, worked in MATHS]
    assert boxed == ["[2,5)", "24", "16", r"-\frac{2}{3}"]
    assert plain_text(QUESTION, (), "x") == "Question: x\nAnswer:"


def test_files_are_found_by_folder(files):
    assert find_file(str(files), "gsm8k", "train").endswith("gsm8k/train.jsonl")
    assert find_file(str(files), "math500", "test") == ""
    (files / "ARC-Challenge").mkdir()
    (files / "ARC-Challenge/ARC-Challenge-Test.jsonl").write_text("{}")
    assert find_file(str(files), "arc-challenge", "test").endswith("ARC-Challenge-Test.jsonl")


def test_gsm8k_is_read_by_hash_where_the_prompt_is_plain(files, model_directory):
    """Its examples end in ####; a chat is told the tags."""
    place = str(model_directory("llama"))
    config = evaluate.Config(model=place, tasks="gsm8k", data_dir=str(files), prompt="plain", max_tokens=2)
    assert evaluate._asked(config, "gsm8k", language_of(place)).tasks.form.name == "hash"
    chat = evaluate.Config(model=place, tasks="gsm8k", data_dir=str(files), max_tokens=2)
    assert evaluate._asked(chat, "gsm8k", language_of(place)).tasks.form.name == "tag"


def test_each_set_is_read_in_its_own_way(files, model_directory):
    """One word for all, name=word for one; a set that cannot read several ways refuses, an unknown one too."""
    place = str(model_directory("llama"))

    def form(read):
        config = evaluate.Config(model=place, tasks="gsm8k, arithmetic", read=read, data_dir=str(files), max_tokens=2)
        return evaluate._asked(config, "gsm8k", language_of(place)).tasks.form.name

    assert [form(read) for read in ("", "last", "gsm8k=hash", "tag,gsm8k=last")] == ["tag", "last", "hash", "last"]
    with pytest.raises(ConfigError, match=r"read names 'gsm8'.*Did you mean 'gsm8k'"):
        form("gsm8=last")


def test_a_report_on_instructions_has_the_four_accuracies(tmp_path, model_directory):
    """The replies of a random model are short and without commas: one prompt of two is followed, two of three rules."""
    rows = [
        {"key": 1, "prompt": "Hi.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
        {
            "key": 2,
            "prompt": "Ho.",
            "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
            "kwargs": [{}, {"num_words": 50, "relation": "at least"}],
        },
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = evaluate.Config(
        model=str(model_directory("llama")),
        tasks="ifeval",
        eval_data=str(tmp_path / "rows.jsonl"),
        max_tokens=4,
        out=str(tmp_path / "out"),
    )
    metrics = evaluate.main(config).metrics
    kept = [json.loads(line) for line in (tmp_path / "out/samples.jsonl").read_text().splitlines() if '"parts"' in line]
    followed = [one["parts"]["followed_strict"] for one in kept]
    assert metrics["ifeval/instruction_strict"] == pytest.approx(sum(followed) / 3)
    assert metrics["ifeval/prompt_strict"] == metrics["ifeval/accuracy"] == (followed[0] == 1) / 2
    page = (tmp_path / "out/report.md").read_text()
    head, row = (page.splitlines()[i] for i in (4, 6))
    assert "| prompt loose | instruction strict | instruction loose |" in head
    assert head.count("|") == row.count("|")
    assert "prompt level, strict" in page
    saved = json.loads((tmp_path / "out/report.json").read_text())
    assert set(saved["intervals"]["ifeval"]) >= {"prompt_strict", "prompt_loose", "instruction_strict"}
