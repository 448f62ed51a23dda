from __future__ import annotations

import json
import socket

import httpx
import numpy as np
import pytest

from echo.audio.encode import pcm16
from echo.engine import SpeechRequest

from ..conftest import steps_of, wait_until
from ..test_streaming import failing_at
from .conftest import audio_of, decoded, lines_of

SAMPLES = 8 * 2048  # two blocks of the toy's preset
SECONDS = SAMPLES / 44_100


def body(encoding: str | None = None, **more: object) -> dict[str, object]:
    audio = {} if encoding is None else {"audioConfig": {"audioEncoding": encoding}}
    return {"text": "Hello there.", "voiceId": "anna", "modelId": "m1", **audio, **more}


def post(running, path="/tts/v1/voice", **fields: object) -> httpx.Response:
    return running.client.post(path, json=fields)


def streamed(running, **fields: object) -> list[dict]:
    reply = post(running, "/tts/v1/voice:stream", **fields)
    assert reply.status_code == 200, reply.text
    return [line["result"] for line in lines_of(reply)]


def test_without_an_audio_config_it_is_mp3_at_48_khz(running):
    told = post(running, **body()).json()
    assert set(told) == {"audioContent", "usage"}
    assert told["usage"] == {"processedCharactersCount": 12, "modelId": "m1"}
    samples, rate = decoded(audio_of(told), "mp3")
    assert rate == 48_000
    assert abs(len(samples) / rate - SECONDS) < 0.06


BARE = {"PCM": "s16le", "ALAW": "alaw", "MULAW": "mulaw"}
FILES = {"LINEAR16": "wav", "WAV": "wav", "MP3": "mp3", "OGG_OPUS": "ogg", "FLAC": "flac"}


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 48_000])
@pytest.mark.parametrize("encoding", [*BARE, *FILES])
def test_every_encoding_plays_at_the_rate_asked_for(running, encoding, rate):
    config = {"audioEncoding": encoding, "sampleRateHertz": rate}
    whole = audio_of(post(running, **body(), audioConfig=config).json())
    parts = [audio_of(told) for told in streamed(running, **body(), audioConfig=config)]
    if encoding == "LINEAR16":
        assert all(part[:4] == b"RIFF" and part[36:40] == b"data" for part in parts)
        parts = [parts[0][:40] + b"\xff" * 4 + b"".join(part[44:] for part in parts)]
    for data in (whole, b"".join(parts)):
        bare = encoding in BARE
        samples, found = decoded(
            data, BARE.get(encoding, FILES.get(encoding)), rate if bare else None
        )
        assert found == (48_000 if encoding == "OGG_OPUS" else rate)  # Opus always plays at that
        assert abs(len(samples) / found - SECONDS) <= 0.06
        assert np.abs(samples).max() > 0.001


@pytest.mark.parametrize(("encoding", "per_sample"), [("PCM", 2), ("ALAW", 1), ("MULAW", 1)])
def test_bare_encodings_have_no_header_and_whole_samples(running, encoding, per_sample):
    config = {"audioEncoding": encoding, "sampleRateHertz": 44_100}
    parts = [audio_of(told) for told in streamed(running, **body(), audioConfig=config)]
    assert len(parts) >= 2
    assert all(len(part) % per_sample == 0 for part in parts)
    assert sum(map(len, parts)) == SAMPLES * per_sample


def test_alaw_and_mulaw_are_at_8_khz_unless_said(running):
    for encoding in ("ALAW", "MULAW"):
        data = audio_of(post(running, **body(encoding)).json())
        assert abs(len(data) - SECONDS * 8000) < 10


def test_wav_has_one_header_and_linear16_one_per_part(running):
    for encoding, headers in (("WAV", 1), ("LINEAR16", 2)):
        config = {"audioEncoding": encoding, "sampleRateHertz": 44_100}
        parts = [audio_of(told) for told in streamed(running, **body(), audioConfig=config)]
        assert all(parts)
        assert [part[:4] == b"RIFF" for part in parts].count(True) == headers
        sizes = [int.from_bytes(part[40:44], "little") for part in parts if part[:4] == b"RIFF"]
        if encoding == "WAV":
            assert sizes == [0xFFFFFFFF]
        else:
            assert sizes == [len(part) - 44 for part in parts]
        whole = audio_of(post(running, **body(), audioConfig=config).json())
        assert int.from_bytes(whole[40:44], "little") == len(whole) - 44 == SAMPLES * 2


