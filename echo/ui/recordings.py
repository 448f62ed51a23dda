"""What can be told of a recording by looking at its samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from echo.audio.resample import Samples
from echo.spec import MAX_REFERENCE_SECONDS

SHORT_S, LONG_S = 5.0, 60.0
QUIET_DB = -35.0  # of the speaking parts
NOISY_DB = 25.0  # between the speaking parts and the quietest tenth
FRAME_S = 0.05
FLOOR = 1e-5  # -100 dB
CLIPPED_RUN = 4  # samples in a row at the very top


@dataclass(frozen=True)
class Recording:
    """Length in seconds; levels in dB below full scale; ``clipped``: samples cut off at the top."""

    seconds: float
    peak_db: float
    speech_db: float  # of the louder half of its frames
    noise_db: float  # of the quietest tenth
    clipped: int

    def facts(self) -> dict[str, str]:
        """For people: name and value."""
        return {
            "Length": f"{self.seconds:.1f} s",
            "Loudness": f"{self.speech_db:.0f} dB",
            "Peak": f"{self.peak_db:.1f} dB",
            "Background": f"{self.noise_db:.0f} dB",
            "Clipped": f"{self.clipped} samples" if self.clipped else "none",
        }

    def warnings(self) -> list[str]:
        """What may make a poor reference of it."""
        found = []
        if self.clipped:
            found.append(
                f"Clipping: {self.clipped} samples are cut off at the top, which the clone may "
                "copy. Record with less gain."
            )
        if self.speech_db < QUIET_DB:
            found.append(f"Very quiet ({self.speech_db:.0f} dB). Record closer, or make it louder.")
        elif self.speech_db - self.noise_db < NOISY_DB and self.noise_db > -60:
            found.append(
                "Little pause or much background: the clone copies noise and room along with the "
                "voice."
            )
        if self.seconds < SHORT_S:
            found.append(f"Short: {self.seconds:.1f} s. 5 to 30 s of speech do well.")
        if self.seconds >= MAX_REFERENCE_SECONDS - 1:
            found.append(f"Only the first {MAX_REFERENCE_SECONDS:.0f} s are used.")
        elif self.seconds > LONG_S:
            found.append("Long: encoding it takes a while the first time. 5 to 30 s do well.")
        return found


def examine(samples: Samples, sample_rate: int) -> Recording:
    """``samples``: [T] float32, -1 ... 1, at least one."""
    size = max(1, int(FRAME_S * sample_rate))
    whole = samples[: max(1, len(samples) // size) * size]
    frames = whole.reshape(-1, min(size, len(whole)))
    levels = np.sort(_db(np.sqrt((frames.astype(np.float64) ** 2).mean(axis=1))))
    return Recording(
        seconds=len(samples) / sample_rate,
        peak_db=float(_db(np.abs(samples).max())),
        speech_db=float(levels[len(levels) // 2 :].mean()),
        noise_db=float(levels[: max(1, len(levels) // 10)].mean()),
        clipped=clipped_samples(samples),
    )


def clipped_samples(samples: Samples) -> int:
    """How many samples lie in runs of CLIPPED_RUN or more at the loudest value there is."""
    top = float(np.abs(samples).max())
    if top < 0.5:
        return 0
    flat = np.concatenate(([False], np.abs(samples) >= top * 0.9995, [False]))
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    runs = edges[1::2] - edges[::2]
    return int(runs[runs >= CLIPPED_RUN].sum())


def _db(level: np.ndarray | np.floating) -> np.ndarray:
    return 20 * np.log10(np.maximum(level, FLOOR))
