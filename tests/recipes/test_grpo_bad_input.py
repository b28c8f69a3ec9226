"""What can be wrong with what a user gives: one sentence with the fix, the right exit code, and no directory left."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest

from onepolicy.cli import main
from onepolicy.data.tokenizer import char_tokenizer
from onepolicy.errors import RewardError
from onepolicy.nn.language import save_model
from onepolicy.recipes import grpo, sft
from onepolicy.recipes.language import PRINTABLE
from onepolicy.run.journal import read_lines
from onepolicy.run.process import read_status

SMALL = "--level 2 --steps 1 --prompts 2 --group-size 2 --max-tokens 8 --problems.train-size 20 --exam.size 2"
SMALL += " --warm.steps 0 --machine.threads 1"
GSM8K = {"question": "Ann has 2 apples and buys 3. How many?", "answer": "She has 2+3=<<2+3=5>>5.\n#### 5"}


@pytest.fixture
def refused(tmp_path, capsys):
    """refused(arguments of train, code): the sentence printed; there must be no run directory."""

    def run(arguments, code):
        out = tmp_path / "refused"
        with pytest.raises(SystemExit) as stop:
            main(["train", *arguments.split(), "--out", str(out)])
        said = capsys.readouterr().err
        assert stop.value.code == code, said
        assert "Traceback" not in said
        assert not out.exists()
        return said

    return run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("gpro", "'gpro' is not an algorithm. Did you mean 'grpo'?"),
        ("grpo --stepz 3", "--stepz is not an option of grpo.Config. Did you mean '--steps'?"),
        ("grpo --size 3", "Did you mean '--exam.size'?"),
        ("grpo --preset arithmetik", "'arithmetik' is not a preset of grpo.Config. Did you mean 'arithmetic'?"),
        ("grpo --model tiny-02m", "'tiny-02m' is no preset, directory or hub id. Did you mean 'tiny-0.2m'?"),
        ("grpo --tasks arithmetics", "Unknown task set 'arithmetics'. Did you mean 'arithmetic'?"),
        ("grpo --convention drgrpo", "unknown convention 'drgrpo'. Did you mean 'dr-grpo'?"),
        ("grpo --convention instructgpt", "'instructgpt' takes its advantage from a critic, which GRPO has not"),
        ("grpo --group-size 1", "group_size is 1; GRPO's baseline needs at least 2 completions per prompt."),
        ("grpo --steps 0", "steps is 0; it counts something and is at least 1."),
        ("grpo --steps many", "--steps: invalid literal for int() with base 10: 'many'. See onepolicy train grpo"),
        ("grpo --save-every -1", "save_every is -1; it counts something or is 0 for none."),
        ("grpo --temperature 0", "temperature is 0.0; exploration needs it above 0."),
        ("grpo --lr 0", "lr is 0.0; a learning rate is positive."),
        ("grpo --update.epochs 0", "epochs is 0"),
        ("grpo --update.kl-coef -1", "max_grad_norm and kl_coef are at least 0"),
        ("grpo --warm.steps -1", "steps is -1"),
        ("grpo --exam.size 0", "size is 0"),
        ("grpo --level 9", "Unknown arithmetic level [9]; levels are 1 to 8."),
        ("grpo --problems.style stepz", "Unknown style 'stepz' of arithmetic. Did you mean 'steps'?"),
        ("grpo --tasks gsm8k --problems.style steps", "style is 'steps'; gsm8k has no styles, its demonstrations are"),
        ("grpo --preset arithmetic --tasks gsm8k", "Leave --problems.style out, or where a preset sets it: --problems"),
        ("grpo --tiny.context 1", "context is 1; a prompt and a completion need at least 2 tokens"),
        ("grpo --reward nowhere:f", "reward 'nowhere:f' cannot be imported"),
        ("grpo --reward math", "reward 'math' cannot be imported"),
        ("sft --lr -1", "lr is -1.0; a learning rate is positive."),
        ("sft --batch-size 0", "batch_size is 0"),
        ("grpo --level 2 --problems.train-size 5000", "gave only 3466 different problems for the train split; 5000"),
        ("sft --demonstrations 99 --problems.train-size 9", "99 demonstrations asked of arithmetic/train; it can give"),
        ("sft --level 1 --demonstrations 200", "200 demonstrations asked of arithmetic/train; it can give 1 to 180."),
    ],
)
def test_settings_that_cannot_work(arguments, words, refused):
    assert words in " ".join(refused(arguments, 2).split())


BROKEN = {
    "missing": (None, "is not a file; give a JSONL file"),
    "empty": (b"", "has no usable row"),
    "not json": (b'{"question": "1', "row 2: not JSON"),
    "not utf-8": ('{"question": "café"}'.encode("latin1"), "row 2: not UTF-8 (byte 0xe9"),
    "no field": (b'{"qestion": "1"}', "row 2: no field 'question'. Did you mean 'qestion'?"),
    "no answer": (b'{"question": "1", "answer": "two"}', "row 2: the answer has 0 '####'"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_task_file_that_cannot_be_used(fault, refused, tmp_path):
    row, words = BROKEN[fault]
    data = tmp_path / "data.jsonl"
    if row is not None:
        data.write_bytes(b"\n".join([json.dumps(GSM8K).encode(), row]) if row else b"")
    said = refused(f"grpo --tasks gsm8k --data {data} --eval-data {data} --warm.steps 0", 1)
    assert str(data) in said
    assert words in said


OWN = {
    "missing": (None, "does not exist; expected a JSON-lines file"),
    "empty": (b"\n", "is empty; expected one JSON object per line"),
    "not json": (b"{", "line 2: not valid JSON"),
    "not utf-8": ('{"prompt": "é"}'.encode("latin1"), "line 2: byte 0xe9 is not UTF-8 text; convert the file"),
    "no completion": (b'{"prompt": "1"}', "line 2: fields ['prompt'] are neither 'messages' nor 'prompt' and"),
    "too long": (json.dumps({"prompt": "1" * 200, "completion": "2"}).encode(), "longer (204 tokens) than the context"),
}


@pytest.mark.parametrize("fault", OWN)
def test_a_file_of_conversations_that_cannot_be_learnt(fault, refused, tmp_path):
    row, words = OWN[fault]
    data = tmp_path / "data.jsonl"
    if row is not None:
        data.write_bytes(b"\n".join([b'{"prompt": "1+1=", "completion": "2"}', row]) if row.strip() else row)
    said = refused(f"sft --data {data} --level 2", 1)
    assert str(data) in said
    assert words in said


def test_broken_rows_are_dropped_and_counted_when_asked(tmp_path, tiny_sft):
    """Of five rows two are broken and one is too long; what was dropped stands in the run's log."""
    rows = [json.dumps({"prompt": f"{n}+1=", "completion": f"naïve {n}"}) for n in range(2)]
    rows += ["{", '{"prompt": 3}', json.dumps({"prompt": "9" * 99, "completion": "!"})]
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(rows), encoding="utf-8")
    config = tiny_sft(data=str(data), steps=1)
    report = sft.main(sft.Config(**{**vars(config), "problems": grpo.ProblemOptions(train_size=40, bad_rows="drop")}))
    assert f"{data}: 3 rows dropped, 2 kept" in (report.run_dir / "log.txt").read_text()
    assert "ï" in report.policy.tokenizer.get_vocab()


