"""Stand-ins that make a generation predictable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from echo.engine.components import Components
from echo.models.dit import Conditioning, EchoDiT, LayerKV
from echo.modules.rope import RopeTable


class AimingDiT(EchoDiT):
    """With one Euler step per block, each block lands on what ``aim(start, noise)`` says."""

    aim: Callable[[int, Tensor], Tensor]
    passes: list[tuple[int, int]]  # (start, rows) of every pass

    def velocity_rows(
        self, x: Tensor, condition: Conditioning, rope: RopeTable, contexts: Sequence[LayerKV]
    ) -> Tensor:
        start = round(float(torch.atan2(rope.sin[0, -1], rope.cos[0, -1])) / self._slowest())
        self.passes.append((start, x.shape[0]))
        return (x - self.aim(start, x)) / 0.999

    def _slowest(self) -> float:
        size = self.config.model_size // self.config.num_heads
        return float(10_000.0 ** -((size - 2) / size))


def aiming(components: Components, aim: Callable[[int, Tensor], Tensor]) -> Components:
    """The same components with a DiT that lands where ``aim`` says."""
    model = AimingDiT(components.model.config)
    model.load_state_dict(components.model.state_dict())
    model.requires_grad_(False)
    model.aim = aim
    model.passes = []
    return Components.from_parts(model, components.codec, components.pca)


class ScriptedDetector:
    """Says how much of each block it is shown is silent: ``silences_ms``, one per look."""

    def __init__(self, silences_ms: Sequence[float]) -> None:
        self.left = list(silences_ms)
        self.seen: list[Any] = []

    def speech_spans(self, samples: Any, sample_rate: int) -> list[tuple[float, float]]:
        self.seen.append(samples)
        return [(self.left.pop(0) / 1000, len(samples) / sample_rate)]
