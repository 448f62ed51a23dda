"""Clocks that wait for the device, and the few statistics that all programs share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

RESAMPLES = 4000


def synchronize(device: torch.device | str) -> None:
    """Wait until ``device`` has done what it was asked to; the CPU always has."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


class Stopwatch:
    """Adds up seconds by stage; reads the clock only when the device is idle."""

    def __init__(self, *devices: torch.device) -> None:
        self._devices = devices
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside as ``name``."""
        begun = self.now()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - begun

    def now(self) -> float:
        """Seconds of a clock that only goes on, after the device has finished."""
        for device in self._devices:
            synchronize(device)
        return time.perf_counter()


def time_calls(
    call: Callable[[], object], device: torch.device, *, repeats: int, warmup: int, min_s: float
) -> list[float]:
    """Seconds of one ``call``, ``repeats`` times, after ``warmup`` calls that do not count.

    Calls shorter than ``min_s`` are timed in groups that take about that long.
    """
    watch = Stopwatch(device)
    for _ in range(warmup):
        call()
    begun = watch.now()
    call()
    once = watch.now() - begun
    group = max(1, min(10_000, round(min_s / max(once, 1e-9))))
    samples = []
    for _ in range(repeats):
        begun = watch.now()
        for _ in range(group):
            call()
        samples.append((watch.now() - begun) / group)
    return samples


def median(values: Sequence[float]) -> float:
    """The middle value; NaN if there is none."""
    return float(np.median(values)) if len(values) else float("nan")


def percentile(values: Sequence[float], percent: float) -> float:
    """Linearly interpolated; NaN if there is no value."""
    return float(np.percentile(values, percent)) if len(values) else float("nan")


def mean_interval(
    values: Sequence[float], confidence: float, seed: int = 0
) -> tuple[float, float, float]:
    """Mean with its bootstrap interval: (mean, low, high), all the same for a single value."""
    return _bootstrap(np.mean, values, confidence, seed)


def median_interval(
    values: Sequence[float], confidence: float, seed: int = 0
) -> tuple[float, float, float]:
    """Median with its bootstrap interval, likewise."""
    return _bootstrap(np.median, values, confidence, seed)


def _bootstrap(
    of: Callable[..., Any], values: Sequence[float], confidence: float, seed: int
) -> tuple[float, float, float]:
    samples = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    drawn = of(samples[rng.integers(0, len(samples), (RESAMPLES, len(samples)))], axis=1)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(drawn, (tail, 1.0 - tail))
    return float(of(samples)), float(low), float(high)
