"""Inworld's own Python client, unmodified, against the running server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from inworld_tts import ApiError, InworldTTS

from echo.audio.decode import decode_audio

from .conftest import Running

TEXT = "Hello there."
SECONDS = 8 * 2048 / 44_100
SAMPLE_BYTES = {"PCM": 2, "ALAW": 1, "MULAW": 1}  # of the encodings without a header


@pytest.fixture
def make_client() -> Iterator[Callable[..., InworldTTS]]:
    clients = []

    def make(running: Running, **options: Any) -> InworldTTS:
        options = {"api_key": "any", "max_retries": 0, **options}
        clients.append(InworldTTS(base_url=running.server.url, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(running, make_client) -> InworldTTS:
    return make_client(running)


def seconds_of(audio: bytes, encoding: str, rate: int) -> float:
    if encoding in SAMPLE_BYTES:
        return len(audio) / SAMPLE_BYTES[encoding] / rate
    decoded = decode_audio(audio, max_bytes=10_000_000, max_seconds=100)
    assert decoded.sample_rate == rate
    return decoded.samples.size / rate


@pytest.mark.parametrize(
    ("encoding", "rate"),
    [
        ("MP3", 48_000),
        ("OGG_OPUS", 48_000),
        ("FLAC", 48_000),
        ("LINEAR16", 48_000),
        ("WAV", 48_000),
        ("PCM", 48_000),
        ("ALAW", 8_000),
        ("MULAW", 8_000),
    ],
)
def test_every_encoding_is_made_at_the_rate_the_client_expects(client, encoding, rate):
    audio = client.generate(
        TEXT,
        voice="anna",
        encoding=encoding,
        temperature=0.8,
        language="en-US",
        delivery_mode="BALANCED",
        apply_text_normalization="ON",
    )
    assert seconds_of(audio, encoding, rate) == pytest.approx(SECONDS, abs=0.06)


def test_a_long_text_is_sent_in_parts_and_its_word_times_go_on(client):
    sentence = "The kettle is on and the tea is warm. "
    text = sentence * (2_100 // len(sentence))
    result = client.generate_with_timestamps(
        text, voice="anna", encoding="LINEAR16", sample_rate=24_000, timestamp_type="WORD"
    )
    words = result["timestamps"]["wordAlignment"]
    assert words["words"] == text.split()
    assert words["wordStartTimeSeconds"] == sorted(words["wordStartTimeSeconds"])
    audio_s = (len(result["audio"]) - 44) / 2 / 24_000
    assert words["wordEndTimeSeconds"][-1] == pytest.approx(audio_s, abs=0.1)


@pytest.mark.parametrize("encoding", ["PCM", "MP3", "OGG_OPUS", "FLAC", "WAV"])
def test_the_parts_of_a_stream_joined_are_the_speech(client, encoding):
    async def spoken() -> bytes:
        parts = client.stream(TEXT, voice="anna", encoding=encoding)
        return b"".join([part async for part in parts])

    assert seconds_of(asyncio.run(spoken()), encoding, 48_000) == pytest.approx(SECONDS, abs=0.06)


@pytest.mark.parametrize(
    ("kind", "alignment", "items", "told"),
    [
        ("WORD", "wordAlignment", "words", ["Hello", "there."]),
        ("CHARACTER", "characterAlignment", "characters", list(TEXT)),
    ],
)
def test_a_stream_tells_when_what_is_said(client, kind, alignment, items, told):
    async def spoken() -> list[dict[str, Any]]:
        parts = client.stream_with_timestamps(
            TEXT, voice="anna", encoding="PCM", timestamp_type=kind
        )
        return [part async for part in parts]

    parts = asyncio.run(spoken())
    times = [part["timestamps"][alignment] for part in parts if part["timestamps"]]
    assert [item for each in times for item in each[items]] == told
    audio = b"".join(part["audio"] for part in parts)
    assert seconds_of(audio, "PCM", 48_000) == pytest.approx(SECONDS, abs=0.01)


def test_voices_are_listed_by_language(client):
    names = [voice["voiceId"] for voice in client.list_voices()]
    assert "anna" in names
    assert [voice["voiceId"] for voice in client.list_voices(lang=["DE_DE", "EN_US"])] == names
    assert client.list_voices(lang="DE_DE") == []


def test_a_voice_from_its_clone_to_its_deletion(run, make_client, toy: Path, tmp_path: Path):
    with run(f"voices.clone_root={tmp_path}", "inworld.clone_enabled=true") as running:
        client = make_client(running)
        sample = toy / "audio_prompts" / "anna.wav"
        reply = client.clone_voice(
            [sample],
            display_name="Dear Anna",
            transcriptions=["Hello."],
            tags=["warm"],
            remove_background_noise=True,
        )
        assert [each["errors"] for each in reply["audioSamplesValidated"]] == [[]]
        voice = reply["voice"]["voiceId"]
        assert client.get_voice(voice)["displayName"] == "Dear Anna"
        assert client.update_voice(voice, display_name="Ann")["displayName"] == "Ann"
        audio = client.generate(TEXT, voice=voice, encoding="PCM")
        assert seconds_of(audio, "PCM", 48_000) == pytest.approx(SECONDS, abs=0.01)
        client.delete_voice(voice)
        with pytest.raises(ApiError) as caught:
            client.get_voice(voice)
        assert caught.value.code == 404


def test_errors_arrive_with_their_message(client):
    with pytest.raises(ApiError, match="anna") as caught:
        client.generate(TEXT, voice="nobody")
    assert (caught.value.code, caught.value.details["code"]) == (404, 5)
    for not_offered in (
        lambda: client.design_voice(design_prompt="a calm voice " * 3, preview_text=TEXT),
        lambda: client.publish_voice("anna"),
    ):
        with pytest.raises(ApiError) as caught:
            not_offered()
        assert caught.value.code in (404, 405)


def test_a_key_is_taken_as_the_client_sends_it(run, make_client):
    with run("server.api_keys=secret") as running:
        assert make_client(running, api_key="secret").list_voices()
        with pytest.raises(ApiError) as caught:
            make_client(running, api_key="other").list_voices()
        assert caught.value.code == 401
