import asyncio
import io
from pathlib import Path

import av
import numpy as np
import pytest

from echo.audio.encode import encode_file, open_encoder
from echo.ui import player as module
from echo.ui.player import StreamPlayer, adts_seconds


@pytest.fixture
def player():
    return StreamPlayer(label="Live", streaming=True, interactive=False)


@pytest.fixture(scope="module")
def tone():
    return (0.3 * np.sin(np.arange(44_100) * 0.05)).astype(np.float32)


def play(player, value):
    return asyncio.run(player.stream_output(value, "session/run/1/playlist.m3u8", False))


def decoded_samples(data):
    with av.open(io.BytesIO(data)) as container:
        return sum(frame.samples for frame in container.decode(audio=0))


def test_segments_say_how_long_they_play_and_join_to_one_file(player, tone):
    encoder = open_encoder("aac", 44_100)
    parts = [encoder.push(tone[:20_000]), encoder.push(tone[20_000:]), encoder.close()]
    segments = [play(player, part)[0] for part in parts]
    assert all(segment["extension"] == ".aac" for segment in segments)
    total = decoded_samples(b"".join(segment["data"] for segment in segments))
    assert total >= len(tone)
    assert sum(segment["duration"] for segment in segments) == pytest.approx(total / 44_100)


@pytest.mark.parametrize("rate", [24_000, 48_000])
def test_the_rate_is_read_from_the_frames(rate):
    silence = np.zeros(rate, np.float32)
    data = encode_file(silence, rate, "aac")
    assert adts_seconds(data) == pytest.approx(decoded_samples(data) / rate)


@pytest.mark.parametrize("value", [None, b""])
def test_no_bytes_are_no_segment(player, value):
    segment, playlist = play(player, value)
    assert segment is None
    assert playlist["is_stream"]


def test_nothing_plays_no_time():
    assert adts_seconds(b"") == 0.0


def test_the_browser_is_told_it_is_a_gradio_audio(player):
    assert player.get_block_name() == "audio"


def test_no_stub_is_written_beside_the_source():
    assert not Path(module.__file__).with_suffix(".pyi").exists()
