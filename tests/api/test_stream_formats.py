"""What each format streams: when its bytes leave, and what other people's decoders make of it."""

from __future__ import annotations

import base64
import io
import json
import threading
import wave
from collections.abc import Iterator
from dataclasses import replace

import av
import numpy as np
import pytest
import soundfile
import soxr
import torch
from torch import nn

from echo.audio.encode import FORMATS
from echo.audio.tail import fade_out
from echo.engine.components import Components
from echo.models.codec import S1DAC, DecoderState
from echo.spec import HOP, SAMPLE_RATE

from .conftest import Running

TEXT = "Hello there."
BLOCKS = (16, 8, 9)  # latents
SECONDS = sum(BLOCKS) * HOP / SAMPLE_RATE
CLOSE_MS = 60
ECHO, OPENAI = {"stream": True}, {}


def spoken(start: int, count: int) -> np.ndarray:
    """Samples of a gliding tone in syllables: every moment differs and none is silent."""
    t = np.arange(start, start + count) / SAMPLE_RATE
    syllables = 0.35 + 0.15 * np.sin(2 * np.pi * 5 * t)
    onset = np.minimum(t / 0.02, 1)
    return (onset * syllables * np.sin(2 * np.pi * (200 + 300 * t) * t)).astype(np.float32)


WHOLE = fade_out(spoken(0, sum(BLOCKS) * HOP), SAMPLE_RATE)


class GatedCodec(S1DAC):
    """Decodes to ``spoken``; its second block waits until somebody has heard the first."""

    def __init__(self, codec: S1DAC) -> None:
        nn.Module.__init__(self)
        self.__dict__ |= codec.__dict__
        self.heard = threading.Event()
        self.blocks = 0
        self.position = 0

    def init_state(self, batch: int = 1) -> DecoderState:
        self.blocks = self.position = 0
        self.heard.clear()
        return super().init_state(batch)

    def decode(self, z_q: torch.Tensor, state: DecoderState | None = None) -> torch.Tensor:
        if self.blocks == 1 and not self.heard.wait(10):
            raise RuntimeError("nobody heard the first block")
        self.blocks += 1
        begin = self.position
        self.position += z_q.shape[-1] * HOP
        return torch.from_numpy(spoken(begin, self.position - begin))[None, None]


def gated(parts: Components) -> Components:
    return replace(parts, codec=GatedCodec(parts.codec))


@pytest.fixture(scope="module")
def speaking(run) -> Iterator[Running]:
    shape = [f"preset.block_sizes={list(BLOCKS)}", "preset.num_steps=[1,1,1]"]
    with run(*shape, change=gated) as running:
        yield running


def codec_of(running: Running) -> GatedCodec:
    return running.engine.components.codec


def told(running: Running, path: str, body: dict[str, object]) -> tuple[list[bytes], dict]:
    """What came before the second block, what came after it, and the headers."""
    codec = codec_of(running)
    with running.client.stream("POST", path, json={"voice": "anna", **body}) as reply:
        assert reply.status_code == 200
        parts = reply.iter_raw()
        first = next(parts)
        assert codec.blocks == 1
        codec.heard.set()
        rest = b"".join(parts)
    assert codec.blocks == len(BLOCKS)
    return [first, rest], dict(reply.headers)


def speech(running: Running, **body: object) -> tuple[list[bytes], dict]:
    return told(running, "/v1/audio/speech", {"input": TEXT, **body})


def by_ffmpeg(data: bytes, kind: str, rate: int | None = None) -> tuple[np.ndarray, int]:
    """Mono samples and rate; ``rate``: of bare samples."""
    options = {} if rate is None else {"sample_rate": str(rate)}
    with av.open(io.BytesIO(data), format=kind, options=options) as container:
        frames = list(container.decode(audio=0))
    parts = [frame.to_ndarray().reshape(-1) for frame in frames]
    scale = 1.0 if "flt" in frames[0].format.name else 32_767.0
    return np.concatenate(parts) / scale, frames[0].sample_rate


