"""S1, S5, S7: programs that try to break out, to read the expected answers, or to be judged right without an answer.

Each is the body of `attack()`, which says that it started, tries, and is truthy where it got what it wanted. All run
through the verifier, several at once; each must show that it started, must not get out, must score 0, and nothing of it
may be left.
"""

from __future__ import annotations

import os
import secrets
import socket
import textwrap
import time
from hashlib import sha256
from pathlib import Path

import pytest

import onepolicy
from onepolicy.tasks.code import CodeVerifier
from onepolicy.tasks.code_tests import CodeTest
from onepolicy.tasks.rewards import RewardWeights
from onepolicy.tasks.sandbox import Call, Limits, default_sandbox
from onepolicy.types import Message, Task

LIMITS = Limits(seconds=1.2, memory=96, processes=24, disk=4, output=8192)
READY, STARTED, OUT = "ready", "attack started", "attack got out"

COMMON = f"""
import os, sys, time, socket, signal, ctypes, subprocess, threading, glob, gc, hashlib, re
LIMIT = {LIMITS.memory * 2**20}
def read(path, size=-1):
    try:
        with open(path, "rb") as file: return file.read(size)
    except OSError: return b""
def connects(family, address, kind=socket.SOCK_STREAM):
    try:
        with socket.socket(family, kind) as made:
            made.settimeout(0.5); made.connect(address); made.send(b"x"); return True
    except OSError: return False
def call(*numbers):
    return ctypes.CDLL(None, use_errno=True).syscall(*numbers) >= 0
def fill(folder, parts=8):
    written = 0
    for number in range(parts):
        try:
            with open(os.path.join(folder, "fill%d" % number), "wb") as file:
                for _ in range(16): file.write(bytes(65536)); file.flush(); written += 65536
        except OSError: break
    return written > {LIMITS.disk * 2**20} + 65536
def found(text):
    text = text if isinstance(text, bytes) else str(text).encode()
    return any(hashlib.sha256(digits).hexdigest() in SOUGHT for digits in re.findall(rb"[0-9]{{18}}", text))
"""

BOOK = Path(__file__).with_name("sandbox_attacks.txt").read_text(encoding="utf-8").split("\n## ")[1:]
ATTACKS = {name: body.strip() for name, _, body in (entry.partition("\n") for entry in BOOK)}

READ_MEMORY = """
def read_memory():
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        for line in maps:
            low, high = (int(x, 16) for x in line.split()[0].split("-"))
            if "rw" in line and high - low < 2**26:
                memory.seek(low)
                try: yield memory.read(high - low)
                except OSError: pass
"""


def program(body, names):
    """A function f: f(0) shows that the sandbox is up, f(1) attacks."""
    lines = "\n".join(f"{name} = {value!r}" for name, value in names.items())
    attack = textwrap.indent(body, "    ")
    return (
        f"{COMMON}{lines}\n{READ_MEMORY}\nreturn_value = [True]\ndef attack():\n{attack}\n"
        f"def f(x, planted=None):\n    if x == 0: return {READY!r}\n    os.write(1, b'{STARTED}\\n')\n"
        f"    kept = str(planted)\n    try:\n        if attack(): os.write(1, b'{OUT}\\n')\n"
        "    except (OSError, RecursionError, RuntimeError, MemoryError): pass\n    return return_value[0]\n"
    )


