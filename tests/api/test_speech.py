from __future__ import annotations

import base64
import io
import struct
import wave
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pytest
import soundfile

from echo.api.audio import open_reply_encoder
from echo.api.speech import parse_speech
from echo.audio.decode import decode_audio
from echo.audio.encode import pcm16
from echo.audio.resample import StreamResampler
from echo.engine import SpeechRequest
from echo.errors import InvalidRequestError

TEXT = "Hello there."


def test_pcm_parts_joined_are_the_engines_audio(running):
    reply = running.speak(input=TEXT, stream=True, seed=7)
    audio = running.engine.synthesize(SpeechRequest(TEXT, voice="anna", seed=7))
    assert reply.status_code == 200
    assert reply.content == pcm16(audio)
    assert np.abs(audio).max() > 0.01
    assert reply.headers["content-type"] == "audio/pcm;rate=44100;channels=1"
    assert reply.headers["x-audio-sample-rate"] == "44100"


def test_two_clients_at_once_get_what_each_gets_alone(running):
    texts = [f"{TEXT} This is number {number}, of several." for number in range(4)]

    def speak(seed: int) -> np.ndarray:
        reply = running.speak(
            input=texts[seed], stream=True, seed=seed, block_sizes=[4] * 6, num_steps=20
        )
        assert reply.status_code == 200
        return np.frombuffer(reply.content, np.int16).astype(int)

    alone = [speak(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(speak, range(4)))
    for ours, expected in zip(together, alone, strict=True):
        assert len(ours) == len(expected)
        assert abs(ours - expected).max() <= 8  # of 32768: sums of rows round differently
    assert min(abs(a - b).max() for a, b in combinations(alone, 2)) > 1000


def test_without_a_seed_each_reply_is_another(running):
    first, second = (running.speak(input=TEXT, stream=True).content for _ in range(2))
    assert first != second


@pytest.mark.parametrize("body", [{"seed": 5}, {"extra_body": {"seed": 5}}])
def test_settings_work_nested_and_at_the_top(running, body):
    wanted = running.engine.synthesize(
        SpeechRequest(TEXT, voice="anna", seed=5, overrides={"block_sizes": [2]})
    )
    nested = "extra_body" in body
    shape = {"block_sizes": [2], "unheard_of": 1}
    body = {"extra_body": {**body["extra_body"], **shape}} if nested else {**body, **shape}
    assert running.speak(input=TEXT, stream=True, **body).content == pcm16(wanted)


def test_a_nested_setting_wins_over_one_at_the_top():
    body = {"input": TEXT, "seed": 1, "num_steps": 3, "extra_body": {"seed": 2, "num_steps": 4}}
    request = parse_speech(body).request
    assert request.seed == 2
    assert request.overrides == {"num_steps": 4}


def test_not_streamed_uses_the_non_streaming_shape(running):
    reply = running.speak(input=TEXT, stream=False, response_format="pcm", seed=3)
    request = SpeechRequest(TEXT, voice="anna", seed=3, streaming=False)
    assert reply.content == pcm16(running.engine.synthesize(request))
    assert int(reply.headers["content-length"]) == len(reply.content)


@pytest.mark.parametrize(
    ("body", "fmt", "rate", "complete"),
    [
        ({"stream": True}, "pcm", 44_100, False),
        ({"extra_body": {}}, "pcm", 44_100, False),
        ({"extra_body": {"stream": False}}, "mp3", 44_100, True),
        ({"stream": False}, "mp3", 44_100, True),
        ({"stream": True, "response_format": "wav"}, "wav", 44_100, False),
        ({"stream": False, "response_format": "wav"}, "wav", 44_100, True),
        ({"stream": True, "response_format": "PCM", "sample_rate": 16_000}, "pcm", 16_000, False),
        ({}, "mp3", 44_100, False),
        ({"stream": None, "extra_body": None}, "mp3", 44_100, False),
        ({"response_format": "pcm"}, "pcm", 24_000, False),
        ({"response_format": "pcm", "sample_rate": 48_000}, "pcm", 48_000, False),
        ({"response_format": "wav"}, "wav", 44_100, False),
        ({"response_format": "wav", "extra_body": {"stream": False}}, "wav", 44_100, True),
        ({"response_format": "opus"}, "opus", 48_000, False),
        ({"response_format": "m4a"}, "m4a", 44_100, True),
    ],
)
def test_stream_or_a_nested_extra_body_brings_echos_defaults(body, fmt, rate, complete):
    output = parse_speech({"input": TEXT, **body}).output
    assert (output.format.name, output.rate, output.complete) == (fmt, rate, complete)


def test_pcm_for_openai_clients_is_resampled_without_clicks(running):
    reply = running.speak(input=TEXT, response_format="pcm", seed=7)
    audio = running.engine.synthesize(SpeechRequest(TEXT, voice="anna", seed=7))
    resampler = StreamResampler(44_100, 24_000)
    wanted = np.concatenate((resampler.push(audio), resampler.finish()))
    assert reply.content == pcm16(wanted)
    assert reply.headers["x-audio-sample-rate"] == "24000"
    assert reply.headers["content-type"] == "audio/pcm;rate=24000;channels=1"


def test_mantellas_body_gets_a_wav_that_its_reader_opens(running):
    body = {
        "model": "default",
        "input": TEXT,
        "voice": "An na",
        "response_format": "wav",
        "speed": 1.0,
    }
    reply = running.speak(**body)
    samples, rate = soundfile.read(io.BytesIO(reply.content))
    assert (len(samples), rate) == (8 * 2048, 44_100)
    assert reply.headers["content-type"] == "audio/wav"


def test_a_wav_that_is_not_streamed_has_exact_sizes(running):
    reply = running.speak(input=TEXT, response_format="wav", stream=False)
    data = reply.content[44:]
    assert reply.content[:44] == struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", len(data) + 36, b"WAVE", b"fmt ", 16, 1, 1, 44_100, 88_200, 2, 16),
        *(b"data", len(data)),
    )
    assert int(reply.headers["content-length"]) == len(reply.content)
    with wave.open(io.BytesIO(reply.content)) as file:
        assert file.getnframes() == len(data) // 2 == 8 * 2048


