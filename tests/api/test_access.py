from __future__ import annotations

import base64
import json
import logging
import socket
from pathlib import Path

import httpx
import pytest

from echo.api.access import Keys
from echo.config import compose
from echo.errors import ConfigError

TEXT = "Hello there."
LONG = {"block_sizes": [4] * 100, "num_steps": 200}
OPENAI_PATHS = ("/v1/voices", "/v1/models", "/v1/audio/voices", "/nothing")
FLAT_PATHS = ("/tts/v1/voices", "/voices/v1/voices", "/tts/nothing")


@pytest.fixture(scope="module")
def locked(run, tmp_path_factory):
    """A server with two keys, one from a file."""
    file = tmp_path_factory.mktemp("keys") / "keys.txt"
    file.write_text("# who may call\n\n  from-the-file  \n")
    with run(f"server.api_keys_file={file}", flags={"ECHO_API_KEYS": "first, s#cond"}) as running:
        yield running


@pytest.mark.parametrize("key", ["first", "s#cond", "from-the-file"])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "Basic"])
def test_a_right_key_opens_everything(locked, key, scheme):
    headers = {"authorization": f"{scheme} {key}"}
    assert locked.client.get("/v1/voices", headers=headers).status_code == 200
    reply = locked.client.post("/v1/audio/speech", json={"input": TEXT}, headers=headers)
    assert reply.status_code == 200


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer third", "first", "Token first", "Bearer first, s#cond"],
)
@pytest.mark.parametrize("path", OPENAI_PATHS)
def test_without_a_right_key_the_answer_is_401_in_openais_shape(locked, header, path):
    reply = locked.client.get(path, headers={} if header is None else {"authorization": header})
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    assert reply.headers["x-request-id"]
    error = reply.json()["error"]
    assert error["code"] == "invalid_api_key"
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", FLAT_PATHS)
def test_without_a_right_key_the_answer_is_401_in_inworlds_shape(locked, path):
    reply = locked.client.get(path, headers={"authorization": "Basic third"})
    assert reply.status_code == 401
    assert reply.json() == {"code": 16, "message": reply.json()["message"], "details": []}


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/docs", "/openapi.json"])
def test_health_and_documentation_need_no_key(locked, path):
    assert locked.client.get(path).status_code == 200


def test_a_body_is_not_read_without_a_key(locked):
    with socket.create_connection((locked.server.host, locked.server.port)) as connection:
        connection.sendall(
            b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n"
        )
        assert connection.recv(12) == b"HTTP/1.1 401"


def test_keys_are_neither_logged_nor_shown(toy_overrides, caplog, monkeypatch):
    from echo.api.server import log_settings
    from echo.config import to_yaml

    monkeypatch.setenv("ECHO_API_KEYS", "very-secret")
    caplog.set_level(logging.DEBUG)
    log_settings(toy_overrides, {})
    assert "server.api_keys = (hidden) (environment ECHO_API_KEYS)" in caplog.text
    config = compose(toy_overrides)
    assert Keys.of(config.server).caller("Bearer very-secret") not in (None, "very-secret")
    assert "very-secret" not in caplog.text + repr(config) + to_yaml(toy_overrides)


@pytest.mark.parametrize("content", [None, "", "# only a comment\n"])
def test_a_file_without_keys_is_an_error_and_not_an_open_server(content, tmp_path: Path):
    file = tmp_path / "keys.txt"
    if content is not None:
        file.write_text(content)
    config = compose(["model=tiny", f"server.api_keys_file={file}"])
    with pytest.raises(ConfigError) as caught:
        Keys.of(config.server)
    assert caught.value.param == "server.api_keys_file"


def test_keys_of_nothing_but_commas_are_an_error():
    with pytest.raises(ConfigError):
        Keys.of(compose(["model=tiny", "server.api_keys=' , '"]).server)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000", "echo.localhost"]
)
def test_on_loopback_its_own_names_are_answered(running, host):
    assert running.client.get("/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example"])
def test_on_loopback_another_name_is_refused(running, host):
    reply = running.client.get("/v1/voices", headers={"host": host})
    assert reply.status_code == 403
    assert reply.json()["error"]["code"] == "host_not_allowed"
    assert "server.allowed_hosts" in reply.json()["error"]["message"]


