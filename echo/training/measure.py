"""What can be measured of speech without understanding it: pitch, length, tail, pauses."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from echo.audio.resample import Samples, resample
from echo.audio.vad import SpeechDetector

_PITCH_RATE = 16_000  # Hz
_WINDOW, _STEP = 1024, 320  # samples: two periods of 32 Hz; 20 ms
_LOWEST_HZ, _HIGHEST_HZ = 60.0, 420.0
_VOICED = 0.6  # normalised autocorrelation
_NEARLY_AS_GOOD = 0.93  # of the best lag: the shortest such lag, or the octave below would win
_SILENT = 1e-10  # power; -100 dBFS


def median_f0(samples: Samples, sample_rate: int) -> float:
    """Median pitch in Hz, 60 to 420, over the voiced parts of [T] float32; 0 where none is.

    Autocorrelation over that of the window (Boersma 1993), loud windows only.
    """
    audio = resample(samples, sample_rate, _PITCH_RATE).astype(np.float64)
    if audio.size < _WINDOW:
        return 0.0
    frames = np.lib.stride_tricks.sliding_window_view(audio, _WINDOW)[::_STEP]
    frames = frames[(frames**2).mean(axis=1) > max(_SILENT, 0.1 * float((audio**2).mean()))]
    if not len(frames):
        return 0.0
    window = np.hanning(_WINDOW)
    frames = (frames - frames.mean(axis=1, keepdims=True)) * window
    shortest, longest = int(_PITCH_RATE / _HIGHEST_HZ), int(_PITCH_RATE / _LOWEST_HZ) + 1
    similarity = _autocorrelation(frames) / _autocorrelation(window[None])
    pitches = [
        _PITCH_RATE / _period(row, shortest, longest)
        for row in similarity[:, : longest + 2]
        if row[shortest : longest + 1].max() > _VOICED
    ]
    return float(np.median(pitches)) if pitches else 0.0


def speech_end_seconds(samples: Samples, sample_rate: int, below_db: float = 35.0) -> float:
    """When the last 10 ms that are louder than ``below_db`` under the loudest 10 ms end."""
    size = sample_rate // 100
    power = _power(samples, size)
    if not len(power) or power.max() <= _SILENT:
        return 0.0
    loud = np.flatnonzero(power > power.max() * 10.0 ** (-below_db / 10.0))
    return float((loud[-1] + 1) * size / sample_rate)


def tail_dbfs(samples: Samples, sample_rate: int, tail_ms: float = 50.0) -> float:
    """RMS level of the last ``tail_ms`` in dB of full scale; at least -100."""
    tail = samples[-max(1, round(sample_rate * tail_ms / 1000.0)) :].astype(np.float64)
    power = float((tail**2).mean()) if tail.size else 0.0
    return 10.0 * float(np.log10(max(power, _SILENT)))


def longest_pause_ms(samples: Samples, sample_rate: int, detector: SpeechDetector) -> float:
    """The longest gap between two stretches of speech; 0 with fewer than two."""
    spans = detector.speech_spans(samples, sample_rate)
    gaps = [later[0] - earlier[1] for earlier, later in pairwise(spans)]
    return 1000.0 * max(gaps, default=0.0)


def _autocorrelation(frames: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[..., lag], 1 at lag 0; padded, so that it does not wrap around."""
    spectrum = np.abs(np.fft.rfft(frames, 2 * _WINDOW)) ** 2
    lags = np.fft.irfft(spectrum)[:, : _WINDOW // 2]
    return np.asarray(lags / np.maximum(lags[:, :1], 1e-12))


def _period(row: npt.NDArray[np.float64], shortest: int, longest: int) -> float:
    """Lag of the first peak that is nearly the highest, between samples by a parabola."""
    lags = np.arange(shortest, longest + 1)
    inner = row[lags]
    peaks = lags[(inner >= row[lags - 1]) & (inner >= row[lags + 1]) & (inner > 0.0)]
    if not len(peaks):
        return float(lags[inner.argmax()])
    good = peaks[row[peaks] >= _NEARLY_AS_GOOD * row[peaks].max()]
    lag = int(good[0])
    before, here, after = row[lag - 1], row[lag], row[lag + 1]
    bend = before - 2.0 * here + after
    return lag + (0.5 * float((before - after) / bend) if bend < 0.0 else 0.0)


def _power(samples: Samples, size: int) -> npt.NDArray[np.float64]:
    whole = samples[: samples.size // size * size].astype(np.float64).reshape(-1, size)
    return np.asarray((whole**2).mean(axis=1))
