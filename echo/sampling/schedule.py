"""Times of the Euler steps and what depends on them alone (model.md §5)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor

from echo.models.dit import EchoDiT
from echo.modules.rope import RopeTable
from echo.spec import MAX_LATENTS


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
    """Times of a schedule, [steps + 1] on the CPU, and the modulations of its steps."""

    times: Tensor
    modulations: Tensor  # [steps, L, 6, D] on the device, in the model's dtype


class StepTables:
    """What steps of one model need that no request changes: schedules and RoPE angles.

    Requests share the tables of the last few schedules. For the worker thread only.
    """

    def __init__(self, model: EchoDiT, max_steps: int = 256) -> None:
        """``max_steps``: how many are kept, over all schedules; one of echo-tts-base is 0.6 MB."""
        self._model = model
        self._max_steps = max_steps
        self._tables: OrderedDict[tuple[int, float], StepTable] = OrderedDict()
        self._rope: RopeTable | None = None

    def get(self, num_steps: int, init_scale: float) -> StepTable:
        """The table of this schedule, made on first use."""
        key = (num_steps, init_scale)
        if key not in self._tables:
            self._tables[key] = self._make(num_steps, init_scale)
            while len(self._tables) > 1 and sum(n for n, _ in self._tables) > self._max_steps:
                self._tables.popitem(last=False)
        self._tables.move_to_end(key)
        return self._tables[key]

    def rope(self, start: int, count: int) -> RopeTable:
        """Angles of the positions ``start`` ... ``start + count - 1``: views of one table."""
        end = start + count
        if self._rope is None or self._rope.cos.shape[0] < end:
            positions = torch.arange(max(end, MAX_LATENTS), device=self._model.device)
            self._rope = self._model.rope(positions)
        return RopeTable(self._rope.cos[start:end], self._rope.sin[start:end])

    def _make(self, num_steps: int, init_scale: float) -> StepTable:
        schedule = times(num_steps, init_scale)
        every = self._model.condition(schedule[:-1].to(self._model.device))
        return StepTable(schedule, every.stacked())