def test_allowed_hosts_can_be_configured(run):
    with run("server.allowed_hosts=[tts.example]") as running:
        for host, status in (("TTS.example:80", 200), ("other.example", 403), ("localhost", 403)):
            assert running.client.get("/health", headers={"host": host}).status_code == status


def test_a_page_of_another_origin_may_not_post(running):
    for origin in ("https://evil.example", "null", "http://localhost:1"):
        reply = running.client.post(
            "/v1/audio/speech", json={"input": TEXT}, headers={"origin": origin}
        )
        assert reply.status_code == 403
        assert reply.json()["error"]["code"] == "origin_not_allowed"
    own = {"origin": running.server.url}
    assert running.client.post("/v1/audio/speech", json={"input": "Hi."}, headers=own).is_success


def test_cors_is_off_unless_configured(running, run):
    ask = {
        "origin": "https://page.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type",
    }
    reply = running.client.options("/v1/audio/speech", headers=ask)
    assert "access-control-allow-origin" not in reply.headers
    with run("server.cors_origins=['https://page.example']") as open_server:
        reply = open_server.client.options("/v1/audio/speech", headers=ask)
        assert reply.headers["access-control-allow-origin"] == "https://page.example"
        page = {"origin": "https://page.example"}
        reply = open_server.client.post("/v1/audio/speech", json={"input": "Hi."}, headers=page)
        assert reply.is_success
        assert "X-Audio-Sample-Rate" in reply.headers["access-control-expose-headers"]
        other = {**ask, "origin": "https://evil.example"}
        reply = open_server.client.options("/v1/audio/speech", headers=other)
        assert "access-control-allow-origin" not in reply.headers


def test_a_caller_over_its_share_is_429_and_another_is_not(run):
    keys = "server.api_keys='one,two'"
    with (
        run(keys, "server.max_concurrent_per_key=1") as running,
        httpx.Client(base_url=running.server.url, headers={"authorization": "Bearer one"}) as one,
        httpx.Client(base_url=running.server.url, headers={"authorization": "Bearer two"}) as two,
        one.stream(
            "POST", "/v1/audio/speech", json={"input": TEXT, "stream": True, **LONG}
        ) as busy,
    ):
        parts = busy.iter_raw()
        next(parts)
        reply = one.post("/v1/audio/speech", json={"input": TEXT})
        assert reply.status_code == 429
        assert int(reply.headers["retry-after"]) >= 1
        assert reply.json()["error"]["type"] == "rate_limit_error"
        flat = one.post("/tts/v1/voice", json={"text": TEXT, "voiceId": "anna"})
        assert (flat.status_code, flat.json()["code"]) == (429, 8)
        assert one.get("/v1/voices").status_code == 200
        short = {"input": TEXT, "block_sizes": [2], "num_steps": 1}
        assert two.post("/v1/audio/speech", json=short).status_code == 200
        parts.close()


def test_requests_that_ended_no_longer_count(run):
    with run("server.max_concurrent=1", "server.max_concurrent_per_key=1") as running:
        for body in ({"input": TEXT}, {"input": ""}, {"input": TEXT, "voice": "nobody"}) * 2:
            assert running.client.post("/v1/audio/speech", json=body).status_code in (200, 400)


def test_a_body_that_stops_arriving_is_408(run):
    with (
        run("server.body_timeout_seconds=0.2") as running,
        socket.create_connection((running.server.host, running.server.port)) as connection,
    ):
        connection.sendall(
            b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"
        )
        connection.settimeout(10)
        answer = b""
        while part := connection.recv(4096):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408")
    assert json.loads(body)["error"]["code"] == "request_timeout"


def test_a_long_generation_is_no_slow_body(run):
    with run("server.body_timeout_seconds=0.05") as running:
        shape = {"block_sizes": [4] * 8, "num_steps": 30}
        assert running.speak(input=TEXT, stream=True, **shape).status_code == 200
        assert running.engine.streams[-1].stats.total_s > 0.05


def test_basic_credentials_are_the_key_as_it_is():
    keys = Keys(["abc"])
    assert keys.caller("Basic abc")
    assert keys.caller("Basic " + base64.b64encode(b"abc").decode()) is None
