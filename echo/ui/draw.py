"""Pictures of sound: a waveform's bars and a spectrogram."""

from __future__ import annotations

import base64
import io
import itertools

import numpy as np

from echo.audio.resample import Samples

BARS = 100
WINDOW, STEP = 2048, 512  # samples of the spectrogram's frames
FLOOR_DB = -80.0
MAX_COLUMNS = 900
SILENT_BAR = 0.03  # height of a bar where nothing sounds


def bars_path(samples: Samples, bars: int = BARS) -> str:
    """The ``d`` of an SVG path: ``bars`` upright strokes in a box of ``bars`` x 100.

    ``samples``: [T] float32. Heights follow the loudest sample of each part, on a root scale.
    """
    edges = np.linspace(0, len(samples), bars + 1).astype(int)
    level = np.abs(samples)
    peaks = np.array([level[a:b].max(initial=0.0) for a, b in itertools.pairwise(edges)])
    heights = np.maximum(np.sqrt(np.clip(peaks, 0.0, 1.0)), SILENT_BAR) * 47
    return "".join(f"M{i}.5 {50 - h:.1f}V{50 + h:.1f}" for i, h in enumerate(heights))


def spectrogram_url(samples: Samples, sample_rate: int, *, max_hz: float = 12_000.0) -> str:
    """A PNG as a data URL: time to the right, 0 ... ``max_hz`` upwards, 80 dB in colour.

    ``samples``: [T] float32, at least one; long ones are looked at in fewer places.
    """
    from PIL import Image  # Gradio needs it, too

    padded = np.pad(samples, (WINDOW // 2, WINDOW))
    count = max(1, len(samples) // STEP)
    starts = np.linspace(0, len(padded) - WINDOW, min(count, MAX_COLUMNS)).astype(int)
    frames = padded[starts[:, None] + np.arange(WINDOW)] * np.hanning(WINDOW).astype(np.float32)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    power = power[:, : int(max_hz / sample_rate * WINDOW)]
    loudness = 10 * np.log10(power / max(float(power.max()), 1e-12) + 1e-12)
    level = np.clip(1 - loudness / FLOOR_DB, 0.0, 1.0)
    pixels = (_COLOURS[(level.T[::-1] * 255).astype(np.uint8)]).astype(np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels, "RGB").resize((MAX_COLUMNS, 220)).save(sink, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(sink.getvalue()).decode("ascii")


def _colours() -> np.ndarray:
    """256 colours from night to light, [256, 3]."""
    stops = np.array([[11, 16, 33], [24, 54, 92], [15, 118, 120], [92, 190, 150], [253, 246, 214]])
    at = np.linspace(0, len(stops) - 1, 256)
    return np.stack([np.interp(at, np.arange(len(stops)), stops[:, c]) for c in range(3)], 1)


_COLOURS = _colours()
