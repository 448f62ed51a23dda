"""Bare MP3 and AAC frames, judged by decoders that are not ours: length, start, end."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from echo.audio.decode import decode_audio
from echo.audio.encode import FORMATS, encode_file, open_encoder
from echo.audio.frames import info_frame
from echo.audio.tail import fade_out

LOSSY = [(name, rate) for name in ("mp3", "aac") for rate in FORMATS[name].rates]
CLOSE_MS = 60
# Over more than a frame of any rate: the last one is met nearly empty, half full and full.
LENGTHS_MS = range(400, 480, 3)


def stream(name, samples, rate, parts=3, **options):
    encoder = open_encoder(name, rate, **options)
    return [*map(encoder.push, np.array_split(samples, parts)), encoder.close()]


def decoded(data, kind):
    with av.open(io.BytesIO(data), format=kind) as container:
        return np.concatenate([f.to_ndarray().reshape(-1) for f in container.decode(audio=0)])


@pytest.mark.parametrize(("name", "rate"), LOSSY)
def test_faded_speech_of_any_length_plays_as_long_as_it_is(name, rate, sweep):
    for length_ms in LENGTHS_MS:
        samples = fade_out(sweep(length_ms / 1000, rate), rate)
        played = decoded(b"".join(stream(name, samples, rate)), name)
        assert abs(len(played) - len(samples)) / rate * 1000 <= CLOSE_MS


@pytest.mark.parametrize(("name", "rate"), LOSSY)
def test_what_ends_loud_is_played_to_its_last_sample(name, rate, sweep):
    for length_ms in LENGTHS_MS:
        samples = sweep(length_ms / 1000, rate)
        played = decoded(b"".join(stream(name, samples, rate)), name)
        size = 1 << (len(played) + len(samples)).bit_length()
        spectrum = np.fft.rfft(played, size) * np.conj(np.fft.rfft(samples, size))
        shift = int(np.fft.irfft(spectrum, size)[: rate // 10].argmax())
        heard = played[shift : shift + len(samples)]
        assert len(heard) == len(samples)
        for part in (slice(0, rate // 50), slice(-rate // 50, None)):
            assert np.corrcoef(heard[part], samples[part])[0, 1] > 0.98


@pytest.mark.parametrize("rate", [8_000, 11_025, 12_000, 16_000, 22_050, 32_000])
def test_an_info_frame_lets_the_audio_begin_at_the_first_sample(rate, sweep):
    samples = sweep(0.5, rate)
    data = b"".join(stream("mp3", samples, rate))
    assert b"Info" in data[:40]
    played = decoded(data, "mp3")[: len(samples)]
    np.testing.assert_allclose(played[: rate // 10], 0.95 * samples[: rate // 10], atol=0.02)


@pytest.mark.parametrize("rate", [24_000, 44_100, 48_000])
def test_no_info_frame_where_the_length_is_close_without(rate, sweep):
    assert b"Info" not in b"".join(stream("mp3", sweep(0.5, rate), rate))[:40]


@pytest.mark.parametrize("bit_rate", [8_000, 24_000, 64_000])
def test_an_info_frame_fits_beside_short_frames(bit_rate, sweep):
    samples = sweep(1.0, 16_000)
    data = b"".join(stream("mp3", samples, 16_000, bit_rate=bit_rate))
    assert abs(len(decoded(data, "mp3")) - len(samples)) <= 16_000 * CLOSE_MS / 1000


def test_an_info_frame_states_neither_frames_nor_bytes():
    header = bytes.fromhex("fffb90c4")  # 44.1 kHz, 128 kbit/s, mono, no checksum
    frame = info_frame(header, 576)
    assert frame[:2] == header[:2]
    assert frame[3] == header[3]
    at = frame.index(b"Info")
    assert at == 4 + 17
    assert frame[at + 4 : at + 12] == bytes.fromhex("00000002ffffffff")
    assert frame[at + 12 + 21 : at + 12 + 24] == (576 << 12).to_bytes(3, "big")
    assert frame[at + 12 + 34 :] == bytes.fromhex("387b") + bytes(len(frame) - at - 48)
    assert len(frame) == 144 * 32_000 // 44_100


def test_a_stream_that_states_no_length_is_not_taken_for_one_cut_off(sweep):
    data = b"".join(stream("mp3", sweep(4.0, 8_000), 8_000))
    # FFmpeg guesses the length from the number of bytes.
    padded = decode_audio(data + bytes(len(data)), max_bytes=1_000_000, max_seconds=60.0)
    assert padded.samples.size / padded.sample_rate == pytest.approx(4.0, abs=0.1)


@pytest.mark.parametrize("name", ["mp3", "m4a"])
@pytest.mark.parametrize("rate", [8_000, 24_000, 44_100, 48_000])
def test_files_state_their_length(name, rate, sweep):
    rate = FORMATS[name].rate_for(rate)
    samples = sweep(0.777, rate)
    with av.open(io.BytesIO(encode_file(samples, rate, name))) as container:
        frames = list(container.decode(audio=0))
    seconds = sum(frame.samples for frame in frames) / rate
    assert seconds == pytest.approx(0.777, abs=CLOSE_MS / 1000)
