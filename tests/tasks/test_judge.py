"""The endpoint's client against a local server that behaves badly in every way there is."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from onepolicy.errors import ConfigError
from onepolicy.tasks.base import conversation
from onepolicy.tasks.judge import Endpoint, EndpointJudge
from onepolicy.tasks.rubric import Criterion, JudgeError, Rubric, RubricVerifier, in_threads
from onepolicy.types import Task

SECRET = "sk-do-not-tell"
RUBRIC = Rubric((Criterion("correctness", "Is it right?", 10),))


class Server(ThreadingHTTPServer):
    """Answers request i by script[i], the last one from then on: a state, a text, bytes, a function of the request."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.seen, self.keys, self.lock = ["{}"], [], [], threading.Lock()
        self.busy = self.most = 0


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            action = server.script[min(len(server.seen), len(server.script) - 1)]
            server.seen.append((self.path, body))
            server.keys.append(self.headers.get("Authorization"))
            server.busy += 1
            server.most = max(server.most, server.busy)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.act(action(body) if callable(action) else action)
        with server.lock:
            server.busy -= 1

    def act(self, action):
        if action == "hang":
            time.sleep(1.0)
        elif action == "drip":
            self.send_response(200)
            self.end_headers()
            for _ in range(20):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.05)
        elif action == "cut":
            self.connection.close()
        elif isinstance(action, bytes):
            self.reply(200, action)
        elif isinstance(action, str):
            message = {"choices": [{"message": {"content": action}}]}
            usage = {"usage": {"prompt_tokens": 1000, "completion_tokens": 20}}
            self.reply(200, json.dumps(message | usage).encode())
        else:
            state, headers = action if isinstance(action, tuple) else (action, {})
            self.reply(state, b"{}", headers)

    def reply(self, state, content, headers=None):
        self.send_response(state)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def ask(server):
    """ask(script, **fields): a judge of a server with that script, and the waits it would have made."""

    def make(*script, **fields):
        server.script, server.seen = list(script), []
        place = f"http://127.0.0.1:{server.server_address[1]}/v1"
        settings = {"key_variable": "JUDGE_KEY", "timeout": 5.0, "retries": 2, **fields}
        waits = []
        return EndpointJudge(Endpoint(place, "m", **settings), sleep=waits.append), waits

    return make


def test_a_reply_its_tokens_and_its_price(ask, server):
    """1000 tokens in at 3 a million and 20 out at 15 a million: 0.003 + 0.0003."""
    judge, _ = ask("fine", price_in=3.0, price_out=15.0, json_mode=True)
    assert judge("How good?") == "fine"
    path, body = server.seen[0]
    assert path == "/v1/chat/completions"
    assert body["messages"] == [{"role": "user", "content": "How good?"}]
    assert (body["model"], body["temperature"], body["response_format"]) == ("m", 0.0, {"type": "json_object"})
    assert server.keys == [f"Bearer {SECRET}"]
    assert (judge.usage.requests, judge.usage.tokens_in, judge.usage.tokens_out) == (1, 1000, 20)
    assert judge.usage.cost == pytest.approx(0.0033)


@pytest.mark.parametrize("fault", [429, 500, 503, "cut", b"<html>busy</html>", b'{"choices": []}'])
def test_what_may_pass_is_tried_again(fault, ask, server):
    judge, waits = ask(fault, fault, "fine", backoff=8.0)
    assert judge("?") == "fine"
    assert (len(server.seen), judge.usage.retries, judge.usage.failures) == (3, 2, 0)
    assert 4 <= waits[0] <= 8
    assert 8 <= waits[1] <= 16


def test_the_server_may_ask_for_a_longer_wait_but_not_for_any(ask):
    judge, waits = ask((429, {"Retry-After": "20"}), (429, {"Retry-After": "9999"}), "fine", backoff=0.1)
    assert judge("?") == "fine"
    assert waits == [20.0, 60.0]


@pytest.mark.parametrize("fault", [400, 401, 403, 404])
def test_what_will_not_pass_is_not_tried_again(fault, ask, server):
    judge, _ = ask(fault)
    with pytest.raises(JudgeError, match=f"HTTP {fault}"):
        judge("?")
    assert (len(server.seen), judge.usage.failures) == (1, 1)


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_time_outs(fault, ask, server):
    """A server that says nothing, and one that sends a byte now and then."""
    judge, _ = ask(fault, timeout=0.2, retries=1)
    started = time.monotonic()
    with pytest.raises(JudgeError, match=r"time-out after 0.2 s"):
        judge("?")
    assert time.monotonic() - started < 1.5
    assert len(server.seen) == 2


