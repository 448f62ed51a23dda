"""Inworld's audio encodings: how the audio of one reply is laid out over its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import av
import numpy as np

from echo.audio.encode import encode_file, get_format, open_encoder, wav_header
from echo.audio.resample import Samples, StreamResampler
from echo.audio.tempo import StreamTempo

MIN_RATE, MAX_RATE, DEFAULT_RATE = 8_000, 48_000, 48_000  # Hz
TELEPHONE_RATE = 8_000  # Hz, default of ALAW and MULAW
MIN_SPEED, MAX_SPEED = 0.5, 1.5
_BIT_RATES = {"MP3": (8_000, 320_000), "OGG_OPUS": (6_000, 256_000)}  # what mono takes


@dataclass(frozen=True)
class Encoding:
    """One ``audioEncoding``. ``format``: ours; ``drains``: all audio so far can be sent at any
    time without harm to what follows (samples, not frames of a codec)."""

    name: str
    format: str
    drains: bool


ENCODINGS = {
    encoding.name: encoding
    for encoding in (
        Encoding("LINEAR16", "pcm", True),
        Encoding("WAV", "wav", True),
        Encoding("PCM", "pcm", True),
        Encoding("MP3", "mp3", False),
        Encoding("OGG_OPUS", "opus", False),
        Encoding("FLAC", "flac", False),
        Encoding("ALAW", "alaw", True),
        Encoding("MULAW", "mulaw", True),
    )
}


@dataclass(frozen=True)
class AudioConfig:
    """A checked ``audioConfig``. ``rate`` in Hz is one that the encoding takes."""

    encoding: Encoding
    rate: int
    speed: float = 1.0
    bit_rate: int | None = None  # bits per second


def audio_config(
    name: str, rate: int | None = None, speed: float = 1.0, bit_rate: int | None = None
) -> AudioConfig:
    """With the encoding's defaults; the rate rounded up to one that the codec has, and the bit
    rate brought into its range."""
    encoding = ENCODINGS[name]
    if rate is None:
        rate = TELEPHONE_RATE if name in ("ALAW", "MULAW") else DEFAULT_RATE
    if encoding.format not in ("alaw", "mulaw"):
        rate = get_format(encoding.format).rate_for(rate)
    if bit_rate is not None and name in _BIT_RATES:
        low, high = _BIT_RATES[name]
        bit_rate = min(max(bit_rate, low), high)
    return AudioConfig(encoding, rate, speed, bit_rate)


class PartEncoder:
    """The audio of one reply in parts. Not thread-safe.

    LINEAR16: every part is a WAV file of its own. WAV: a header in the first part. PCM, ALAW,
    MULAW: bare samples. MP3, OGG_OPUS, FLAC: one encoder, whose parts joined are one file.
    """

    def __init__(self, config: AudioConfig, sample_rate: int) -> None:
        """For samples at ``sample_rate`` Hz."""
        self._config = config
        self._input_rate = sample_rate
        self._header = wav_header(config.rate, None) if config.encoding.name == "WAV" else b""
        self._open()

    def push(self, samples: Samples) -> bytes:
        """[T] float32, -1 ... 1; the part that is ready, maybe nothing."""
        return self._laid_out(self._push(self._tempo.push(samples)))

    def drain(self) -> bytes:
        """What was held back of the audio so far, where the encoding allows to send it."""
        if not self._config.encoding.drains:
            return b""
        part = self.finish()
        self._open()
        return part

    def finish(self) -> bytes:
        """The rest."""
        return self._laid_out(self._push(self._tempo.finish()) + self._close())

    def _open(self) -> None:
        config = self._config
        self._tempo = StreamTempo(self._input_rate, config.speed)
        self._push: Callable[[Samples], bytes]
        self._close: Callable[[], bytes]
        if config.encoding.format in ("alaw", "mulaw"):
            companded = _G711(config.encoding.format, self._input_rate, config.rate)
            self._push, self._close = companded.push, companded.close
            return
        name = "pcm" if config.encoding.name == "WAV" else config.encoding.format
        encoder = open_encoder(
            name, self._input_rate, output_rate=config.rate, bit_rate=config.bit_rate
        )
        self._push, self._close = encoder.push, encoder.close

    def _laid_out(self, data: bytes) -> bytes:
        if not data:
            return b""
        if self._config.encoding.name == "LINEAR16":
            return wav_header(self._config.rate, len(data)) + data
        header, self._header = self._header, b""
        return header + data


class FileEncoder:
    """The audio of one reply as a whole; WAV has its exact sizes."""

    def __init__(self, config: AudioConfig, sample_rate: int) -> None:
        """For samples at ``sample_rate`` Hz."""
        self._config = config
        self._tempo = StreamTempo(sample_rate, config.speed)
        self._rate = sample_rate
        self._kept: list[Samples] = []

    def push(self, samples: Samples) -> bytes:
        """[T] float32, -1 ... 1; returns nothing."""
        self._kept.append(self._tempo.push(samples))
        return b""

    def drain(self) -> bytes:
        """Nothing: there is one part."""
        return b""

    def finish(self) -> bytes:
        """The file."""
        self._kept.append(self._tempo.finish())
        samples, config = np.concatenate(self._kept), self._config
        self._kept.clear()
        if config.encoding.format in ("alaw", "mulaw"):
            companded = _G711(config.encoding.format, self._rate, config.rate)
            return companded.push(samples) + companded.close()
        resampler = StreamResampler(self._rate, config.rate)
        resampled = np.concatenate([resampler.push(samples), resampler.finish()])
        name = "wav" if config.encoding.name == "LINEAR16" else config.encoding.format
        return encode_file(resampled, config.rate, name, bit_rate=config.bit_rate)


class _G711:
    """Eight-bit logarithmic samples without a header (ITU-T G.711)."""

    def __init__(self, law: str, input_rate: int, rate: int) -> None:
        self._pcm = open_encoder("pcm", input_rate, output_rate=rate)
        self._rate = rate
        self._codec = cast(Any, av.CodecContext.create(f"pcm_{law}", "w"))
        self._codec.sample_rate = rate
        self._codec.layout = "mono"
        self._codec.format = "s16"

    def push(self, samples: Samples) -> bytes:
        return self._companded(self._pcm.push(samples))

    def close(self) -> bytes:
        return self._companded(self._pcm.close())

    def _companded(self, pcm: bytes) -> bytes:
        if not pcm:
            return b""
        values = np.frombuffer(pcm, "<i2")
        frame = av.AudioFrame.from_ndarray(values[None], format="s16", layout="mono")
        frame.sample_rate = self._rate
        return b"".join(bytes(packet) for packet in self._codec.encode(frame))
