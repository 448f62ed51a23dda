from __future__ import annotations

import io

import av
import numpy as np
import pytest

from echo.api.audio import Output, open_reply_encoder
from echo.audio.encode import get_format
from echo.audio.resample import Samples

RATE = 44_100


def decoded(data: bytes) -> Samples:
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(audio=0))
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])


@pytest.mark.parametrize("speed", [0.25, 0.5, 1.5, 3.0, 4.0])
@pytest.mark.parametrize("samples", [16_384, 30_001])
def test_a_whole_file_is_the_stream_at_every_speed(speed, samples):
    tone = np.sin(np.arange(samples) / 30).astype(np.float32) / 2
    whole = open_reply_encoder(Output(get_format("wav"), RATE, True, speed), RATE)
    parts = open_reply_encoder(Output(get_format("pcm"), RATE, False, speed), RATE)
    streamed = b""
    for start in range(0, samples, 5_000):
        assert whole.push(tone[start : start + 5_000]) == b""
        streamed += parts.push(tone[start : start + 5_000])
    streamed += parts.finish()
    file = whole.finish()
    np.testing.assert_array_equal(decoded(file), np.frombuffer(streamed, "<i2"))
    assert len(streamed) / 2 == pytest.approx(samples / speed, abs=0.15 * RATE)