def test_nobody_there():
    judge = EndpointJudge(Endpoint("http://127.0.0.1:9/v1", "m", key_variable="", retries=1), sleep=lambda s: None)
    with pytest.raises(JudgeError, match="no connection"):
        judge("?")


def test_a_redirect_is_refused_with_the_key_kept(ask, server):
    """The key would go with it."""
    judge, _ = ask((302, {"Location": "http://127.0.0.1:9/steal"}))
    with pytest.raises(JudgeError, match="HTTP 302"):
        judge("?")


def test_the_cache_answers_the_second_time_and_a_broken_entry_is_asked_anew(ask, server, tmp_path):
    judge, _ = ask("first", "second", cache=str(tmp_path))
    assert [judge("?"), judge("?"), judge("!")] == ["first", "first", "second"]
    assert (len(server.seen), judge.usage.cached, judge.usage.requests) == (2, 1, 2)
    files = sorted(path for path in tmp_path.rglob("*.json"))
    assert len(files) == 2
    for file in files:
        file.write_text("{")
    server.script = ["third"]
    assert judge("?") == "third"


def test_another_model_has_another_cache_entry(ask, tmp_path):
    first, _ = ask("a", cache=str(tmp_path))
    assert first("?") == "a"
    second, _ = ask("b", cache=str(tmp_path), temperature=0.5)
    assert second("?") == "b"


def test_money_runs_out(ask, server):
    """Each reply costs 0.001: two are paid for, the third is not asked."""
    judge, _ = ask("fine", price_in=1.0, max_cost=0.002)
    judge("1")
    judge("2")
    with pytest.raises(JudgeError, match=r"budget: 0.002 is spent"):
        judge("3")
    assert len(server.seen) == 2


def test_the_key_is_nowhere_to_be_read(ask, tmp_path):
    judge, _ = ask(500, retries=0, cache=str(tmp_path))
    with pytest.raises(JudgeError) as error:
        judge("?")
    judge2, _ = ask("fine", cache=str(tmp_path))
    judge2("?")
    texts = [str(error.value), repr(judge.endpoint), repr(vars(judge)), str(pickle.dumps(judge))]
    texts += [path.read_text() for path in tmp_path.rglob("*.json")]
    assert not any(SECRET in text for text in texts)


def test_a_pickled_judge_asks_the_same_server(ask):
    judge, _ = ask("fine")
    copy = pickle.loads(pickle.dumps(judge))  # noqa: S301
    assert copy("?") == "fine"
    assert (copy.usage.requests, judge.usage.requests) == (1, 0)


def verdicts(judge, texts, workers=4):
    verifier = RubricVerifier(RUBRIC, judge)
    task = Task("t", conversation("2+2?"), "4", verifier)
    return in_threads(workers)([(task, text) for text in texts])


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (500, "HTTP 500"),
        ("hang", "time-out"),
        ("not json", "not one JSON"),
        ('{"correctness": 11}', "correctness is 11"),
    ],
)
def test_a_judge_that_fails_makes_scores_invalid_never_0(script, words, ask):
    judge, _ = ask(script, retries=0, timeout=0.3)
    (score,) = verdicts(judge, ["4"])
    assert (score.value, score.cause) == (None, "judge")
    assert words in score.error


def test_many_are_judged_at_once_in_order(ask, server):
    """40 replies, 8 at a time: each gets the verdict on itself."""

    def by_number(body):
        time.sleep(0.01)
        return json.dumps({"correctness": int(re.search(r"item (\d+)", json.dumps(body))[1]) % 11})

    judge, _ = ask(by_number)
    scores = verdicts(judge, [f"item {i}" for i in range(40)], workers=8)
    assert [score.value for score in scores] == [(i % 11) / 10 for i in range(40)]
    assert 2 <= server.most <= 2 * 8  # a finished request may still be counted while the next one is begun
    assert judge.usage.requests == 40


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"base_url": "api.example.com/v1"}, r"expected http\(s\)"),
        ({"base_url": "file:///etc/passwd"}, r"expected http\(s\)"),
        ({"base_url": "http://api.example.com/v1"}, "unencrypted"),
        ({"base_url": "https://me:pw@api.example.com/v1"}, "user or password"),
        ({"timeout": 0.0}, "above 0"),
        ({"retries": -1}, "at least 0"),
    ],
)
def test_endpoints_that_cannot_be(fields, words):
    with pytest.raises(ConfigError, match=words):
        Endpoint(**{"base_url": "https://api.example.com/v1", "model": "m", **fields})


def test_a_missing_key_is_said_at_once(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ConfigError, match="NO_SUCH_KEY is not set"):
        EndpointJudge(Endpoint("https://api.example.com/v1", "m", key_variable="NO_SUCH_KEY"))
    with pytest.raises(ConfigError, match="at least 1"):
        in_threads(0)
