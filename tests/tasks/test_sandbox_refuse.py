"""S2, S3 and the ladder: without a sandbox that holds nothing is run; a container or a server is used where named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import onepolicy
from onepolicy.errors import ConfigError, RewardError
from onepolicy.tasks import sandbox_selftest
from onepolicy.tasks.code import CodeVerifier
from onepolicy.tasks.code_tests import CodeTest
from onepolicy.tasks.sandbox import Call, Limits, Sandbox, Stdin, default_sandbox
from onepolicy.tasks.sandbox_bwrap import Bubblewrap, slot_uid
from onepolicy.tasks.sandbox_cgroup import _parents, make_group
from onepolicy.tasks.sandbox_remote import SandboxFusion
from onepolicy.tasks.sandbox_seccomp import CALLS, program
from onepolicy.tasks.sandbox_types import Result
from onepolicy.types import Message, Task

FAKES = {
    "just runs it": 'while [ "$1" != "--" ]; do shift; done; shift; exec "$@"',
    "runs it and says so": (
        'while [ "$1" != "--" ]; do case "$1" in --json-status-fd) fd=$2;; esac; shift; done; shift; '
        '"$@" <&0 & echo "{\\"child-pid\\": $!}" >/proc/self/fd/$fd; wait'
    ),
    "makes no user namespace": "echo 'bwrap: No permissions to create new namespace' >&2; exit 1",
    "says nothing": "exit 0",
}


@pytest.fixture
def executable(tmp_path):
    """A function that writes a shell script others may run; its path."""
    for place in (tmp_path, *(parent for parent in tmp_path.parents if parent.name.startswith(("pytest-", "popen-")))):
        place.chmod(0o755)

    def write(name, text):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    return write


@pytest.mark.parametrize("fake", FAKES)
def test_a_bwrap_that_does_not_hold_is_refused(executable, fake):
    """S3, and S2 with user namespaces off: the message names what failed and the fix."""
    with pytest.raises(ConfigError, match="apt install bubblewrap") as refusal:
        Sandbox.open(bwrap=executable("bwrap", FAKES[fake]), slots=2)
    assert "none is run" in str(refusal.value)
    assert "self-test" in str(refusal.value)
    if fake == "makes no user namespace":
        assert "No permissions to create new namespace" in str(refusal.value)


def test_canaries_see_a_way_out_that_a_fake_leaves_open(executable):
    """A fake that behaves like bwrap in all but holding is found out by canaries that got out, not by its manners."""
    script = (
        "import json, os, subprocess, sys\n"
        "argv = sys.argv[1:]\nfd = int(argv[argv.index('--json-status-fd') + 1])\n"
        "child = subprocess.Popen(argv[argv.index('--') + 1:])\n"
        "os.write(fd, json.dumps({'child-pid': child.pid}).encode() + b'\\n')\nsys.exit(child.wait())\n"
    )
    fake = executable("bwrap", f'exec /usr/bin/python3 -c "$(cat <<\'END\'\n{script}\nEND\n)" "$@"')
    backend = Bubblewrap(10, executable=fake)
    backend.alone = False  # or the canaries' clean-up would reach every process of the slot's user
    found = sandbox_selftest.try_canaries(Sandbox(backend))
    assert any(failure.startswith("host file: got out") for failure in found)
    assert any(failure.startswith("loopback: got out") for failure in found)
    assert any("a connection arrived" in failure for failure in found)


def test_without_bwrap_nothing_is_run_and_the_fix_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"not installed\. Install it: apt install bubblewrap"):
        Sandbox.open()
    with pytest.raises(ConfigError, match="podman or docker is not installed"):
        Sandbox.open(container="python:3.11-slim")


def test_a_missing_sandbox_is_no_wrong_answer(monkeypatch, tmp_path):
    """A Score without a value, cause sandbox; and nothing was executed."""
    mark = tmp_path / "mark"
    tests = (CodeTest(Call("f"), 1),)
    task = Task("t", (Message("user", "?"),), "", CodeVerifier(sandbox=Sandbox(Broken())), {"tests": tests})
    text = f"```python\nopen({str(mark)!r}, 'w')\ndef f(): return 1\n```"
    score = task.verifier(task, text)
    assert (score.value, score.state, score.cause) == (None, "invalid", "sandbox")
    assert not mark.exists()


class Broken:
    name, local, alone, layers = "broken", True, True, ()

    def talk(self, *_):
        raise RewardError("the sandbox was not set up: no space left")


def test_the_self_test_runs_once_a_process(monkeypatch):
    default_sandbox()

    def again(_):
        raise AssertionError("tested twice")

    monkeypatch.setattr(sandbox_selftest, "try_canaries", again)
    Sandbox.open(slots=1)


@pytest.mark.parametrize(("slow", "why"), [(1, ""), (2, "came to no end (time")])
def test_a_canary_that_ran_out_of_time_gets_more_once_and_alone(monkeypatch, slow, why):
    """A busy machine is no reason to refuse; a canary that never ends is."""
    canary = sandbox_selftest.Canary("x", "check(False)", {})
    given = []

    class Slow:
        backend = default_sandbox().backend

        def run(self, source, limits):
            given.append(limits.seconds)
            text = f"{sandbox_selftest.STARTED}\n"
            return Result("time", text) if len(given) <= slow else Result("ok", text + sandbox_selftest.TRIED)

    monkeypatch.setattr(sandbox_selftest, "_canaries", lambda *args: [canary])
    found = sandbox_selftest.try_canaries(Slow())
    assert given == [8.0, 32.0]
    assert [why in each for each in found] == [True] * bool(why)


def test_a_canary_that_got_out_has_no_second_try(monkeypatch):
    """Others that ran out of time change nothing then."""
    ran = []

    class Leaks:
        backend = default_sandbox().backend

        def run(self, source, limits):
            ran.append(source)
            text = f"{sandbox_selftest.STARTED}\n"
            return Result("ok", text + sandbox_selftest.OUT) if "LEAKS" in source else Result("time", text)

    canaries = [sandbox_selftest.Canary("x", "", {"LEAKS": 1}), sandbox_selftest.Canary("y", "", {})]
    monkeypatch.setattr(sandbox_selftest, "_canaries", lambda *args: canaries)
    found = sandbox_selftest.try_canaries(Leaks())
    assert len(ran) == 2
    assert found[0] == "x: got out"
    assert "came to no end" in found[1]


def test_a_canary_that_does_not_start_is_a_refusal():
    canary = sandbox_selftest.Canary("x", "", {})
    verdict = sandbox_selftest._verdict
    result = default_sandbox().run("print('something else')")
    assert "did not start" in verdict(canary, result)
    assert "came to no end" in verdict(canary, default_sandbox().run(f"print({sandbox_selftest.STARTED!r}); 1 / 0"))
    assert "got out" in verdict(canary, default_sandbox().run(f"print({sandbox_selftest.OUT!r})"))
    assert verdict(canary, default_sandbox().run(canary.source() + "check(False)")) == ""


CONTAINER = """
[ "$1" = rm ] && exit 0
size=65536
while [ "$1" != python3 ]; do
  case "$1" in
    --network) [ "$2" = none ] || exit 125; network=off;;
    --tmpfs) size=${2#*size=}; size=${size%%,*};;
    no-image) echo "no such image" >&2; exit 125;;
  esac
  shift
