"""The command: what each of its subcommands does and prints, with which code it ends, and what it says to a slip."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import onepolicy
from onepolicy import cli
from onepolicy.recipes.catalogue import ALGORITHMS, recipe
from onepolicy.run.config import EXIT_INTERRUPTED
from onepolicy.tasks.base import TASKS

COMMAND = Path(sys.executable).with_name("onepolicy")


@pytest.fixture
def onepolicy_(capsys):
    """onepolicy_(line): the exit code, what it printed, and what it said on the side."""

    def run(line):
        capsys.readouterr()
        code = 0
        try:
            cli.main(line.split())
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


def test_without_a_word_it_lists_its_commands(onepolicy_):
    for line in ("", "--help", "-h", "help"):
        code, out, err = onepolicy_(line)
        assert (code, err) == (0, "")
        assert all(f"onepolicy {name}" in out for name in cli.COMMANDS)


def test_the_version_is_the_packages(onepolicy_):
    for line in ("--version", "-V"):
        assert onepolicy_(line) == (0, f"onepolicy {onepolicy.__version__}\n", "")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_itself(command, onepolicy_):
    code, out, _ = onepolicy_(f"{command} --help")
    assert code == 0
    assert f"usage: onepolicy {command}" in out


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_algorithms_help_has_every_field_with_its_words_and_the_presets(algorithm, onepolicy_):
    module = recipe(ALGORITHMS[algorithm].module)
    code, out, _ = onepolicy_(f"train {algorithm} --help")
    assert code == 0
    assert all(f"--{name.replace('_', '-')}" in out for name in vars(module.Config()) if not hasattr(name, "__dict__"))
    assert all(preset in out.replace("\n", " ") for preset in module.PRESETS)


def test_the_list_is_whole(onepolicy_):
    code, out, _ = onepolicy_("list")
    assert code == 0
    known = [*ALGORITHMS, *TASKS, *(preset for found in ALGORITHMS.values() for preset in recipe(found.module).PRESETS)]
    assert all(name in out for name in known)
    assert "reinforce/CartPole-v1" not in out.partition("ppo ")[2]


def test_train_without_an_algorithm_says_which_there_are(onepolicy_):
    code, out, _ = onepolicy_("train")
    assert code == 0
    assert all(f"  {name}" in out for name in ALGORITHMS)


def test_a_finite_world_is_learnt_by_name(onepolicy_, tmp_path):
    code, out, _ = onepolicy_(f"train q-learning --env cliff --runs 2 --threads 1 --out {tmp_path / 'run'}")
    assert code == 0
    assert out.startswith("q-learning on cliff: mean return ")
    assert "best value at the start, exact │ -13" in out
    code, _, error = onepolicy_("train q-learning --algo sarsa")
    assert code == 2
    assert "'q-learning' decides it" in error


def test_train_trains_and_says_what_came_out(onepolicy_, tmp_path):
    line = "train ppo --steps 40 --num-envs 2 --n-steps 10 --batch-size 10 --epochs 1 --eval-episodes 3 --seed 4"
    code, out, _ = onepolicy_(f"{line} --out {tmp_path / 'run'}")
    assert code == 0
    assert out.startswith("ppo on CartPole-v1, seed 4: mean return ")
    config = json.loads((tmp_path / "run/config.json").read_text())["config"]
    assert (config["algo"], config["steps"], config["seed"]) == ("ppo", 40, 4)


def test_the_algorithms_name_decides_it(onepolicy_, tmp_path):
    line = "train a2c --algo a2c --steps 10 --num-envs 2 --n-steps 5 --eval-episodes 2"
    assert onepolicy_(f"{line} --out {tmp_path / 'run'}")[1].startswith("a2c on CartPole-v1")


def test_eval_prints_a_table_and_writes_what_it_is_told_to(onepolicy_, made, tmp_path):
    line = f"eval {made('sft')} --tasks arithmetic,countdown --level 1 --size 4 --max-tokens 8 --machine.threads 1"
    code, out, _ = onepolicy_(f"{line} -k 2 --out {tmp_path / 'marks'}")
    assert code == 0
    assert out.count("accuracy, greedy, 4 problems") == 2
    assert "avg@2" in out
    assert json.loads((tmp_path / "marks/report.json").read_text())["k"] == 2


def test_resume_goes_on_where_a_run_stopped(onepolicy_, copied):
    """Its last two steps and its report are gone; the command makes them again, with the numbers they had."""
    run = copied("sft")
    before = (run / "metrics.jsonl").read_text()
    (run / "report.md").unlink()
    (run / "metrics.jsonl").write_text(before + '{"step": 3, "sft/nll": 9.0}\n')
    code, out, err = onepolicy_(f"resume {run}")
    assert code == 0
    assert f"Resumed {run} at step 2" in err.replace("\n", "")
    assert "2 steps. The model is in" in out
    assert (run / "metrics.jsonl").read_text() == before
    assert (run / "report.md").exists()


def test_plot_draws_runs_together(onepolicy_, made, tmp_path):
    code, out, _ = onepolicy_(f"plot {made('ppo')} {made('sft')} --out {tmp_path / 'both.png'}")
    assert code == 0
    assert out.startswith(f"{tmp_path / 'both.png'}: ")
    assert (tmp_path / "both.png").read_bytes().startswith(b"\x89PNG")


def test_chat_reads_its_questions_from_a_pipe(onepolicy_, made, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("1+2=\n3+4=\n"))
    code, out, _ = onepolicy_(f"chat {made('sft')} --max-tokens 4")
    assert code == 0
    assert out.startswith("Ask; an empty line ends.")
    assert out.count("> ") == 3


def test_doctor_gives_its_verdict(onepolicy_, made):
    code, out, _ = onepolicy_(f"doctor {made('sft')}")
    assert code == 0
    assert "finished" in out
    assert out.rstrip().endswith((" warnings.", " warning."))


def test_conventions_are_listed_shown_and_compared(onepolicy_):
    assert "dapo" in onepolicy_("conventions")[1]
    one = onepolicy_("conventions dapo")[1]
    assert "reduction" in one
    assert "trl" in onepolicy_("conventions trl verl")[1]


SLIPS = [
    ("trian grpo", 2, "'trian' is not a command. Did you mean 'train'?"),
    ("--verison", 2, "'--verison' is not a command. Known: demo, train"),
    ("train gpro", 2, "'gpro' is not an algorithm. Did you mean 'grpo'?"),
    ("train ppo --num-env 3", 2, "--num-env is not an option of control.Config. Did you mean '--num-envs'?"),
    ("train ppo --env CartPole-v9", 2, "Did you mean 'CartPole-v1'?"),
    ("train a2c --algo ppo", 2, "algo is 'ppo', but 'a2c' decides it: 'a2c'. Leave algo out."),
    ("train ppo stray", 2, "Unrecognized options: stray"),
    ("eval", 2, "no model was named; give a run directory, a Hugging Face directory or a hub id."),
    ("eval RUN --taks gsm8k", 2, "--taks is not an option of evaluate.Config. Did you mean '--tasks'?"),
    ("eval tiny-0.2", 2, "'tiny-0.2' is no preset, directory or hub id. Did you mean 'tiny-0.2m'?"),
    ("resume", 2, "expected exactly one argument, got 0: onepolicy resume RUN."),
    ("resume a b", 2, "expected exactly one argument, got 2: onepolicy resume RUN."),
    ("resume nowhere", 1, "nowhere is not a directory"),
    ("plot", 2, "plot needs at least one run directory"),
    ("plot RUN --ouy x.png", 2, "--ouy is not an option here. Did you mean 'out'?"),
    ("plot RUN --out", 2, "--out has no value; write it behind."),
    ("plot nowhere", 1, "nowhere"),
    ("chat", 2, "expected exactly one argument, got 0: onepolicy chat RUN|MODEL."),
    ("chat RUN --max-token 3", 2, "--max-token is not an option here. Did you mean 'max-tokens'?"),
    ("chat RUN --max-tokens 0", 2, "--max-tokens is a whole number of at least 1"),
    ("chat RUN --max-tokens many", 2, "--max-tokens is 'many'; expected a number."),
    ("chat RUN --temperature -1", 2, "--temperature a number of at least 0"),
    ("doctor", 2, "expected exactly one argument, got 0: onepolicy doctor RUN."),
    ("doctor nowhere", 1, "nowhere is not a directory"),
    ("conventions tlr", 2, "Did you mean 'trl'?"),
    ("conventions trl verl dapo", 2, "expected at most two conventions, got 3"),
    ("demo --rl-step 3", 2, "--rl-step is not an option of demo.Config. Did you mean '--rl-steps'?"),
]


@pytest.mark.parametrize(("line", "code", "words"), SLIPS, ids=[line for line, _, _ in SLIPS])
def test_a_slip_is_answered_with_the_nearest_and_a_code(line, code, words, onepolicy_, tmp_path, monkeypatch):
    """2 for what the user wrote, 1 for what is not there; nothing on standard output, nothing made."""
    monkeypatch.chdir(tmp_path)
    ended, out, err = onepolicy_(line)
    assert (ended, out) == (code, "")
    assert err.startswith("onepolicy: ")
    assert words in " ".join(err.split())
    assert not list(tmp_path.iterdir())


def test_plot_to_a_file_that_is_no_image(onepolicy_, made, tmp_path):
    code, _, err = onepolicy_(f"plot {made('sft')} --out {tmp_path / 'curves.xyz'}")
    assert code == 2
    assert "give --out an image file, such as curves.png." in " ".join(err.split())


def test_ctrl_c_ends_with_130(onepolicy_, monkeypatch):
    def stopped(_):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "list", (stopped, "list", ""))
    assert onepolicy_("list") == (130, "", "onepolicy: stopped.\n")


def test_a_run_that_was_asked_to_stop_ends_with_its_own_code(onepolicy_, monkeypatch, tmp_path):
    """The code of an interrupted and saved run goes through the command unchanged."""
    from onepolicy.run.run import Run

    log = Run.log

    def signalled(run, step, *rest):
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        log(run, step, *rest)

    monkeypatch.setattr(Run, "log", signalled)
    line = "train sft --level 1 --steps 3 --batch-size 4 --exam.size 4 --tiny.context 32 --machine.threads 1"
    code, out, _ = onepolicy_(f"{line} --out {tmp_path / 'run'}")
    assert code == EXIT_INTERRUPTED
    assert f"onepolicy resume {tmp_path / 'run'}" in out


def test_fields_of_a_line():
    line = ["--env", "CartPole-v1", "--num-envs=4", "--no-fast", "--exam.size", "3"]
    assert cli.given_fields(line) == {"env": "CartPole-v1", "num_envs": "4", "no_fast": "True", "exam.size": "3"}
    assert cli.given_fields(["--plan.use"]) == {"plan.use": "True"}


def processor_seconds(*words):
    """Seconds of processor time of the installed command, which a busy machine does not stretch, and its output."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([COMMAND, *words], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


@pytest.mark.parametrize(("words", "most"), [(["--help"], 1.0), (["list"], 20.0)], ids=["help", "list"])
def test_the_installed_command_answers_quickly(words, most):
    """Help loads no torch; the list opens every recipe, and with it torch and transformers."""
    seconds, out = processor_seconds(*words)
    print(f"onepolicy {words[0]}: {seconds:.2f} s of processor time")
    assert "ppo" in out or "train" in out
    assert seconds < most
