"""Worker processes under fire: every way an answer can go wrong is named, none harms another, nothing is left over."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.tasks.hostile import Obey, sum_of_characters, task

from onepolicy.errors import ConfigError, RewardError
from onepolicy.tasks.arithmetic import load
from onepolicy.tasks.pool import VerifierPool
from onepolicy.tasks.verdicts import verify_each
from onepolicy.types import Score, Task

TASK = task()


@pytest.fixture(scope="module")
def pool():
    """Two workers, a second for each answer."""
    with VerifierPool(2, timeout=1.0, memory=256) as shared:
        yield shared


def alive(pid):
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids, within=5.0):
    """Whether all of the processes have ended in time."""
    end = time.monotonic() + within
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.01)
    return not any(alive(pid) for pid in pids)


def test_scores_are_those_of_this_process_in_order(pool):
    tasks = load("train", level=3, n=40, seed=1)
    pairs = [(t, f"<think></think><answer>{t.answer if i % 3 else i}</answer>") for i, t in enumerate(tasks)] * 4
    assert pool.score(pairs) == verify_each(pairs)
    assert pool([(task(verifier=sum_of_characters), "ab")]) == [Score(195.0)]
    assert pool.score([]) == []


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("sleep 60", "time-out: no verdict within 1 s"),
        ("power 9", "time-out: no verdict within 1 s"),
        ("eat 2000", "memory: the verifier ran out of memory"),
        ("segfault", "crash: the verifier's process ended by signal 11 (SIGSEGV)"),
        ("kill", "crash: the verifier's process ended by signal 9 (SIGKILL)"),
        ("exit 0", "crash: the verifier's process ended by exit code 0"),
        ("sys.exit 3", "crash: the verifier raised SystemExit: 3"),
        ("raise no", "crash: the verifier raised ValueError: no"),
        ("nan", "reward: the verifier's value is nan; it must be a finite number"),
        ("none", "reward: the verifier returned NoneType 'None', not a Score"),
    ],
)
def test_every_way_to_fail_has_a_name_and_harms_nobody(pool, text, error):
    pairs = [(TASK, "7"), (TASK, text), (TASK, "8"), (TASK, "7")]
    scores = pool.score(pairs)
    assert scores[1].error == error
    assert (scores[1].value, scores[1].cause) == (None, error.partition(":")[0])
    assert [score.value for score in scores[:1] + scores[2:]] == [1.0, 0.0, 1.0]


def test_a_score_that_cannot_be_sent_is_a_crash(pool):
    (score,) = pool.score([(TASK, "unsendable")])
    assert (score.value, score.cause) == (None, "crash")


def test_skipped_is_not_invalid(pool):
    (score,) = pool.score([(TASK, "skip")])
    assert (score.value, score.error, score.state) == (None, None, "skipped")


def test_workers_have_no_torch_and_do_not_print(pool, capfd):
    import torch  # this process has it  # noqa: F401

    assert pool.score([(TASK, "torch"), (TASK, "print hello")])[0].value == 0.0
    assert capfd.readouterr().out == ""


def test_hanging_answers_do_not_delay_the_others():
    """16 that hang come first, one time-out of 1.5 s; 100 others are through before the first of them is given up."""
    with VerifierPool(2, timeout=1.5) as pool:
        pool.score([(TASK, "7")])
        done = []
        honest = threading.Thread(target=lambda: done.append((pool.score([(TASK, "7")] * 100), time.monotonic())))
        began = time.monotonic()
        hanging = threading.Thread(
            target=lambda: done.append((pool.score([(TASK, "sleep 60")] * 16), time.monotonic()))
        )
        hanging.start()
        time.sleep(0.05)
        honest.start()
        honest.join()
        hanging.join()
    (first, first_at), (second, second_at) = done
    assert [score.value for score in first] == [1.0] * 100
    assert {score.error for score in second} == {"time-out: no verdict within 1.5 s"}
    assert first_at - began < 1.5
    assert second_at - began < 2 * 1.5  # not 16 / 2 time-outs one after another
    stats = pool.stats()
    assert (stats.timeouts, stats.answers) == (16, 117)
    assert stats.parked >= 14


def test_a_busy_machine_is_not_the_answers_fault():
    """A third of the time-out in processor time, beside eight processes that never rest, is neither parked for long nor
    killed: an answer that could not run has not had its time."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(8)]
    try:
        with VerifierPool(1, timeout=0.3) as pool:
            scores = pool.score([(TASK, "work 0.1")])
            assert scores == [Score(0.0, {"correct": 0.0})]
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def test_an_answer_is_blamed_by_a_worker_that_did_nothing_else(pool, tmp_path):
    """The worker dies once, for whatever reason; the answer is judged again by a new one."""
    scores = pool.score([(TASK, "7"), (TASK, f"once {tmp_path / 'marker'}"), (TASK, "7")])
    assert [score.value for score in scores] == [1.0, 0.0, 1.0]


