"""CUDA graphs of the codec's decoder, whose time for short pieces goes into launching kernels.

A graph is recorded for each of some numbers of latents, and any number is a sum of these. All of
them read and write the same buffers: a stream's state is copied there before, and back after.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from echo.models.codec import S1DAC, DecoderParts
from echo.models.recorder import CudaRecorder, Recorder, Replay, told_if_it_fails
from echo.modules.streaming import FlatState, flatten_, set_tensors, tensors_of

# Latents of the graphs, and of a longer one that is given: what that works in stays taken.
SIZES = (1, 2, 4, 8, 16, 32)
LONGEST = 128  # is for the longer blocks: beyond it kernels take far longer than their launches


class RecordedDecoder:
    """Decodes one stream at a time, always on the same CUDA stream, once it is warmed up."""

    def __init__(self, codec: S1DAC, sizes: Sequence[int] = (*SIZES, LONGEST)) -> None:
        """``sizes``: numbers of latents, 1 among them."""
        if 1 not in sizes:
            raise ValueError(f"not every number of latents is a sum of {tuple(sizes)}")
        self._codec = codec
        self._sizes = sorted(set(sizes), reverse=True)
        self._buffers: _Buffers | None = None
        self._graphs: dict[int, _Graph] = {}  # by latents

    @property
    def recorded(self) -> bool:
        """Whether there are graphs."""
        return bool(self._graphs)

    @property
    def piece_latents(self) -> int:
        """The most that one graph decodes."""
        return self._sizes[0]

    @torch.inference_mode()
    def warm_up(self, record: Recorder | None = None) -> None:
        """Record all graphs; if that fails, say so once and go on without any."""
        made: dict[int, _Graph] = {}
        with told_if_it_fails("the codec runs"):
            record = record or CudaRecorder(self._codec.device)
            buffers = _Buffers.of(self._codec, self._sizes[0])
            # The largest first: what it works in then serves all others.
            for latents in tqdm(self._sizes, desc="recording the codec", disable=None):
                made[latents] = _record(self._codec, buffers, latents, record)
            self._buffers, self._graphs = buffers, made

    @torch.inference_mode()
    def init_state(self) -> FlatState:
        """The state before the first vector of a stream."""
        return FlatState(self._ready.start.clone())

    @torch.inference_mode()
    def decode(self, z_q: Tensor, state: FlatState) -> Tensor:
        """z_q [1, latent_dim, n] to audio [1, 1, n * hop], as :meth:`S1DAC.decode` does."""
        buffers = self._ready
        buffers.state.copy_(state.buffer)
        audio = []
        for part in z_q.split(self._cut(z_q.shape[-1]), dim=-1):
            graph = self._graphs[part.shape[-1]]
            graph.z.copy_(part)
            graph.replay()
            audio.append(graph.audio.clone())
        state.buffer.copy_(buffers.state)
        return audio[0] if len(audio) == 1 else torch.cat(audio, dim=-1)

    @property
    def _ready(self) -> _Buffers:
        if self._buffers is None:
            raise RuntimeError("the codec has not been recorded")
        return self._buffers

    def _cut(self, latents: int) -> list[int]:
        """Recorded sizes that add up to ``latents``, the largest first."""
        parts: list[int] = []
        for size in self._sizes:
            count, latents = divmod(latents, size)
            parts += [size] * count
        return parts


@dataclass(frozen=True)
class _Buffers:
    """What the graphs read and write."""

    z: Tensor  # [n, latent_dim]: as the PCA makes it, the copy is a plain one
    audio: Tensor  # [n * hop]
    state: Tensor  # bytes, of a stream
    start: Tensor  # the same at a stream's start; only read
    views: list[Tensor]  # of ``state``
    parts: DecoderParts  # to hold the views

    @classmethod
    def of(cls, codec: S1DAC, latents: int) -> _Buffers:
        c, parts = codec.config, codec.init_parts()
        z = torch.zeros(latents, c.latent_dim, dtype=codec.dtype, device=codec.device)
        audio = torch.zeros(latents * _hop(codec), dtype=codec.dtype, device=codec.device)
        state = flatten_(parts)
        return cls(z, audio, state, state.clone(), tensors_of(parts), parts)


@dataclass(frozen=True)
class _Graph:
    """The graph for one number of latents."""

    z: Tensor  # [1, latent_dim, n]
    audio: Tensor  # [1, 1, n * hop]
    replay: Replay


def _record(codec: S1DAC, b: _Buffers, latents: int, record: Recorder) -> _Graph:
    z, audio = b.z[:latents].T[None], b.audio[: latents * _hop(codec)][None, None]

    def work() -> None:
        audio.copy_(codec.decode_parts(z, b.parts))
        _copy_all_(b.views, tensors_of(b.parts))
        set_tensors(b.parts, b.views)  # decoding has put others in their place

    return _Graph(z, audio, record(work))


def _copy_all_(into: Sequence[Tensor], new: Sequence[Tensor]) -> None:
    """In one launch for each number format."""
    for dtype in {tensor.dtype for tensor in into}:
        pairs = [(a, b) for a, b in zip(into, new, strict=True) if a.dtype == dtype and a.numel()]
        if pairs:
            torch._foreach_copy_([a for a, _ in pairs], [b for _, b in pairs])


def _hop(codec: S1DAC) -> int:
    """Samples that the decoder makes of a latent."""
    return math.prod((*codec.config.decoder_rates, *codec.config.downsample))
