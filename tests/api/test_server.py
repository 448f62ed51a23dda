from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from echo import __version__
from echo.api.server import bind
from echo.config import compose
from echo.config.help import HELP
from echo.engine.request import OVERRIDES

ROOT = Path(__file__).parents[2]


def environment(**flags: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ECHO_")}
    return {**kept, "OMP_NUM_THREADS": "1", **flags}


def start(cwd: Path, *overrides: str, **flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "serve.py"), *overrides],
        cwd=cwd,
        env=environment(**flags),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_serve_says_what_it_is_serves_and_stops_cleanly(toy_overrides, tmp_path, stop):
    warm = 'engine.warmup_text="Hello."'
    with start(tmp_path, *toy_overrides, warm, ECHO_MODEL_DTYPE="fp32") as program:
        lines = []
        for line in program.stderr:
            lines.append(line)
            if address := re.search(r"listening on (http://127\.0\.0\.1:\d+)", line):
                break
        log = "".join(lines)
        assert address, log
        assert httpx.get(f"{address[1]}/health").json()["status"] == "ok"
        program.send_signal(stop)
        rest = program.communicate(timeout=20)[1]
    assert program.returncode == 0, rest
    assert "Traceback" not in rest
    assert "model tiny (" in log
    assert "voices: anna, letter, pair" in log
    assert "model.dtype = float32 (environment ECHO_MODEL_DTYPE)" in log
    assert log.index("warm-up") < log.index("listening on")


def test_a_port_in_use_is_one_clear_line(toy_overrides, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        overrides = [*toy_overrides[:-1], f"server.port={port}"]
        with start(tmp_path, *overrides) as program:
            out, err = program.communicate(timeout=20)
    assert program.returncode == 1
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"error: cannot listen on 127.0.0.1, port {port}: ")
    assert "server.port" in err


def test_a_bound_socket_refuses_clients_until_the_server_listens(toy_overrides):
    with bind(compose(toy_overrides).server) as listener, pytest.raises(ConnectionRefusedError):
        socket.create_connection(listener.getsockname())


def test_health_tells_state_and_model(running):
    assert running.client.get("/health").json() == {
        "status": "ok",
        "version": __version__,
        "model": "tiny",
        "device": "cpu",
        "weights": "loaded",
        "sample_rate": 44_100,
        "active": 0,
        "queued": 0,
    }


def test_ready_answers_once_the_port_is_open(running):
    reply = running.client.get("/ready")
    assert (reply.status_code, reply.json()) == (200, {"status": "ready"})


@pytest.mark.parametrize("path", ["/v1/readyz", "/v1/test"])
def test_what_other_servers_are_known_by_is_not_offered(running, path):
    assert running.client.get(path).status_code == 404


def test_the_root_lists_what_there_is(running):
    reply = running.client.get("/").json()
    assert reply["name"] == "echo-tts"
    assert reply["version"] == __version__
    assert {
        "POST /v1/audio/speech",
        "GET /v1/voices",
        "GET /health",
        "GET /docs",
    } <= set(reply["endpoints"])


def test_voices_are_listed_with_source_and_type(running):
    def voice(name: str, kind: str) -> dict[str, object]:
        metadata = {"source": "audio_prompts", "type": kind}
        return {"object": "voice", "id": name, "name": name, "metadata": metadata}

    assert running.client.get("/v1/voices").json() == {
        "object": "list",
        "data": [voice("anna", "file"), voice("letter", "file"), voice("pair", "folder")],
    }


def test_a_folder_of_clips_can_speak(running):
    assert running.speak(input="Hi.", voice="pair", stream=True).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/v1/voices", "/", "/nothing"])
def test_every_response_has_a_request_id_of_its_own(running, path):
    ids = {running.client.get(path).headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2


def test_a_clients_sane_request_id_is_kept_and_another_replaced(running):
    def answered(given: str | bytes) -> str:
        return running.client.get("/health", headers={"x-request-id": given}).headers[
            "x-request-id"
        ]

    assert answered("abc-123_4.5:6") == "abc-123_4.5:6"
    for odd in ("with space", "x" * 129, "<script>", "é".encode()):
        assert answered(odd).startswith("req_")


def test_a_speech_reply_has_a_request_id(running):
    reply = running.client.post(
        "/v1/audio/speech", json={"input": "Hi."}, headers={"x-request-id": "mine"}
    )
    assert reply.headers["x-request-id"] == "mine"


def test_the_documentation_describes_the_body_and_the_errors(running):
    speech = running.client.get("/openapi.json").json()["paths"]["/v1/audio/speech"]["post"]
    schema = speech["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["input"]
    assert all("description" in field for field in schema["properties"].values())
    settings = schema["properties"]["extra_body"]["anyOf"][0]["properties"]
    assert {key: field["description"] for key, field in settings.items()} == {
        key: HELP[key] for key in OVERRIDES
    }
    assert {"type": "null"} in settings["rescale_k"]["anyOf"]
    assert schema["properties"]["input"]["description"] == HELP["input"]
    assert {"200", "400", "413", "429", "500"} <= set(speech["responses"])
    assert "422" not in speech["responses"]


def test_an_unforeseen_failure_tells_the_request_id_and_no_details(run):
    with run() as running:

        def broken() -> None:
            raise RuntimeError("secret detail")

        running.engine.stats = broken
        reply = running.client.get("/health", headers={"x-request-id": "mine"})
        assert reply.status_code == 500
        assert reply.headers["x-request-id"] == "mine"
        error = reply.json()["error"]
        assert "mine" in error["message"]
        assert "secret" not in reply.text
        assert error["code"] == "internal_error"
        assert running.client.get("/v1/voices").status_code == 200
