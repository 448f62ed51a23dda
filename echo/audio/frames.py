"""MP3 and AAC as bare frames: a decoder plays more than the audio, and this keeps that short.

What it plays before the audio is the codec settling, what it plays after it fills the last frame.
A file tells both to its decoder; a stream can tell the first at most, and only as MP3.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import av
import numpy as np

from echo.audio.resample import Samples

TOLERANCE_MS = 60  # of length, which the service promises
# Speech ends in a fade over 50 ms whose last 12 ms stay below this. Where only they would need
# another frame and that frame would break the promise, they are left out.
FADED_MS = 12
FADED_PEAK = 0.015
MP3_DECODER_DELAY = 529  # samples that every decoder of MP3 adds
# Samples by which an MP3 frame's filters reach further back: what comes that much later can do
# without the frame before.
MP3_REACH = 287
MP3_SHORT_FRAME = 576  # samples; of rates below 32 kHz
SIZE_UNKNOWN = 0xFFFFFFFF
_MP3_KBITS = {  # ISO 11172-3 and 13818-3, layer III: bit rates by the header's index
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


class BareFrames:
    """The packets of one encoder on their way out. Packets are stamped in samples of the audio.

    ``silence``: samples to encode before the audio, stamped before 0. They let short MP3 frames
    do without the first one, which makes the stream shorter by a frame.
    """

    def __init__(self, codec: str, rate: int, frame_samples: int) -> None:
        """``codec``: FFmpeg's name; ``rate`` in Hz."""
        self._is_mp3 = codec == "libmp3lame"
        self.silence = MP3_REACH if self._is_mp3 and frame_samples == MP3_SHORT_FRAME else 0
        self._rate = rate
        self._frame = frame_samples
        self._lead: int | None = None  # samples played before the audio
        self._position = 0  # of the audio so far
        self._end: Samples = np.zeros(0, np.float32)  # its last 12 ms

    def heard(self, samples: Samples) -> None:
        """[T] float32 that the encoder is about to be given."""
        self._position += samples.size
        kept = self._rate * FADED_MS // 1000
        self._end = np.concatenate((self._end, samples[-kept:]))[-kept:]

    def passed(self, packets: Sequence[av.Packet]) -> tuple[bytes, list[av.Packet]]:
        """Bytes to send first, and which of these packets to send after them."""
        if self._lead is not None or not packets:
            return b"", list(packets)
        self._lead = -(packets[0].pts or 0)
        head, kept = bytes(packets[0])[:4], list(packets)
        if self.silence:
            self._lead -= self._frame
            del kept[0]
        longest_ms = 1000 * (self._lead + self._frame - 1) / self._rate
        if self._is_mp3 and longest_ms > TOLERANCE_MS:
            return info_frame(head, self._lead - MP3_DECODER_DELAY), kept
        return b"", kept

    def ended(self, packets: Sequence[av.Packet]) -> list[av.Packet]:
        """Which of the last packets hold something of the audio."""
        return [packet for packet in packets if self._holds_audio(packet)]

    def _holds_audio(self, packet: av.Packet) -> bool:
        samples = self._position - (packet.pts or 0)
        if samples > self._end.size:
            return True
        longer_ms = 1000 * ((self._lead or 0) + self._frame - samples) / self._rate
        return samples > 0 and (
            longer_ms <= TOLERANCE_MS or float(np.abs(self._end[-samples:]).max()) > FADED_PEAK
        )


def info_frame(head: bytes, delay: int) -> bytes:
    """A silent MP3 frame of LAME's "Info" kind, which decoders read and do not play.

    ``head``: the 4 bytes that begin a mono frame of the stream. ``delay``: samples to drop after
    those that every decoder of MP3 drops. The number of frames is not stated and that of bytes
    unknown (FFmpeg reads the delay only where one of them is there).
    """
    mpeg1 = head[1] >> 3 & 3 == 3
    rate = (44_100, 48_000, 32_000)[head[2] >> 2 & 3]
    rate >>= {3: 0, 2: 1, 0: 2}[head[1] >> 3 & 3]
    # A header, its side information, then what the decoder shall know.
    told = b"Info" + struct.pack(">II", 2, SIZE_UNKNOWN)
    told += b"LAME3.100" + bytes(12) + (delay << 12).to_bytes(3, "big") + bytes(10)
    filled = 4 + (17 if mpeg1 else 9) + len(told) + 2
    sizes = [
        (144 if mpeg1 else 72) * 1000 * kbits // rate for kbits in _MP3_KBITS[1 if mpeg1 else 2]
    ]
    index = next(index for index, size in enumerate(sizes) if size >= filled)
    # Without a checksum of its own and padding.
    header = bytes((head[0], head[1] | 1, index << 4 | head[2] & 0b1100, head[3]))
    frame = header + bytes(filled - 2 - len(told) - len(header)) + told
    return (frame + _crc16(frame).to_bytes(2, "big")).ljust(sizes[index], b"\0")


def _crc16(data: bytes) -> int:
    """CRC-16/ARC, which ends LAME's part."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc
