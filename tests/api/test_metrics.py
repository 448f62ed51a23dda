"""``/metrics``: what is counted, who may read it, and that strangers cannot make it grow."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse
from websockets.sync.client import connect

from echo.api.call import OUTCOMES, PROTOCOLS
from echo.api.metrics import EngineCollector
from echo.api.watch import METHODS, outcome_of
from echo.errors import (
    BusyError,
    CancelledError,
    GenerationError,
    InvalidRequestError,
    VoiceNotFoundError,
)

from .conftest import wait_until

STATUSES = {"1xx", "2xx", "3xx", "4xx", "5xx", "none"}
LONG = "Here is a sentence that goes on. " * 60
SOCKET = "/tts/v1/voice:streamBidirectional"


def series(client: httpx.Client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    reply = client.get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(reply.text)
        for sample in family.samples
    }


@pytest.fixture
def grown(running) -> Callable[..., float]:
    """By how much a series grew since the test began."""
    before = series(running.client)

    def grew(name: str, **labels: str) -> float:
        key = (name, tuple(sorted(labels.items())))
        now = series(running.client)
        assert key in now, f"{key} is not among {sorted({each for each, _ in now})}"
        return now[key] - before.get(key, 0.0)

    return grew


def test_a_spoken_text_is_counted_with_its_times(running, grown):
    reply = running.speak(input="Hello.", stream=True)
    assert grown("echo_speech_requests_total", protocol="openai", outcome="ok") == 1
    for name in ("echo_ttfb_seconds", "echo_queue_seconds", "echo_rtf_ratio"):
        assert grown(f"{name}_count", protocol="openai") == 1
    seconds = len(reply.content) / 2 / 44_100
    assert grown("echo_audio_seconds_total", protocol="openai") == pytest.approx(seconds)
    assert grown("echo_steps_total") == 4
    assert grown("echo_batch_size_count") == 4
    assert grown("echo_batch_size_sum") == 4
    assert grown("echo_busy_seconds_total") > 0
    route = {"method": "POST", "route": "/v1/audio/speech"}
    wait_until(lambda: grown("echo_http_requests_total", **route, status="2xx") == 1)


def test_the_voice_cache_is_told(running, grown):
    for _ in range(3):
        running.speak(input="Hello.")
    hits, misses = (grown(f"echo_voice_cache_{name}_total") for name in ("hits", "misses"))
    assert hits >= 2
    assert misses <= 1
    now = series(running.client)
    assert now["echo_voice_cache_entries", ()] >= 1
    assert now["echo_voice_cache_bytes", ()] > 0


def test_what_is_refused_is_counted_apart(running, grown):
    assert running.speak(input="Hello.", voice="nobody").status_code == 400
    assert grown("echo_speech_requests_total", protocol="openai", outcome="invalid") == 1
    assert running.speak(text="no input").status_code == 400
    assert grown("echo_speech_requests_total", protocol="openai", outcome="invalid") == 1
    route = {"method": "POST", "route": "/v1/audio/speech"}
    wait_until(lambda: grown("echo_http_requests_total", **route, status="4xx") == 2)
    assert grown("echo_ttfb_seconds_count", protocol="openai") == 0


def test_a_listener_who_leaves_is_counted_as_cancelled(running, grown):
    with running.stream(input=LONG, stream=True) as reply:
        next(reply.iter_raw())
    wait_until(
        lambda: grown("echo_speech_requests_total", protocol="openai", outcome="cancelled") == 1
    )
    assert grown("echo_speech_requests_total", protocol="openai", outcome="ok") == 0


def test_each_protocol_has_its_own_counts(running, grown):
    body = {"text": "Hello.", "voiceId": "anna", "audioConfig": {"audioEncoding": "PCM"}}
    for path in ("/tts/v1/voice", "/tts/v1/voice:stream"):
        assert running.client.post(path, json=body).status_code == 200
    with connect(running.server.url.replace("http", "ws") + SOCKET) as client:
        client.send('{"contextId": "a", "create": {"voiceId": "anna"}}')
        client.send('{"contextId": "a", "send_text": {"text": "Hello."}}')
        client.send('{"contextId": "a", "close_context": {}}')
        while "contextClosed" not in client.recv():
            pass
    assert grown("echo_speech_requests_total", protocol="inworld", outcome="ok") == 2
    assert grown("echo_speech_requests_total", protocol="inworld_socket", outcome="ok") == 1
    assert grown("echo_speech_requests_total", protocol="openai", outcome="ok") == 0
    route = {"method": "WEBSOCKET", "route": SOCKET}
    wait_until(lambda: ("echo_http_requests_total", _key(route)) in series(running.client))
    wait_until(lambda: grown("echo_http_requests_total", **route, status="1xx") == 1)


def _key(labels: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted({**labels, "status": "1xx"}.items()))


def attack(client: httpx.Client, seed: int) -> None:
    """Everything a stranger can choose, chosen anew."""
    rng = random.Random(seed)
    for _ in range(12):
        word = "".join(rng.choices("abcdefghijklmnop", k=12))
        client.get(f"/{word}")
        client.get(f"/v1/models/{word}")
        client.get(f"/v1/audio/voices?{word}={word}")
        client.get(f"/voices/v1/workspaces/{word}/voices/{word}")
        client.post(f"/tts/v1/voice:{word}", headers={"x-request-id": word})
        client.request(word.upper(), "/v1/audio/speech")
        client.head(f"/v1/models/{word}")
        client.options(f"/docs/{word}", headers={"User-Agent": word})
        client.post("/v1/audio/speech", json={"input": "Hi.", "voice": word, "model": word})
        client.post("/v1/audio/speech", json={"input": "Hi.", "response_format": word})
        client.post("/v1/audio/speech", content=word, headers={"Content-Type": f"a/{word}"})


def test_strangers_cannot_add_series(running):
    attack(running.client, 0)
    known = set(series(running.client))
    attack(running.client, 1)
    assert set(series(running.client)) == known
    templates = {route.path_format for route in _routes(running)}
    for name, labels in known:
        told = dict(labels)
        assert told.get("protocol", PROTOCOLS[0]) in PROTOCOLS
        assert told.get("outcome", OUTCOMES[0]) in OUTCOMES
        if name == "echo_http_requests_total":
            assert told["route"] in templates | {"other"}
            assert told["method"] in {*METHODS, "other"}
            assert told["status"] in STATUSES


def _routes(running) -> list:
    from starlette.routing import Route, WebSocketRoute

    found, waiting = [], list(running.server.config.app.routes)
    while waiting:
        route = waiting.pop()
        if isinstance(route, Route | WebSocketRoute) or hasattr(route, "path_format"):
            found.append(route)
        waiting.extend(getattr(getattr(route, "original_router", None), "routes", ()))
    return found


def test_made_up_paths_and_methods_are_one_series(running, grown):
    for path in ("/wp-login.php", "/%0a%22", "/v1/../etc"):
        assert running.client.get(path).status_code == 404
    assert running.client.request("PROPFIND", "/health").status_code == 405
    labels = {"route": "other", "status": "4xx"}
    wait_until(lambda: grown("echo_http_requests_total", method="GET", **labels) == 3)
    brewed = {"route": "/health", "status": "4xx", "method": "other"}
    wait_until(lambda: grown("echo_http_requests_total", **brewed) == 1)


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/v1/voices", "/docs", "/"])
def test_head_is_counted_at_its_route(running, grown, path):
    running.client.head(path)
    counted = {"method": "HEAD", "route": path, "status": "2xx"}
    wait_until(lambda: grown("echo_http_requests_total", **counted) == 1)


def test_a_socket_that_only_knocks_is_counted_too(running, grown):
    """Half a request, then gone: nothing of it stays open, and the server goes on."""
    with socket.create_connection((running.server.host, running.server.port)) as raw:
        raw.sendall(
            b"POST /v1/audio/speech HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n"
        )
    labels = {"method": "POST", "route": "/v1/audio/speech", "status": "none"}
    key = ("echo_http_requests_total", tuple(sorted(labels.items())))
    wait_until(lambda: key in series(running.client))


def test_series_begin_before_their_first_event_and_have_no_birthdays(running):
    now = series(running.client)
    for protocol in PROTOCOLS:
        for outcome in OUTCOMES:
            labels = (("outcome", outcome), ("protocol", protocol))
            assert ("echo_speech_requests_total", labels) in now
    assert not [name for name, _ in now if name.endswith("_created")]
    assert now["process_resident_memory_bytes", ()] > 1e6


def test_with_keys_metrics_want_one(run):
    with run(flags={"ECHO_API_KEYS": "secret"}) as running:
        assert running.client.get("/metrics").status_code == 401
        assert running.client.get("/health").status_code == 200
        reply = running.client.get("/metrics", headers={"Authorization": "Bearer secret"})
        assert "echo_build_info{" in reply.text
        labels = 'method="GET",route="other",status="4xx"'
        assert f"echo_http_requests_total{{{labels}}} 1.0" in reply.text  # the one without a key


def test_metrics_can_be_turned_off(run):
    with run(flags={"ECHO_METRICS": "0"}) as running:
        assert running.client.get("/metrics").status_code == 404
        assert "GET /metrics" not in running.client.get("/").json()["endpoints"]
        assert running.speak(input="Hello.").status_code == 200


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (asyncio.CancelledError(), "cancelled"),
        (GeneratorExit(), "cancelled"),
        (CancelledError("closed"), "cancelled"),
        (BusyError("full", retry_after_s=1.0), "busy"),
        (InvalidRequestError("wrong"), "invalid"),
        (VoiceNotFoundError("nobody"), "invalid"),
        (GenerationError("NaN"), "failed"),
        (RuntimeError("a fault of ours"), "failed"),
    ],
)
def test_errors_have_one_of_the_outcomes(error, outcome):
    assert outcome_of(error) == outcome
    assert outcome in OUTCOMES


def test_batches_and_memory_are_told_as_the_engine_counts_them(running):
    class Fake:
        config, device = running.engine.config, running.engine.device

        def stats(self):
            real = running.engine.stats()
            worker = {**real["worker"], "batches": {1: 5, 3: 2, 200: 1}}
            return {**real, "worker": worker, "device_memory": {"allocated": 7, "peak": 9}}

    families = {each.name: each for each in EngineCollector(Fake()).collect()}
    batch = {
        sample.labels.get("le", sample.name): sample.value
        for sample in families["echo_batch_size"].samples
    }
    assert (batch["1.0"], batch["2.0"], batch["4.0"], batch["128.0"]) == (5, 5, 7, 7)
    assert batch["+Inf"] == batch["echo_batch_size_count"] == 8
    assert batch["echo_batch_size_sum"] == 5 + 6 + 200
    memory = {s.labels["kind"]: s.value for s in families["echo_device_memory_bytes"].samples}
    assert memory == {"allocated": 7, "peak": 9}
