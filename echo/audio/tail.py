"""The end of a generation: a short fade instead of a cut (service.md §1)."""

from __future__ import annotations

import numpy as np

from echo.audio.resample import Samples

FADE_MS = 50


def fade_out(samples: Samples, sample_rate: int) -> Samples:
    """A copy of [T] float32 whose last 50 ms are multiplied by (1 − x)³, x from 0 to 1.

    What is shorter than 50 ms fades as a whole.
    """
    faded = samples.copy()
    count = min(faded.size, sample_rate * FADE_MS // 1000)
    if count:
        x = np.linspace(0.0, 1.0, count, dtype=np.float32)
        faded[-count:] *= (1.0 - x) ** 3
    return faded
