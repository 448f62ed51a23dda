"""Keys and values of all layers in one tensor: what a text, a voice or a prefix is encoded to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import torch
from torch import Tensor

from echo.modules.attention import KeyValue, PackedContext


@dataclass(frozen=True, eq=False)
class LayerKV(Sequence[KeyValue]):
    """A sequence of (keys, values) by layer; immutable, shared by requests.

    In one tensor, as everything that moves all of it is then one operation: on a GPU the launch of
    a small one takes longer than the work.
    """

    joined: Tensor  # [L, 2, B, n, H, d]

    @classmethod
    def of(cls, layers: Sequence[KeyValue]) -> LayerKV:
        """Joins the keys and values of ``layers``, each [B, n, H, d]."""
        return cls(torch.stack([each for layer in layers for each in layer]).unflatten(0, (-1, 2)))

    @cached_property
    def layers(self) -> tuple[KeyValue, ...]:
        """Views, by layer."""
        return tuple((k, v) for k, v in (layer.unbind(0) for layer in self.joined.unbind(0)))

    @property
    def length(self) -> int:
        """Keys in each layer."""
        return self.joined.shape[3]

    @property
    def nbytes(self) -> int:
        """What it takes in memory."""
        return self.joined.numel() * self.joined.element_size()

    def to(self, device: torch.device) -> LayerKV:
        """The same on ``device``."""
        return LayerKV(self.joined.to(device))

    def first(self, length: int) -> LayerKV:
        """The first ``length`` keys; a view."""
        return LayerKV(self.joined[:, :, :, :length])

    def followed_by(self, other: LayerKV) -> LayerKV:
        """Its keys, then those of ``other``."""
        return LayerKV(torch.cat((self.joined, other.joined), dim=3))

    def scaled(self, scale: float, layers: int | None) -> LayerKV:
        """A copy whose first ``layers`` (None: all) are multiplied by ``scale`` (model.md §5)."""
        scaled = self.joined.clone()
        scaled[:layers] *= scale
        return LayerKV(scaled)

    def __len__(self) -> int:
        return self.joined.shape[0]

    @overload
    def __getitem__(self, index: int) -> KeyValue: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[KeyValue, ...]: ...

    def __getitem__(self, index: int | slice) -> KeyValue | tuple[KeyValue, ...]:
        return self.layers[index]


@dataclass(frozen=True, eq=False)
class RowContext:
    """What one guidance pass of a block sees beside its own latents.

    Its parts belong to several requests (a voice, say): nobody holds copies of them.
    """

    parts: tuple[LayerKV, ...]  # each of a single sample
    depth: int  # layers; there may be no parts

    @cached_property
    def keys(self) -> int:
        """Of all parts."""
        return sum(part.length for part in self.parts)

    @cached_property
    def layers(self) -> tuple[PackedContext, ...]:
        """By layer the parts' keys, and their values."""
        return tuple(
            (
                tuple(part[i][0][0] for part in self.parts),
                tuple(part[i][1][0] for part in self.parts),
            )
            for i in range(self.depth)
        )


def row_context(depth: int, *parts: LayerKV | None) -> RowContext:
    """The context of ``parts`` in a model of ``depth`` layers."""
    return RowContext(tuple(part for part in parts if part is not None), depth)
