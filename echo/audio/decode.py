"""Audio bytes or files to samples, with limits, through the codecs PyAV brings along.

Whoever sends the bytes may be hostile. The container is told from the first bytes, never from a
name, and opened as just that; containers that can refer to other files or URLs (playlists, concat)
are not on the list, and any such request of a demuxer is refused. Only audio decoders run.
"""

from __future__ import annotations

import io
import logging
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError

from echo.audio.resample import Samples
from echo.errors import AudioDecodeError, LimitExceededError

logger = logging.getLogger(__name__)

READABLE = "wav, mp3, flac, m4a, aac, ogg, opus, webm or aiff"
MAX_CHANNELS = 8
MIN_RATE, MAX_RATE = 4_000, 384_000  # Hz
_PCM = {f"pcm_{kind}{end}" for kind in ("s16", "s24", "s32", "f32", "f64") for end in ("le", "be")}
DECODERS = _PCM | {
    *("pcm_u8", "pcm_s8", "pcm_alaw", "pcm_mulaw", "adpcm_ms", "adpcm_ima_wav"),
    *("mp3", "mp3float", "mp2", "mp2float", "aac", "alac", "flac"),
    *("opus", "libopus", "vorbis", "libvorbis"),
}
# Players skip what does not decode (tags and junk between mp3 frames are common); up to this
# share of a file we do the same, beyond it the file is broken.
MAX_BAD_PACKETS = 2
MAX_BAD_SHARE = 0.1
# A file this much shorter than its own header says has been cut off.
MISSING_SECONDS = 0.25
MISSING_SHARE = 0.05

# What PyAV raises on malformed input; ValueError includes failed text decoding, and
# ArithmeticError the division by a zero rate.
_BROKEN = (FFmpegError, ValueError, LookupError, ArithmeticError, OSError, RuntimeError)


@dataclass(frozen=True)
class Waveform:
    """Decoded audio. ``samples``: [T] float32, mono mean of the channels, nominally -1..1."""

    samples: Samples
    sample_rate: int  # Hz


def decode_audio(
    data: bytes | Path,
    *,
    max_bytes: int,
    max_seconds: float,
    name: str | None = None,
    param: str | None = None,
) -> Waveform:
    """Decode a file or its bytes. What lies beyond ``max_seconds`` is neither decoded nor returned.

    ``name`` is used in messages (default: the file's name); ``param`` is the request field.
    Raises LimitExceededError above ``max_bytes``, and AudioDecodeError for whatever is not
    readable audio: another kind of file, broken, cut off, empty, NaN, an odd rate.
    """
    if name is None:
        name = data.name if isinstance(data, Path) else "the audio"
    source = _Source(name, param)
    raw = _read(data, max_bytes, source) if isinstance(data, Path) else data
    container = check_audio(raw, max_bytes=max_bytes, name=name, param=param)
    try:
        if container == "wav":
            raw = _without_open_end(raw, source)
        waveform = _decode(raw, container, max_seconds, source)
    except _BROKEN as error:
        source.fail(f"is broken or cut off and can't be decoded ({error})", error)
    if not np.isfinite(waveform.samples).all():
        source.fail("holds samples that are not numbers (NaN or infinity)")
    return waveform


def check_audio(data: bytes, *, max_bytes: int, name: str, param: str | None = None) -> str:
    """The FFmpeg demuxer for ``data``. Raises what :func:`decode_audio` can tell of the size and
    of the first bytes alone.
    """
    source = _Source(name, param)
    _check_size(len(data), max_bytes, source)
    if not data:
        source.fail("is empty")
    container = sniff_container(data)
    if container is None:
        source.fail(f"is not audio we can read; send {READABLE}")
    return container


