"""The sandbox: what programs give, how their ends are told apart, many at once, as root and as an ordinary user."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onepolicy
from onepolicy.errors import ConfigError
from onepolicy.tasks.sandbox import Call, Expression, Limits, Sandbox, Stdin, Unknown, default_sandbox
from onepolicy.tasks.sandbox_harness import decode, encode
from onepolicy.tasks.sandbox_languages import LANGUAGES, available, language_of

QUICK = Limits(seconds=1.0, memory=128, disk=8)


@pytest.fixture(scope="module")
def sandbox():
    return default_sandbox()


def test_a_program_reads_its_input_and_writes_its_output(sandbox):
    done = sandbox.run("print(int(input()) + 1)", stdin="41\n")
    assert (done.cause, done.stdout, done.stderr) == ("ok", "42\n", "")


def test_a_function_gets_values_and_gives_values_of_the_same_types(sandbox):
    sent = (1, True, 2.5, "é\ud800", None, b"\0", [1, (2,)], {"a": {1, 2}, 3: frozenset()}, 10**40, 1j, math.inf)
    source = "def f(*args, **named):\n    print('not an answer')\n    return args, named"
    (done,) = sandbox.run_tests(source, [Call("f", sent, {"x": -0.0})])
    assert done.cause == "ok"
    assert repr(done.value) == repr((sent, {"x": -0.0}))
    assert done.stdout == "not an answer\n"


def test_an_expression_is_evaluated_where_the_program_was_loaded(sandbox):
    source = "class Pair:\n    def __init__(self, a): self.a = a\ndef f(p): return p.a * two"
    done = sandbox.run_tests(source, [Expression("f(Pair(4))", "two = 2"), Expression("f(Pair(4))")])
    assert [(one.cause, one.value) for one in done] == [("ok", 8), ("crash", None)]
    assert "two" in done[1].stderr


def test_no_test_sees_what_another_did(sandbox):
    source = "import os\nseen = []\ndef f(x):\n    seen.append(x)\n    new = not os.path.exists('mark')\n"
    source += "    return list(seen), new"
    done = sandbox.run_tests(source, [Call("f", (i,)) for i in range(3)])
    assert [one.value for one in done] == [([0], True), ([1], True), ([2], True)]


def test_a_value_without_an_encoding_is_equal_to_nothing(sandbox):
    source = "class A:\n    def __eq__(self, other): return True\ndef f(): return A(), [A()]"
    (done,) = sandbox.run_tests(source, [Call("f")])
    assert isinstance(done.value[0], Unknown)
    assert isinstance(done.value[1][0], Unknown)
    assert done.value != (1, [1])


ENDS = {
    "ok": "print(1)",
    "crash": "raise ValueError('no')",
    "time": "while True: pass",
    "memory": "x = bytearray(10**9)",
    "output": "while True: print('x' * 1000)",
    "compile": "def f(:",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("cause", ENDS)
def test_the_ways_to_end_are_told_apart(sandbox, cause):
    source = ENDS[cause]
    loaded = source if cause == "compile" else f"def f():\n    {source.replace('; ', chr(10) + '    ')}"
    limits = Limits(seconds=0.4, memory=64, disk=8)
    called = sandbox.run_tests(loaded, [Call("f")], limits=limits)[0]
    assert called.cause == cause
    run = sandbox.run(source, limits=limits)
    assert run.cause == ("crash" if cause == "compile" else cause)  # as a script, Python reports it as any exception
    assert len(run.stdout) <= limits.output


def test_sleeping_and_waiting_for_input_that_never_comes_end_too(sandbox):
    assert sandbox.run("import time; time.sleep(60)", limits=Limits(seconds=0.3)).cause == "time"
    assert sandbox.run("input()").cause == "crash"  # the input has an end


def test_all_tests_together_have_a_time_limit(sandbox):
    limits = Limits(seconds=0.3, total=0.5)
    done = sandbox.run_tests("def f(): \n    while True: pass", [Call("f")] * 6, limits=limits)
    assert [one.cause for one in done] == ["time"] * 6
    assert sum(one.seconds for one in done) < 1.0


def test_a_program_that_ends_the_sandbox_leaves_the_answers_it_gave(sandbox):
    source = "import os, signal\ndef f(x):\n    if x == 1: os.kill(-1, signal.SIGKILL)\n    return x"
    done = sandbox.run_tests(source, [Call("f", (x,)) for x in range(3)])
    assert [(one.cause, one.value) for one in done] == [("ok", 0), ("killed", None), ("killed", None)]


PROGRAMS = {
    "python": "print(int(input()) + 1)",
    "c": '#include <stdio.h>\nint main() { int x; scanf("%d", &x); printf("%d\\n", x + 1); return 0; }',
    "cpp": "#include <iostream>\nint main() { int x; std::cin >> x; std::cout << x + 1 << std::endl; }",
    "javascript": "console.log(parseInt(require('fs').readFileSync(0, 'utf8')) + 1)",
    "rust": "use std::io;\nfn main() { let mut s = String::new(); io::stdin().read_line(&mut s).unwrap(); "
    'println!("{}", s.trim().parse::<i32>().unwrap() + 1); }',
    "java": "import java.util.Scanner;\npublic class Main { public static void main(String[] a) "
    "{ System.out.println(new Scanner(System.in).nextInt() + 1); } }",
}
BROKEN = dict.fromkeys(PROGRAMS, "(((")


@pytest.mark.parametrize("language", PROGRAMS)
def test_a_language_runs_where_its_tools_are_installed_and_is_refused_by_name_where_not(sandbox, language):
    if language not in available():
        with pytest.raises(ConfigError, match=f"apt install {LANGUAGES[language].package}"):
            sandbox.run(PROGRAMS[language], language)
        return
    done = sandbox.run_tests(PROGRAMS[language], [Stdin("41"), Stdin("-1")], language)
    assert [(one.cause, one.stdout.strip()) for one in done] == [("ok", "42"), ("ok", "0")]
    wrong = sandbox.run(BROKEN[language], language)
    assert wrong.cause == ("compile" if LANGUAGES[language].compile else "crash")
    assert wrong.stderr or wrong.stdout


def test_unknown_languages_and_calls_of_other_languages_are_errors(sandbox):
    with pytest.raises(ConfigError, match="Did you mean 'python'"):
        sandbox.run("", "pyton")
    assert language_of("C++") == "cpp"
    with pytest.raises(ConfigError, match="only Python's"):
        sandbox.run_tests("", [Call("f")], "c")


@pytest.mark.parametrize("field", [{"seconds": 0}, {"seconds": math.nan}, {"memory": 1}, {"processes": 1}, {"disk": 0}])
def test_limits_that_cannot_work_are_errors(field):
    with pytest.raises(ConfigError, match=next(iter(field))):
        Limits(**field)


def test_64_honest_programs_at_once(sandbox):
    """S4: each starts threads and a child of its own, in two languages."""
    source = "import threading, os\nx = int(input())\nt = [threading.Thread(target=lambda: None) for _ in range(8)]\n"
    source += "[a.start() for a in t]; [a.join() for a in t]\nif os.fork() == 0: os._exit(0)\nos.wait()\nprint(x * x)"
    with ThreadPoolExecutor(64) as pool:
        done = list(pool.map(lambda i: sandbox.run(source, stdin=str(i), limits=Limits(seconds=20)), range(64)))
    assert [one.stdout for one in done] == [f"{i * i}\n" for i in range(64)]


def test_nothing_is_left_over(sandbox):
    """Daemons that left their session, a fork bomb's children: none of the user ids of our slots has a process."""
    daemon = "import os, time\nfor _ in range(5):\n    if os.fork() == 0:\n        os.setsid()\n"
    daemon += "        if os.fork(): os._exit(0)\n        time.sleep(100)\nprint('started')"
    before = own_children()
    assert sandbox.run(daemon, limits=QUICK).stdout == "started\n"
    assert own_children() == before
    ids = {slot.uid for slot in sandbox.backend._free.queue}
    until = time.monotonic() + 5.0  # what earlier tests killed may still be on its way out
    while (found := running(ids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not found
    assert all(not slot.group.members() for slot in sandbox.backend._free.queue if slot.group)


def running(ids: set[int]) -> list[str]:
    """The processes of these users that are not dead: state and command of each."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            state = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0]
            if os.stat(f"/proc/{pid}").st_uid in ids and state not in "ZX":
                found.append(f"{state} {Path('/proc', pid, 'cmdline').read_text()}")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def own_children() -> set[str]:
    return {child for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()}


def test_a_control_group_that_somebody_took_away_is_made_again(sandbox):
    """As another process's clean-up of groups whose owner it cannot see would."""
    slots = list(sandbox.backend._free.queue)
    for slot in slots:
        if slot.group:
            slot.group.remove()
    for _ in slots:
        assert sandbox.run("print(1)").stdout == "1\n"
    assert all(slot.group.members() == [] for slot in slots[-1:] if slot.group)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple),
    max_leaves=12,
) | st.dictionaries(st.integers() | st.text() | st.tuples(st.booleans()), st.sets(st.integers()) | st.floats())


