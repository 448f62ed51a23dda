"""Reference voices as the speaker encoder takes them (model.md §7)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from echo.audio.decode import Waveform, decode_audio
from echo.audio.resample import Samples, resample
from echo.spec import MAX_REFERENCE_SECONDS, SAMPLE_RATE

MAX_REFERENCE_SAMPLES = int(MAX_REFERENCE_SECONDS * SAMPLE_RATE)


def load_reference(
    source: bytes | Path,
    *,
    max_bytes: int,
    max_seconds: float = MAX_REFERENCE_SECONDS,
    name: str | None = None,
    param: str | None = None,
) -> Samples:
    """One clip: mono, 44.1 kHz, at most ``max_seconds`` (cut), divided by max(1, peak).

    Returns [T] float32 in -1..1. Raises what :func:`decode_audio` raises.
    """
    waveform = decode_audio(
        source,
        max_bytes=max_bytes,
        max_seconds=max_seconds,
        name=name,
        param=param,
    )
    return as_reference(waveform, max_seconds=max_seconds)


def as_reference(waveform: Waveform, *, max_seconds: float = MAX_REFERENCE_SECONDS) -> Samples:
    """[T] float32 at 44.1 kHz, cut to ``max_seconds``, divided by max(1, peak)."""
    samples = resample(waveform.samples, waveform.sample_rate, SAMPLE_RATE)
    samples = samples[: int(max_seconds * SAMPLE_RATE)]
    peak = float(np.abs(samples).max())
    return samples / np.float32(max(1.0, peak))


def join_clips(clips: Iterable[Samples], gap_seconds: float) -> Samples:
    """Clips one after the other with silence between, cut to 300 s.

    ``clips``: [T] float32 each, 44.1 kHz. The iterable is read no further than 300 s.
    """
    gap = np.zeros(round(gap_seconds * SAMPLE_RATE), np.float32)
    parts: list[Samples] = []
    total = 0
    for clip in clips:
        for part in (gap, clip) if parts else (clip,):
            parts.append(part)
            total += part.size
        if total >= MAX_REFERENCE_SAMPLES:
            break
    if not parts:
        return np.zeros(0, np.float32)
    return np.concatenate(parts)[:MAX_REFERENCE_SAMPLES]
