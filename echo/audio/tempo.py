"""Faster or slower speech at the same pitch, for audio that arrives in parts."""

from __future__ import annotations

import math

import av
import av.filter
import numpy as np

from echo.audio.resample import Samples
from echo.errors import InvalidRequestError

MIN_SPEED, MAX_SPEED = 0.25, 4.0
STAGE_OCTAVES = 1.0  # atempo drops samples beyond a factor of 2, so larger ones take two stages
FRAME = 1024  # samples pushed at once: the filter holds one frame back, however long it is


class StreamTempo:
    """FFmpeg's ``atempo`` (waveform-similarity overlap-add) with carried state.

    The joined output does not depend on how the input was cut; its length is T / speed to within
    0.1 s. Not thread-safe.
    """

    def __init__(self, sample_rate: int, speed: float) -> None:
        """``sample_rate`` in Hz; ``speed`` 0.25 to 4, 1 passes everything through.

        Raises InvalidRequestError (param ``speed``) for any other speed.
        """
        if not MIN_SPEED <= speed <= MAX_SPEED:
            message = f"speed is {speed}; give a number from {MIN_SPEED} to {MAX_SPEED:g}"
            raise InvalidRequestError(message, param="speed")
        self._rate = sample_rate
        self._position = 0
        self._graph = None if speed == 1.0 else _graph(sample_rate, speed)

    def push(self, samples: Samples) -> Samples:
        """[T] float32, mono; returns what is ready, maybe nothing."""
        if self._graph is None:
            return samples
        ready = []
        for start in range(0, len(samples), FRAME):
            part = samples[start : start + FRAME]
            frame = av.AudioFrame.from_ndarray(part[None], format="flt", layout="mono")
            frame.sample_rate = self._rate
            frame.pts = self._position
            self._position += len(part)
            self._graph.push(frame)
            ready += _pull(self._graph)
        return _joined(ready)

    def finish(self) -> Samples:
        """What was held back. Takes nothing afterwards."""
        if self._graph is None or self._position == 0:
            return _joined([])
        self._graph.push(None)
        return _joined(_pull(self._graph))


def _graph(sample_rate: int, speed: float) -> av.filter.Graph:
    stages = max(1, math.ceil(abs(math.log2(speed)) / STAGE_OCTAVES))
    graph = av.filter.Graph()
    nodes = [graph.add_abuffer(sample_rate=sample_rate, format="flt", layout="mono")]
    nodes += [graph.add("atempo", repr(speed ** (1 / stages))) for _ in range(stages)]
    nodes += [graph.add("aformat", "sample_fmts=flt:channel_layouts=mono")]
    nodes += [graph.add("abuffersink")]
    graph.link_nodes(*nodes).configure()
    return graph


def _pull(graph: av.filter.Graph) -> list[Samples]:
    ready: list[Samples] = []
    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):  # needs more input; has ended
            return ready
        ready.append(frame.to_ndarray()[0])


def _joined(parts: list[Samples]) -> Samples:
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
