"""What is logged of a call, in both formats, and that nobody's words are in it unasked."""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from echo.api.call import CALL, Call
from echo.api.logs import JsonFormatter, ReadableFormatter

from .conftest import wait_until

ROOT = Path(__file__).parents[2]
SECRET = "The heron stands by the weir."


@pytest.fixture
def in_call():
    token = CALL.set(Call("req_7", "inworld", None))
    yield
    CALL.reset(token)


def record(message: str, *args: object, **more: object) -> logging.LogRecord:
    made = logging.LogRecord("echo.api.x", logging.WARNING, __file__, 1, message, args, None)
    made.__dict__.update(more)
    return made


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, object]]:
    fields = [getattr(each, "fields", {}) for each in caplog.records]
    return [each for each in fields if each.get("event") == event]


@pytest.fixture
def listening(caplog):
    caplog.set_level(logging.DEBUG, "echo.api")
    return caplog


def test_a_json_line_tells_what_whose_and_when(in_call):
    line = JsonFormatter().format(record("took %d ms", 5, fields={"ttfb_s": 0.1}))
    parsed = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", parsed.pop("time"))
    assert parsed == {
        "level": "warning",
        "logger": "echo.api.x",
        "message": "took 5 ms",
        "request_id": "req_7",
        "protocol": "inworld",
        "ttfb_s": 0.1,
    }


def test_a_traceback_stays_in_its_json_line():
    try:
        raise ValueError("two\nlines")
    except ValueError:
        made = record("failed", exc_info=sys.exc_info())
    line = JsonFormatter().format(made)
    assert "\n" not in line
    assert "Traceback" in json.loads(line)["exception"]
    assert "request_id" not in json.loads(line)


def test_a_readable_line_names_the_request_and_cannot_be_forged(in_call):
    forged = "/x\n2026-01-01 00:00:00 ERROR echo: you are hacked\x1b[31m"
    line = ReadableFormatter().format(record("asked for %s", forged))
    assert "\n" not in line
    assert "\x1b" not in line
    assert r"echo.api.x [req_7]: asked for /x\n2026" in line


def test_a_call_is_one_line_with_its_route_and_a_speech_another(running, listening):
    path = "/v1/audio/speech"
    asked = {"input": SECRET, "voice": "anna", "seed": 3}
    running.client.post(path, json=asked, headers={"x-request-id": "mine"})
    wait_until(lambda: bool(told(listening, "call")))
    [call], [speech] = told(listening, "call"), told(listening, "speech")
    assert (call["method"], call["route"], call["status"]) == ("POST", path, 200)
    assert call["ending"] == "complete"
    assert call["duration_s"] > 0
    assert (speech["outcome"], speech["voice"], speech["seed"]) == ("ok", "anna", 3)
    assert speech["audio_s"] > 0
    assert 0 < speech["ttfb_s"] <= speech["total_s"]


def test_words_and_paths_of_users_are_not_logged(running, listening):
    running.speak(input=SECRET + " 漢字 heron\U0001f426")
    running.client.post("/tts/v1/voice", json={"text": SECRET, "voiceId": "anna"})
    running.client.get("/heron?heron=heron")
    running.client.get("/v1/models/heron")
    running.speak(input=SECRET, voice="heron")
    wait_until(lambda: len(told(listening, "call")) == 5)
    assert len(told(listening, "speech")) == 2
    lines = [JsonFormatter().format(each) for each in listening.records]
    assert not [line for line in lines if "heron" in line.lower() or "weir" in line.lower()]
    assert not [line for line in lines if "漢" in line or "cannot be spoken" in line]
    assert {call["route"] for call in told(listening, "call")} >= {"other", "/v1/models/{model_id}"}


def test_a_failure_is_logged_with_its_route_and_without_its_path(run, listening):
    with run("inworld.clone_enabled=true") as running:

        def broken(voice: str) -> None:
            raise RuntimeError("the disk is gone")

        running.engine.clones.by_id = broken
        assert running.client.delete("/v1/audio/voices/heron").status_code == 500
    assert "failed at /v1/audio/voices/{voice_id}" in listening.text
    assert "the disk is gone" in listening.text
    assert "heron" not in listening.text


def test_words_are_logged_where_that_is_asked_for(run, listening):
    with run("server.log_texts=true") as running:
        running.speak(input=SECRET + " \U0001f426")
        wait_until(lambda: bool(told(listening, "call")))
    [speech] = told(listening, "speech")
    assert speech["text"].startswith(SECRET)
    assert len(speech["text_warnings"]) == 1
    assert SECRET in listening.text


def test_a_client_that_leaves_is_told_of(running, listening):
    with running.stream(input=SECRET * 60, stream=True) as reply:
        next(reply.iter_raw())
    wait_until(lambda: bool(told(listening, "call")))
    assert [each["ending"] for each in told(listening, "call")] == ["left"]
    assert [each["outcome"] for each in told(listening, "speech")] == ["cancelled"]


def test_probes_are_not_worth_a_line(running, caplog):
    caplog.set_level(logging.INFO)
    for path in ("/health", "/ready", "/metrics", "/v1/models"):
        running.client.get(path)
    wait_until(lambda: bool(told(caplog, "call")))
    assert [each["route"] for each in told(caplog, "call")] == ["/v1/models"]


def test_the_program_writes_nothing_but_json_if_told_so(toy_overrides, tmp_path):
    command = [sys.executable, str(ROOT / "serve.py"), *toy_overrides, "server.log_format=json"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as program:
        lines = []
        for line in program.stderr:
            lines.append(json.loads(line))
            if found := re.search(r"listening on (http://[\d.:]+)", lines[-1]["message"]):
                break
        asked = {"input": "Hello.", "voice": "anna"}
        reply = httpx.post(f"{found[1]}/v1/audio/speech", json=asked, timeout=60)
        program.send_signal(signal.SIGTERM)
        lines += [json.loads(line) for line in program.communicate(timeout=60)[1].splitlines()]
    by_event = {line["event"]: line for line in lines if "event" in line}
    for event in ("call", "speech"):
        assert by_event[event]["request_id"] == reply.headers["x-request-id"]
        assert by_event[event]["protocol"] == "openai"
