"""Samples to bytes: raw PCM, WAV, and the compressed formats through PyAV's codecs.

A file is the stream, joined: ``encode_file`` runs the same encoders as ``open_encoder`` and only
lets those containers that state their length go back to fill it in.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import av
import numpy as np

from echo.audio.frames import BareFrames
from echo.audio.resample import Samples, StreamResampler
from echo.errors import GenerationError, InvalidRequestError

MIN_RATE, MAX_RATE = 4_000, 192_000  # Hz
MPEG1_RATE = 32_000  # Hz; MP3 of a lower rate has frames of half the length
UNKNOWN_SIZE = 0xFFFFFFFF  # of a streamed WAV: clients take 0 for an empty file


@dataclass(frozen=True)
class AudioFormat:
    """One output format. ``rates``: what the codec takes in Hz (empty: any)."""

    name: str
    media_type: str  # {rate} stands for the sample rate
    container: str | None = None  # FFmpeg muxer; None: written here
    codec: str | None = None
    bit_rate: int | None = None  # default, bits per second, mono
    rates: tuple[int, ...] = ()
    streams: bool = True  # False: only whole files (the container must seek)

    def rate_for(self, wanted: int) -> int:
        """The lowest rate the codec takes that loses nothing of ``wanted`` Hz."""
        if not self.rates:
            return wanted
        return min((rate for rate in self.rates if rate >= wanted), default=max(self.rates))


_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_AAC_RATES = (32000, 44100, 48000)  # lower, its frames of 1024 samples make a file too long
_M4A_RATES = (24000, *_AAC_RATES)
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)

FORMATS = {
    fmt.name: fmt
    for fmt in (
        AudioFormat("pcm", "audio/pcm;rate={rate};channels=1"),
        AudioFormat("wav", "audio/wav"),
        AudioFormat("mp3", "audio/mpeg", "mp3", "libmp3lame", 128_000, _MP3_RATES),
        AudioFormat("flac", "audio/flac", "flac", "flac"),
        AudioFormat("opus", "audio/opus", "ogg", "libopus", 96_000, _OPUS_RATES),
        AudioFormat("ogg", "audio/ogg", "ogg", "libopus", 96_000, _OPUS_RATES),
        AudioFormat("aac", "audio/aac", "adts", "aac", 128_000, _AAC_RATES),
        AudioFormat("m4a", "audio/mp4", "ipod", "aac", 128_000, _M4A_RATES, streams=False),
    )
}


def get_format(name: str, *, param: str | None = None) -> AudioFormat:
    """The format of that name, in any case. Raises InvalidRequestError listing all."""
    try:
        return FORMATS[name.lower()]
    except KeyError:
        message = f"unknown audio format {name[:40]!r}; choose one of {', '.join(FORMATS)}"
        raise InvalidRequestError(message, param=param) from None


def format_of(target: str | Path, *, param: str | None = None) -> AudioFormat:
    """The format of a path by its extension, or of a bare name such as ``mp3``."""
    return get_format(Path(target).suffix[1:] or str(target), param=param)


def pcm16(samples: Samples) -> bytes:
    """[T] float32 in -1..1 to 16-bit little-endian, rounded; what lies outside is clipped.

    Raises GenerationError on NaN or infinity.
    """
    return _to_int16(_checked(samples)).tobytes()


def wav_header(sample_rate: int, data_bytes: int | None) -> bytes:
    """The canonical 44 bytes: PCM, mono, 16 bit. ``data_bytes`` None: streamed, both sizes −1."""
    unknown = data_bytes is None or data_bytes + 36 > UNKNOWN_SIZE
    data_size = UNKNOWN_SIZE if data_bytes is None or unknown else data_bytes
    riff_size = UNKNOWN_SIZE if unknown else data_size + 36
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, sample_rate * 2, 2, 16)
    head = struct.pack("<4sI4s", b"RIFF", riff_size, b"WAVE")
    return head + fmt + struct.pack("<4sI", b"data", data_size)


def encode_file(
    samples: Samples, sample_rate: int, target: str | Path, *, bit_rate: int | None = None
) -> bytes:
    """A complete file. ``samples``: [T] float32 in -1..1; ``target``: a format or a path.

    Resampled where the codec needs it. Raises InvalidRequestError for an unknown format,
    GenerationError on NaN.
    """
    fmt = format_of(target)
    _check_rate(sample_rate, "sample_rate")
    if fmt.container is None:
        data = pcm16(samples)
        return data if fmt.name == "pcm" else wav_header(sample_rate, len(data)) + data
    rate = fmt.rate_for(sample_rate)
    sink = io.BytesIO()
    encoder = Encoder(fmt, sample_rate, rate, _CodecWriter(fmt, rate, bit_rate, sink))
    encoder.push(samples)
    encoder.close()
    return sink.getvalue()


def open_encoder(
    name: str, sample_rate: int, *, output_rate: int | None = None, bit_rate: int | None = None
) -> Encoder:
    """A streaming encoder: the joined results of ``push`` and ``close`` are one valid file.

    ``sample_rate``: of the samples to come; ``output_rate``: wanted in the result (default: the
    same), rounded up to what the codec takes; ``bit_rate`` in bits per second where it applies.
    Raises InvalidRequestError for unknown formats, those that can't stream and impossible rates.
    """
    fmt = get_format(name, param="response_format")
    if not fmt.streams:
        streaming = ", ".join(other.name for other in FORMATS.values() if other.streams)
        message = f"{fmt.name} can't be streamed; choose one of {streaming}"
        raise InvalidRequestError(message, param="response_format")
    _check_rate(sample_rate, "sample_rate")
    if output_rate is not None:
        _check_rate(output_rate, "sample_rate")
    rate = fmt.rate_for(output_rate or sample_rate)
    writer: _Writer
    if fmt.container is None:
        writer = _PcmWriter(wav_header(rate, None) if fmt.name == "wav" else b"")
    else:
        writer = _CodecWriter(fmt, rate, bit_rate, _Pipe())
    return Encoder(fmt, sample_rate, rate, writer)


class Encoder:
    """One response being encoded. Not thread-safe; may be dropped without ``close``.

    ``sample_rate``: of the result, in Hz. ``media_type``: its Content-Type.
    """

    def __init__(
        self, fmt: AudioFormat, input_rate: int, sample_rate: int, writer: _Writer
    ) -> None:
        self.format = fmt
        self.sample_rate = sample_rate
        self.media_type = fmt.media_type.format(rate=sample_rate)
        self._resampler = StreamResampler(input_rate, sample_rate)
        self._writer: _Writer | None = writer

    def push(self, samples: Samples) -> bytes:
        """[T] float32 in -1..1; returns the bytes that are ready, maybe none."""
        if self._writer is None:
            raise ValueError("this encoder is closed")
        return self._writer.write(_clipped(self._resampler.push(_checked(samples))))

    def close(self) -> bytes:
        """The rest of the file. Further calls return nothing."""
        if self._writer is None:
            return b""
        writer, self._writer = self._writer, None
        return writer.write(_clipped(self._resampler.finish())) + writer.finish()


class _Writer(Protocol):
    def write(self, samples: Samples) -> bytes: ...

    def finish(self) -> bytes: ...


class _PcmWriter:
    """16-bit samples after an optional header."""

    def __init__(self, header: bytes) -> None:
        self._header = header

    def write(self, samples: Samples) -> bytes:
        header, self._header = self._header, b""
        return header + _to_int16(samples).tobytes()

    def finish(self) -> bytes:
        return self.write(np.zeros(0, np.float32))


class _Pipe:
    """A file FFmpeg can only append to; ``take`` empties it."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self._data)
        self._data.clear()
        return taken


