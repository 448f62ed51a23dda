"""CUDA graphs of whole passes: a step is one launch, whatever the company.

A pass of few latents takes its time launching kernels, several hundred of them. What differs from
step to step (latents, times) and from company to company (how long the rows are, which keys they
see) lies in buffers that the graph reads, so a graph serves all passes of up to so many latents, as
far as there is room for their keys.
The rows' contexts are put into place when the company changes and stay there for its steps.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor
from tqdm import tqdm

from echo.models.dit import EchoDiT, PackedRow, PackedStep
from echo.models.passes import Passes, Pieces
from echo.models.recorder import CudaRecorder, Recorder, Replay, told_if_it_fails
from echo.models.step_buffers import MOST_TIMES, StepBuffers
from echo.modules.attention import Offsets, attend_any_rows
from echo.spec import MAX_LATENTS

# Latents of all rows. A listener alone has 96 and 32 in the first block of the preset default,
# then 384 and 128, 1440 and 480; a whole generation has 1920 and 640. Beyond, a pass takes longer
# than its launches.
SIZES = (32, 64, 96, 128, 192, 256, 384, 480, 640, 768, 1024, 1440, 1920)
# Keys of all rows beside their own: at least for a whole generation, else for a company of those
# who begin, with voices of 10 s to 30 s and texts of some seconds.
CONTEXT_KEYS = 1152, 1.6  # at least; for each latent of the largest graph
LATENTS_PER_ROW = 32  # at least, on average; for shorter rows a larger graph is taken
MOST_ROWS = 32  # each takes some time of every attention, there or not

Attend = Callable[[Tensor, Tensor, Tensor, Offsets], Tensor]


class StepGraphs:
    """Passes by a graph where there is one that fits, else by ``others``."""

    def __init__(
        self,
        others: Passes,
        sizes: Sequence[int] = SIZES,
        context_keys: int | None = None,
        attend: Attend = attend_any_rows,
    ) -> None:
        """What is recorded are the pieces of ``others`` and ``attend``, for so many latents."""
        self._others = others
        self._sizes = sorted(sizes)
        if context_keys is None:
            context_keys = max(CONTEXT_KEYS[0], round(CONTEXT_KEYS[1] * self._sizes[-1]))
        self._most_keys = self._sizes[-1] + context_keys
        self._attend = attend
        self._buffers: _Buffers | None = None
        self._graphs: tuple[_Graph, ...] = ()  # the smallest first
        self._placed: list[_Placed] = []  # what the buffers hold

    @property
    def pieces(self) -> Pieces:
        return self._others.pieces

    @property
    def recorded(self) -> bool:
        """Whether there are graphs."""
        return bool(self._graphs)

    @torch.inference_mode()
    def velocity(self, model: EchoDiT, step: PackedStep) -> Tensor:
        graph = self._fitting(step)
        if graph is None or self._buffers is None:
            return self._others.velocity(model, step)
        placed = [_Placed.of(row) for row in step.rows]
        if placed != self._placed:
            self._placed = []  # in case it fails half way through
            self._buffers.place(step)
            self._placed = placed
        self._buffers.step.fill(step)
        graph.replay()
        return self._buffers.step.velocity[: len(step.x)].clone()

    def warm_up(self, model: EchoDiT, record: Recorder | None = None) -> None:
        """Record all graphs; if that fails, say so once and go on without any."""
        self._others.warm_up(model)
        made: list[_Graph] = []
        with told_if_it_fails("the model runs"):
            record = record or CudaRecorder(model.device)
            buffers = _Buffers.of(model, self._sizes[-1], self._most_keys)
            # The largest first: what it works in then serves all others.
            for latents in tqdm(self._sizes[::-1], desc="recording CUDA graphs", disable=None):
                work = partial(_work, model, self.pieces, self._attend, buffers, latents)
                made.append(_Graph(latents, _rows(latents), record(work)))
            self._buffers, self._graphs = buffers, tuple(reversed(made))

    def _fitting(self, step: PackedStep) -> _Graph | None:
        lengths = step.packing.queries
        fits = (
            len(step.modulation) <= MOST_TIMES
            and max(lengths) <= MAX_LATENTS
            and sum(step.packing.keys) < self._most_keys  # one is left to be written to by nobody
        )
        if not fits:
            return None
        total, rows = len(step.x), len(lengths)
        return next((g for g in self._graphs if total <= g.latents and rows <= g.rows), None)


@dataclass(frozen=True)
class _Graph:
    """For so many latents in so many rows."""

    latents: int
    rows: int
    replay: Replay


@dataclass(frozen=True)
class _Placed:
    """A row as it lies in the buffers; equal to one that lies there in the same way."""

    context: weakref.ref[object]
    angles: int  # where those of its positions begin in the table of all
    latents: int
    time: int

    @classmethod
    def of(cls, row: PackedRow) -> _Placed:
        return cls(weakref.ref(row.context), row.rope.cos.data_ptr(), row.latents, row.time)


@dataclass(frozen=True)
class _Buffers:
    """What the graphs read and write; shapes as in ``passes``."""

    step: StepBuffers
    kv: Tensor  # [L, 2, most keys, H, d], row after row: its own, then its context's
    own: Tensor  # [T], where the keys of each latent go; those of nobody to the last place
    starts: Tensor  # [2, most rows + 1] int32, of the rows' queries and of their keys

    @classmethod
    def of(cls, model: EchoDiT, latents: int, keys: int) -> _Buffers:
        c, device = model.config, model.device
        kv = (c.num_layers, 2, keys, c.num_heads, c.model_size // c.num_heads)
        return cls(
            step=StepBuffers.of(model, latents),
            kv=torch.zeros(kv, dtype=model.dtype, device=device),
            own=torch.zeros(latents, dtype=torch.int64, device=device),
            starts=torch.zeros((2, MOST_ROWS + 1), dtype=torch.int32, device=device),
        )

    def place(self, step: PackedStep) -> None:
        """What stays as long as the company does."""
        self.step.place(step)
        firsts = [0, *accumulate(step.packing.keys)]
        own = torch.full((len(self.own),), self.kv.shape[2] - 1)
        at = 0
        for row, first in zip(step.rows, firsts, strict=False):
            own[at : at + row.latents] = torch.arange(first, first + row.latents)
            at += row.latents
            self._place_context(row, first + row.latents)
        # Rows that are not there are empty: they begin where the last one ends.
        starts = torch.zeros(self.starts.shape, dtype=torch.int32)
        for target, lengths in zip(starts, (step.packing.queries, step.packing.keys), strict=True):
            target[1 : len(lengths) + 1] = torch.tensor(lengths)
        _to_device(own, self.own)
        _to_device(starts.cumsum(1).int(), self.starts)

    def _place_context(self, row: PackedRow, at: int) -> None:
        for part in row.context.parts:
            self.kv[:, :, at : at + part.length].copy_(part.joined[:, :, 0])
            at += part.length


def _work(model: EchoDiT, pieces: Pieces, attend: Attend, b: _Buffers, latents: int) -> None:
    """One pass over the first ``latents``."""
    step, own = b.step.first(latents), b.own[:latents]
    modulation, places = step.modulation, (step.which, step.cos, step.sin)
    starts = b.starts[:, : _rows(latents) + 1]
    offsets = Offsets(starts[0], starts[1], min(latents, MAX_LATENTS), b.kv.shape[2])
    h, q, k, v, gate = pieces.enter(model, step.x, modulation[:, 0], *places)
    last = len(model.blocks) - 1
    for layer, block in enumerate(model.blocks):
        keys, values = b.kv[layer].unbind(0)
        _wide(keys).index_copy_(0, own, _wide(k))
        _wide(values).index_copy_(0, own, _wide(v))
        attended = attend(q, keys, values, offsets)
        if layer < last:
            inputs = (h, gate, attended, modulation[:, layer], modulation[:, layer + 1], *places)
            h, q, k, v, gate = pieces.between(block, model.blocks[layer + 1], *inputs)
    step.velocity.copy_(pieces.leave(model, h, gate, attended, modulation[:, last], step.which))


def _wide(heads: Tensor) -> Tensor:
    """[T, H, d] in words of 8 bytes, if d makes whole ones: copying goes by number, not by size."""
    whole = heads.shape[-1] * heads.element_size() % 8 == 0
    return heads.view(torch.int64) if whole else heads


def _rows(latents: int) -> int:
    """That a graph of so many latents can have."""
    return min(MOST_ROWS, max(3, latents // LATENTS_PER_ROW))


def _to_device(made: Tensor, target: Tensor) -> None:
    made = made.pin_memory() if target.device.type == "cuda" else made
    target.copy_(made, non_blocking=True)
