"""Whatever comes in: a clear error in OpenAI's shape, and a server that goes on."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

GOOD = {"input": "Hi.", "voice": "anna", "stream": True}
HUGE = 10**30


@pytest.fixture(autouse=True)
def server_unharmed(running) -> Iterator[None]:
    yield
    assert running.client.get("/health").json()["status"] == "ok"
    assert running.speak(input="Still there.", stream=True).status_code == 200


def refused(reply, status: int = 400) -> dict:
    assert reply.status_code == status, reply.text[:300]
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"]
    assert list(reply.json()) == ["error"]
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) < 1000
    return error


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input", None),
        ("input", 5),
        ("input", ["Hi."]),
        ("input", {"text": "Hi."}),
        ("input", ""),
        ("input", " \n\t"),
        ("input", "?!…"),
        ("input", "a " * 50_000),
        ("input", "\u0000\u0007\u001b"),
        ("voice", "nobody"),
        ("voice", ""),
        ("voice", 7),
        ("voice", ["anna"]),
        ("voice", {"id": 7}),
        ("voice", "../secret"),
        ("voice", "../secret.wav"),
        ("voice", "audio_prompts/../../secret.wav"),
        ("voice", "/etc/passwd"),
        ("voice", "..\\secret"),
        ("voice", "%2e%2e/secret"),
        ("voice", "anna\u0000.wav"),
        ("voice", "."),
        ("voice", "letter"),
        ("voice", "letter.wav"),
        ("voice", "data:audio/wav;base64,&&&&"),
        ("voice", "data:audio/wav,RIFF"),
        ("voice", "data:audio/wav;base64,"),
        ("voice", "not base64! " * 100),
        ("voice", base64.b64encode(b"no audio at all " * 50).decode()),
        ("response_format", "exe"),
        ("response_format", 5),
        ("response_format", ["wav"]),
        ("stream", "yes"),
        ("stream", 1),
        ("stream_format", "xml"),
        ("speed", "fast"),
        ("speed", True),
        ("speed", 0.1),
        ("speed", 4.5),
        ("speed", HUGE),
        ("sample_rate", 0),
        ("sample_rate", "44100"),
        ("sample_rate", 24_000.5),
        ("sample_rate", HUGE),
        ("instructions", 5),
        ("instructions", "x" * 4097),
        ("seed", "1"),
        ("seed", 1.5),
        ("seed", True),
        ("seed", -2),
        ("seed", HUGE),
        ("seed", [1]),
        ("extra_body", [1]),
        ("extra_body", "seed=1"),
        ("block_sizes", "4,4"),
        ("block_sizes", 4),
        ("block_sizes", []),
        ("block_sizes", [0]),
        ("block_sizes", [-4]),
        ("block_sizes", [4.5]),
        ("block_sizes", [641]),
        ("block_sizes", [HUGE]),
        ("block_sizes", [1] * 100_000),
        ("block_sizes", [[4]]),
        ("num_steps", 0),
        ("num_steps", HUGE),
        ("num_steps", [1, 2, 3]),
        ("num_steps", "10"),
        ("cfg_scale_text", "3"),
        ("cfg_scale_text", HUGE),
        ("cfg_scale_speaker", [8, 8]),
        ("cfg_min_t", 2),
        ("truncation_factor", [1, 1, 1]),
        ("init_scale", -1),
        ("rescale_k", {}),
        ("speaker_kv_max_layers", 1.5),
        ("early_stop_on_zero", "yes"),
        ("zero_tail_frames", 0),
        ("max_text_length", 100_000),
        ("guidance_mode", "joint"),
        ("chunking_enabled", 3),
        ("chunk_target_seconds", 1e9),
        ("preset", "../default"),
        ("preset", 5),
    ],
)
def test_an_impossible_value_is_refused_and_named(running, field, value):
    error = refused(running.client.post("/v1/audio/speech", json={**GOOD, field: value}))
    assert error["param"] == field


@pytest.mark.parametrize("key", ["cfg_scale_text", "speed", "seed", "init_scale", "num_steps"])
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(running, key, number):
    raw = json.dumps({**GOOD, key: "X"}).replace('"X"', number)
    refused(post(running, raw.encode()))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"hello",
        b"[1]",
        b'"text"',
        b"null",
        b'{"input": "Hi."',
        b'{"input": "Hi."} {}',
        b'{"input": "\xff\xfe"}',
        b'{"input": "\xed\xa0\x80"}',
        b'{"input": "\\ud800"}',
        b'{"input": "a\x00b"}',
        b"[" * 200_000,
        b'{"extra_body":' * 50_000,
        b'{"input": "Hi.", "seed": ' + b"9" * 100_000 + b"}",
        b"\x00" * 1000,
    ],
)
def test_a_body_that_is_no_json_object_is_refused(running, raw):
    refused(post(running, raw))


def test_an_unknown_voice_is_told_which_exist(running):
    error = refused(running.speak(input="Hi.", voice="nobody"))
    assert error["code"] == "voice_not_found"
    assert "anna" in error["message"]
    assert "secret" not in error["message"]


def test_a_missing_text_is_named(running):
    assert refused(post(running, b"{}")) == {
        "message": "input is missing",
        "type": "invalid_request_error",
        "param": "input",
        "code": "invalid_value",
    }


def test_control_characters_inside_a_text_are_not_spoken(running):
    plain = running.speak(input="Hello there.", stream=True, seed=1)
    odd = running.speak(input="\u0000Hello\u0007 there\u001b.", stream=True, seed=1)
    assert odd.status_code == 200
    assert odd.content == plain.content


def test_a_form_is_refused(running):
    error = refused(running.client.post("/v1/audio/speech", data={"input": "Hi."}), 415)
    assert "Content-Type: application/json" in error["message"]


def test_an_unknown_path_is_404(running):
    assert refused(running.client.get("/v1/nothing"), 404)["code"] == "not_found"
    refused(running.client.get("/../../etc/passwd"), 404)


def test_a_wrong_method_is_405(running):
    reply = running.client.get("/v1/audio/speech")
    assert "use POST" in refused(reply, 405)["message"]
    assert reply.headers["allow"] == "POST"


def post(running, raw: bytes):
    headers = {"content-type": "application/json"}
    return running.client.post("/v1/audio/speech", content=raw, headers=headers)


def test_a_body_over_the_limit_is_refused_while_it_is_read(run):
    body = json.dumps({"input": "Hi.", "voice": "A" * 300_000}).encode()

    def parts() -> Iterator[bytes]:
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]

    with run("server.max_body_bytes=20000") as running:
        for content in (body, parts()):
            assert refused(post(running, content), 413)["code"] == "body_too_large"
        assert running.speak(input="Hi.").status_code == 200