class _CodecWriter:
    """An FFmpeg codec and muxer over ``sink``; what a pipe got is handed out at once."""

    def __init__(
        self, fmt: AudioFormat, rate: int, bit_rate: int | None, sink: _Pipe | io.BytesIO
    ) -> None:
        self._rate = rate
        self._sink = sink
        # Lossless takes the very integers a WAV would hold.
        self._integer = fmt.codec == "flac"
        self._position = 0
        streamed = isinstance(sink, _Pipe)
        container = av.open(
            sink, "w", format=fmt.container, options=_muxer_options(fmt, streamed=streamed)
        )
        self._container = cast(Any, container)  # its overloads know no codec names of ours
        options = _codec_options(fmt, rate, streamed=streamed)
        self._stream = self._container.add_stream(
            fmt.codec, rate=rate, layout="mono", options=options
        )
        if fmt.bit_rate:
            self._stream.bit_rate = bit_rate or fmt.bit_rate
        self._container.start_encoding()
        self._frames: BareFrames | None = None
        if fmt.container == "adts" or (fmt.container == "mp3" and streamed):
            frame_samples = self._stream.codec_context.frame_size
            self._frames = BareFrames(self._stream.codec_context.name, rate, frame_samples)
            if silence := self._frames.silence:
                self._position = -silence
                self._encode(np.zeros(silence, np.float32))

    def write(self, samples: Samples) -> bytes:
        if samples.size:
            if self._frames is not None:
                self._frames.heard(samples)
            self._encode(samples)
        return self._take()

    def finish(self) -> bytes:
        self._mux(None)
        self._container.close()
        return self._take()

    def _encode(self, samples: Samples) -> None:
        values = _to_int16(samples) if self._integer else samples
        frame = av.AudioFrame.from_ndarray(
            values[None], format="s16" if self._integer else "flt", layout="mono"
        )
        frame.sample_rate = self._rate
        frame.pts = self._position
        self._position += samples.size
        self._mux(frame)

    def _mux(self, frame: av.AudioFrame | None) -> None:
        packets = self._stream.encode(frame)
        if self._frames is not None:
            first, packets = self._frames.passed(packets)
            self._sink.write(first)
            if frame is None:
                packets = self._frames.ended(packets)
        for packet in packets:
            self._container.mux(packet)

    def _take(self) -> bytes:
        return self._sink.take() if isinstance(self._sink, _Pipe) else b""


