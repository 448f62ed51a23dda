from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from echo.audio.vad import SpeechDetector, longest_silence_ms


@pytest.fixture(scope="module")
def detector():
    return SpeechDetector()


# Hz: centre and width of three formants of a, i, u, e
VOWELS = (
    ((700, 130), (1200, 150), (2600, 250)),
    ((300, 80), (2300, 200), (3000, 300)),
    ((350, 80), (900, 120), (2400, 250)),
    ((500, 100), (1800, 180), (2500, 250)),
)


def babble(seconds, rate, syllable_seconds=0.2):
    """Vowels of a gliding 120 Hz voice, one a syllable: enough to pass for speech."""
    t = np.arange(int(seconds * rate)) / rate
    pitch = 120 * (1 + 0.15 * np.sin(2 * np.pi * 0.7 * t) + 0.05 * np.sin(2 * np.pi * 3 * t))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    vowel = (t / syllable_seconds).astype(int) % len(VOWELS)
    wave = np.zeros(t.size)
    for harmonic in range(1, 32):
        hertz = 120 * harmonic
        gains = [
            sum(
                np.exp(-(((hertz - centre) / width) ** 2)) / 2**n
                for n, (centre, width) in enumerate(formants)
            )
            for formants in VOWELS
        ]
        wave += (np.array(gains)[vowel] + 0.01 / harmonic) * np.sin(harmonic * phase)
    wave *= np.sqrt(np.sin(np.pi * (t / syllable_seconds % 1)))
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_speech_is_found_between_silences(detector, rate):
    silence = np.zeros(int(1.5 * rate), np.float32)
    samples = np.concatenate([silence, babble(2.0, rate), silence])
    spans = detector.speech_spans(samples, rate)
    assert spans, "nothing was taken for speech"
    assert spans[0][0] == pytest.approx(1.5, abs=0.2)
    assert spans[-1][1] == pytest.approx(3.5, abs=0.2)
    assert longest_silence_ms(spans, 5000.0) == pytest.approx(1500, abs=200)


def test_silence_holds_no_speech_and_calls_do_not_influence_each_other(detector):
    silence = np.zeros(16_000, np.float32)
    speech = babble(1.5, 16_000)
    first = detector.speech_spans(speech, 16_000)
    assert detector.speech_spans(silence, 16_000) == []
    assert detector.speech_spans(np.zeros(0, np.float32), 16_000) == []
    assert detector.speech_spans(speech, 16_000) == first


def test_the_longest_silence_may_lead_lie_between_or_trail():
    assert longest_silence_ms([(1.2, 2.0)], 2500) == pytest.approx(1200)
    assert longest_silence_ms([(0.1, 0.5), (1.4, 2.0)], 2500) == pytest.approx(900)
    assert longest_silence_ms([(0.1, 0.5)], 2500) == pytest.approx(2000)
    assert longest_silence_ms([], 2500) == 2500
    assert longest_silence_ms([(0.0, 2.5)], 2500) == 0


def test_loading_leaves_torchs_threads_alone():
    code = (
        "import torch; torch.set_num_threads(3)\n"
        "from echo.audio.vad import SpeechDetector; SpeechDetector()\n"
        "import sys; assert 'silero_vad' in sys.modules; print(torch.get_num_threads())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "3"
    assert torch.is_grad_enabled()
