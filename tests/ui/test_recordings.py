import numpy as np
import pytest

from echo.ui.draw import BARS, bars_path, spectrogram_url
from echo.ui.recordings import clipped_samples, examine

RATE = 44_100


def speech(seconds=8.0, level=0.3, floor=1e-4):
    """Bursts of a tone with pauses between, over a little noise."""
    at = np.arange(int(seconds * RATE)) / RATE
    talking = (at % 1.0) < 0.8
    noise = np.random.default_rng(1).normal(0, floor, at.size)
    return (level * np.sin(2 * np.pi * 200 * at) * talking + noise).astype(np.float32)


def test_clean_speech_of_some_seconds_has_nothing_to_warn_of():
    found = examine(speech(), RATE)
    assert found.warnings() == []
    assert found.seconds == pytest.approx(8.0)
    assert found.peak_db == pytest.approx(20 * np.log10(0.3), abs=0.1)
    assert found.speech_db == pytest.approx(20 * np.log10(0.3 / np.sqrt(2)), abs=0.5)
    assert found.noise_db < -70


@pytest.mark.parametrize(
    ("samples", "sentence"),
    [
        (np.clip(speech(level=1.5), -0.9, 0.9), "Clipping"),
        (speech(level=0.005), "Very quiet"),
        (speech(floor=0.05), "background"),
        (speech(seconds=2), "Short"),
        (speech(seconds=70), "Long"),
    ],
)
def test_what_makes_a_poor_reference_is_told(samples, sentence):
    assert any(sentence in warning for warning in examine(samples, RATE).warnings())


def test_a_tone_that_is_not_cut_off_is_not_clipped():
    assert clipped_samples(speech(level=0.9)) == 0


def test_a_recording_shorter_than_a_frame_can_be_looked_at():
    assert examine(np.array([0.5], np.float32), RATE).seconds > 0


@pytest.mark.parametrize("samples", [0, 1, 50, 44_100])
def test_a_waveform_has_all_its_bars(samples):
    assert bars_path(np.full(samples, 0.5, np.float32)).count("M") == BARS


def test_louder_parts_have_higher_bars():
    path = bars_path(np.repeat(np.array([0.1, 0.9], np.float32), 22_050))
    heights = [float(each.split("V")[1]) for each in path.split("M")[1:]]
    assert min(heights[BARS // 2 :]) > max(heights[: BARS // 2])


@pytest.mark.parametrize("samples", [1, 3000, 44_100])
def test_a_spectrogram_is_a_png(samples):
    assert spectrogram_url(np.zeros(samples, np.float32), RATE).startswith("data:image/png;base64,")