@pytest.mark.parametrize("policy", ["stop", "drop"])
def test_a_prompt_longer_than_the_context_is_found_at_the_start(policy, tmp_path, tiny_grpo, refused):
    long = {"question": "How many? " * 40, "answer": "#### 7"}
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in (GSM8K, long, {**GSM8K, "question": "2 + 3?"})))
    options = f"grpo --tasks gsm8k --data {data} --eval-data {data} --tiny.context 192 {SMALL}"
    if policy == "stop":
        said = refused(options, 1)
        assert "1 of 3 prompts of gsm8k/train leave no room for an answer: the longest, 'gsm8k/train/2', has 4" in said
        assert "--tiny.context" in said
        return
    main(["train", *options.split(), "--problems.bad-rows", "drop", "--out", str(tmp_path / "run")])
    assert "gsm8k/train: 1 rows dropped, 2 kept; the first: gsm8k/train/2" in (tmp_path / "run/log.txt").read_text()


def test_a_demonstration_longer_than_the_context(refused):
    said = refused("sft --tiny.context 15 --level 1 --steps 1", 1)
    assert "cannot be learnt from: longer (" in said


def directory_without(what, whole, place):
    """A copy of a model directory that lacks something."""
    shutil.copytree(whole, place)
    if what == "tokenizer":
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            (place / name).unlink(missing_ok=True)
    if what == "config":
        (place / "config.json").unlink()
    if what == "weights":
        (place / "model.safetensors").write_bytes((place / "model.safetensors").read_bytes()[:999])
    if what in ("end token", "chat template", "letters"):
        tokenizer = char_tokenizer("0123456789+-=") if what == "letters" else char_tokenizer(PRINTABLE)
        tokenizer.eos_token = None if what == "end token" else tokenizer.eos_token
        tokenizer.chat_template = None if what == "chat template" else tokenizer.chat_template
        for path in place.glob("*token*"):
            path.unlink()
        (place / "chat_template.jinja").unlink(missing_ok=True)
        tokenizer.save_pretrained(place)
    return place


LACKS = {
    "tokenizer": "there is no tokenizer in the directory",
    "config": "has no config.json, so it is not a Hugging Face model",
    "weights": "no causal language model could be loaded from",
    "end token": "has no end token (eos_token is None), so a completion could never stop",
    "chat template": "the tokenizer has no chat template",
}