@pytest.fixture(scope="module")
def battle(tmp_path_factory):
    """Every attack's results and score, and what was touched on this side; all through one verifier."""
    sandbox = default_sandbox()
    folder = tmp_path_factory.mktemp("bait")
    secret = secrets.token_hex(16)
    bait = folder / "bait"
    bait.write_text(secret)
    for place in (folder, *(parent for parent in folder.parents if parent.name.startswith(("pytest-", "popen-")))):
        place.chmod(0o755)
    bait.chmod(0o644)
    os.environ["ONEPOLICY_TEST_SECRET"] = secret
    answers = [secrets.randbelow(10**17) + 10**17 for _ in range(2)]
    digests = [sha256(str(answer).encode()).hexdigest() for answer in answers]
    with socket.socket() as port, socket.socket(socket.AF_UNIX) as named:
        port.bind(("127.0.0.1", 0))
        named.bind("\0" + secret[:10])
        for listening in (port, named):
            listening.listen()
            listening.setblocking(False)
        names = {"SECRET": secret.encode(), "PATH": str(bait), "PORT": port.getsockname()[1], "NAME": secret[:10]}
        names |= {"HOST": os.getpid(), "PACKAGE": onepolicy.__file__, "SOUGHT": digests}
        tests = tuple(CodeTest(Call("f", (x,)), answer) for x, answer in enumerate(answers))
        verifier = CodeVerifier(mode="share", limits=LIMITS, weights=RewardWeights(1.0, 0.0))
        tasks = {name: Task(name, (Message("user", "?"),), "", verifier, {"tests": tests}) for name in ATTACKS}
        texts = {name: f"```python\n{program(body, names)}\n```" for name, body in ATTACKS.items()}
        started = time.monotonic()
        scores = verifier.many([(tasks[name], texts[name]) for name in ATTACKS])
        seconds = time.monotonic() - started
        touched = [listening for listening in (port, named) if arrived(listening)]
        planted = {
            name: sandbox.run_tests(program(ATTACKS[name], names), [Call("f", (1, answers[0]))], limits=LIMITS)[0]
            for name in ("frames", "all objects", "own memory")
        }
    os.environ.pop("ONEPOLICY_TEST_SECRET")
    results = {name: verifier.results(tasks[name], texts[name]) for name in ATTACKS}
    return {
        "scores": dict(zip(ATTACKS, scores)),
        "results": results,
        "touched": touched,
        "seconds": seconds,
        "box": sandbox,
        "planted": planted,
    }


def arrived(listening):
    try:
        listening.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@pytest.mark.parametrize("name", ATTACKS)
def test_it_started_did_not_get_out_and_scored_nothing(battle, name):
    score, (first, second) = battle["scores"][name], battle["results"][name]
    assert (first.cause, first.value) == ("ok", READY), first
    assert STARTED in second.stdout or second.cause in ("killed", "time", "memory", "output"), second
    assert OUT not in second.stdout, second
    assert score.error is None
    assert (score.value, score.parts["passed"]) == (0.0, 0.0)


EXPECTED = {
    "memory": ("ok", "memory"),
    "flood": ("output",),
    "flood of errors": ("output",),
    "sleep": ("time",),
    "busy and deaf": ("time",),
    "kill everything": ("killed",),
    "kill the harness": ("killed",),
    "stop the harness": ("time",),
    "leave with 0": ("crash",),
    "exit with 0": ("crash",),
    "equal to everything": ("ok",),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_how_it_ended_is_told(battle, name):
    assert battle["results"][name][1].cause in EXPECTED[name]


@pytest.mark.parametrize("name", ["frames", "all objects", "own memory"])
def test_the_search_for_the_expected_answers_finds_one_that_is_planted(battle, name):
    """S5 counts because the same search finds an answer that is given as an argument."""
    assert OUT in battle["planted"][name].stdout


def test_nothing_reached_this_side_and_nothing_is_left(battle):
    assert battle["touched"] == []
    slots = list(battle["box"].backend._free.queue)
    owners = {slot.uid for slot in slots if slot.uid is not None}
    assert remaining(owners) == []
    assert all(not slot.group.members() for slot in slots if slot.group)
    assert not list(Path("/tmp").glob("fill*")) + list(Path("/dev/shm").glob("fill*"))


def remaining(owners, seconds=3.0):
    """(process, state, command) of the slots' users, once those that are on their way out are gone."""
    until = time.monotonic() + seconds
    while True:
        left = [pid for pid in os.listdir("/proc") if pid.isdigit() and owner(pid) in owners]
        if not left or time.monotonic() > until:
            return [(pid, Path(f"/proc/{pid}/stat").read_text()[:60]) for pid in left]
        time.sleep(0.05)


def owner(pid):
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None


def test_honest_programs_are_as_right_after_it_as_before(battle):
    done = battle["box"].run_tests("def f(x): return x + 1", [Call("f", (i,)) for i in range(3)])
    assert [one.value for one in done] == [1, 2, 3]


def test_a_stopped_harness_does_not_hold_a_slot_for_long(battle):
    """The longest attack ends by the clock; the rest share four slots."""
    assert battle["seconds"] < 120
