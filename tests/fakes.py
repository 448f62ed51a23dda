"""Stand-ins that make a generation predictable, and a look at what is compiled."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from echo.engine.components import Components
from echo.models.dit import EchoDiT, PackedStep


class AimingDiT(EchoDiT):
    """With one Euler step per block, each block lands on what ``aim(start, noise)`` says."""

    aim: Callable[[int, Tensor], Tensor]
    overhead_s = 0.0  # what a pass takes, however many rows it has
    seen: list[tuple[int, int]]  # (start, rows) of every pass, for each start in it

    def velocity_packed(self, step: PackedStep) -> Tensor:
        time.sleep(self.overhead_s)
        rows, first = [], 0
        starts: dict[int, int] = {}
        for count in step.packing.queries:
            x = step.x[first : first + count]
            angle = torch.atan2(step.rope.sin[first, -1], step.rope.cos[first, -1])
            start = round(float(angle) / self._slowest())
            starts[start] = starts.get(start, 0) + 1
            rows.append((x - self.aim(start, x[None])[0]) / 0.999)
            first += count
        self.seen.extend(starts.items())
        return torch.cat(rows)

    def _slowest(self) -> float:
        size = self.config.model_size // self.config.num_heads
        return float(10_000.0 ** -((size - 2) / size))


def aiming(components: Components, aim: Callable[[int, Tensor], Tensor]) -> Components:
    """The same components with a DiT that lands where ``aim`` says."""
    model = AimingDiT(components.model.config)
    model.load_state_dict(components.model.state_dict())
    model.requires_grad_(False)
    model.aim = aim
    model.seen = []
    return Components.from_parts(model, components.codec, components.pca)


class ScriptedDetector:
    """Says how much of each block it is shown is silent: ``silences_ms``, one per look."""

    def __init__(self, silences_ms: Sequence[float]) -> None:
        self.left = list(silences_ms)
        self.seen: list[Any] = []

    def speech_spans(self, samples: Any, sample_rate: int) -> list[tuple[float, float]]:
        self.seen.append(samples)
        return [(self.left.pop(0) / 1000, len(samples) / sample_rate)]


@contextmanager
def compilations() -> Iterator[list[object]]:
    """What is compiled in the meantime."""
    seen: list[object] = []
    handler = torch._dynamo.callback.callback_handler
    note = handler.register_start_callback(seen.append)
    try:
        yield seen
    finally:
        handler.remove_start_callback(note)
