from __future__ import annotations

import numpy as np
import pytest

from echo.audio.tempo import StreamTempo
from echo.errors import InvalidRequestError

RATE = 44_100


def retimed(samples, speed, cut):
    tempo = StreamTempo(RATE, speed)
    parts = [tempo.push(samples[start : start + cut]) for start in range(0, len(samples), cut)]
    return np.concatenate([*parts, tempo.finish()])


def tone(seconds: float = 2.0):
    t = np.arange(round(seconds * RATE)) / RATE
    return (0.5 * np.sin(2 * np.pi * 220 * t)).astype(np.float32)


@pytest.mark.parametrize("speed", [0.25, 0.5, 0.9, 1.3, 2.0, 3.0, 4.0])
def test_the_length_changes_and_the_pitch_stays(speed):
    result = retimed(tone(), speed, 10_000)
    assert result.dtype == np.float32
    assert len(result) / RATE == pytest.approx(2.0 / speed, abs=0.1)
    spectrum = np.abs(np.fft.rfft(result * np.hanning(len(result))))
    assert np.argmax(spectrum) * RATE / len(result) == pytest.approx(220, abs=2)
    assert np.abs(result).max() < 0.6


@pytest.mark.parametrize("speed", [0.7, 1.5, 3.0])
def test_the_result_does_not_depend_on_the_cuts(sweep, speed):
    samples = sweep(1.0)
    whole = retimed(samples, speed, len(samples))
    for cut in (777, 4096, 20_000):
        np.testing.assert_array_equal(retimed(samples, speed, cut), whole)


def test_most_of_a_long_part_comes_out_at_once():
    tempo = StreamTempo(RATE, 1.5)
    assert len(tempo.push(tone())) > 0.9 * 2.0 * RATE / 1.5


def test_a_speed_of_one_passes_samples_through():
    tempo = StreamTempo(RATE, 1.0)
    samples = tone(0.1)
    assert tempo.push(samples) is samples
    assert tempo.finish().size == 0


def test_nothing_in_gives_nothing_out():
    tempo = StreamTempo(RATE, 2.0)
    assert tempo.push(np.zeros(0, np.float32)).size == 0
    assert tempo.finish().size == 0


@pytest.mark.parametrize("speed", [0.0, 0.2, 4.1, -1.0, float("nan"), float("inf")])
def test_an_impossible_speed_is_refused(speed):
    with pytest.raises(InvalidRequestError, match="speed") as error:
        StreamTempo(RATE, speed)
    assert error.value.param == "speed"
