"""The audio of a reply: which format at which rate, and its encoding, in parts or as a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import av
import numpy as np

from echo.audio.encode import AudioFormat, encode_file, get_format, open_encoder
from echo.audio.resample import Samples, StreamResampler
from echo.audio.tempo import StreamTempo


@dataclass(frozen=True)
class Output:
    """What the client gets. ``rate``: of the result in Hz, one that the format takes."""

    format: AudioFormat
    rate: int
    complete: bool  # one file with its exact size, at the end; else parts as they are made
    speed: float = 1.0

    @property
    def media_type(self) -> str:
        return self.format.media_type.format(rate=self.rate)


class ReplyEncoder(Protocol):
    """Turns samples into a reply's bytes; called in order, from any thread."""

    def push(self, samples: Samples) -> bytes:
        """[T] float32, -1 ... 1; the bytes that are ready, maybe none."""
        ...

    def finish(self) -> bytes:
        """The rest."""
        ...


def open_reply_encoder(output: Output, sample_rate: int) -> ReplyEncoder:
    """For samples at ``sample_rate`` Hz.

    Raises InvalidRequestError for a format that can't be streamed and an impossible speed.
    """
    kind = _File if output.complete else _Stream
    return kind(output, sample_rate)


def preferred_format() -> AudioFormat:
    """mp3, or wav where this build of FFmpeg can't make it."""
    mp3 = get_format("mp3")
    return mp3 if mp3.codec in av.codecs_available else get_format("wav")


class _Stream:
    def __init__(self, output: Output, sample_rate: int) -> None:
        self._tempo = StreamTempo(sample_rate, output.speed)
        self._encoder = open_encoder(output.format.name, sample_rate, output_rate=output.rate)

    def push(self, samples: Samples) -> bytes:
        return self._encoder.push(self._tempo.push(samples))

    def finish(self) -> bytes:
        return self._encoder.push(self._tempo.finish()) + self._encoder.close()


class _File:
    """Keeps float samples until the end: containers that state a length need all of them."""

    def __init__(self, output: Output, sample_rate: int) -> None:
        self._output = output
        self._tempo = StreamTempo(sample_rate, output.speed)
        self._resampler = StreamResampler(sample_rate, output.rate)
        self._parts: list[Samples] = []

    def push(self, samples: Samples) -> bytes:
        self._parts.append(self._resampler.push(self._tempo.push(samples)))
        return b""

    def finish(self) -> bytes:
        self._parts.append(self._resampler.push(self._tempo.finish()))
        self._parts.append(self._resampler.finish())
        samples = np.concatenate(self._parts)
        self._parts.clear()
        return encode_file(samples, self._output.rate, self._output.format.name)
