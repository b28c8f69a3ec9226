"""What runs inside the sandbox: it feeds one program its tests, one at a time, and reports what each gave.

Nothing here judges. The trainer sends a frame with the program and its limits, then a frame for each test, the next
one only after the report of the last; no expected answer, checker or score is ever sent. Each test runs in processes
of its own, all of which are killed before the next. The file stands alone (the system's Python runs its text) and
knows only the standard library.

Frame: eight hexadecimal digits, the length of the JSON that follows. Report: one line, the run's nonce, then JSON.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # numbers alone; signal itself makes enumerations
import os
import resource
import select
import sys
import time

TYPE_CHECKING = False  # a type checker takes it for typing's own, whose import would cost more than the rest
if TYPE_CHECKING:
    from typing import Any

try:  # json's own reader and writer; json itself imports regular expressions, which cost more than a test
    import _json

    class Reading:
        """How numbers and objects are read, as the reader asks for it."""

        strict = True
        object_hook = object_pairs_hook = None
        parse_float = parse_constant = float
        parse_int = int

    parts: Any = _json
    _scan = parts.make_scanner(Reading)
    _write = parts.make_encoder(None, None, parts.encode_basestring_ascii, None, ": ", ", ", False, False, True)

    def loads(text: str) -> Any:
        """The value of a JSON text without blanks around it."""
        return _scan(text, 0)[0]

    def dumps(value: Any) -> str:
        """A value as JSON, in ASCII."""
        return "".join(_write(value, 0))

except (ImportError, AttributeError, TypeError):  # another Python than CPython
    from json import dumps, loads  # type: ignore[assignment]

TAIL = 2000
"""Characters kept of a program's standard error."""
DEPTH = 100
"""Deepest nesting of a value that is sent."""
PACKAGES = ("/usr/local/lib/python3/dist-packages", "/usr/lib/python3/dist-packages")
"""Where Debian keeps libraries; the harness itself starts without looking there."""
PATH = "/usr/local/bin:/usr/bin:/bin"
EXACT = 2**53
"""Integers from here on are sent in hexadecimal, which no JSON reader rounds."""


def encode(value: Any, depth: int = DEPTH) -> Any:
    """A Python value as JSON that keeps its exact type; `["?", name]` for a type that has no encoding.

    >>> encode((1, True, 1.0, {"a": None}))
    ['t', [1, True, ['f', '1.0'], ['d', [['a', None]]]]]
    """
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if -EXACT < value < EXACT else ["i", hex(value)]
    if kind is float:
        return ["f", repr(value)]
    if kind is complex:
        return ["c", repr(value.real), repr(value.imag)]
    if kind is bytes:
        return ["b", value.hex()]
    if depth <= 0:
        return ["?", "too deeply nested"]
    for name, container in (("l", list), ("t", tuple), ("s", set), ("z", frozenset)):
        if kind is container:
            return [name, [encode(item, depth - 1) for item in value]]
    if isinstance(value, dict):  # Counter, defaultdict and OrderedDict are sent as the dictionaries they are
        return ["d", [[encode(k, depth - 1), encode(v, depth - 1)] for k, v in dict.items(value)]]
    if isinstance(value, tuple):  # a named tuple
        return ["t", [encode(item, depth - 1) for item in tuple.__iter__(value)]]
    return ["?", kind.__name__]


def decode(sent: Any) -> Any:
    """The value that `encode` sent. Raises: ValueError for anything it never sends.

    >>> decode(encode({(1, 2.5): [b"x", {3}]}))
    {(1, 2.5): [b'x', {3}]}
    """
    if not isinstance(sent, list):
        if isinstance(sent, (dict, float)):
            raise ValueError(f"{type(sent).__name__} is not part of the protocol")
        return sent
    name, *rest = sent
    if name == "i" and len(rest) == 1:
        return int(rest[0], 16)
    if name == "f" and len(rest) == 1:
        return float(rest[0])
    if name == "c" and len(rest) == 2:
        return complex(float(rest[0]), float(rest[1]))
    if name == "b" and len(rest) == 1:
        return bytes.fromhex(rest[0])
    if name == "d" and len(rest) == 1:
        return {decode(k): decode(v) for k, v in rest[0]}
    made: dict[str, Any] = {"l": list, "t": tuple, "s": set, "z": frozenset}
    if name in made and len(rest) == 1 and isinstance(rest[0], list):
        return made[name](decode(item) for item in rest[0])
    raise ValueError(f"{str(name)[:20]!r} is not part of the protocol")


def read_frame() -> Any:
    """The next frame on standard input, read to the byte; None at its end."""
    length = _exactly(8)
    return None if length is None else loads((_exactly(int(length, 16)) or b"null").decode())