@pytest.mark.parametrize("what", LACKS)
@pytest.mark.parametrize("algorithm", ["grpo", "sft"])
def test_a_model_directory_that_lacks_something(what, algorithm, model_directory, tmp_path, refused):
    place = directory_without(what, model_directory("llama"), tmp_path / "lacking")
    assert LACKS[what] in refused(f"{algorithm} --model {place} --level 2", 1)


def test_a_tokenizer_with_more_tokens_than_the_model(model_directory, tmp_path, refused):
    place = shutil.copytree(model_directory("llama"), tmp_path / "model")
    char_tokenizer(PRINTABLE + "äöü").save_pretrained(place)
    assert "the tokenizer produces ids up to" in refused(f"grpo --model {place} --level 2", 1)


def test_a_path_that_is_nearly_right_is_no_hub_id(model_directory, refused):
    """The directory beside it is named, and no network is asked."""
    place = model_directory("llama")
    said = refused(f"grpo --model {place.parent / 'modle'}", 1)
    assert f"{place.parent / 'modle'} does not exist. {place.parent} has model." in said


def test_a_directory_in_use(tmp_path, capsys):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.tex").touch()
    with pytest.raises(SystemExit) as stop:
        main(["train", "grpo", *SMALL.split(), "--out", str(tmp_path / "used")])
    assert stop.value.code == 2
    assert "exists and is not empty" in capsys.readouterr().err


REWARDS = {
    "short": "returned 1 rewards for 12 completions; return exactly one for each",
    "never": "not one of the 12 completions of this step could be judged",
    "broken": "raised RuntimeError: no licence on every one of 12 completions; the fault is in the function",
}


@pytest.mark.parametrize("name", REWARDS)
def test_a_reward_function_that_breaks_its_contract(name, tiny_grpo):
    config = tiny_grpo(reward=f"tiny_rewards:{name}")
    with pytest.raises(RewardError) as error:
        grpo.main(config)
    assert REWARDS[name] in str(error.value)
    assert read_status(Path(config.out)).state == "failed"


@pytest.mark.parametrize("name", ["patchy", "picky"])
def test_completions_that_cannot_be_judged_are_left_out_and_counted(name, tiny_grpo):
    """None (skipped), NaN and infinity on three of twelve; or an exception on those with a plus. The rest trains."""
    report = grpo.main(tiny_grpo(reward=f"tiny_rewards:{name}", steps=2))
    lines = [line for line in read_lines(report.run_dir / "metrics.jsonl") if line["step"]]
    log = (report.run_dir / "log.txt").read_text()
    samples = [line for line in read_lines(report.run_dir / "samples.jsonl") if "task" in line and "exam" not in line]
    for line in lines:
        invalid, skipped = line["rollout/score_invalid"], line["reward/skipped"]
        assert 0 < invalid < 1
        assert line["rollout/trained"] == pytest.approx(1 - invalid - skipped)
        assert line["reward/invalid_" + ("reward" if name == "patchy" else "crash")] == invalid
        assert name == "picky" or (invalid, skipped) == (pytest.approx(2 / 12), pytest.approx(1 / 12))
    assert any(sample["score"] is None and sample["error"] for sample in samples)
    wanted = ("returned nan", "returned inf") if name == "patchy" else ("raised ValueError: a plus",)
    assert all(f": reward function {name} {words}" in log for words in wanted)


def no_room(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_lets_training_go_on_and_says_so(tiny_grpo, monkeypatch):
    """No checkpoint and no model can be written; all steps are done and logged, and every failure is said."""
    config = tiny_grpo(steps=3)
    monkeypatch.setattr("onepolicy.recipes.language.save_model", no_room)
    report = grpo.main(config)
    log = (report.run_dir / "log.txt").read_text()
    assert [line["step"] for line in read_lines(report.run_dir / "metrics.jsonl")] == [0, 1, 2, 3]
    assert all(f"No checkpoint at step {step}: the disk of {config.out} is full" in log for step in (1, 2, 3))
    assert f"No model in {config.out}/model: the disk is full." in log
    assert "The disk was full" in report.text
    assert not list(Path(config.out).glob("model*"))


def test_a_disk_that_has_room_again_is_used(tiny_grpo, monkeypatch, digests):
    """Full at the second step's save only: the run ends as if nothing had been."""
    straight, filled = tiny_grpo("straight"), tiny_grpo("filled")
    grpo.main(straight)
    saves = []

    def at_first(*arguments):
        saves.append(arguments)
        return no_room() if len(saves) == 2 else save_model(*arguments)

    monkeypatch.setattr("onepolicy.recipes.language.save_model", at_first)
    grpo.main(filled)
    assert "No checkpoint at step 2" in (Path(filled.out) / "log.txt").read_text()
    assert digests(straight.out) == digests(filled.out)