def test_a_streamed_wav_says_that_its_sizes_are_unknown(running):
    reply = running.speak(input=TEXT, response_format="wav", stream=True, seed=7)
    assert reply.content[:44] == struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 0xFFFFFFFF, b"WAVE", b"fmt ", 16, 1, 1, 44_100, 88_200, 2, 16),
        *(b"data", 0xFFFFFFFF),
    )
    assert reply.content[44:] == running.speak(input=TEXT, stream=True, seed=7).content
    assert "content-length" not in reply.headers


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("fmt", "media_type"),
    [
        ("mp3", "audio/mpeg"),
        ("opus", "audio/opus"),
        ("aac", "audio/aac"),
        ("flac", "audio/flac"),
    ],
)
def test_compressed_formats_decode_to_the_same_length(running, fmt, media_type, stream):
    reply = running.speak(input=TEXT, response_format=fmt, stream=stream, seed=7)
    assert reply.headers["content-type"] == media_type
    decoded = decode_audio(reply.content, max_bytes=1_000_000, max_seconds=10)
    seconds = decoded.samples.size / decoded.sample_rate
    assert seconds == pytest.approx(8 * 2048 / 44_100, abs=0.06)


@pytest.mark.parametrize("speed", [0.5, 2.0])
def test_speed_changes_the_length(running, speed):
    reply = running.speak(input=TEXT, stream=True, speed=speed, seed=7)
    assert len(reply.content) // 2 == pytest.approx(8 * 2048 / speed, rel=0.2)


def test_a_speed_of_one_changes_nothing(running):
    plain, one = (
        running.speak(input=TEXT, stream=True, seed=7, **body).content
        for body in ({}, {"speed": 1.0})
    )
    assert plain == one


def test_what_openai_clients_send_is_accepted(running):
    reply = running.speak(
        model="gpt-4o-mini-tts",
        input=TEXT,
        voice={"id": "anna"},
        instructions="Speak kindly.",
        stream_format="audio",
        user="somebody",
    )
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "audio/mpeg"


def test_seed_minus_one_is_random(running):
    first, second = (running.speak(input=TEXT, stream=True, seed=-1) for _ in range(2))
    assert first.status_code == second.status_code == 200
    assert first.content != second.content


def test_a_body_without_content_type_counts_as_json(running):
    reply = running.client.post("/v1/audio/speech", content=b'{"input": "Hi.", "stream": true}')
    assert reply.status_code == 200


def test_audio_in_the_request_is_a_voice(running, toy):
    clip = base64.b64encode((toy / "audio_prompts" / "anna.wav").read_bytes()).decode()
    named = running.speak(input=TEXT, stream=True, seed=7).content
    for voice in (clip, f"data:audio/wav;base64,{clip}"):
        assert running.speak(input=TEXT, voice=voice, stream=True, seed=7).content == named


def test_m4a_cannot_be_streamed():
    body = {"input": TEXT, "response_format": "m4a", "stream": True}
    output = parse_speech(body).output
    with pytest.raises(InvalidRequestError, match="m4a can't be streamed"):
        open_reply_encoder(output, 44_100)