def sniff_container(data: bytes) -> str | None:
    """The FFmpeg demuxer for these bytes by their first ones, or None if it is not on our list."""
    head = data[_id3_size(data) :][:16]
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[4:8] == b"ftyp":
        return "mov"
    for magic, container in ((b"fLaC", "flac"), (b"OggS", "ogg"), (b"\x1aE\xdf\xa3", "matroska")):
        if head.startswith(magic):
            return container
    if len(head) >= 4 and head[0] == 0xFF:
        if head[1] & 0xF6 == 0xF0:
            return "aac"
        layer, bits, rate = head[1] >> 1 & 3, head[2] >> 4, head[2] >> 2 & 3
        # Layer I (3) is left out: the byte order mark of UTF-16 text looks like it.
        if head[1] & 0xE0 == 0xE0 and layer in (1, 2) and bits not in (0, 15) and rate != 3:
            return "mp3"
    return "mp3" if data[:3] == b"ID3" else None


@dataclass(frozen=True)
class _Source:
    """What messages call the audio, and the request field it came in."""

    name: str
    param: str | None

    def fail(self, problem: str, cause: BaseException | None = None) -> NoReturn:
        raise AudioDecodeError(f"{self.name} {problem}", param=self.param) from cause


def _read(path: Path, max_bytes: int, source: _Source) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would block for ever
            source.fail("is not a file")
        _check_size(status.st_size, max_bytes, source)
        with path.open("rb") as file:
            return file.read(status.st_size)
    except OSError as error:
        source.fail(f"can't be read: {error.strerror}", error)


def _check_size(size: int, max_bytes: int, source: _Source) -> None:
    if size > max_bytes:
        message = f"{source.name} has {size} bytes; at most {max_bytes} are read"
        raise LimitExceededError(message, param=source.param)


def _decode(raw: bytes, container_name: str, max_seconds: float, source: _Source) -> Waveform:
    options = {
        "format_whitelist": _demuxer_names(container_name),
        "codec_whitelist": ",".join(sorted(DECODERS)),
        "protocol_whitelist": "none",
        "max_streams": "64",
    }
    with av.open(
        io.BytesIO(raw),
        "r",
        format=container_name,
        container_options=options,
        metadata_errors="replace",
        io_open=_refuse_other_files,
    ) as container:
        if not container.streams.audio:
            source.fail("holds no audio")
        stream = container.streams.audio[0]
        decoder = stream.codec_context  # None where FFmpeg has none, whatever PyAV's types say
        if decoder is None or decoder.codec.name not in DECODERS:
            source.fail(f"holds audio in a coding we can't read; send {READABLE}")
        decoder.thread_count = 1  # audio gains nothing from more
        frames = _frames(container, stream, source)
        samples, rate, cut = _collect(frames, max_seconds, source)
        declared = _declared_seconds(raw, container_name, container.duration)
    if not cut and container_name == "ogg" and _ends_inside_page(raw):
        source.fail("is cut off: its last part is incomplete")
    seconds = samples.size / rate
    missing = declared - seconds
    if not cut and missing > max(MISSING_SECONDS, MISSING_SHARE * declared):
        source.fail(f"is cut off: it holds {seconds:.1f} s of the {declared:.1f} s its header says")
    return Waveform(samples, rate)


def _demuxer_names(container_name: str) -> str:
    """Demuxers carry all their aliases in one name; the whitelist wants them apart."""
    return av.ContainerFormat(container_name, "r").name


def _refuse_other_files(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError("the audio refers to another file")


def _frames(container: Any, stream: Any, source: _Source) -> Iterator[av.AudioFrame]:
    packets = bad = 0
    for packet in container.demux(stream):
        packets += 1
        try:
            frames = packet.decode()
        except FFmpegError:
            bad += 1
            continue
        yield from frames
    if bad > max(MAX_BAD_PACKETS, MAX_BAD_SHARE * packets):
        source.fail(f"is broken: {bad} of {packets} pieces can't be decoded")
    if bad:
        logger.warning("%s: skipped %d undecodable pieces of %d", source.name, bad, packets)


def _collect(
    frames: Iterator[av.AudioFrame], max_seconds: float, source: _Source
) -> tuple[Samples, int, bool]:
    """Mono samples, their rate, and whether there was more than ``max_seconds``."""
    parts: list[Samples] = []
    rate = total = limit = 0
    for frame in frames:
        if not rate:
            rate = frame.sample_rate
            if not MIN_RATE <= rate <= MAX_RATE:
                source.fail(f"has {rate} Hz; rates from {MIN_RATE} to {MAX_RATE} Hz are read")
            limit = int(max_seconds * rate)
        elif frame.sample_rate != rate:
            source.fail("changes its sample rate half-way")
        parts.append(_mono(frame, source))
        total += parts[-1].size
        if total >= limit:
            break
    if not total:
        source.fail("holds no samples")
    return np.concatenate(parts)[:limit], rate, total >= limit


def _mono(frame: av.AudioFrame, source: _Source) -> Samples:
    """[T] float32: integers scaled to -1..1, channels averaged."""
    channels = frame.layout.nb_channels
    if not 1 <= channels <= MAX_CHANNELS:
        source.fail(f"has {channels} channels; at most {MAX_CHANNELS} are read")
    values: npt.NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, channels).T
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which is refused
            return values.mean(axis=0, dtype=np.float64).astype(np.float32)
    half = 2.0 ** (8 * values.dtype.itemsize - 1)
    offset = half if values.dtype.kind == "u" else 0.0
    return ((values.mean(axis=0, dtype=np.float64) - offset) / half).astype(np.float32)


