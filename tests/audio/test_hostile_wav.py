"""Headers that claim more than there is: FFmpeg would take gigabytes for them."""

from __future__ import annotations

import struct
import sys

import numpy as np
import pytest

from echo.audio.decode import decode_audio
from echo.audio.encode import encode_file
from echo.audio.sandbox import decode_untrusted
from echo.errors import AudioDecodeError

LIMITS = {"max_bytes": 1 << 20, "max_seconds": 10.0}
CLIP = encode_file(np.full(22_050, 0.25, np.float32), 44_100, "wav")
GREEDY = b"LIST" + struct.pack("<I", 0x8000_0000) + b"INFOINAM" + struct.pack("<I", 0x7000_0000)


def peak_mib() -> int:
    with open("/proc/self/status") as status:  # noqa: PTH123
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux tells it")
def test_a_tag_of_two_gigabytes_takes_no_memory_and_no_voice():
    before = peak_mib()
    with pytest.raises(AudioDecodeError, match="cut off"):
        decode_audio(CLIP[:36] + GREEDY + CLIP[36:], **LIMITS)
    after_samples = decode_audio(CLIP + GREEDY, **LIMITS)
    assert after_samples.samples.size == 22_050
    assert peak_mib() - before < 200


def test_in_a_file_with_64_bit_sizes_the_end_of_the_samples_is_known():
    ds64 = b"ds64" + struct.pack("<IQQQI", 28, 0, len(CLIP) - 44, 22_050, 0)
    head = b"RF64" + struct.pack("<I", 0xFFFF_FFFF) + b"WAVE" + ds64 + CLIP[12:40]
    data = head + struct.pack("<I", 0xFFFF_FFFF) + CLIP[44:]
    np.testing.assert_array_equal(
        decode_audio(data + GREEDY, **LIMITS).samples, decode_audio(data, **LIMITS).samples
    )


def test_junk_after_the_samples_does_no_harm():
    whole = decode_audio(CLIP, **LIMITS).samples
    for junk in (b"\0", b"junk" * 30, b"\xff" * 99):
        np.testing.assert_array_equal(decode_audio(CLIP + junk, **LIMITS).samples, whole)


@pytest.mark.parametrize("data", [b"", b"Dear Anna, " * 99])
def test_what_is_seen_to_be_no_audio_starts_no_process(data):
    with pytest.raises(AudioDecodeError):
        decode_untrusted(data, child=("/nonexistent",), **LIMITS)


def test_samples_beyond_what_float32_holds_are_refused():
    huge = struct.pack("<d", 1e300) * 4410
    fmt = struct.pack("<HHIIHH", 3, 1, 44_100, 352_800, 8, 64)
    data = b"RIFF" + struct.pack("<I", len(huge) + 36) + b"WAVEfmt " + struct.pack("<I", 16) + fmt
    with pytest.raises(AudioDecodeError, match="not numbers"):
        decode_audio(data + b"data" + struct.pack("<I", len(huge)) + huge, **LIMITS)
