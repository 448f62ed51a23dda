"""Steps of several generations as one pass of the model.

A generation asks for the velocity of a step by a :class:`StepRequest`; :func:`velocities` answers
any number of them at once. Times, positions, block sizes, texts, voices and numbers of guidance
passes may all differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from echo.models.dit import EchoDiT, PackedRow, PackedStep
from echo.models.layer_kv import RowContext
from echo.modules.rope import RopeTable


@dataclass(frozen=True, eq=False)
class StepRequest:
    """One step of one generation: its latents, and the passes to make on them."""

    model: EchoDiT
    x: Tensor  # [1, n, 80] float32
    modulation: Tensor  # [L, 6, D], of the step's time
    rope: RopeTable  # of the n positions
    contexts: tuple[RowContext, ...]  # one per guidance pass

    @property
    def tokens(self) -> int:
        """Latents in all passes: the size of the work."""
        return self.x.shape[1] * len(self.contexts)


def velocities(requests: Sequence[StepRequest]) -> list[Tensor]:
    """One pass for all ``requests``, which are of one model.

    Returns:
        For each request [passes, n, 80] float32, dx/dt of each of its passes.
    """
    step, order = pack(requests)
    rows = requests[0].model.velocity_packed(step).split(step.packing.queries)
    place = {row: i for i, row in enumerate(order)}
    return [
        torch.stack([rows[place[i, j]] for j in range(len(request.contexts))])
        for i, request in enumerate(requests)
    ]


def pack(requests: Sequence[StepRequest]) -> tuple[PackedStep, list[tuple[int, int]]]:
    """The step, and (request, pass) of its rows in order: rows of one shape are neighbours."""
    order = [(i, j) for i, r in enumerate(requests) for j in range(len(r.contexts))]
    order.sort(key=lambda row: _shape(requests, row))
    rows = [PackedRow(requests[i].contexts[j], requests[i].rope, i) for i, j in order]
    assert all(r.model is requests[0].model for r in requests)
    step = PackedStep(
        x=torch.cat([requests[i].x[0] for i, _ in order]),
        modulation=torch.stack([r.modulation for r in requests]),
        rows=tuple(rows),
    )
    return step, order


def _shape(requests: Sequence[StepRequest], row: tuple[int, int]) -> tuple[int, int]:
    """Queries and keys of a row."""
    own = requests[row[0]].x.shape[1]
    return own, own + requests[row[0]].contexts[row[1]].keys
