"""Times of the Euler steps and what depends on them alone (model.md §5)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor

from echo.models.dit import Conditioning, EchoDiT
from echo.modules.adaln import Modulation


def times(num_steps: int, init_scale: float) -> Tensor:
    """[num_steps + 1] float32 on the CPU, from ``init_scale`` (noise) down to 0 (speech)."""
    return torch.linspace(1.0, 0.0, num_steps + 1) * init_scale


def is_guided(t: Tensor, min_t: float, max_t: float) -> bool:
    """Whether a step at ``t`` runs the guidance passes; compared in float32 as ``t`` is."""
    return bool((t >= min_t) & (t <= max_t))


def crosses(t: Tensor, t_next: Tensor, threshold: float | None) -> bool:
    """Whether the step from ``t`` to ``t_next`` ends a forced speaker: t >= threshold > t_next."""
    return threshold is not None and bool((t >= threshold) & (t_next < threshold))


def rescale_score(v: Tensor, x: Tensor, t: Tensor, k: float | None, sigma: float | None) -> Tensor:
    """Temporal score rescaling (arXiv 2510.01184) of the velocity ``v`` at ``x``; off at t = 1."""
    if k is None or sigma is None or t >= 1:
        return v
    snr = (1 - t) ** 2 / t**2
    ratio = (snr * sigma**2 + 1) / (snr * sigma**2 / k + 1)
    return (ratio * ((1 - t) * v + x) - x) / (1 - t)


@dataclass(frozen=True)
class StepTable:
    """Times of a schedule, on the CPU, and the modulations of every step, on the device."""

    times: Tensor
    conditions: tuple[Conditioning, ...]


class StepTables:
    """Tables of the last few schedules: requests share them. For the worker thread only."""

    def __init__(self, model: EchoDiT, capacity: int = 16) -> None:
        self._model = model
        self._capacity = capacity
        self._tables: OrderedDict[tuple[int, float], StepTable] = OrderedDict()

    def get(self, num_steps: int, init_scale: float) -> StepTable:
        """The table of this schedule, made on first use."""
        key = (num_steps, init_scale)
        if key not in self._tables:
            self._tables[key] = self._make(num_steps, init_scale)
            if len(self._tables) > self._capacity:
                self._tables.popitem(last=False)
        self._tables.move_to_end(key)
        return self._tables[key]

    def _make(self, num_steps: int, init_scale: float) -> StepTable:
        schedule = times(num_steps, init_scale)
        every = self._model.condition(schedule[:-1].to(self._model.device))
        steps = range(num_steps)
        return StepTable(schedule, tuple(_step_of(every, i) for i in steps))


def _step_of(every: Conditioning, i: int) -> Conditioning:
    def pick(m: Modulation) -> Modulation:
        return Modulation(m.shift[i : i + 1], m.scale[i : i + 1], m.gate[i : i + 1])

    return Conditioning(tuple(map(pick, every.attention)), tuple(map(pick, every.mlp)))