def lossless(data: bytes, fmt: str) -> tuple[np.ndarray, int]:
    """16-bit samples and rate. libsndfile can't read a FLAC that does not state its length."""
    if fmt == "wav":
        return soundfile.read(io.BytesIO(data), dtype="int16")
    with av.open(io.BytesIO(data), format=fmt) as container:
        frames = list(container.decode(audio=0))
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]), frames[0].rate


def integers(rate: int) -> np.ndarray:
    """All that is spoken, as 16-bit samples at ``rate`` Hz, resampled by the library itself."""
    samples = WHOLE
    if rate != SAMPLE_RATE:
        stream = soxr.ResampleStream(SAMPLE_RATE, rate, 1, dtype="float32")
        samples = stream.resample_chunk(WHOLE, last=True)
    return np.rint(np.clip(samples, -1, 1) * 32_767).astype(np.int16)


def loudness(samples: np.ndarray, rate: int) -> np.ndarray:
    """Root mean square of every 10 ms."""
    frame = rate // 100
    whole = samples[: len(samples) // frame * frame].reshape(-1, frame)
    return np.sqrt((whole**2).mean(axis=1))


def assert_plays(samples: np.ndarray, rate: int) -> None:
    """These are all that is spoken, in length, at every moment and to the end."""
    wanted = integers(rate) / 32_767
    assert abs(len(samples) - len(wanted)) / rate * 1000 <= CLOSE_MS
    size = 1 << (len(samples) + len(wanted)).bit_length()
    spectrum = np.fft.rfft(samples, size) * np.conj(np.fft.rfft(wanted, size))
    shift = int(np.fft.irfft(spectrum, size)[: rate * CLOSE_MS // 1000].argmax())
    heard = np.pad(samples[shift:], (0, len(wanted)))[: len(wanted)]
    assert np.corrcoef(heard, wanted)[0, 1] > 0.98
    np.testing.assert_allclose(loudness(heard, rate), loudness(wanted, rate), atol=0.05)
    beyond = samples[shift + len(wanted) :]
    assert not beyond.size or np.abs(beyond).max() < 0.05


@pytest.mark.parametrize("dialect", [ECHO, OPENAI], ids=["echo", "openai"])
@pytest.mark.parametrize("rate", [None, 8_000, 16_000, 22_050, 24_000, 48_000])
@pytest.mark.parametrize("fmt", ["pcm", "wav", "flac"])
def test_lossless_streams_are_the_audio_sample_by_sample(speaking, fmt, rate, dialect):
    wanted = {} if rate is None else {"sample_rate": rate}
    parts, headers = speech(speaking, response_format=fmt, **wanted, **dialect)
    found = int(headers["x-audio-sample-rate"])
    assert found == (rate or (24_000 if fmt == "pcm" and dialect is OPENAI else 44_100))
    data = b"".join(parts)
    assert "content-length" not in headers
    if fmt == "pcm":
        samples = np.frombuffer(data, "<i2")
    else:
        samples, stated = lossless(data, fmt)
        assert stated == found
    np.testing.assert_array_equal(samples, integers(found))
    if fmt == "wav":
        assert data[4:8] == data[40:44] == b"\xff" * 4
        np.testing.assert_array_equal(np.frombuffer(data[44:], "<i2"), samples)


LOSSY = [(fmt, rate) for fmt in ("mp3", "opus", "aac") for rate in FORMATS[fmt].rates]
KINDS = {"mp3": "mp3", "opus": "ogg", "aac": "aac"}


@pytest.mark.parametrize("dialect", [ECHO, OPENAI], ids=["echo", "openai"])
@pytest.mark.parametrize(("fmt", "rate"), LOSSY)
def test_lossy_streams_play_all_of_the_audio_without_gaps(speaking, fmt, rate, dialect):
    parts, headers = speech(speaking, response_format=fmt, sample_rate=rate, **dialect)
    assert headers["x-audio-sample-rate"] == str(rate)
    data = b"".join(parts)
    samples, found = by_ffmpeg(data, KINDS[fmt])
    assert found == (48_000 if fmt == "opus" else rate)  # Opus always plays at that
    assert_plays(samples, found)
    if fmt == "opus" or (fmt == "mp3" and rate >= 22_050):
        samples, found = soundfile.read(io.BytesIO(data))
        assert_plays(samples, found)


@pytest.mark.parametrize("fmt", ["pcm", "wav", "flac", "mp3", "opus", "aac"])
def test_the_first_bytes_hold_sound_before_the_second_block_is_made(speaking, fmt):
    parts, headers = speech(speaking, response_format=fmt)
    rate = int(headers["x-audio-sample-rate"])
    kinds = {**KINDS, "wav": "wav", "flac": "flac", "pcm": "s16le"}
    samples, found = by_ffmpeg(parts[0], kinds[fmt], rate if fmt == "pcm" else None)
    assert len(samples) / found > 0.6 * BLOCKS[0] * HOP / SAMPLE_RATE
    assert np.abs(samples).max() > 0.3


@pytest.mark.parametrize("fmt", ["pcm", "wav", "flac", "mp3", "opus", "aac"])
def test_events_leave_and_join_as_the_plain_stream_does(speaking, fmt):
    plain, _ = speech(speaking, response_format=fmt)
    parts, _ = speech(speaking, response_format=fmt, stream_format="sse")
    assert b'"speech.audio.delta"' in parts[0]
    events = [json.loads(line[6:]) for line in b"".join(parts).splitlines() if line]
    joined = b"".join(base64.b64decode(event.get("audio", "")) for event in events)
    assert joined == b"".join(plain)


def inworld(running: Running, encoding: str, rate: int | None) -> list[bytes]:
    """The audio of each line; the first left before the second block was made."""
    config = {"audioEncoding": encoding} | ({} if rate is None else {"sampleRateHertz": rate})
    body = {"text": TEXT, "voiceId": "anna", "audioConfig": config}
    parts, _ = told(running, "/tts/v1/voice:stream", body)
    assert parts[0].endswith(b"\n")
    lines = b"".join(parts).splitlines()
    assert len(lines) >= len(BLOCKS)
    audio = [base64.b64decode(json.loads(line)["result"]["audioContent"]) for line in lines]
    assert all(audio)
    return audio


@pytest.mark.parametrize("rate", [None, 8_000, 22_050, 44_100])
@pytest.mark.parametrize("encoding", ["LINEAR16", "WAV", "PCM", "FLAC"])
def test_inworlds_lossless_parts_are_laid_out_each_its_way(speaking, encoding, rate):
    parts = inworld(speaking, encoding, rate)
    rate = rate or 48_000
    if encoding == "LINEAR16":
        bare = []
        for part in parts:
            with wave.open(io.BytesIO(part)) as file:
                assert (file.getframerate(), file.getnframes() * 2) == (rate, len(part) - 44)
                bare.append(file.readframes(file.getnframes()))
        data = b"".join(bare)
    else:
        data = b"".join(parts)
        assert [part[:4] == b"RIFF" for part in parts].count(True) == (encoding == "WAV")
    if encoding in ("WAV", "FLAC"):
        samples, found = lossless(data, encoding.lower())
        assert found == rate
    else:
        assert encoding == "LINEAR16" or all(len(part) % 2 == 0 for part in parts)
        samples = np.frombuffer(data, "<i2")
    np.testing.assert_array_equal(samples, integers(rate))


@pytest.mark.parametrize("rate", [None, 8_000, 16_000, 24_000, 48_000])
@pytest.mark.parametrize("encoding", ["MP3", "OGG_OPUS", "ALAW", "MULAW"])
def test_inworlds_lossy_parts_joined_play_all_of_the_audio(speaking, encoding, rate):
    data = b"".join(inworld(speaking, encoding, rate))
    kind = {"MP3": "mp3", "OGG_OPUS": "ogg"}.get(encoding, encoding.lower())
    bare = encoding in ("ALAW", "MULAW")
    rate = rate or (8_000 if bare else 48_000)
    samples, found = by_ffmpeg(data, kind, rate if bare else None)
    assert found == (48_000 if encoding == "OGG_OPUS" else rate)
    assert_plays(samples, found)
    if bare:
        assert len(data) == len(integers(rate))
