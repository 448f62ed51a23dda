"""How long steps take on the device, without waiting for it."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from echo.engine.stream import Audio

IN_FLIGHT = 2  # steps queued on a GPU: enough to keep it busy, few enough for a newcomer


@dataclass
class _Flight:
    tokens: int
    begun: torch.cuda.Event
    ended: torch.cuda.Event


class StepClock:
    """Times steps. On CUDA by events, and lets at most :data:`IN_FLIGHT` of them be queued."""

    def __init__(self, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None
        self._begun: float | torch.cuda.Event = 0.0
        self._flying: deque[_Flight] = deque()
        self._measured: list[tuple[int, float]] = []

    def begin(self) -> None:
        """Before a step is issued; on CUDA waits while too many are queued."""
        if self._device is None:
            self._begun = time.perf_counter()
            return
        while len(self._flying) >= IN_FLIGHT:
            self._land()
        self._begun = self._mark()

    def end(self, tokens: int) -> None:
        """After a step of ``tokens`` latents was issued."""
        if isinstance(self._begun, float):
            self._measured.append((tokens, time.perf_counter() - self._begun))
        else:
            self._flying.append(_Flight(tokens, self._begun, self._mark()))

    def measured(self) -> list[tuple[int, float]]:
        """(tokens, seconds) of the steps that ended since the last call."""
        while self._flying and self._flying[0].ended.query():
            self._land()
        measured, self._measured = self._measured, []
        return measured

    def _land(self) -> None:
        flight = self._flying.popleft()
        flight.ended.synchronize()
        seconds = flight.begun.elapsed_time(flight.ended) / 1000
        self._measured.append((flight.tokens, seconds))

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
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
