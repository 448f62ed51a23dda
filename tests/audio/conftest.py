from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

Samples = npt.NDArray[np.float32]


@pytest.fixture
def sweep() -> Callable[[float, int], Samples]:
    """A gliding tone, half scale: every moment differs, so a shift or a gap shows."""

    def make(seconds: float, rate: int = 44_100) -> Samples:
        t = np.arange(round(seconds * rate)) / rate
        return (0.5 * np.sin(2 * np.pi * (200 + 150 * t) * t)).astype(np.float32)

    return make