def _declared_seconds(raw: bytes, container_name: str, duration_us: int | None) -> float:
    """The length the header states, in seconds; 0 where it states none or only an estimate."""
    if container_name == "wav":
        return _wav_seconds(raw)
    stated = container_name in ("flac", "mov", "matroska", "aiff") or (
        container_name == "mp3" and _has_frame_count(raw)
    )
    return duration_us / 1e6 if stated and duration_us else 0.0


def _wav_seconds(raw: bytes) -> float:
    """FFmpeg clips a WAV's length to the file, so it is read here. Streamed files state none."""
    byte_rate = 0
    for name, position, size in _wav_chunks(raw):
        if name == b"fmt ":
            byte_rate = int.from_bytes(raw[position + 16 : position + 20], "little")
        if name == b"data":
            streamed = size >= 0x7FFF_0000
            return 0.0 if streamed or not byte_rate else size / byte_rate
    return 0.0


def _without_open_end(raw: bytes, source: _Source) -> bytes:
    """``raw`` up to the first chunk, other than samples, that claims more than there is.

    FFmpeg takes such a claim at its word and fills gigabytes of memory for a tag.
    """
    samples = False
    for name, position, size in _wav_chunks(raw):
        if name == b"data":
            samples = True
        elif position + 8 + size > len(raw):
            if not samples:
                source.fail("is cut off: a part of its header claims more bytes than there are")
            return raw[:position]
    return raw


def _wav_chunks(raw: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, position and stated size of each; of samples in a file over 4 GiB, as ``ds64`` says."""
    position, samples = 12, None
    while position + 8 <= len(raw):
        name = raw[position : position + 4]
        size = int.from_bytes(raw[position + 4 : position + 8], "little")
        if name == b"ds64":
            samples = int.from_bytes(raw[position + 16 : position + 24], "little")
        if name == b"data" and size == 0xFFFF_FFFF and samples is not None:
            size = samples
        yield name, position, size
        position += 8 + size + size % 2


def _ends_inside_page(raw: bytes) -> bool:
    """Ogg states no length, but each page states its own."""
    start = raw.rfind(b"OggS")
    segments = raw[start + 26] if start + 26 < len(raw) else 255
    lacing = raw[start + 27 : start + 27 + segments]
    return start + 27 + segments + sum(lacing) > len(raw)


def _has_frame_count(raw: bytes) -> bool:
    """Whether the first mp3 frame is an info frame (Xing/LAME) and states the number of frames."""
    start = _id3_size(raw)
    head = raw[start : start + 200]
    tag = max(head.find(b"Xing"), head.find(b"Info"))
    return tag >= 0 and bool(int.from_bytes(head[tag + 4 : tag + 8], "big") & 1)


def _id3_size(data: bytes) -> int:
    """Length of an ID3v2 tag in front (its size is stored in 7-bit bytes), or 0."""
    if len(data) < 10 or data[:3] != b"ID3":
        return 0
    size = 0
    for byte in data[6:10]:
        size = size << 7 | byte & 0x7F
    return size + 10
