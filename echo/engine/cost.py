"""What steps cost on this device, learned while it runs. No torch here: plain numbers."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

ENOUGH = 8  # passes of one size; a few may have been disturbed


@dataclass
class Rate:
    """A running value that outliers move little: it falls fast and rises slowly.

    Work that was disturbed only ever takes longer, never shorter.
    """

    value: float | None = None

    def observe(self, seconds: float) -> None:
        if self.value is None:
            self.value = seconds
        else:
            self.value += (0.5 if seconds < self.value else 0.1) * (seconds - self.value)


class StepCost:
    """Seconds of a pass as overhead + tokens * per_token, fitted to the passes seen so far.

    Sizes are kept in half octaves, each with its running time; the fit weighs relative errors.
    """

    def __init__(self) -> None:
        self._seen: dict[int, tuple[Rate, Rate]] = {}  # half octave: tokens, seconds
        self._passes: Counter[int] = Counter()  # by half octave
        self.overhead = 0.0
        self.per_token = 0.0

    @property
    def known(self) -> bool:
        """Whether passes of at least two sizes were seen."""
        return len(self._seen) > 1

    def lacks(self, tokens: int) -> bool:
        """Whether ``tokens`` would be a second size that was not seen enough, while the first one
        was: where all requests are of one size, only company tells what company costs."""
        size = _size(tokens)
        others = [count for other, count in self._passes.items() if other != size]
        return len(others) == 1 and others[0] >= ENOUGH > self._passes[size]

    def observe(self, tokens: int, seconds: float) -> None:
        """Learn from a pass of ``tokens`` latents (all rows together)."""
        self._passes[_size(tokens)] += 1
        size, time = self._seen.setdefault(_size(tokens), (Rate(), Rate()))
        size.value = float(tokens)
        time.observe(max(seconds, 1e-9))
        self._fit()

    def predict(self, tokens: float) -> float:
        """Seconds of a pass; 0 before anything was seen."""
        return self.overhead + tokens * self.per_token

    def _fit(self) -> None:
        """Least squares of relative errors, with neither part below zero."""
        points = [(s.value, t.value) for s, t in self._seen.values() if s.value and t.value]
        aa = sum(1 / (t * t) for _, t in points)
        ab = sum(n / (t * t) for n, t in points)
        bb = sum(n * n / (t * t) for n, t in points)
        a, b = sum(1 / t for _, t in points), sum(n / t for n, t in points)
        determinant = aa * bb - ab * ab
        if len(points) > 1 and determinant > 1e-12 * aa * bb:
            self.overhead = (a * bb - b * ab) / determinant
            self.per_token = (b * aa - a * ab) / determinant
        if len(points) == 1 or self.overhead < 0:
            self.overhead, self.per_token = 0.0, b / bb
        elif self.per_token < 0:
            self.overhead, self.per_token = a / aa, 0.0


def _size(tokens: int) -> int:
    """In half octaves."""
    return round(2 * math.log2(tokens))
