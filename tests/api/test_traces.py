"""Traces: what is in them, whose they go on with, and what is never in them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from echo.api import traces as module
from echo.api.app import create_app
from echo.api.traces import Traces
from echo.audio.encode import encode_file
from echo.engine import Engine
from echo.errors import ConfigError

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
SECRET = "Only Doctor Zygmunt may know."
BODY = {"input": SECRET, "voice": "marjorie", "response_format": "mp3"}


@dataclass
class Traced:
    """An application whose spans can be looked at."""

    client: TestClient
    exporter: InMemorySpanExporter

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        found = [s for s in self.exporter.get_finished_spans() if name in (None, s.name)]
        return sorted(found, key=lambda span: span.start_time or 0)

    def the(self, name: str) -> ReadableSpan:
        [span] = self.spans(name)
        return span


@pytest.fixture
def traced(make_engine: Callable[..., Engine], voice_root: Path) -> Iterator[Callable[..., Traced]]:
    noise = 0.3 * np.random.default_rng(0).standard_normal(88_200).astype(np.float32)
    (voice_root / "marjorie.wav").write_bytes(encode_file(noise, 44_100, "wav"))
    clients: list[TestClient] = []

    def make(*overrides: str) -> Traced:
        exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        engine = make_engine("sampler.early_stop_on_zero=false", *overrides)
        app = create_app(engine, engine.config, traces=Traces(provider))
        clients.append(TestClient(app, raise_server_exceptions=False))
        return Traced(clients[-1], exporter)

    yield make
    for client in clients:
        client.close()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_call_holds_its_text_and_the_text_its_stages(traced: Callable[..., Traced]) -> None:
    app = traced()
    assert app.client.post("/v1/audio/speech", json=BODY).status_code == 200
    call, speech = app.the("POST /v1/audio/speech"), app.the("speech")
    assert call.kind is SpanKind.SERVER
    assert attributes(call) == {
        "http.request.method": "POST",
        "http.route": "/v1/audio/speech",
        "http.response.status_code": 200,
        "echo.protocol": "openai",
        "echo.ending": "complete",
    }
    assert speech.parent is not None
    assert speech.parent.span_id == call.context.span_id
    stages = [s for s in app.spans() if s.parent and s.parent.span_id == speech.context.span_id]
    names = [stage.name for stage in stages]
    assert names[:5] == ["prepare", "queue", "voice", "text", "sampling"]
    assert set(names) == {*names[:5], "codec", "prefix", "encode"}
    assert names.count("sampling") == 3  # a span for each block, not for each step
    for stage in stages:
        assert speech.start_time <= stage.start_time <= stage.end_time  # type: ignore[operator]
        assert stage.end_time <= speech.end_time  # type: ignore[operator]
    told = attributes(speech)
    assert told["echo.outcome"] == "ok"
    assert told["echo.steps"] == 9
    assert told["echo.audio_s"] > 1
    [first] = speech.events
    assert first.name == "first audio"
    assert speech.start_time < first.timestamp < speech.end_time  # type: ignore[operator]


def test_a_trace_that_a_client_began_goes_on_and_a_broken_one_does_not(
    traced: Callable[..., Traced],
) -> None:
    app = traced()
    app.client.get("/v1/models", headers={**GIVEN, "tracestate": "x=1", "baggage": "who=me"})
    app.client.get("/v1/models", headers={"traceparent": "00-zz-zz-01"})
    continued, fresh = app.spans("GET /v1/models")
    assert f"{continued.context.trace_id:032x}" == TRACE
    assert continued.parent is not None
    assert f"{continued.parent.span_id:016x}" == PARENT
    assert len(continued.context.trace_state) == 0
    assert fresh.parent is None


def test_nothing_of_what_a_client_says_is_in_a_trace(traced: Callable[..., Traced]) -> None:
    app = traced("server.api_keys=sesame")
    key = {"Authorization": "Bearer sesame", "x-request-id": "made-up-id", **GIVEN}
    app.client.post("/v1/audio/speech?who=hacker", json=BODY, headers=key)
    app.client.post("/tts/v1/voice", json={"text": SECRET, "voiceId": "marjorie"}, headers=key)
    app.client.get("/v1/voices/nobody-knows-me", headers=key)
    app.client.request("PROPFIND", "/etc/passwd", headers=key)
    app.client.post("/v1/audio/speech", json={**BODY, "voice": "unheard-of"}, headers=key)
    told = " ".join(span.to_json() for span in app.spans())
    assert len(app.spans()) > 10
    for word in (
        *("Zygmunt", "marjorie", "sesame", "made-up", "hacker", "nobody-knows-me", "passwd"),
        *("PROPFIND", "unheard-of", "testclient"),
    ):
        assert word not in told, word
    assert "other other" in {span.name for span in app.spans()}


def test_texts_that_fail_are_marked_and_wrong_ones_are_not(traced: Callable[..., Traced]) -> None:
    app = traced()
    app.client.post("/v1/audio/speech", json={**BODY, "voice": "unheard-of"})
    wrong = app.the("speech")
    assert attributes(wrong) == {"echo.outcome": "invalid", "echo.live": True}
    assert wrong.status.status_code is StatusCode.UNSET
    app.exporter.clear()
    broken = traced("engine.max_queued=0")
    broken.client.app.router.routes.clear()  # type: ignore[attr-defined]
    broken.client.get("/v1/models")
    assert attributes(broken.the("GET other"))["http.response.status_code"] == 404


def test_a_socket_is_one_span_with_a_text_for_each_generation(
    traced: Callable[..., Traced],
) -> None:
    app = traced()
    with app.client.websocket_connect("/tts/v1/voice:streamBidirectional") as socket:
        socket.send_json({"contextId": "c", "create": {"voiceId": "marjorie"}})
        socket.send_json({"contextId": "c", "send_text": {"text": SECRET}})
        socket.send_json({"contextId": "c", "close_context": {}})
        while "contextClosed" not in socket.receive_json()["result"]:
            pass
    call, speech = app.the("WEBSOCKET /tts/v1/voice:streamBidirectional"), app.the("speech")
    assert speech.parent is not None
    assert speech.parent.span_id == call.context.span_id
    assert attributes(call)["echo.protocol"] == "inworld_socket"


def test_what_is_asked_every_few_seconds_is_not_traced(traced: Callable[..., Traced]) -> None:
    app = traced()
    for path in ("/health", "/ready", "/metrics"):
        assert app.client.get(path).status_code == 200
    assert app.spans() == []


def test_a_trace_has_a_limit_however_long_the_text(
    traced: Callable[..., Traced], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_STAGES", 4)
    app = traced()
    app.client.post("/v1/audio/speech", json=BODY)
    speech = app.the("speech")
    assert len(app.spans()) == 2 + 1 + 4  # call, text, prepare
    assert attributes(speech)["echo.spans_left_out"] > 4


def test_without_the_setting_nothing_of_opentelemetrys_sdk_is_loaded(
    make_engine: Callable[..., Engine],
) -> None:
    assert make_engine().config.server.traces is False
    code = (
        "import sys, echo.api.app, echo.api.server\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry.sdk')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_where_it_is_not_installed_the_setting_says_what_to_install(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    engine = make_engine("server.traces=true")
    with pytest.raises(ConfigError, match=r"pip install 'echo-tts\[otel\]'"):
        create_app(engine, engine.config)


class Collector(BaseHTTPRequestHandler):
    """Keeps what is posted, by path."""

    got: dict[str, bytes]

    def do_POST(self) -> None:
        self.got[self.path] = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Quiet."""


def test_spans_go_where_the_usual_variables_say_under_the_name_they_give() -> None:
    kind = type("Keeping", (Collector,), {"got": {}})
    code = (
        "from echo.api.traces import Traces\n"
        "scope = {'type': 'http', 'headers': []}\n"
        "Traces.from_environment().begin(scope, 'openai').call_ended('GET', '/x', 200, 'complete')"
    )
    with HTTPServer(("127.0.0.1", 0), kind) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        flags = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "OTEL_SERVICE_NAME": "the-speaker",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        }
        try:
            subprocess.run(
                [sys.executable, "-c", code],
                check=True,
                env={**os.environ, **flags},
                cwd=Path(__file__).parents[2],
                timeout=60,
            )
        finally:
            server.shutdown()
            thread.join()
    assert b"the-speaker" in kind.got["/v1/traces"]
    assert b"GET /x" in kind.got["/v1/traces"]
