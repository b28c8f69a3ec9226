"""Signals, status and liveness: a run that is asked to stop stops well; the dead are told from the living."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from onepolicy.errors import CheckpointError
from onepolicy.run.config import EXIT_INTERRUPTED
from onepolicy.run.process import alive, read_status, write_status
from onepolicy.run.run import Run


def signalled(run, *numbers):
    """What a training loop sees when signals arrive in its second step."""
    steps = []
    with run:
        for step in range(1, 6):
            if step == 2:
                for number in numbers:
                    os.kill(os.getpid(), number)
            steps.append(step)
            if run.interrupted:
                break
    return steps


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_step_finish_and_leaves_the_handlers_as_they_were(tmp_path, number):
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    run = Run.create(tmp_path / "r", recipe="r", config={})
    assert signalled(run, number) == [1, 2]
    assert read_status(run.directory).state == "interrupted"
    assert "finishing this step" in (run.directory / "log.txt").read_text()
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_ctrl_c_again_stops_at_once(tmp_path, first):
    run = Run.create(tmp_path / "r", recipe="r", config={})
    with pytest.raises(KeyboardInterrupt):
        signalled(run, first, signal.SIGINT)
    assert read_status(run.directory).state == "interrupted"


def test_sigterm_again_changes_nothing(tmp_path):
    assert signalled(Run.create(tmp_path / "r", recipe="r", config={}), signal.SIGTERM, signal.SIGTERM) == [1, 2]


def test_a_stage_inside_a_pipeline_tells_the_pipeline(tmp_path):
    """A pipeline's run holds a stage's run: both learn of the signal, and the pipeline starts no further stage."""
    outer = Run.create(tmp_path / "outer", recipe="r1", config={})
    inner = Run.create(tmp_path / "inner", recipe="sft", config={})
    with outer:
        assert signalled(inner, signal.SIGTERM) == [1, 2]
        assert outer.interrupted
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_outside_the_main_thread_nothing_is_installed(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with Run.create(tmp_path / "r", recipe="r", config={}):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_the_end_of_a_run_is_in_its_status(tmp_path):
    with Run.create(tmp_path / "a", recipe="r", config={}):
        pass
    assert read_status(tmp_path / "a").state == "finished"
    failing = Run.create(tmp_path / "b", recipe="r", config={})
    with pytest.raises(ZeroDivisionError), failing:
        1 / 0  # noqa: B018
    status = read_status(tmp_path / "b")
    assert (status.state, status.error) == ("failed", "ZeroDivisionError: division by zero")


def test_leaving_with_the_exit_code_of_an_interruption_is_no_failure(tmp_path):
    run = Run.create(tmp_path / "r", recipe="r", config={})

    def command():
        with run:
            os.kill(os.getpid(), signal.SIGTERM)
            raise SystemExit(EXIT_INTERRUPTED)

    with pytest.raises(SystemExit):
        command()
    assert (EXIT_INTERRUPTED, read_status(run.directory).state) == (75, "interrupted")


def test_alive_knows_the_living_the_dead_a_reused_pid_and_another_machine(tmp_path):
    write_status(tmp_path, "running")
    status = read_status(tmp_path)
    assert alive(status) is True
    assert alive(replace(status, birth="1")) is False
    assert alive(replace(status, host="elsewhere")) is None
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert alive(replace(status, pid=child.pid)) is False


def test_a_run_that_is_still_being_run_is_not_resumed(tmp_path, counter):
    """Two writers would overwrite each other; a dead one is no obstacle."""
    run = Run.create(tmp_path / "r", recipe="r", config={})
    run.save(1, counter=counter(1))
    sleeper = subprocess.Popen([sys.executable, "-c", SLEEPER, str(tmp_path / "r")], stdout=subprocess.PIPE)
    try:
        sleeper.stdout.readline()
        with pytest.raises(CheckpointError, match=f"still being run by process {sleeper.pid}"):
            Run.open(tmp_path / "r").resume(counter=counter())
    finally:
        sleeper.kill()
        sleeper.wait()
        sleeper.stdout.close()
    assert Run.open(tmp_path / "r").resume(counter=counter()) == 1


SLEEPER = """
import sys, time
from pathlib import Path
from onepolicy.run.process import write_status
write_status(Path(sys.argv[1]), "running")
print("ready", flush=True)
time.sleep(60)
"""
