"""Streaming state: what a causal module must remember between two calls.

A state is made by the module's ``init_state``, passed to ``forward`` and advanced in place.
``clone`` gives an independent copy, so that a block can be tried again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor


class State(Protocol):
    """Anything that can be copied."""

    def clone(self: S) -> S: ...


S = TypeVar("S", bound="State")
ALIGNMENT = 16  # bytes: what vectorised kernels ask for


@dataclass
class ConvState:
    """The last inputs a causal convolution looks back on: [B, C, n]; zeros at the start."""

    tail: Tensor

    def clone(self) -> ConvState:
        return ConvState(self.tail.clone())

    def extend(self, x: Tensor, *, time_major: bool = False) -> Tensor:
        """``x`` [B, C, T] with what came before it in front; remembers the new tail.

        ``time_major``: both in memory as [B, T, C], as the tail then has to be from the start.
        """
        kept = self.tail.shape[-1]
        if not kept:
            return x
        # Copies, not views: a compiler would take the strides of a view for a new case.
        if time_major:
            rows = torch.cat((self.tail.transpose(1, 2), x.transpose(1, 2)), dim=1)
            tail = rows[:, rows.shape[1] - kept :].clone(memory_format=torch.contiguous_format)
            self.tail = tail.transpose(1, 2)
            return rows.transpose(1, 2)
        x = torch.cat((self.tail, x), dim=-1)
        self.tail = x[..., x.shape[-1] - kept :].clone(memory_format=torch.contiguous_format)
        return x


@dataclass
class AttentionState:
    """The last keys (with RoPE) and values of a window, [B, n, H, d], the newest last."""

    keys: Tensor
    values: Tensor

    def clone(self) -> AttentionState:
        return AttentionState(self.keys.clone(), self.values.clone())


@dataclass
class TransformerState:
    """Of a windowed transformer: its layers, and the position that comes next.

    ``position`` [1] int64 is on the device, as what is recorded there cannot ask the host; so are
    keys and values as long at the start as later, and what lies before position 0 is not seen.
    """

    position: Tensor
    layers: list[AttentionState]

    def clone(self) -> TransformerState:
        return TransformerState(self.position.clone(), [layer.clone() for layer in self.layers])


@dataclass
class SequenceState:
    """States of modules that run one after the other."""

    states: list[State]

    def clone(self) -> SequenceState:
        return SequenceState([state.clone() for state in self.states])


@dataclass
class FlatState:
    """A whole state as one buffer of bytes, which is copied at once."""

    buffer: Tensor

    def clone(self) -> FlatState:
        return FlatState(self.buffer.clone())


def tensors_of(state: object) -> list[Tensor]:
    """All that ``state`` remembers, always in the same order."""
    return [getattr(owner, name) for owner, name in _slots(state)]


def set_tensors(state: object, tensors: list[Tensor]) -> None:
    """Give ``state`` what :func:`tensors_of` lists of one of its kind."""
    for (owner, name), tensor in zip(_slots(state), tensors, strict=True):
        setattr(owner, name, tensor)


def flatten_(state: object) -> Tensor:
    """Move what ``state`` remembers into one new buffer of bytes, of which it then holds views."""
    tensors = tensors_of(state)
    sizes = [-(-tensor.nbytes // ALIGNMENT) * ALIGNMENT for tensor in tensors]
    buffer = torch.zeros(sum(sizes), dtype=torch.uint8, device=tensors[0].device)
    views = []
    for tensor, part in zip(tensors, buffer.split(sizes), strict=True):
        typed = part[: tensor.nbytes].view(tensor.dtype)
        # With its own strides: to a compiler and to kernels, others would be another case.
        views.append(typed.as_strided(tensor.shape, tensor.stride()).copy_(tensor))
    set_tensors(state, views)
    return buffer


def _slots(state: object) -> Iterator[tuple[object, str]]:
    """Where ``state`` holds tensors: the object and the name of its field."""
    if isinstance(state, list):
        for each in state:
            yield from _slots(each)
    elif is_dataclass(state):
        for field in fields(state):
            value = getattr(state, field.name)
            if isinstance(value, Tensor):
                yield state, field.name
            else:
                yield from _slots(value)
