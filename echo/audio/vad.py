"""Where somebody speaks: Silero VAD, with the weights its own package brings along."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from echo.audio.resample import Samples, resample

VAD_RATE = 16_000  # Hz, the only rate used

Span = tuple[float, float]  # start and end in seconds


class SpeechDetector:
    """Silero VAD. Loads about 2 MB from the package; no downloads.

    The network keeps state during a call: use one instance from one thread only.
    """

    def __init__(self) -> None:
        # silero_vad.model sets torch to one thread when it is imported; the whole process would
        # lose its other cores.
        threads = torch.get_num_threads()
        try:
            from silero_vad import get_speech_timestamps, load_silero_vad
        finally:
            torch.set_num_threads(threads)
        self._model: Any = load_silero_vad()
        self._timestamps = get_speech_timestamps

    def speech_spans(self, samples: Samples, sample_rate: int) -> list[Span]:
        """Spans of speech, in order, in seconds from the start.

        ``samples``: [T] float32 in -1..1 at ``sample_rate`` Hz. Thresholds are Silero's own.
        """
        if samples.size == 0:
            return []
        audio = torch.tensor(resample(samples, sample_rate, VAD_RATE))
        found = self._timestamps(audio, self._model, sampling_rate=VAD_RATE)
        return [(span["start"] / VAD_RATE, span["end"] / VAD_RATE) for span in found]


def longest_silence_ms(spans: Sequence[Span], total_ms: float) -> float:
    """The longest stretch without speech: before, between or after the spans, or all of it."""
    longest = 0.0
    silent_since = 0.0
    for start, end in spans:
        longest = max(longest, start * 1000.0 - silent_since)
        silent_since = max(silent_since, end * 1000.0)
    return max(longest, total_ms - silent_since)
