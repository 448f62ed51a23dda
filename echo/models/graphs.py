"""CUDA graphs of the pieces of small passes, where attention cannot be recorded with them.

That is so in 32 bits and on GPUs before Ampere: there each shape of rows has a call of its own.

A graph is recorded for each of some numbers of latents; a pass takes the next larger one and
leaves the rest of its rows idle. All of them read and write the same buffers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

from echo.models.dit import EchoDiT, PackedStep
from echo.models.passes import Flow, Heads, Passes, Pieces, attend_along
from echo.models.recorder import CudaRecorder, Recorder, Replay, told_if_it_fails
from echo.models.step_buffers import MOST_TIMES, StepBuffers

# Latents of all rows. A listener alone has 32 and 96 in the first block of the preset default,
# 128 and 384 in the second; beyond the largest the kernels take longer than their launches.
SIZES = (32, 64, 96, 128, 160, 192, 256, 320, 384, 448, 512, 640, 768, 1024)


class GraphedPasses:
    """Passes by graphs where there is one that fits, else by ``others``."""

    def __init__(self, others: Passes, sizes: Sequence[int] = SIZES) -> None:
        """What is recorded are the pieces of ``others``, for these numbers of latents."""
        self._others = others
        self._sizes = sorted(sizes)
        self._graphs: tuple[_Graphs, ...] = ()  # the smallest first

    @property
    def pieces(self) -> Pieces:
        return self._others.pieces

    @property
    def recorded(self) -> bool:
        """Whether there are graphs."""
        return bool(self._graphs)

    def velocity(self, model: EchoDiT, step: PackedStep) -> Tensor:
        if len(step.modulation) <= MOST_TIMES:
            for graphs in self._graphs:
                if len(step.x) <= graphs.latents:
                    return attend_along(_GraphedPass(graphs, step), step, len(model.blocks))
        return self._others.velocity(model, step)

    def warm_up(self, model: EchoDiT, record: Recorder | None = None) -> None:
        """Record all graphs; if that fails, say so once and go on without any."""
        self._others.warm_up(model)
        made: list[_Graphs] = []
        with told_if_it_fails("the model runs"):
            record = record or CudaRecorder(model.device)
            buffers = _Buffers.of(model, self._sizes[-1])
            # The largest first: what it works in then serves all others.
            for latents in tqdm(self._sizes[::-1], desc="recording CUDA graphs", disable=None):
                made.append(_record(model, self.pieces, buffers.first(latents), record))
            self._graphs = tuple(reversed(made))


@dataclass(frozen=True)
class _Buffers:
    """What the graphs read and write; shapes as in ``passes``."""

    step: StepBuffers
    attended: Tensor
    flow: Flow

    @classmethod
    def of(cls, model: EchoDiT, latents: int) -> _Buffers:
        c = model.config
        heads = (latents, c.num_heads, c.model_size // c.num_heads)
        make = partial(torch.zeros, dtype=model.dtype, device=model.device)
        q, k, v, attended = (make(heads) for _ in range(4))
        h, gate = (make((latents, c.model_size)) for _ in range(2))
        return cls(StepBuffers.of(model, latents), attended, (h, q, k, v, gate))

    def first(self, latents: int) -> _Buffers:
        """Views of the first ``latents``."""
        h, q, k, v, gate = (each[:latents] for each in self.flow)
        return _Buffers(self.step.first(latents), self.attended[:latents], (h, q, k, v, gate))


@dataclass(frozen=True)
class _Graphs:
    """The graphs for one number of latents."""

    buffers: _Buffers
    enter: Replay
    between: tuple[Replay, ...]  # by layer
    leave: Replay

    @property
    def latents(self) -> int:
        return len(self.buffers.attended)


class _GraphedPass:
    def __init__(self, graphs: _Graphs, step: PackedStep) -> None:
        self._graphs = graphs
        self._count = len(step.x)
        graphs.buffers.step.fill(step)
        graphs.buffers.step.place(step)

    def enter(self) -> Heads:
        self._graphs.enter()
        return self._heads()

    def between(self, layer: int, attended: Tensor) -> Heads:
        self._graphs.buffers.attended[: self._count].copy_(attended)
        self._graphs.between[layer]()
        return self._heads()

    def leave(self, attended: Tensor) -> Tensor:
        self._graphs.buffers.attended[: self._count].copy_(attended)
        self._graphs.leave()
        return self._graphs.buffers.step.velocity[: self._count].clone()

    def _heads(self) -> Heads:
        _, q, k, v, _ = self._graphs.buffers.flow
        return q[: self._count], k[: self._count], v[: self._count]


def _record(model: EchoDiT, pieces: Pieces, b: _Buffers, record: Recorder) -> _Graphs:
    h, *_, gate = b.flow
    step, modulation = b.step, b.step.modulation
    places = step.which, step.cos, step.sin

    def keep(flow: Flow) -> None:
        for buffer, new in zip(b.flow, flow, strict=True):
            buffer.copy_(new)

    def enter() -> None:
        keep(pieces.enter(model, step.x, modulation[:, 0], *places))

    def between(layer: int) -> None:
        blocks, both = model.blocks, (modulation[:, layer], modulation[:, layer + 1])
        inputs = (h, gate, b.attended, *both, *places)
        keep(pieces.between(blocks[layer], blocks[layer + 1], *inputs))

    def leave() -> None:
        velocity = pieces.leave(model, h, gate, b.attended, modulation[:, -1], step.which)
        step.velocity.copy_(velocity)

    layers = range(len(model.blocks) - 1)
    middle = tuple(record(partial(between, layer)) for layer in layers)
    return _Graphs(b, record(enter), middle, record(leave))
