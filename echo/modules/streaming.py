"""Streaming state: what a causal module must remember between two calls.

A state is made by the module's ``init_state``, passed to ``forward`` and advanced in place.
``clone`` gives an independent copy, so that a block can be tried again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor


class State(Protocol):
    """Anything that can be copied."""

    def clone(self: S) -> S: ...


S = TypeVar("S", bound="State")


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
    """The last window of keys (with RoPE) and values, [B, n, H, d], and the next position."""

    keys: Tensor
    values: Tensor
    position: int

    def clone(self) -> AttentionState:
        return AttentionState(self.keys.clone(), self.values.clone(), self.position)


@dataclass
class SequenceState:
    """States of modules that run one after the other."""

    states: list[State]

    def clone(self) -> SequenceState:
        return SequenceState([state.clone() for state in self.states])
