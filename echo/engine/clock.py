"""How long work takes on the device, without waiting for it."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from echo.engine.stream import Audio


@dataclass
class _Flight:
    latents: int
    begun: torch.cuda.Event
    ended: torch.cuda.Event


class DeviceClock:
    """Times work; on CUDA by events."""

    def __init__(
        self,
        device: torch.device,
        *,
        stream: torch.cuda.Stream | None = None,
        in_flight: int | None = None,
    ) -> None:
        """``stream``: that it is issued on, if not the usual one; ``in_flight``: how much of it
        may be queued, None: any amount.
        """
        self._device = device if device.type == "cuda" else None
        self._stream = stream
        self._in_flight = in_flight
        self._begun: float | torch.cuda.Event = 0.0
        self._flying: deque[_Flight] = deque()
        self._measured: list[tuple[int, float]] = []

    def begin(self) -> None:
        """Before work is issued; on CUDA waits while too much is queued."""
        if self._device is None:
            self._begun = time.perf_counter()
            return
        while self._in_flight is not None and len(self._flying) >= self._in_flight:
            self._land()
        self._begun = self._mark()

    def end(self, latents: int) -> None:
        """After work on so many ``latents`` was issued."""
        if isinstance(self._begun, float):
            self._measured.append((latents, time.perf_counter() - self._begun))
        else:
            self._flying.append(_Flight(latents, self._begun, self._mark()))

    def measured(self) -> list[tuple[int, float]]:
        """(latents, seconds) of the work that ended since the last call."""
        while self._flying and self._flying[0].ended.query():
            self._land()
        measured, self._measured = self._measured, []
        return measured

    def _land(self) -> None:
        flight = self._flying.popleft()
        flight.ended.synchronize()
        seconds = flight.begun.elapsed_time(flight.ended) / 1000
        self._measured.append((flight.latents, seconds))

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(self._stream or torch.cuda.current_stream(self._device))
        return event


class HostCopy:
    """Audio [T] on its way to the host, float32; from a GPU it travels while that works on."""

    def __init__(self, audio: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        audio = audio.float()
        if audio.device.type == "cuda":
            self._host = torch.empty(audio.shape, dtype=torch.float32, pin_memory=True)
            self._host.copy_(audio, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(audio.device))
        else:
            self._host = audio.cpu()

    def ready(self) -> bool:
        """Whether :meth:`read` would not wait."""
        return self._event is None or self._event.query()

    def read(self) -> Audio:
        """The samples, once they are there."""
        if self._event is not None:
            self._event.synchronize()
            return self._host.numpy().copy()  # pinned memory is scarce: give it back
        return self._host.numpy()
