"""What clients send that are no Python packages, or heavy ones: their requests, word for word."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile
from websockets.sync.client import connect

from echo.audio.decode import decode_audio

from .conftest import Running

TEXT = "Hello there."
SECONDS = 8 * 2048 / 44_100


def seconds_of(audio: bytes) -> float:
    decoded = decode_audio(audio, max_bytes=10_000_000, max_seconds=100)
    return decoded.samples.size / decoded.sample_rate


def post(running: Running, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    """``body`` as those clients encode it."""
    sent = {"Content-Type": "application/json", **headers}
    return running.client.post(path, content=json.dumps(body), headers=sent)


def test_sillytavern_gets_an_mp3(running):
    reply = post(
        running,
        "/v1/audio/speech",
        {
            "input": '"Hello there," she said. *smiles*',
            "response_format": "mp3",
            "voice": "anna",
            "speed": 1,
            "model": "tts-1",
        },
        Authorization="Bearer",  # where no key is set
    )
    assert reply.status_code == 200
    assert seconds_of(reply.content) == pytest.approx(SECONDS, abs=0.06)


def test_open_webui_finds_voices_and_saves_what_it_gets_as_mp3(running):
    voices = running.client.get("/v1/audio/voices").json()
    names = {voice["id"]: voice["name"] for voice in voices["voices"]}
    assert "anna" in names
    models = running.client.get("/v1/audio/models").json()["models"]
    assert "tts-1" in [model["id"] for model in models]
    reply = post(
        running,
        "/v1/audio/speech",
        {"input": TEXT, "voice": "anna", "model": "tts-1"},
        **{
            "Authorization": "Bearer sk-none",
            "X-OpenWebUI-User-Name": "Ann",
            "X-OpenWebUI-User-Role": "admin",
        },
    )
    assert reply.headers["content-type"] == "audio/mpeg"
    assert seconds_of(reply.content) == pytest.approx(SECONDS, abs=0.06)


@pytest.mark.parametrize("stream", [{}, {"stream": True}])
def test_mantella_can_read_the_wav(running, stream):
    assert running.client.get("/v1").status_code  # any answer will do
    body = {"model": "default", "input": TEXT, "voice": "anna", "response_format": "wav"}
    reply = post(
        running,
        "/v1/audio/speech",
        {**body, "speed": 1.0, **stream},
        Authorization="Bearer abc123",
    )
    samples, rate = soundfile.read(io.BytesIO(reply.content), dtype="int16")
    assert samples.size / rate == pytest.approx(SECONDS, abs=0.001)


def test_skyrimnet_clones_a_voice_and_speaks_with_it(run, toy: Path, tmp_path: Path):
    sample = base64.b64encode((toy / "audio_prompts" / "anna.wav").read_bytes()).decode()
    url = "/voices/v1/workspaces/default/voices"
    with run(f"voices.clone_root={tmp_path}", "inworld.clone_enabled=true") as running:
        assert running.client.get("/tts/v1/voices?filter=language=en").json()["voices"]
        assert running.client.get(f"{url}/Lydia").status_code == 404
        cloned = post(
            running,
            f"{url}:clone",
            {
                "displayName": "Lydia",
                "langCode": "EN_US",
                "voiceSamples": [{"audioData": sample, "transcription": "Hello."}],
            },
            Authorization="Basic a2V5OnNlY3JldA==",
        ).json()
        assert cloned["voice"]["voiceId"] == "default__Lydia"
        for voice in ("default__Lydia", "Lydia"):
            reply = post(
                running,
                "/tts/v1/voice",
                {
                    "text": TEXT,
                    "voiceId": voice,
                    "modelId": "inworld-tts-1",
                    "audioConfig": {"audioEncoding": "LINEAR16"},
                },
                Authorization="Basic a2V5OnNlY3JldA==",
            )
            audio = base64.b64decode(reply.json()["audioContent"])
            assert audio.startswith(b"RIFF")
            assert seconds_of(audio) == pytest.approx(SECONDS, abs=0.001)
        assert running.client.get(f"{url}/Lydia").json()["displayName"] == "Lydia"


def test_livekits_request_over_http_is_streamed_line_by_line(running):
    reply = post(
        running,
        "/tts/v1/voice:stream",
        {
            "text": TEXT,
            "voiceId": "anna",
            "modelId": "inworld-tts-1.5-max",
            "audioConfig": {
                "audioEncoding": "PCM",
                "bitrate": 64000,
                "sampleRateHertz": 24000,
                "temperature": 1.0,
                "speakingRate": 1.0,
            },
            "language": "en-US",
            "timestampType": "WORD",
            "applyTextNormalization": "ON",
            "deliveryMode": "BALANCED",
            "timestampTransportStrategy": "ASYNC",
        },
        **{"Authorization": "Basic any", "X-User-Agent": "livekit-agents-py", "X-Request-Id": "1"},
    )
    results = [json.loads(line)["result"] for line in reply.content.splitlines()]
    audio = b"".join(base64.b64decode(result["audioContent"]) for result in results)
    assert len(audio) / 2 / 24_000 == pytest.approx(SECONDS, abs=0.001)
    words = [result["timestampInfo"] for result in results if "timestampInfo" in result]
    assert [each["wordAlignment"]["words"] for each in words] == [["Hello", "there."]]


CREATE = {
    "pipecat": {
        "voiceId": "anna",
        "modelId": "inworld-tts-2",
        "audioConfig": {"audioEncoding": "PCM", "sampleRateHertz": 24000},
        "autoMode": True,
        "timestampTransportStrategy": "ASYNC",
        "maxBufferDelayMs": 3000,
        "bufferCharThreshold": 250,
        "timestampType": "WORD",
    },
    "livekit": {
        "voiceId": "anna",
        "modelId": "inworld-tts-1.5-max",
        "audioConfig": {
            "audioEncoding": "PCM",
            "sampleRateHertz": 24000,
            "bitrate": 64000,
            "speakingRate": 1.0,
        },
        "temperature": 1.0,
        "maxBufferDelayMs": 3000,
        "timestampTransportStrategy": "ASYNC",
        "autoMode": True,
        "bufferCharThreshold": 250,
        "timestampType": "WORD",
    },
}


@pytest.mark.parametrize("client", CREATE)
def test_a_turn_over_the_websocket_as_voice_agents_take_it(running, client):
    """All at once, without waiting; keep-alives before there is a context and in it."""
    frames = [
        {"send_text": {"text": ""}},
        {"create": CREATE[client], "contextId": "turn"},
        {"send_text": {"text": "Hello there. "}, "contextId": "turn"},
        {"send_text": {"text": ""}, "contextId": "turn"},
        {"send_text": {"text": "It is late. "}, "contextId": "turn"},
        {"flush_context": {}, "contextId": "turn"},
        {"close_context": {}, "contextId": "turn"},
    ]
    results = list(answers(running, frames))
    assert all(result["contextId"] == "turn" for result in results)
    assert "contextCreated" in results[0]
    chunks = [result["audioChunk"] for result in results if "audioChunk" in result]
    audio = b"".join(base64.b64decode(chunk["audioContent"]) for chunk in chunks)
    said = len(audio) / 2 / 24_000 / SECONDS  # together or one by one
    assert said == pytest.approx(round(said), abs=0.01)
    words = [
        word
        for chunk in chunks
        if "timestampInfo" in chunk
        for word in chunk["timestampInfo"]["wordAlignment"]["words"]
    ]
    assert words == ["Hello", "there.", "It", "is", "late."]
    assert "flushCompleted" in results[-2]
    assert "contextClosed" in results[-1]


def test_a_context_that_is_gone_is_told_in_words_that_pipecat_takes_lightly(running):
    with connect(socket_url(running)) as socket:
        socket.send(json.dumps({"send_text": {"text": "Hello."}, "contextId": "gone"}))
        status = json.loads(socket.recv(10))["result"]["status"]
    assert status["code"] == 5
    assert "no open context" in status["message"]


def socket_url(running: Running) -> str:
    return running.server.url.replace("http", "ws") + "/tts/v1/voice:streamBidirectional"


def answers(running: Running, frames: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What comes until the context is closed; none may be an error."""
    headers = {"Authorization": "Basic any", "X-User-Agent": "agent", "X-Request-Id": "1"}
    with connect(socket_url(running), additional_headers=headers) as socket:
        for frame in frames:
            socket.send(json.dumps(frame))
        while True:
            result = json.loads(socket.recv(20))["result"]
            assert result["status"]["code"] == 0
            yield result
            if "contextClosed" in result:
                return
