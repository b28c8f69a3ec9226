"""A judge behind an OpenAI-compatible endpoint: time limits, retries, a cache on disk, tokens and money counted.

The key is read from an environment variable when a request is made, and stands in no message, cache or pickle. It is
sent to the address named and nowhere else: redirects are refused, and so is plain http to another machine. Not here:
what a judge is asked and how its reply is read (rubric.py).
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any, final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from onepolicy.errors import ConfigError
from onepolicy.run.files import replace_object
from onepolicy.tasks.rubric import JudgeError

MAX_REPLY = 1 << 20
"""Bytes of a response at most."""
MAX_WAIT = 60.0
"""Seconds between two tries at most, whatever the server asks for."""
TRY_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""HTTP states after which the same request may succeed."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Endpoint:
    """Where a judge is and how it is asked.

    base_url: up to and without /chat/completions, such as https://api.openai.com/v1 or http://localhost:8000/v1.
    key_variable: environment variable with the key; "" sends none. timeout: seconds for a whole response. retries:
    after a time-out, a lost connection or a busy server, with waits of backoff * 2^i seconds, half of it at random.
    price_in, price_out: money for a million tokens. max_cost: money after which no more is asked. cache: directory of
    replies by the hash of what was asked; "" keeps none. json_mode: asks the server to answer in JSON only.
    """

    base_url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    timeout: float = 60.0
    retries: int = 4
    backoff: float = 1.0
    temperature: float = 0.0
    max_tokens: int = 512
    price_in: float = 0.0
    price_out: float = 0.0
    max_cost: float | None = None
    cache: str = ""
    json_mode: bool = False

    def __post_init__(self) -> None:
        place = urlsplit(self.base_url)
        if place.scheme not in ("http", "https") or not place.hostname:
            raise ConfigError(f"base_url is {self.base_url!r}; expected http(s)://host[:port]/v1.")
        if place.username or place.password:
            raise ConfigError("base_url carries a user or password; put the key into an environment variable.")
        if place.scheme == "http" and place.hostname not in LOOPBACK and self.key_variable:
            raise ConfigError(
                f"base_url is {self.base_url!r}: the key would travel unencrypted. Use https, or key_variable=''."
            )
        if self.timeout <= 0 or self.retries < 0 or self.backoff < 0 or self.max_tokens < 1:
            raise ConfigError(f"{self}: timeout is above 0, retries and backoff at least 0, max_tokens at least 1.")


@dataclass(frozen=True)
class Usage:
    """What a judge has done. requests: answered by the server; cached: by the cache. cost: in the prices' money."""

    requests: int = 0
    cached: int = 0
    retries: int = 0
    failures: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0


