"""Sample rate conversion behind one function, and a streaming one with carried state.

torchaudio's wheel does not import beside every torch build, so it is used where it does and soxr
elsewhere. Nothing else in the package knows torchaudio.
"""

from __future__ import annotations

import functools
import importlib
import logging
import math
from types import ModuleType

import numpy as np
import numpy.typing as npt
import soxr

logger = logging.getLogger(__name__)

Samples = npt.NDArray[np.float32]  # [T] mono, -1..1

# torchaudio holds one filter phase per output step of the reduced ratio: 44101 -> 44100 Hz would
# take gigabytes. Usual pairs (48 or 16 kHz to 44.1 kHz) reduce to a few hundred.
MAX_TORCHAUDIO_PHASES = 1000


def resample(samples: Samples, from_rate: int, to_rate: int) -> Samples:
    """Convert a whole signal.

    ``samples``: [T] float32, mono. Rates in Hz. Returns float32 of about T · to_rate / from_rate
    samples, contiguous; the input itself where the rates are equal.
    """
    if from_rate == to_rate or samples.size == 0:
        return samples
    torchaudio = load_torchaudio()
    common = math.gcd(from_rate, to_rate)
    if torchaudio is None or max(from_rate, to_rate) // common > MAX_TORCHAUDIO_PHASES:
        return np.ascontiguousarray(soxr.resample(samples, from_rate, to_rate), dtype=np.float32)
    import torch

    source = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
    converted = torchaudio.functional.resample(source, from_rate, to_rate)
    return np.ascontiguousarray(converted.numpy(), dtype=np.float32)


class StreamResampler:
    """Converts a signal that arrives in parts; the parts join without clicks.

    Always soxr, which carries its filter state; the joined output does not depend on how the
    input was cut. It holds back a few milliseconds until ``finish``.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        self._stream: soxr.ResampleStream | None = None
        if from_rate != to_rate:
            self._stream = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32")

    def push(self, samples: Samples) -> Samples:
        """[T] float32 in, what is ready of the converted signal out (maybe nothing)."""
        if self._stream is None:
            return samples
        return self._stream.resample_chunk(samples)

    def finish(self) -> Samples:
        """What was held back. The resampler takes nothing afterwards."""
        nothing = np.zeros(0, np.float32)
        if self._stream is None:
            return nothing
        return self._stream.resample_chunk(nothing, last=True)


@functools.cache
def load_torchaudio() -> ModuleType | None:
    """torchaudio, or None where it is missing or does not load beside this torch."""
    try:
        return importlib.import_module("torchaudio")
    except (ImportError, OSError) as error:
        logger.debug("resampling with soxr, torchaudio does not import: %s", error)
        return None