done
[ "$network" = off ] || exit 125
shift
[ "$(id -u)" = 0 ] && drop="/usr/bin/setpriv --reuid 65533 --regid 65533 --clear-groups"
exec env -i $drop %(bwrap)s \\
  --unshare-all --cap-drop ALL --die-with-parent --clearenv --ro-bind /usr /usr --symlink usr/lib /lib \\
  --symlink usr/lib64 /lib64 --symlink usr/bin /bin --proc /proc --dev /dev --size $size --tmpfs /dev/shm \\
  --remount-ro /dev --size $size --tmpfs /tmp --remount-ro / --chdir /tmp --uid 65534 --gid 65534 --disable-userns \\
  --unshare-user -- /usr/bin/prlimit --data=268435456 /usr/bin/python3 "$@"
"""


def test_a_container_is_used_where_one_is_named(executable, monkeypatch):
    """The runtime is a stand-in that contains; it is asked for no network, a read-only system and bounds."""
    import shutil

    docker = executable("docker", CONTAINER % {"bwrap": shutil.which("bwrap")})
    monkeypatch.setenv("PATH", f"{Path(docker).parent}:/usr/bin:/bin")
    monkeypatch.setattr("onepolicy.tasks.sandbox_remote.RUNTIMES", ("docker",))
    monkeypatch.setattr(sandbox_selftest, "_canaries", without_memory_of_all(sandbox_selftest._canaries))
    box = Sandbox.open(bwrap="no-such-bwrap", container="python:3.11-slim", slots=2)
    assert box.backend.name.startswith("container")
    done = box.run_tests("def f(x): return x, [x]", [Call("f", (2,))])
    assert done[0].value == (2, [2])
    assert box.run("print(input())", stdin="hello").stdout == "hello\n"
    with pytest.raises(ConfigError, match="no such image"):
        Sandbox.open(bwrap="no-such-bwrap", container="no-image")


def without_memory_of_all(make):
    """The canaries but the one for which the stand-in would need a control group."""
    return lambda *args: [canary for canary in make(*args) if canary.name != "memory of all"]


class Fusion(BaseHTTPRequestHandler):
    """SandboxFusion's /run_code: it runs the harness it is sent, in a plain process with no network to speak of."""

    failures = 0
    asked: list = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked.append((self.path, body))
        if type(self).failures > 0:
            type(self).failures -= 1
            self.send_response(503)
            self.end_headers()
            return
        done = subprocess.run(
            [sys.executable, "-c", body["code"]], input=body["stdin"], capture_output=True, text=True, check=False
        )
        run = {"status": "Finished", "stdout": done.stdout, "stderr": done.stderr, "return_code": done.returncode}
        said = json.dumps({"status": "Success", "run_result": run}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    Fusion.failures, Fusion.asked = 0, []
    with ThreadingHTTPServer(("127.0.0.1", 0), Fusion) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_sandbox_fusion_runs_the_same_harness_and_failures_are_tried_again(server):
    Fusion.failures = 2
    box = Sandbox(SandboxFusion(server, pause=0.01))
    done = box.run_tests("def f(x): return {x: (x,)}", [Call("f", (1,)), Call("f", ("a",))])
    assert [one.value for one in done] == [{1: (1,)}, {"a": ("a",)}]
    assert len(Fusion.asked) == 3
    path, body = Fusion.asked[-1]
    assert path == "/run_code"
    assert (body["language"], body["run_timeout"] > 0, body["memory_limit_MB"] > 512) == ("python", True, True)


def test_a_server_that_fails_is_no_wrong_answer(server):
    Fusion.failures = 9
    with pytest.raises(RewardError, match="failed 3 times: HTTPError: HTTP Error 503"):
        Sandbox(SandboxFusion(server, pause=0.01)).run("print(1)")


def test_a_server_next_door_that_lets_programs_reach_this_machine_is_refused(server):
    """The stand-in holds nothing, and its canaries say so."""
    with pytest.raises(ConfigError, match="host file: got out"):
        Sandbox.open(bwrap="no-such-bwrap", url=server)
    with pytest.raises(ConfigError, match="http:// or https://"):
        Sandbox.open(bwrap="no-such-bwrap", url="ftp://x")


def test_a_tool_that_is_missing_elsewhere_is_a_mistake_in_the_setup(server):
    with pytest.raises(ConfigError, match="rustc is not installed where programs are run"):
        Sandbox(SandboxFusion(server)).run_tests("fn main(){}", [Stdin()], "rust")


NESTED = """
import sys
sys.path.insert(0, {path!r})
from onepolicy.errors import ConfigError
from onepolicy.tasks.sandbox import default_sandbox
try:
    print(default_sandbox().run("print('it ran')").stdout)
except ConfigError as error:
    print("REFUSED", error)
"""


@pytest.mark.parametrize("allowed", [True, False])
def test_where_user_namespaces_are_switched_off_nothing_is_run(allowed):
    """S2 for real: a namespace of our own whose limit on further ones is 0; with the limit left alone it works."""
    off = "" if allowed else "echo 0 > /proc/sys/user/max_user_namespaces; "
    script = NESTED.format(path=str(Path(onepolicy.__file__).parents[1]))
    command = ["unshare", "-Ur", "sh", "-c", off + 'exec "$@"', "sh", sys.executable, "-B", "-c", script]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if allowed:
        assert said.strip() == "it ran"
    else:
        assert said.startswith("REFUSED No sandbox")
        assert "apt install bubblewrap" in said
        assert "kernel.unprivileged_userns_clone" in said
        assert "it ran" not in said


def test_user_ids_are_nobody_elses(tmp_path, monkeypatch):
    """1,000,000,000 + 256 times the process + the slot; inside what a user namespace maps."""
    whole, small = tmp_path / "whole", tmp_path / "small"
    whole.write_text("0 0 4294967295\n")
    small.write_text("0 100000 65536\n")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert slot_uid(3, whole) == 1_000_000_000 + os.getpid() * 256 + 3
    assert 32767 <= slot_uid(3, small) < 65536
    assert len({slot_uid(n, small) for n in range(16)}) == 16
    small.write_text("0 1000 1\n")
    assert slot_uid(3, small) is None
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert slot_uid(3, whole) is None


def test_a_control_group_of_version_2_is_made_where_one_is_handed_on(tmp_path):
    """As systemd lays them out: the session's own group hands nothing on, its slice does."""
    session = tmp_path / "user.slice" / "session.scope"
    session.mkdir(parents=True)
    for folder, handed in ((session, ""), (session.parent, "memory pids"), (tmp_path, "memory pids")):
        (folder / "cgroup.subtree_control").write_text(handed)
    own = tmp_path / "self"
    own.write_text("0::/user.slice/session.scope\n")
    assert _parents(tmp_path, own) == (session.parent, session.parent, True)
    assert make_group(0, tmp_path, own) is None  # a plain folder has no cgroup.procs to enter by: it is no group
    assert not list(session.parent.glob("onepolicy*/cgroup.procs"))
    own.write_text("4:memory:/a\n8:pids:/b\n0::/\n")
    assert _parents(tmp_path, own) is None
    for place in ("memory/a", "pids/b"):
        (tmp_path / place).mkdir(parents=True)
    assert _parents(tmp_path, own) == (tmp_path / "memory/a", tmp_path / "pids/b", False)


def test_the_filter_knows_both_architectures_and_no_others():
    """The first instruction loads the architecture, the last allows; each refused call is two instructions."""
    for machine in ("x86_64", "aarch64"):
        code = program(machine)
        assert len(code) % 8 == 0
        assert code[:8] == bytes([0x20, 0, 0, 0, 4, 0, 0, 0])
        assert code[-8:] == bytes([6, 0, 0, 0, 0, 0, 0xFF, 0x7F])
        assert len(code) // 8 >= 4 + 2 * len(CALLS)
    assert program("riscv64") is None


def test_limits_of_a_run_are_bounded_by_the_total():
    assert Limits(seconds=2.0).total is None
    with pytest.raises(ConfigError, match="total"):
        Limits(total=-1.0)