def test_results_do_not_depend_on_the_number_of_workers():
    texts = ["7", "8", "exit 1", "raise x", "eat 4000", "nan", "skip", "x" * 5000] * 3
    pairs = [(task(f"t{i}"), text) for i, text in enumerate(texts)]
    found = []
    for workers in (1, 3):
        with VerifierPool(workers, memory=256) as pool:
            found.append(pool.score(pairs))
    assert found[0] == found[1]


def test_several_threads_at_once(pool):
    results = {}

    def judge(number):
        results[number] = [s.value for s in pool.score([(task(answer=str(number)), str(i)) for i in range(30)])]

    threads = [threading.Thread(target=judge, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [float(i == number) for i in range(30)] for number in range(8)}


def test_asynchronous_code_goes_on_meanwhile(pool):
    async def both():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        many = await asyncio.gather(*(pool.ascore([(TASK, text), (TASK, "sleep 0.2")]) for text in ("7", "8", "7")))
        ticking.cancel()
        return [scores[0].value for scores in many], ticks, await pool.ascore([])

    values, ticks, nothing = asyncio.run(both())
    assert (values, nothing) == ([1.0, 0.0, 1.0], [])
    assert ticks > 5


def test_back_pressure_lets_in_no_more_than_the_backlog():
    """Room for 4: three callers of 3 wait for one another; a call of 9 is let in when it is alone."""
    with VerifierPool(1, backlog=4) as pool:
        most = []
        threads = [threading.Thread(target=pool.score, args=([(TASK, "sleep 0.02")] * n,)) for n in (3, 3, 9, 3)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            most.append(len(pool._out) + pool.stats().waiting)
            time.sleep(0.002)
        assert max(most) <= 9
        assert pool.stats().answers == 18

    async def cancelled():
        with VerifierPool(1, backlog=2, timeout=10) as pool:
            slow = asyncio.create_task(pool.ascore([(TASK, "sleep 0.3")] * 2))
            late = asyncio.create_task(pool.ascore([(TASK, "7")]))
            await asyncio.sleep(0.1)
            late.cancel()
            await asyncio.gather(slow, late, return_exceptions=True)
            return pool.stats().answers, await pool.ascore([(TASK, "7")])

    answers, scores = asyncio.run(cancelled())
    assert (answers, scores[0].value) == (2, 1.0)


def test_what_a_worker_started_dies_with_it(pool):
    """A child of the verifier, a sleep of its own, is gone when the answer is given up."""
    pool.score([(TASK, "child 4711")])
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "sleep 4711" not in listed


def test_the_nursery_can_die_and_nothing_is_lost():
    with VerifierPool(2, timeout=20) as pool:
        pool.score([(TASK, "7")])
        waiting = threading.Thread(target=lambda: results.append(pool.score([(TASK, "sleep 0.3")] * 3 + [(TASK, "7")])))
        results = []
        waiting.start()
        time.sleep(0.1)
        os.kill(pool._nursery.process.pid, signal.SIGKILL)
        waiting.join(20)
        assert [score.value for score in results[0]] == [0.0, 0.0, 0.0, 1.0]


def test_closing_ends_the_processes_and_frees_who_waits():
    pool = VerifierPool(2, timeout=60)
    pids = [int(score.value) for score in pool.score([(TASK, "pid")] * 8)]
    pids.append(pool._nursery.process.pid)
    assert all(map(alive, pids))
    caught = []

    def wait():
        with pytest.raises(RewardError, match="closed before this answer was judged") as error:
            pool.score([(TASK, "sleep 60")])
        caught.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.1)
    pool.close()
    waiting.join()
    assert len(caught) == 1
    assert gone(pids)
    with pytest.raises(RewardError, match="the verifier pool is closed"):
        pool.score([(TASK, "7")])
    pool.close()


PARENT = """
import sys, threading
from onepolicy.tasks.pool import VerifierPool
from tests.tasks.hostile import task
pool = VerifierPool(2, timeout=60)
pids = sorted({int(score.value) for score in pool.score([(task(), "pid")] * 30)} | {pool._nursery.process.pid})
threading.Thread(target=pool.score, args=([(task(), "spin")],), daemon=True).start()
threading.Event().wait(0.3)
print(*pids, *[worker.pid for worker in pool._staff.values()], flush=True)
if sys.argv[1] != "exit":
    threading.Event().wait()
"""


@pytest.mark.parametrize("how", ["exit", "SIGTERM", "SIGKILL"])
def test_workers_end_with_their_parent_however_it_ends(how):
    """One of them is in an endless loop at that time."""
    with subprocess.Popen([sys.executable, "-c", PARENT, how], stdout=subprocess.PIPE, text=True) as parent:
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(set(pids)) >= 2
        if how != "exit":
            assert all(map(alive, pids))
            parent.send_signal(getattr(signal, how))
        parent.wait(10)
        assert gone(pids)


SCRIPT = """
from onepolicy.errors import RewardError
from onepolicy.tasks.pool import VerifierPool
from tests.tasks.hostile import task

class Mine:
    def __call__(self, task, text):
        return 1.0

with VerifierPool(1) as pool:  # not behind a guard: the workers never run the script
    try:
        pool.score([(task(verifier=Mine()), "")])
    except RewardError as error:
        print(error)
"""


def test_a_verifier_of_the_script_itself_is_refused_with_the_fix():
    said = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    assert "verifier Mine cannot be loaded in a worker process. Define it in a module, not in the script" in said
    assert said.count("\n") == 1


def test_verifiers_are_pickled_once_for_a_set():
    Counted.times = 0
    with VerifierPool(1) as pool:
        verifier = Counted()
        tasks = [task(f"t{i}", verifier=verifier) for i in range(5)]
        pool.score([(t, "7") for t in tasks] * 3)
        pool.score([(t, "7") for t in tasks])
        assert Counted.times == 1
        pool.score([(task(verifier=Counted()), "7")])  # an equal one is pickled, and known
        assert len(pool._packer.verifiers) == 1


class Counted(Obey):
    times = 0

    def __reduce__(self):
        Counted.times += 1
        return Obey, ()


class Unknown:
    """Cannot be loaded by a worker."""

    def __reduce__(self):
        return eval, ("nobody_knows_this_name",)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (task(verifier=lambda task, text: Score(1.0)), "verifier <lambda> cannot be sent to a worker process"),
        (
            Task("odd", TASK.messages, "", Obey(), {"f": lambda: 0}),
            "task 'odd' cannot be sent .* its meta must hold plain",
        ),
        (task(verifier=Unknown()), "verifier Unknown cannot be loaded in a worker process.*nobody_knows_this_name"),
    ],
)
def test_what_cannot_be_sent_is_an_error_for_its_caller_only(pool, bad, words):
    with pytest.raises(RewardError, match=words):
        pool.score([(TASK, "7"), (bad, "7")])
    assert pool.score([(TASK, "7")])[0].value == 1.0


@pytest.mark.parametrize("fields", [{"workers": 0}, {"timeout": 0.0}, {"memory": 0}, {"spare": -1}, {"backlog": 0}])
def test_settings_that_cannot_work(fields):
    with pytest.raises(ConfigError, match="workers, memory and backlog are at least 1, the time-out above 0"):
        VerifierPool(**{"workers": 1, **fields})


def test_stats(pool):
    before = pool.stats()
    pool.score([(TASK, "7")] * 50)
    after = pool.stats()
    assert 50 <= after.answers - before.answers <= 52  # one that other programs starved is judged again
    assert after.timeouts == before.timeouts
    assert after.waiting == 0
    assert after.workers <= 2
    assert 0 < after.per_second == after.answers / after.seconds