@settings(max_examples=60, deadline=None)
@given(values)
def test_values_cross_with_their_exact_types(value):
    assert plain(decode(json.loads(json.dumps(encode(value))))) == plain(value)


def plain(value):
    """A value as text in which sets have an order."""
    if isinstance(value, set):
        return sorted(map(repr, value))
    if isinstance(value, dict):
        return [(repr(k), plain(v)) for k, v in value.items()]
    return repr(value)


@pytest.mark.parametrize("sent", [1.5, {"a": 1}, ["?", "A"], ["l"], ["t", 3], [], ["i", "12", "3"], ["f", "x"]])
def test_what_was_never_sent_is_not_decoded(sent):
    with pytest.raises((ValueError, TypeError)):
        decode(sent)


ORDINARY = """
import sys
sys.path[:0] = {path!r}
from onepolicy.tasks.sandbox import Call, Limits, Sandbox, default_sandbox
from concurrent.futures import ThreadPoolExecutor
import os
assert os.getuid() == 65534
box = default_sandbox()
print(*box.backend.layers, sep=", ")
with ThreadPoolExecutor(16) as pool:
    values = list(pool.map(lambda i: box.run_tests("def f(x): return x * x", [Call("f", (i,))])[0].value, range(16)))
print(values == [i * i for i in range(16)])
small = Limits(seconds=3, memory=64, processes=8, disk=4)
print(box.run("import os\\nfor _ in range(99):\\n    if os.fork() == 0: os.pause()", limits=small).cause)
print(box.run("x = bytearray(10**9)", limits=small).cause)
many = "import os, time\\nfor _ in range(6):\\n"
many += "    if os.fork() == 0: x = bytearray(50 * 2**20); time.sleep(1); os._exit(0)\\n"
many += "print(sum(os.wait()[1] == 9 for _ in range(6)))"
print(int(box.run(many, limits=Limits(seconds=3, memory=64, disk=4)).stdout) >= 3)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="the whole file runs as an ordinary user here")
def test_an_ordinary_user_has_a_sandbox_too(tmp_path):
    """Another user's process, with no control group and no user id to change to: the self-test passes, limits hold."""
    tmp_path.chmod(0o755)
    script = ORDINARY.format(path=[str(Path(onepolicy.__file__).parents[1])])
    system = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True
    )
    python = "/usr/bin/python3" if b"True" in system.stdout else sys.executable  # a user cannot read another's home
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--", python, "-B", "-c", script]
    known = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=known)
    assert done.returncode == 0, done.stderr
    layers, *rest = done.stdout.splitlines()
    assert "watched memory" in layers
    assert "a user of its own" not in layers
    assert rest == ["True", "crash", "memory", "True"]


def test_as_many_slots_as_asked():
    with pytest.raises(ConfigError, match="1 to 256"):
        Sandbox.open(slots=0)