def _exactly(count: int) -> bytes | None:
    parts = []
    while count:
        part = os.read(0, min(count, 65536))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def limit(head: Any, memory: int, seconds: float, address_space: bool) -> None:
    """Bounds on this process and its children, which cannot be raised again.

    address_space: whether the memory bound holds for all that is mapped, or (for virtual machines that reserve far
    more than they use) for private writable memory.
    """
    cpu = int(-(-seconds // 1)) + 1
    bounds = [(resource.RLIMIT_CPU, cpu), (resource.RLIMIT_DATA, memory), (resource.RLIMIT_CORE, 0)]
    bounds += [(resource.RLIMIT_AS, memory)] if address_space else []
    bounds += [(resource.RLIMIT_STACK, head["stack"])] if head.get("stack") else []
    for kind, bound in bounds:
        hard = resource.getrlimit(kind)[1]
        at_most = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (at_most, at_most))


def answer_call(head: Any, test: Any) -> list[Any]:
    """[cause, value or reason] of one function call, in this process: the program is loaded, then called."""
    try:
        program = compile(head["source"], "solution.py", "exec")
    except MemoryError:
        return ["memory", "MemoryError"]
    except BaseException as error:  # noqa: BLE001 - a program may raise anything
        return ["compile", f"{type(error).__name__}: {error}"[:TAIL]]
    try:
        sys.path += [folder for folder in PACKAGES if folder not in sys.path]
        module = type(sys)("solution")
        sys.modules["solution"] = module
        scope = module.__dict__
        exec(program, scope)  # noqa: S102
        if test["kind"] == "call":
            value = scope[test["name"]](*decode(test["args"]), **decode(test["kwargs"]))
        else:
            exec(test["setup"], scope)  # noqa: S102
            value = eval(compile(test["code"], "test", "eval"), scope)  # noqa: S307
        return ["ok", encode(value)]
    except MemoryError:
        return ["memory", "MemoryError"]
    except BaseException as error:  # noqa: BLE001 - a program may raise anything
        return ["crash", f"{type(error).__name__}: {error}"[:TAIL]]


class Test:
    """One process and all it starts, its pipes read up to a bound, killed at its time limit."""

    def __init__(self, head: Any, argv: list[str] | None, test: Any, *, compiling: bool = False) -> None:
        self.started = time.monotonic()
        self.seconds = head["compile_seconds"] if compiling else head["seconds"]
        self.bound = head["output"]
        self.cause: str | None = None
        self.kept: dict[int, bytearray] = {}
        given = os.memfd_create("stdin")
        os.write(given, test.get("data", "").encode("utf-8", "surrogatepass"))
        os.lseek(given, 0, os.SEEK_SET)
        pipes = [os.pipe() for _ in range(3)]
        self.ends = [read for read, _ in pipes]
        self.pid = os.fork()
        if self.pid == 0:
            status = 121
            try:
                os.setsid()
                for target, source in enumerate((given, *(write for _, write in pipes))):
                    os.dup2(source, 40 + target)
                for target in range(4):
                    os.dup2(40 + target, target)
                os.closerange(4 if argv is None else 3, 256)
                os.chdir(head["folder"])
                memory = head["compile_memory"] if compiling else head["memory"]
                limit(head, memory, self.seconds, head["address_space"] and not compiling)
                if argv is not None:
                    os.execvpe(argv[0], argv, {"PATH": PATH, "HOME": "/tmp", "LANG": "C.UTF-8"})
                said = dumps(answer_call(head, test)).encode()
                while said:
                    said = said[os.write(3, said) :]
                sys.stdout.flush()
                status = 0
            finally:
                os._exit(status)
        for _, write in pipes:
            os.close(write)
        os.close(given)
        self.kept = {read: bytearray() for read in self.ends}
        self.watch(head)

    def watch(self, head: Any) -> None:
        """Read until the process ends, its time is up or it says too much; then nothing of it is left."""
        ended = os.pidfd_open(self.pid)
        poll = select.poll()
        for read in (*self.ends, ended):
            poll.register(read, select.POLLIN)
        running = True
        while running and self.cause is None:
            left = self.started + self.seconds - time.monotonic()
            for fd, _ in poll.poll(max(0.0, left) * 1000 + 1):
                if fd == ended:
                    running = False
                elif not self.take(fd):
                    poll.unregister(fd)
            if running and time.monotonic() - self.started >= self.seconds:
                self.cause = "time"
        self.duration = time.monotonic() - self.started
        kill_all(head["alone"], self.pid)
        self.status = os.waitpid(self.pid, 0)[1]
        for read in self.ends:
            os.set_blocking(read, False)
            while self.cause is None and self.take(read):
                pass
            os.close(read)
        os.close(ended)

    def take(self, fd: int) -> bool:
        """Whether there was something to read; too much of it is a cause to stop."""
        try:
            part = os.read(fd, 65536)
        except BlockingIOError:
            return False
        room = self.bound - len(self.kept[fd])
        self.kept[fd] += part[:room]
        if len(part) > room:
            self.cause = "output"
        return bool(part)

    def text(self, which: int) -> str:
        """What came out of standard output (0), standard error (1) or the answer's channel (2)."""
        return bytes(self.kept[self.ends[which]]).decode("utf-8", "replace")

    def report(self) -> dict[str, Any]:
        """Cause, output and time, as they are sent to the trainer."""
        errors = self.text(1)[-TAIL:]
        found = {"cause": self.cause, "out": self.text(0), "err": errors, "seconds": self.duration, "exit": 0}
        number = os.WTERMSIG(self.status) if os.WIFSIGNALED(self.status) else 0
        found["exit"] = -number if number else os.WEXITSTATUS(self.status)
        if self.cause is None:
            by_signal = {int(signal.SIGXCPU): "time", int(signal.SIGKILL): "killed", int(signal.SIGXFSZ): "output"}
            found["cause"] = by_signal.get(number, "crash") if number else "crash" if found["exit"] else "ok"
            if found["cause"] == "crash" and any(sign in errors for sign in OUT_OF_MEMORY):
                found["cause"] = "memory"
        return found


OUT_OF_MEMORY = ("MemoryError", "std::bad_alloc", "memory allocation of ", "OutOfMemoryError", "heap out of memory")
"""What runtimes write when an allocation was refused."""


def kill_all(alone: bool, pid: int) -> None:
    """End a test's processes: in a process namespace of its own all but this one and init, else the test's group."""
    try:
        if alone:
            os.kill(-1, signal.SIGKILL)
        else:
            os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def run_test(head: Any, test: Any) -> dict[str, Any]:
    """The report of one test."""
    if test["kind"] == "stdin":
        return Test(head, head["argv"], test).report()
    done = Test(head, None, test)
    return {**done.report(), "answer": done.text(2)}


def missing(head: Any) -> dict[str, Any] | None:
    """A report where a tool is not there, which is nothing that the program did."""
    head["argv"] = [sys.executable if word == "python3" else word for word in head["argv"]]
    for tool in [words[0] for words in (head["compile"], head["argv"]) if words]:
        places = [tool] if "/" in tool else [os.path.join(folder, tool) for folder in PATH.split(":")]
        if not tool.startswith("./") and not any(os.access(place, os.X_OK) for place in places):
            return {"cause": "missing", "out": "", "err": tool, "seconds": 0.0}
    return None


def tidy(head: Any) -> None:
    """Where /tmp outlives the run, take the program's folder away."""
    if head["file"] and not head["alone"]:
        import shutil

        shutil.rmtree(head["folder"], ignore_errors=True)


def main() -> None:
    """Read the program, compile it if its language asks for it, then answer test after test."""
    os.closerange(3, 256)
    head = read_frame()
    bounds = [(resource.RLIMIT_FSIZE, head["disk"]), (resource.RLIMIT_NOFILE, 256), (resource.RLIMIT_CORE, 0)]
    bounds += [(resource.RLIMIT_NPROC, head["processes"])] if head["alone"] else []
    for kind, bound in bounds:
        resource.setrlimit(kind, (bound, bound))
    failed = missing(head)
    if head["file"]:
        os.makedirs(head["folder"], exist_ok=True)
        with open(os.path.join(head["folder"], head["file"]), "w", encoding="utf-8", errors="replace") as file:
            file.write(head["source"])
    if head["compile"] and failed is None:
        failed = Test(head, head["compile"], {}, compiling=True).report()
        if failed["cause"] == "ok":
            failed = None
        elif failed["cause"] in ("crash", "output"):
            failed["cause"] = "compile"
    number, until = 0, time.monotonic() + head["total"]
    while True:
        test = read_frame()
        if test is None:
            tidy(head)
            return
        head["seconds"] = min(head["seconds"], until - time.monotonic())
        if failed is not None:
            report = dict(failed)
        elif head["seconds"] <= 0:
            report = {"cause": "time", "out": "", "err": "no time was left for this test", "seconds": 0.0}
        else:
            report = run_test(head, test)
        line = head["nonce"].encode() + dumps({"test": number, **report}).encode() + b"\n"
        while line:
            line = line[os.write(1, line) :]
        number += 1


if __name__ == "__main__":
    main()