@final
class EndpointJudge:
    """A judge behind an endpoint; safe from several threads, and picklable for worker processes, which count anew.

    Raises: ConfigError when the environment variable with the key is not set.
    """

    def __init__(self, endpoint: Endpoint, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.endpoint = endpoint
        self._sleep = sleep
        self._usage = Usage()
        self._lock = threading.Lock()
        self._opener = _opener(endpoint)
        self._key()

    def __reduce__(self) -> tuple[type[EndpointJudge], tuple[Endpoint]]:
        return EndpointJudge, (self.endpoint,)

    @property
    def usage(self) -> Usage:
        """What it has done so far."""
        return self._usage

    def __call__(self, prompt: str) -> str:
        """The reply, from the cache or from the server. Raises: JudgeError when there is none."""
        body = self._body(prompt)
        place = self._place(body)
        if place is not None and (known := _cached(place)) is not None:
            self._count(cached=1)
            return known
        limit = self.endpoint.max_cost
        if limit is not None and self._usage.cost >= limit:
            raise JudgeError(f"budget: {self._usage.cost:.4g} is spent, max_cost is {limit:.4g}")
        reply, used = self._ask(body)
        tokens_in, tokens_out = _count_of(used, "prompt_tokens"), _count_of(used, "completion_tokens")
        cost = (tokens_in * self.endpoint.price_in + tokens_out * self.endpoint.price_out) / 1e6
        self._count(requests=1, tokens_in=tokens_in, tokens_out=tokens_out, cost=cost)
        if place is not None:
            place.parent.mkdir(parents=True, exist_ok=True)
            replace_object(place, {"reply": reply})
        return reply

    def _body(self, prompt: str) -> dict[str, Any]:
        form = {"response_format": {"type": "json_object"}} if self.endpoint.json_mode else {}
        return {
            "model": self.endpoint.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": self.endpoint.temperature,
            "max_tokens": self.endpoint.max_tokens,
            **form,
        }

    def _place(self, body: Mapping[str, Any]) -> Path | None:
        """The cache's file of a request: named by the hash of the address and all that is sent but the key."""
        if not self.endpoint.cache:
            return None
        name = sha256(json.dumps([self.endpoint.base_url, body], sort_keys=True).encode()).hexdigest()
        return Path(self.endpoint.cache) / name[:2] / f"{name}.json"

    def _ask(self, body: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        fault, wait = "", 0.0
        for attempt in range(self.endpoint.retries + 1):
            if attempt:
                self._count(retries=1)
                pause = self.endpoint.backoff * 2 ** (attempt - 1)
                self._sleep(min(MAX_WAIT, max(wait, pause * random.uniform(0.5, 1.0))))
            try:
                return _reply(self._send(body))
            except HTTPError as error:
                fault = f"HTTP {error.code} {error.reason}"
                wait = _retry_after(error.headers.get("Retry-After"))
                error.close()
                if error.code not in TRY_AGAIN:
                    break
            except TimeoutError:
                fault = f"time-out after {self.endpoint.timeout:g} s"
            except (URLError, HTTPException, ConnectionError) as error:
                reason = getattr(error, "reason", error)
                late = isinstance(reason, TimeoutError)
                fault = f"time-out after {self.endpoint.timeout:g} s" if late else f"no connection ({reason})"
            except ValueError as error:
                fault = str(error)
        self._count(failures=1)
        raise JudgeError(f"{fault}, {self.endpoint.model} at {urlsplit(self.endpoint.base_url).netloc}")

    def _send(self, body: Mapping[str, Any]) -> bytes:
        """The response's bytes, all of them within the time limit."""
        deadline = time.monotonic() + self.endpoint.timeout
        headers = {"Content-Type": "application/json", **self._key()}
        url = self.endpoint.base_url.rstrip("/") + "/chat/completions"
        request = Request(url, data=json.dumps(body).encode(), headers=headers, method="POST")
        content = b""
        with self._opener.open(request, timeout=self.endpoint.timeout) as response:
            while piece := response.read1(1 << 16):
                content += piece
                if time.monotonic() > deadline:
                    raise TimeoutError
                if len(content) > MAX_REPLY:
                    raise ValueError(f"the response is longer than {MAX_REPLY:,} bytes")
        return content

    def _key(self) -> dict[str, str]:
        name = self.endpoint.key_variable
        if not name:
            return {}
        if not os.environ.get(name):
            raise ConfigError(
                f"the environment variable {name} is not set; put the judge's key there, or name another."
            )
        return {"Authorization": f"Bearer {os.environ[name]}"}

    def _count(self, **more: float) -> None:
        with self._lock:
            now = vars(self._usage)
            self._usage = replace(self._usage, **{name: now[name] + value for name, value in more.items()})  # type: ignore[arg-type]


@final
class _NoRedirect(HTTPRedirectHandler):
    """Refuses redirects, which would carry the key elsewhere."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


def _opener(endpoint: Endpoint) -> OpenerDirector:
    here = urlsplit(endpoint.base_url).hostname in LOOPBACK
    return build_opener(_NoRedirect(), *((ProxyHandler({}),) if here else ()))


def _reply(content: bytes) -> tuple[str, Mapping[str, Any]]:
    """(reply, usage) of a chat completion. Raises: ValueError for anything else."""
    try:
        found = json.loads(content)
        text = found["choices"][0]["message"]["content"]
        usage = found.get("usage") or {}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"the response is no chat completion ({type(error).__name__}: {content[:80]!r})") from error
    if not isinstance(text, str) or not isinstance(usage, dict):
        raise ValueError("the response's message is not text")
    return text, usage


def _count_of(usage: Mapping[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) and value >= 0 else 0


def _retry_after(value: str | None) -> float:
    """Seconds a server asks to wait, 0 where it says none or a date."""
    return float(value) if value and value.replace(".", "", 1).isdigit() else 0.0


def _cached(place: Path) -> str | None:
    try:
        reply = json.loads(place.read_text(encoding="utf-8"))["reply"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return reply if isinstance(reply, str) else None