def test_snake_case_and_camel_case_mean_the_same(running):
    camel = {
        "text": "Hi.",
        "voiceId": "anna",
        "modelId": "m",
        "audioConfig": {"audioEncoding": "PCM", "sampleRateHertz": 16000, "speakingRate": 1.25},
        "timestampType": "WORD",
        "unknown": {"x": 1},
    }
    snake = {
        "text": "Hi.",
        "voice_id": "anna",
        "model_id": "m",
        "audio_config": {
            "audio_encoding": "pcm",
            "sample_rate_hertz": 16000.0,
            "speaking_rate": 1.25,
        },
        "timestamp_type": "WORD",
        "apply_text_normalization": "ON",
    }
    one, other = (post(running, **fields).json() for fields in (camel, snake))
    assert abs(len(audio_of(one)) - len(audio_of(other))) < 0.1 * 2 * 16_000
    assert one["usage"] == other["usage"]
    assert set(one) == set(other) == {"audioContent", "usage", "timestampInfo"}


@pytest.mark.parametrize("speed", [0.5, 1.5])
def test_the_speaking_rate_changes_the_length(running, speed):
    config = {"audioEncoding": "PCM", "sampleRateHertz": 44_100, "speakingRate": speed}
    text = 'Hello there. <break time="2s"/> Good bye.'
    data = audio_of(post(running, text=text, voiceId="anna", audioConfig=config).json())
    seconds = len(data) / 2 / 44_100
    assert abs(seconds - (2 + 2 * SECONDS / speed)) < 0.25  # the pause keeps its length


def test_the_bit_rate_is_honoured(running):
    sizes = []
    for bit_rate in (32_000, 128_000, 999_999):
        config = {"audioEncoding": "MP3", "bitRate": bit_rate}
        sizes.append(len(audio_of(post(running, **body(), audioConfig=config).json())))
    assert sizes[0] * 2 < sizes[1] < sizes[2]


def test_a_pause_is_silence_of_its_length(running):
    config = {"audioEncoding": "PCM", "sampleRateHertz": 44_100}
    text = '*One*. <break time="500ms"/> [happy] <b>Two.</b>'
    data = audio_of(post(running, text=text, voiceId="anna", audioConfig=config).json())
    samples = np.frombuffer(data, "<i2")
    assert len(samples) == 2 * SAMPLES + 22_050
    assert not samples[SAMPLES : SAMPLES + 22_050].any()
    texts = [stream.info.text.normalized for stream in running.engine.streams[-2:]]
    assert texts == ["[S1] One.", "[S1] Two."]


def test_a_streams_parts_are_the_engines_audio(running, monkeypatch):
    monkeypatch.setattr("secrets.randbits", lambda bits: 5)
    config = {"audioEncoding": "PCM", "sampleRateHertz": 44_100}
    parts = [audio_of(told) for told in streamed(running, **body(), audioConfig=config)]
    wanted = running.engine.synthesize(SpeechRequest("Hello there.", voice="anna", seed=5))
    assert b"".join(parts) == pcm16(wanted)


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"voiceId": "anna"}, 400, 3),
        ({"text": "Hi."}, 400, 3),
        ({"text": "", "voiceId": "anna"}, 400, 3),
        ({"text": "x" * 2001, "voiceId": "anna"}, 400, 3),
        ({"text": 3, "voiceId": "anna"}, 400, 3),
        ({"text": "Hi.", "voiceId": "nobody"}, 404, 5),
        ({"text": "Hi.", "voiceId": "anna", "audioConfig": {"audioEncoding": "MP4"}}, 400, 3),
        ({"text": "Hi.", "voiceId": "anna", "audioConfig": {"sampleRateHertz": 7999}}, 400, 3),
        ({"text": "Hi.", "voiceId": "anna", "audioConfig": {"sampleRateHertz": 48001}}, 400, 3),
        ({"text": "Hi.", "voiceId": "anna", "audioConfig": {"speakingRate": 1.6}}, 400, 3),
        ({"text": "Hi.", "voiceId": "anna", "audioConfig": []}, 400, 3),
        ({"text": "Hi.", "voiceId": "anna", "timestampType": "LINE"}, 400, 3),
    ],
)
@pytest.mark.parametrize("path", ["/tts/v1/voice", "/tts/v1/voice:stream"])
def test_errors_before_the_first_line_are_flat(running, path, fields, status, code):
    reply = post(running, path, **fields)
    assert reply.status_code == status
    told = reply.json()
    assert set(told) == {"code", "message", "details"}
    assert (told["code"], told["details"]) == (code, [])
    assert told["message"]


