"""The sandbox's harness elsewhere than under bubblewrap: in a container, or on a SandboxFusion server.

Both are only used where they are named, and only after the self-test. A container is one of podman or docker, started
anew for each program, without network, rights, or anything to write but a bounded /tmp. Of a SandboxFusion server this
machine can see only that what runs there does not reach back here and that the limits of single processes hold; that
the server protects itself is its operator's business.

Source: SandboxFusion's HTTP interface, POST /run_code (Bytedance Seed Foundation Code Team, arXiv 2412.00535;
bytedance.github.io/SandboxFusion).
"""

from __future__ import annotations

import json
import math
import secrets
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from onepolicy.errors import ConfigError, RewardError
from onepolicy.tasks.sandbox_bwrap import Bounds
from onepolicy.tasks.sandbox_process import Ended, Transcript, converse, parse_report

RUNTIMES = ("podman", "docker")


class Container:
    """Runs the harness in a fresh container of an image that has `python3`."""

    local = False
    alone = True

    def __init__(self, image: str, slots: int, runtime: str = "") -> None:
        """image: by its name. slots: containers at once. runtime: podman or docker, whichever is there if empty.

        Raises: ConfigError where neither is installed.
        """
        found = [path for name in ((runtime,) if runtime else RUNTIMES) if (path := shutil.which(name))]
        if not found:
            raise ConfigError(f"{runtime or ' or '.join(RUNTIMES)} is not installed. apt install podman.")
        self.runtime, self.image = found[0], image
        self.name = f"container {self.runtime} {image}"
        self._free = threading.BoundedSemaphore(slots)

    @property
    def layers(self) -> tuple[str, ...]:
        """What the container's runtime is asked for, in words."""
        return ("container", "no network", "no capabilities", "read-only system", "memory, process and disk limits")

    def talk(
        self, argv: Sequence[str], head: bytes, tests: Sequence[bytes], nonce: bytes, bounds: Bounds
    ) -> Transcript:
        """The conversation with `argv` in a container that is removed when this returns.

        Raises: RewardError when no container came up.
        """
        name = f"onepolicy-{secrets.token_hex(8)}"
        with self._free:
            process = subprocess.Popen(
                self._command(name, argv, bounds),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            try:
                done = converse(
                    process, head, tests, nonce, seconds=bounds.seconds, each=bounds.each, output=bounds.output
                )
            finally:
                removed = subprocess.run([self.runtime, "rm", "-f", name], capture_output=True, check=False, timeout=60)
                process.kill()
                status = process.wait()
        if not done.reports and done.ended == "ok" and status in (125, 126, 127):
            words = done.errors.strip() or removed.stderr.decode("utf-8", "replace")
            raise RewardError(f"the container did not start: {words[-300:]}")
        return done

    def _command(self, name: str, argv: Sequence[str], bounds: Bounds) -> list[str]:
        disk = f"rw,exec,nosuid,nodev,size={bounds.disk},mode=1777"
        options = ["--rm", "--interactive", "--init", "--name", name, "--network", "none", "--read-only"]
        options += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", "65534:65534"]
        options += ["--pids-limit", str(bounds.processes + 8), "--memory", str(bounds.memory)]
        options += ["--memory-swap", str(bounds.memory), "--tmpfs", f"/tmp:{disk}", "--shm-size", str(bounds.disk)]
        return [self.runtime, "run", *options, "--workdir", "/tmp", self.image, "python3", *argv[1:]]


class SandboxFusion:
    """Runs the harness on a SandboxFusion server, whole tests in one request."""

    local = False
    alone = False

    def __init__(self, url: str, retries: int = 3, pause: float = 0.5) -> None:
        """url: of the server. retries: requests for one program at most. pause: seconds before the second, then twice.

        Raises: ConfigError for what is no http(s) address.
        """
        if not url.startswith(("http://", "https://")):
            raise ConfigError(
                f"{url!r} is not the address of a SandboxFusion server; it starts with http:// or https://."
            )
        self.url, self.retries, self.pause = url.rstrip("/"), retries, pause
        self.name = f"SandboxFusion {self.url}"

    @property
    def layers(self) -> tuple[str, ...]:
        """What is known of the server, in words."""
        return ("another machine's sandbox", "process limits")

    def talk(
        self, argv: Sequence[str], head: bytes, tests: Sequence[bytes], nonce: bytes, bounds: Bounds
    ) -> Transcript:
        """The reports of one request. Raises: RewardError when the server fails at every try."""
        asked = {
            "code": argv[-1],
            "language": "python",
            "stdin": (head + b"".join(tests)).decode(),
            "run_timeout": bounds.seconds,
            "compile_timeout": bounds.seconds,
            "memory_limit_MB": math.ceil(bounds.memory / 2**20),
        }
        started = time.monotonic()
        run = self._ask(asked, bounds.seconds + 30)
        ended: Ended = "time" if run.get("status") == "TimeLimitExceeded" else "ok"
        lines = str(run.get("stdout") or "").encode().split(b"\n")
        reports = tuple(report for line in lines if (report := parse_report(line, nonce)) is not None)
        return Transcript(reports, ended, str(run.get("stderr") or "")[-4000:], time.monotonic() - started)

    def _ask(self, asked: dict[str, Any], seconds: float) -> dict[str, Any]:
        why = ""
        for attempt in range(self.retries):
            if attempt:
                time.sleep(self.pause * 2 ** (attempt - 1))
            request = urllib.request.Request(
                f"{self.url}/run_code", json.dumps(asked).encode(), {"Content-Type": "application/json"}
            )
            try:
                with urllib.request.urlopen(request, timeout=seconds) as answer:
                    said = json.loads(answer.read())
            except (OSError, ValueError, urllib.error.URLError) as error:
                why = f"{type(error).__name__}: {error}"
                continue
            run = said.get("run_result") if isinstance(said, dict) else None
            if isinstance(run, dict) and said.get("status") in ("Success", "Failed"):
                return run
            why = str(said.get("message") or said.get("status") if isinstance(said, dict) else said)[:300]
        raise RewardError(f"SandboxFusion at {self.url} failed {self.retries} times: {why}")
