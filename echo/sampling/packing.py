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

from echo.models.dit import EchoDiT, LayerKV, PackedStep
from echo.modules.attention import PackedContext, Packing, takes_any_rows
from echo.modules.rope import RopeTable


@dataclass(frozen=True)
class RowContext:
    """What one guidance pass sees beside its own latents: pieces of keys and values by layer.

    Pieces are views of what requests share (a voice, say): they are joined with a step's own keys
    when these are known, so nobody holds copies of them.
    """

    layers: tuple[PackedContext, ...]
    keys: int


def row_context(layers: int, *parts: LayerKV | None) -> RowContext:
    """The context of ``parts``, each [1, n, H, d] in every one of ``layers`` layers."""
    present = [part for part in parts if part is not None]
    pieces = tuple(
        (tuple(part[i][0][0] for part in present), tuple(part[i][1][0] for part in present))
        for i in range(layers)
    )
    return RowContext(pieces, sum(part[0][0].shape[1] for part in present))


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
    model, first = requests[0].model, requests[0]
    shapes = [_shape(requests, row) for row in order]
    layers = range(len(model.blocks))
    contexts = [requests[i].contexts[j].layers for i, j in order]
    packing = Packing(tuple(n for n, _ in shapes), tuple(m for _, m in shapes))
    at_once = takes_any_rows(model.device, model.dtype)
    step = PackedStep(
        x=torch.cat([requests[i].x[0] for i, _ in order]),
        modulation=torch.stack([r.modulation for r in requests]),
        which=_times_of(requests, order) if len(requests) > 1 else None,
        rope=RopeTable(
            torch.cat([requests[i].rope.cos for i, _ in order]),
            torch.cat([requests[i].rope.sin for i, _ in order]),
        ),
        contexts=tuple(tuple(context[layer] for context in contexts) for layer in layers),
        packing=packing,
        offsets=packing.offsets(model.device) if at_once else None,
    )
    assert all(r.model is first.model for r in requests)
    return step, order


def _shape(requests: Sequence[StepRequest], row: tuple[int, int]) -> tuple[int, int]:
    """Queries and keys of a row."""
    own = requests[row[0]].x.shape[1]
    return own, own + requests[row[0]].contexts[row[1]].keys


def _times_of(requests: Sequence[StepRequest], order: Sequence[tuple[int, int]]) -> Tensor:
    which = [i for i, _ in order for _ in range(requests[i].x.shape[1])]
    return torch.tensor(which).to(requests[0].x.device, non_blocking=True)
