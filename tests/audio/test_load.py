from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from echo.audio.encode import encode_file
from echo.audio.load import MAX_REFERENCE_SAMPLES, join_clips, load_reference


def test_a_reference_is_44100_hz_mono(sweep):
    loaded = load_reference(encode_file(sweep(1.0, 16_000), 16_000, "wav"), max_bytes=10**6)
    assert loaded.dtype == np.float32
    assert loaded.size == pytest.approx(44_100, abs=2)


def test_a_peak_above_one_is_scaled_down_and_one_below_is_left_alone(sweep):
    for gain, peak in ((8.0, 1.0), (0.5, 0.25)):
        buffer = io.BytesIO()
        soundfile.write(buffer, sweep(0.5) * gain, 44_100, subtype="FLOAT", format="WAV")
        loaded = load_reference(buffer.getvalue(), max_bytes=10**6)
        assert np.abs(loaded).max() == pytest.approx(peak, abs=1e-3)


def test_a_reference_is_cut_at_300_seconds():
    silence = encode_file(np.zeros(301 * 4_000, np.float32), 4_000, "wav")
    assert load_reference(silence, max_bytes=10**7).size == MAX_REFERENCE_SAMPLES == 13_230_000


def test_clips_are_joined_with_silence_between_only():
    one, two = np.full(100, 0.1, np.float32), np.full(50, 0.2, np.float32)
    joined = join_clips([one, two, one], gap_seconds=1.0)
    gap = np.zeros(44_100, np.float32)
    np.testing.assert_array_equal(joined, np.concatenate([one, gap, two, gap, one]))


def test_clips_beyond_five_minutes_are_not_even_loaded():
    loaded = []

    def clips():
        for number in range(10):
            loaded.append(number)
            yield np.ones(120 * 44_100, np.float32)

    assert join_clips(clips(), gap_seconds=1.0).size == MAX_REFERENCE_SAMPLES
    assert loaded == [0, 1, 2]


def test_no_clips_are_no_samples():
    assert join_clips([], gap_seconds=1.0).size == 0
