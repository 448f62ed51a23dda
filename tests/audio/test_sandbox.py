from __future__ import annotations

import sys
import time

import numpy as np
import pytest

from echo.audio.decode import decode_audio
from echo.audio.encode import encode_file
from echo.audio.sandbox import decode_untrusted
from echo.errors import AudioDecodeError, LimitExceededError

LIMITS = {"max_bytes": 1 << 20, "max_seconds": 10.0}


def tone() -> bytes:
    t = np.arange(22_050, dtype=np.float32) / 44_100
    return encode_file(0.3 * np.sin(2 * np.pi * 300 * t), 44_100, "flac")


def test_it_decodes_what_the_decoder_decodes() -> None:
    apart, here = decode_untrusted(tone(), **LIMITS), decode_audio(tone(), **LIMITS)
    assert apart.sample_rate == here.sample_rate
    np.testing.assert_array_equal(apart.samples, here.samples)


def test_what_is_not_audio_is_told_as_the_decoder_tells_it() -> None:
    with pytest.raises(AudioDecodeError, match="the clip is not audio") as caught:
        decode_untrusted(b"just some text", name="the clip", param="voice", **LIMITS)
    assert caught.value.param == "voice"


def test_too_many_bytes_never_reach_the_child() -> None:
    with pytest.raises(LimitExceededError):
        decode_untrusted(tone(), max_bytes=10, max_seconds=1.0, child=("/nonexistent",))


def test_a_decoder_that_crashes_takes_only_itself_down() -> None:
    crash = (sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(AudioDecodeError, match="gave up"):
        decode_untrusted(tone(), child=crash, **LIMITS)


def test_a_decoder_that_hangs_is_ended() -> None:
    hang = (sys.executable, "-c", "import time; time.sleep(60)")
    begun = time.monotonic()
    with pytest.raises(AudioDecodeError, match="too long"):
        decode_untrusted(tone(), child=hang, max_work_s=0.5, **LIMITS)
    assert time.monotonic() - begun < 20


def test_memory_is_limited_in_the_child() -> None:
    resource = pytest.importorskip("resource")
    greedy = (
        sys.executable,
        "-c",
        "from echo.audio.sandbox import _limit_resources; _limit_resources(); bytearray(8 << 30)",
    )
    with pytest.raises(AudioDecodeError, match="gave up"):
        decode_untrusted(tone(), child=greedy, **LIMITS)
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