def _muxer_options(fmt: AudioFormat, *, streamed: bool) -> dict[str, str]:
    options = {"fflags": "+bitexact", "flush_packets": "1"}  # same samples, same bytes
    if fmt.container == "ogg":
        options["page_duration"] = "100000"  # µs; the default holds a second back
    if fmt.container == "mp3" and streamed:
        options |= {"write_xing": "0", "id3v2_version": "0"}  # lengths are not known yet
    return options


def _codec_options(fmt: AudioFormat, rate: int, *, streamed: bool) -> dict[str, str]:
    if fmt.codec == "aac":
        # On speech 6 to 25 dB less error than FFmpeg's default coder at about the same bit rate.
        return {"aac_coder": "fast"}
    if fmt.container == "mp3" and streamed and rate < MPEG1_RATE:
        # Its first frame is left out (frames.py), so no other may lean on that one's bits.
        return {"reservoir": "0"}
    return {}


def _check_rate(rate: int, param: str) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        message = f"sample rate {rate} Hz is impossible; choose {MIN_RATE} to {MAX_RATE}"
        raise InvalidRequestError(message, param=param)


def _checked(samples: Samples) -> Samples:
    if not np.isfinite(samples).all():
        raise GenerationError("the generated audio holds NaN or infinite samples")
    return samples


def _clipped(samples: Samples) -> Samples:
    return np.clip(samples, -1.0, 1.0)


def _to_int16(samples: Samples) -> np.ndarray[Any, np.dtype[np.int16]]:
    return np.rint(np.clip(samples, -1.0, 1.0) * 32767.0).astype("<i2")
