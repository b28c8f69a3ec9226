"""`onepolicy verify`: the verdict in words, its exit code, and what is wrong with a mistaken call."""

from __future__ import annotations

import io

import pytest

from onepolicy.cli import main
from onepolicy.errors import ConfigError
from onepolicy.recipes import verify
from onepolicy.types import Score


def run(capsys, *argv):
    with pytest.raises(SystemExit) as exit_:
        main(["verify", *argv])
    captured = capsys.readouterr()
    return exit_.value.code, captured.out, captured.err


def test_right_wrong_and_invalid_have_their_exit_codes(capsys):
    code, out, _ = run(capsys, "math", "--gold", r"\frac{1}{2}", "--answer", r"so \boxed{0.5}")
    assert code == 0
    assert out.splitlines()[0] == "right"
    assert "  answer      0.5" in out.splitlines()
    assert "decided by  grammar" in out
    code, out, _ = run(capsys, "math", "--gold", r"\frac{1}{2}", "--answer", r"so \boxed{0.6}")
    assert (code, out.splitlines()[0]) == (1, "wrong")
    code, out, _ = run(capsys, "math", r"--gold=\frac{1}{", r"--answer=\boxed{0.6}")
    assert (code, out.splitlines()[0]) == (3, "invalid")
    assert "gold answer cannot be read" in out


def test_answers_come_from_files_and_the_standard_input(capsys, tmp_path, monkeypatch):
    (tmp_path / "answer.txt").write_text(r"<think>\boxed{3}</think> \boxed{2}", encoding="utf-8")
    assert run(capsys, "math", "--gold", "2", "--answer", f"@{tmp_path / 'answer.txt'}")[0] == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("The answer is 2."))
    assert run(capsys, "math", "--gold", "2", "--answer", "-", "--read", "open")[0] == 0


def test_a_tolerance_is_given_by_name(capsys):
    call = ("math", "--gold", "4.5", "--answer", r"\boxed{4.51}")
    assert run(capsys, *call)[0] == 1
    assert run(capsys, *call, "--tolerance", "0.01")[0] == 0


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((), "needs a kind"),
        (("maths", "--gold", "1"), "Did you mean 'math'"),
        (("math", "--answer", "1"), "--gold is missing"),
        (("math", "--gold", "1", "--answer"), "--answer has no value"),
        (("math", "--gold", "1", "--anwser", "2"), "Did you mean 'answer'"),
        (("math", "1", "2"), "is no option"),
        (("math", "--gold", "1", "--answer", "1", "--read", "boxes"), "Did you mean 'boxed'"),
        (("math", "--gold", "1", "--answer", "1", "--tolerance", "much"), "--tolerance is 'much'"),
        (("math", "--gold", "1", "--answer", "@/no/such/file"), "cannot be read"),
    ],
)
def test_a_mistaken_call_says_what_is_wrong(capsys, argv, words):
    code, _, err = run(capsys, *argv)
    assert code == 2
    assert words in err


def test_a_judgement_without_a_correct_part_goes_by_its_value():
    assert verify.Judgement(Score(1.0)).exit_code == 0
    assert verify.Judgement(Score(0.5)).exit_code == 1
    assert verify.Judgement(Score(None)).text == "skipped"
    assert verify.Judgement(Score(None, error="judge: late")).exit_code == 3
    with pytest.raises(ConfigError, match="missing"):
        verify.required({}, "gold")
