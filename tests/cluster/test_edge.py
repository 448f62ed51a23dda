"""The edge before a proxy that is played: what a replica or Serve answers is scripted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from echo.cluster import edge
from echo.cluster.affinity import voice_key
from echo.cluster.edge import ATTEMPTS, MAX_KEPT_BYTES, REPLICA, Edge, middlewares

SPEECH = "/v1/audio/speech"
GONE: list[dict[str, Any]] = []  # a replica that died: Serve sends nothing at all
BODY = json.dumps({"input": "Hello", "voice": "anna"}).encode()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(edge, "PAUSE_S", 0.0)


def spoken(*parts: bytes, ends: bool = True) -> list[dict[str, Any]]:
    headers = [(REPLICA.encode(), b"r1"), (b"x-request-id", b"a"), (b"x-request-id", b"a")]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    bodies = [{"type": "http.response.body", "body": part, "more_body": True} for part in parts]
    return [start, *bodies, *([{"type": "http.response.body", "body": b""}] if ends else [])]


def serves_own(status: int) -> list[dict[str, Any]]:
    start = {"type": "http.response.start", "status": status, "headers": [(b"server", b"x")]}
    return [start, {"type": "http.response.body", "body": b"Request dropped"}]


class Proxy:
    """Plays Serve: one script for each time it is called; reads what it is sent."""

    def __init__(self, *scripts: list[dict[str, Any]]) -> None:
        self._scripts = list(scripts)
        self.calls: list[dict[str, Any]] = []

    async def __call__(self, scope, receive, send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"].endswith(".disconnect"):
                break
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.calls.append({"headers": headers, "body": body, "path": scope["path"]})
        for message in self._scripts.pop(0):
            await send(message)


class Client:
    """Sends one request through the edge and keeps what comes back."""

    def __init__(self, proxy: Callable[..., Any]) -> None:
        self._app = Edge(proxy)
        self.messages: list[dict[str, Any]] = []

    def post(self, *parts: bytes, path: str = SPEECH, method: str = "POST", headers=(), then=()):
        length = [(b"content-length", str(sum(map(len, parts))).encode())] if parts else []
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [*length, *headers],
            "client": ("127.0.0.1", 1),
        }
        bodies = [
            {"type": "http.request", "body": part, "more_body": number < len(parts) - 1}
            for number, part in enumerate(parts or (b"",))
        ]
        return self.run(scope, [*bodies, *then])

    def run(self, scope, incoming):
        waiting = iter(incoming)

        async def receive():
            for message in waiting:
                return message
            await asyncio.Event().wait()

        async def send(message) -> None:
            self.messages.append(message)

        asyncio.run(asyncio.wait_for(self._app(scope, receive, send), 30))
        return self

    @property
    def status(self) -> int:
        return self.messages[0]["status"]

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [(n.decode().lower(), v.decode()) for n, v in self.messages[0]["headers"]]

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(b"".join(m.get("body", b"") for m in self.messages))


def test_an_answer_goes_through_as_it_comes_with_one_request_id():
    proxy = Proxy(spoken(b"one", b"two"))
    client = Client(proxy).post(BODY, headers=[(b"x-request-id", b"mine-1")])
    assert [m.get("body") for m in client.messages] == [None, b"one", b"two", b""]
    assert [value for name, value in client.headers if name == "x-request-id"] == ["mine-1"]
    assert proxy.calls[0]["headers"]["x-request-id"] == "mine-1"
    assert proxy.calls[0]["body"] == BODY


def test_an_id_that_is_none_is_replaced_before_anybody_sees_it():
    proxy = Proxy(spoken(b"one"))
    client = Client(proxy).post(BODY, headers=[(b"x-request-id", b"<script> " * 30)])
    [given] = [value for name, value in client.headers if name == "x-request-id"]
    assert given.startswith("req_")
    assert proxy.calls[0]["headers"]["x-request-id"] == given


def test_the_voice_is_the_session_and_strangers_cannot_steer():
    proxy = Proxy(spoken(b"one"))
    steering = [
        (b"x-session-id", b"mine"),
        (b"X_Session-ID", b"mine"),
        (b"serve-multiplexed-model-id", b"x"),
        (b"x-request-timeout-seconds", b"0.001"),
        (b"x-request-disconnect-disabled", b"?1"),
        (b"accept", b"*/*"),
    ]
    Client(proxy).post(BODY, headers=steering)
    sent = proxy.calls[0]["headers"]
    assert sent["x-session-id"] == voice_key(BODY)
    assert set(sent) == {"content-length", "accept", "x-request-id", "x-session-id"}


def test_a_request_whose_replica_died_before_its_answer_is_sent_again():
    proxy = Proxy(GONE, GONE, spoken(b"one"))
    client = Client(proxy).post(BODY[:10], BODY[10:])
    assert client.status == 200
    assert [call["body"] for call in proxy.calls] == [BODY] * 3


def test_reading_is_tried_again_too():
    proxy = Proxy(GONE, spoken(b"{}"))
    assert Client(proxy).post(path="/v1/voices", method="GET").status == 200


def test_an_answer_that_had_begun_is_broken_off_and_not_begun_again():
    proxy = Proxy(spoken(b"one", ends=False))
    client = Client(proxy).post(BODY)
    assert len(proxy.calls) == 1
    assert [m.get("more_body") for m in client.messages] == [None, True]  # uvicorn breaks it off


def test_what_may_have_been_done_is_not_done_twice():
    proxy = Proxy(GONE)
    client = Client(proxy).post(b"a form", path="/v1/audio/voices")
    assert client.status == 500
    assert client.json["error"]["code"] == "replica_lost"
    assert ("x-should-retry", "false") in client.headers
    assert len(proxy.calls) == 1


def test_a_long_body_passes_without_being_kept():
    parts = [b"x" * MAX_KEPT_BYTES, b"y"]
    proxy = Proxy(spoken(b"one"))
    assert Client(proxy).post(*parts).status == 200
    assert proxy.calls[0]["body"] == b"".join(parts)
    assert "x-session-id" not in proxy.calls[0]["headers"]


def test_a_body_of_unannounced_length_is_kept_up_to_the_limit_and_passes_whole():
    parts = [b"x" * 1000] * (MAX_KEPT_BYTES // 1000 + 5)
    proxy = Proxy(spoken(b"one"))
    scope = {"type": "http", "method": "POST", "path": SPEECH, "headers": []}
    bodies = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    client = Client(proxy).run(scope, [*bodies, {"type": "http.request", "body": b"!"}])
    assert client.status == 200
    assert proxy.calls[0]["body"] == b"".join(parts) + b"!"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (SPEECH, {"type": "server_error", "param": None, "code": "no_replica"}),
        ("/tts/v1/voice", {"code": 14, "details": []}),
    ],
)
def test_without_a_replica_the_caller_is_told_in_its_own_protocol_when_to_come_back(path, body):
    proxy = Proxy(*[GONE] * ATTEMPTS)
    client = Client(proxy).post(BODY, path=path)
    assert client.status == 503
    assert dict(client.headers)["retry-after"] == "2"
    told = client.json.get("error", client.json)
    assert "no replica" in told.pop("message")
    assert told == body
    assert len(proxy.calls) == ATTEMPTS


@pytest.mark.parametrize(("theirs", "ours"), [(429, 429), (503, 503), (404, 503), (408, 503)])
def test_what_serve_refuses_is_told_as_ours(theirs, ours):
    proxy = Proxy(serves_own(theirs))
    client = Client(proxy).post(BODY)
    assert client.status == ours
    assert dict(client.headers)["retry-after"] == "2"
    assert b"dropped" not in b"".join(m.get("body", b"") for m in client.messages)
    assert client.json["error"]["type"] == ("rate_limit_error" if ours == 429 else "server_error")
    assert len([m for m in client.messages if m["type"] == "http.response.start"]) == 1


def test_a_client_that_left_within_its_body_is_not_served():
    proxy = Proxy(GONE)
    scope = {"type": "http", "method": "POST", "path": SPEECH, "headers": []}
    part = {"type": "http.request", "body": b"{", "more_body": True}
    client = Client(proxy).run(scope, [part, {"type": "http.disconnect"}])
    assert client.messages == []
    assert proxy.calls == []


def test_a_client_that_leaves_while_it_waits_is_not_served_again():
    class Leaving(Proxy):
        async def __call__(self, scope, receive, send) -> None:
            await super().__call__(scope, receive, send)
            await receive()  # as Serve does, to know when the client leaves

    proxy = Leaving(GONE)
    client = Client(proxy).post(BODY, then=[{"type": "http.disconnect"}])
    assert client.messages == []
    assert len(proxy.calls) == 1


def test_a_body_that_stops_arriving_is_refused(monkeypatch):
    monkeypatch.setattr(edge, "BODY_TIMEOUT_S", 0.05)
    scope = {"type": "http", "method": "POST", "path": SPEECH, "headers": []}
    client = Client(Proxy()).run(scope, [{"type": "http.request", "body": b"{", "more_body": True}])
    assert client.status == 408
    assert client.json["error"]["code"] == "request_timeout"


def test_a_probe_waits_once_for_a_replica_that_does_not_come(monkeypatch, caplog):
    monkeypatch.setattr(edge, "PROBE_S", 0.05)
    asked = []

    async def waiting(scope, receive, send) -> None:
        asked.append(scope["path"])
        await asyncio.Event().wait()

    client = Client(waiting).post(path="/ready", method="GET")
    assert client.status == 503
    assert client.json["error"]["code"] == "no_replica"
    assert asked == ["/ready"]
    assert "lost its replica" not in caplog.text


def test_a_probe_whose_replica_died_is_sent_to_another():
    proxy = Proxy(GONE, spoken(b"{}"))
    assert Client(proxy).post(path="/ready", method="GET").status == 200


def test_serves_own_pages_pass_untouched():
    client = Client(Proxy(serves_own(200))).post(path="/-/healthz", method="GET")
    assert client.messages == serves_own(200)


SOCKET = {
    "type": "websocket",
    "path": "/tts/v1/voice:streamBidirectional",
    "headers": [],
    "extensions": {"websocket.http.response": {}},
}
CONNECT = {"type": "websocket.connect"}


def test_a_socket_is_tried_again_until_it_is_accepted_and_then_passes():
    sent = {"type": "websocket.send", "text": "{}"}
    proxy = Proxy(GONE, [{"type": "websocket.accept", "headers": []}, sent])
    client = Client(proxy).run(SOCKET, [CONNECT])
    assert [m["type"] for m in client.messages] == ["websocket.accept", "websocket.send"]
    assert len(proxy.calls) == 2


def test_a_socket_without_a_replica_is_refused_with_a_status():
    proxy = Proxy(serves_own(503))
    client = Client(proxy).run(SOCKET, [CONNECT])
    assert client.messages[0]["status"] == 503


def test_the_applications_own_refusal_of_a_socket_passes():
    refusal = {"type": "websocket.http.response.start", "status": 401, "headers": []}
    client = Client(Proxy([refusal])).run(SOCKET, [CONNECT])
    assert client.messages[0]["status"] == 401


def test_serve_finds_the_edge_where_its_path_says():
    module, _, name = edge.IMPORT_PATH.rpartition(".")
    assert module == edge.__name__
    assert getattr(edge, name) is middlewares
    assert [each.cls for each in middlewares()] == [Edge]
