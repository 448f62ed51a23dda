"""OpenAI's own client, unmodified, against the running server."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator

import numpy as np
import openai
import pytest

from echo.audio.decode import decode_audio
from echo.audio.encode import pcm16
from echo.audio.resample import StreamResampler
from echo.engine import SpeechRequest

from .conftest import Running

TEXT = "Hello there."
SECONDS = 8 * 2048 / 44_100
FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")


@pytest.fixture
def make_client() -> Iterator[Callable[..., openai.OpenAI]]:
    clients = []

    def make(running: Running, **options) -> openai.OpenAI:
        options = {"api_key": "any", "max_retries": 0, **options}
        clients.append(openai.OpenAI(base_url=f"{running.server.url}/v1", **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(running, make_client) -> openai.OpenAI:
    return make_client(running)


def seconds_of(audio: bytes, fmt: str) -> float:
    if fmt == "pcm":
        return len(audio) / 2 / 24_000
    decoded = decode_audio(audio, max_bytes=10_000_000, max_seconds=100)
    return decoded.samples.size / decoded.sample_rate


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_format_is_made_and_lasts_as_long_as_the_speech(client, fmt):
    reply = client.audio.speech.create(
        model="tts-1", voice="alloy", input=TEXT, response_format=fmt
    )
    assert seconds_of(reply.content, fmt) == pytest.approx(SECONDS, abs=0.06)


@pytest.mark.parametrize("fmt", FORMATS)
def test_streamed_to_a_file_every_format_is_the_same_speech(client, fmt, tmp_path):
    file = tmp_path / f"speech.{fmt}"
    with client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts",
        voice="anna",
        input=TEXT,
        response_format=fmt,
        instructions="Speak kindly.",
        speed=1.0,
    ) as reply:
        reply.stream_to_file(file)
    assert seconds_of(file.read_bytes(), fmt) == pytest.approx(SECONDS, abs=0.06)


def test_the_first_part_of_a_stream_comes_before_the_last_is_made(client, running):
    with client.audio.speech.with_streaming_response.create(
        model="tts-1",
        voice="anna",
        input=TEXT,
        response_format="pcm",
        extra_body={"block_sizes": [4, 8], "num_steps": [1, 200]},
    ) as reply:
        parts = reply.iter_bytes(1024)
        next(parts)
        assert running.engine.streams[-1].stats.total_s is None
        parts.close()


def test_settings_in_extra_body_reach_the_engine(client, running):
    shape = {"seed": 5, "block_sizes": [2], "cfg_scale_text": 2.0}
    reply = client.audio.speech.create(
        model="tts-1", voice="anna", input=TEXT, response_format="pcm", extra_body=shape
    )
    seed = shape.pop("seed")
    audio = running.engine.synthesize(SpeechRequest(TEXT, voice="anna", seed=seed, overrides=shape))
    resampler = StreamResampler(44_100, 24_000)
    assert reply.content == pcm16(np.concatenate((resampler.push(audio), resampler.finish())))


def test_events_joined_are_the_file(client):
    body = {"model": "tts-1", "voice": "anna", "input": TEXT, "response_format": "pcm"}
    plain = client.audio.speech.create(**body, extra_body={"seed": 3}).content
    with client.audio.speech.with_streaming_response.create(
        **body, stream_format="sse", extra_body={"seed": 3}
    ) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line[6:]) for line in reply.iter_lines() if line]
    assert {event["type"] for event in events[:-1]} == {"speech.audio.delta"}
    assert b"".join(audio_in(event) for event in events[:-1]) == plain
    assert events[-1]["usage"]["output_tokens"] == 8


def audio_in(event: dict) -> bytes:
    return base64.b64decode(event["audio"], validate=True)


def test_the_asynchronous_client_speaks_several_texts_at_once(running):
    async def speak() -> list[bytes]:
        async with openai.AsyncOpenAI(
            base_url=f"{running.server.url}/v1", api_key="any", max_retries=0
        ) as client:
            replies = [
                client.audio.speech.create(
                    model="tts-1", voice="onyx", input=TEXT, response_format="flac"
                )
                for _ in range(4)
            ]
            return [reply.content for reply in await asyncio.gather(*replies)]

    for audio in asyncio.run(speak()):
        assert seconds_of(audio, "flac") == pytest.approx(SECONDS, abs=0.01)


def test_models_are_listed_and_found(client):
    names = [model.id for model in client.models.list()]
    assert names[0] == "echo-tts"
    assert {"tts-1", "gpt-4o-mini-tts"} < set(names)
    assert client.models.retrieve("tts-1").id == "tts-1"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-9")
    assert caught.value.code == "model_not_found"


def test_errors_arrive_typed_with_the_field_at_fault(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.speech.create(model="tts-1", voice="nobody", input=TEXT)
    assert caught.value.param == "voice"
    assert caught.value.code == "voice_not_found"
    assert "anna" in str(caught.value)
    assert caught.value.request_id
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.speech.create(model="tts-1", voice="anna", input=TEXT, speed=9)
    assert caught.value.param == "speed"


def test_a_full_server_is_retried_until_it_has_room(run, make_client):
    long = {"block_sizes": [4] * 20, "num_steps": 10}
    with run("server.max_concurrent=1") as running:
        with running.stream(input=TEXT, stream=True, **long) as busy:
            parts = busy.iter_raw()
            next(parts)
            with pytest.raises(openai.RateLimitError) as caught:
                make_client(running).audio.speech.create(model="m", voice="anna", input=TEXT)
            assert caught.value.code == "too_many_requests"
            parts.close()
        retrying = make_client(running, max_retries=4)
        reply = retrying.audio.speech.create(model="m", voice="anna", input=TEXT)
        assert seconds_of(reply.content, "mp3") == pytest.approx(SECONDS, abs=0.06)


def test_a_bug_is_not_tried_again(run, make_client):
    with run() as running:
        running.engine.stream = broken_stream = Broken()
        client = make_client(running, max_retries=3)
        with pytest.raises(openai.InternalServerError) as caught:
            client.audio.speech.create(model="m", voice="anna", input=TEXT)
        assert broken_stream.calls == 1
        assert "secret" not in str(caught.value)


class Broken:
    """A bug in place of ``engine.stream``."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, request: SpeechRequest) -> None:
        self.calls += 1
        raise RuntimeError("secret")


def test_a_wrong_key_is_an_authentication_error(run, make_client):
    with run("server.api_keys='first,second'") as running:
        with pytest.raises(openai.AuthenticationError):
            make_client(running, api_key="third").models.list()
        assert make_client(running, api_key="second").models.list().data