def test_a_body_that_is_no_json_is_a_flat_error(running):
    reply = running.client.post("/tts/v1/voice", content=b"{")
    assert reply.status_code == 400
    assert reply.json()["code"] == 3


def test_a_failure_before_the_first_line_is_a_flat_500(run):
    with run(change=failing_at(1)) as running:
        reply = post(running, "/tts/v1/voice:stream", **body("PCM"))
    assert reply.status_code == 500
    assert reply.json()["code"] == 13


def test_a_failure_mid_stream_is_a_line_and_breaks_the_connection(run):
    with run(change=failing_at(2)) as running:
        with running.client.stream("POST", "/tts/v1/voice:stream", json=body("PCM")) as reply:
            assert reply.status_code == 200
            told = reply.iter_lines()
            lines = []
            with pytest.raises(httpx.RemoteProtocolError):
                lines.extend(json.loads(line) for line in told)
        assert "audioContent" in lines[0]["result"]
        assert lines[-1]["error"]["code"] == 13
        assert set(lines[-1]["error"]) == {"code", "message", "details"}


def test_a_full_queue_is_429(run):
    with run("engine.max_active=1", "engine.max_queued=0") as running:
        long = {"input": "Hi.", "stream": True, "block_sizes": [4] * 100, "num_steps": 200}
        with running.stream(**long) as first:
            parts = first.iter_raw()
            next(parts)
            with httpx.Client(base_url=running.server.url) as other:
                reply = other.post("/tts/v1/voice", json=body())
            parts.close()
    assert reply.status_code == 429
    assert reply.json()["code"] == 8
    assert "retry-after" in reply.headers


@pytest.mark.parametrize("path", ["/tts/v1/voice", "/tts/v1/voice:stream"])
def test_a_client_that_leaves_stops_its_generation(run, path):
    raw = json.dumps(body("PCM")).encode()
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (
        path.encode(),
        len(raw),
    )
    with run("preset.block_sizes=[400]", "preset.num_steps=[200]") as running:
        with socket.create_connection((running.server.host, running.server.port)) as connection:
            connection.sendall(head + raw)
            wait_until(lambda: running.engine.streams and steps_of(running.engine.streams[0]) > 1)
        wait_until(lambda: running.engine.stats()["active"] == 0)
        stream = running.engine.streams[0]
        assert running.engine.steps_at_close[stream] < 100
        assert steps_of(stream) <= running.engine.steps_at_close[stream] + 1


def test_the_first_line_leaves_before_the_second_block_is_made(run):
    slow = ["preset.block_sizes=[4,8]", "preset.num_steps=[1,200]"]
    with (
        run(*slow) as running,
        running.client.stream("POST", "/tts/v1/voice:stream", json=body("MP3")) as reply,
    ):
        lines = reply.iter_lines()
        assert audio_of(json.loads(next(lines))["result"])
        assert running.engine.streams[-1].stats.total_s is None


@pytest.mark.parametrize("encoding", ["LINEAR16", "PCM", "MP3", "FLAC"])
def test_no_line_is_longer_than_clients_read(run, encoding):
    with run("preset.block_sizes=[200]", "preset.num_steps=[1]") as running:
        reply = post(running, "/tts/v1/voice:stream", **body(encoding, timestampType="CHARACTER"))
    assert max(map(len, reply.text.splitlines())) < 1 << 17


def test_without_compatibility_there_are_no_such_routes(run):
    with run("inworld.compat=false") as running:
        assert post(running, **body()).status_code == 404
        assert running.client.get("/tts/v1/voices").status_code == 404
        assert running.client.get("/voices/v1/voices").status_code == 404
        assert "/tts/" not in running.client.get("/openapi.json").text
