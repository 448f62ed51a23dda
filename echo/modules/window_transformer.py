"""The codec's windowed causal transformer (model.md §6), with exact streaming state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from echo.modules.attention import attend
from echo.modules.mlp import SwiGLU
from echo.modules.norm import CastFirstRMSNorm
from echo.modules.rope import RopeTable, apply_rope, rope_table
from echo.modules.streaming import AttentionState, SequenceState

EPS = 1e-5


class LayerScale(nn.Module):
    """x times gamma, per channel of the last axis."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class WindowAttention(nn.Module):
    """Plain attention; position i sees i - window + 1 ... i."""

    def __init__(self, width: int, heads: int, head_size: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_size = head_size
        self.window = window
        self.wqkv = nn.Linear(width, 3 * heads * head_size, bias=False)
        self.wo = nn.Linear(heads * head_size, width, bias=False)

    def init_state(self, batch: int, like: Tensor) -> AttentionState:
        empty = like.new_zeros(batch, 0, self.heads, self.head_size)
        return AttentionState(empty, empty, 0)

    def forward(self, x: Tensor, rope: RopeTable, state: AttentionState) -> Tensor:
        """``x`` [B, n, D] at ``state.position`` ...; ``rope`` for these n positions."""
        qkv = self.wqkv(x).unflatten(-1, (3, self.heads, self.head_size))
        q, k, v = qkv.unbind(dim=2)
        q, k = apply_rope(q, rope), apply_rope(k, rope)
        past = state.keys.shape[1]
        keys, values = torch.cat((state.keys, k), dim=1), torch.cat((state.values, v), dim=1)
        out = attend(q, keys, values, self._mask(x.shape[1], past, x.device))
        kept = max(0, keys.shape[1] - (self.window - 1))
        state.keys, state.values = keys[:, kept:].clone(), values[:, kept:].clone()
        state.position += x.shape[1]
        return self.wo(out.flatten(-2))

    def _mask(self, new: int, past: int, device: torch.device) -> Tensor:
        query = past + torch.arange(new, device=device)[:, None]
        key = torch.arange(past + new, device=device)[None, :]
        return (key <= query) & (key > query - self.window)


class WindowBlock(nn.Module):
    """Pre-norm block with layer scale on both branches."""

    def __init__(self, width: int, heads: int, head_size: int, hidden: int, window: int) -> None:
        super().__init__()
        self.attention = WindowAttention(width, heads, head_size, window)
        self.feed_forward = SwiGLU(width, hidden)
        self.attention_norm = CastFirstRMSNorm(width, EPS)
        self.ffn_norm = CastFirstRMSNorm(width, EPS)
        self.attention_layer_scale = LayerScale(width)
        self.ffn_layer_scale = LayerScale(width)

    def forward(self, x: Tensor, rope: RopeTable, state: AttentionState) -> Tensor:
        x = x + self.attention_layer_scale(self.attention(self.attention_norm(x), rope, state))
        return x + self.ffn_layer_scale(self.feed_forward(self.ffn_norm(x)))


class WindowTransformer(nn.Module):
    """A stack of blocks over [B, C, T] (channels first, as the convolutions around it)."""

    def __init__(
        self, width: int, layers: int, heads: int, head_size: int, hidden: int, window: int
    ) -> None:
        super().__init__()
        self.head_size = head_size
        self.window = window
        self.layers = cast(
            "Sequence[WindowBlock]",
            nn.ModuleList(
                WindowBlock(width, heads, head_size, hidden, window) for _ in range(layers)
            ),
        )
        self.norm = CastFirstRMSNorm(width, EPS)

    def init_state(self, batch: int, like: Tensor) -> SequenceState:
        return SequenceState([layer.attention.init_state(batch, like) for layer in self.layers])

    def forward(self, x: Tensor, state: SequenceState | None = None) -> Tensor:
        """Any length: queries go in pieces of a few windows, so memory stays linear in T."""
        state = self.init_state(x.shape[0], x) if state is None else state
        pieces = x.transpose(1, 2).split(max(4 * self.window, 256), dim=1)
        return torch.cat([self._piece(piece, state) for piece in pieces], dim=1).transpose(1, 2)

    def _piece(self, x: Tensor, state: SequenceState) -> Tensor:
        states = cast("list[AttentionState]", state.states)
        start = states[0].position if states else 0
        positions = torch.arange(start, start + x.shape[1], device=x.device)
        rope = rope_table(positions, self.head_size, rounded_to=torch.bfloat16)
        for layer, layer_state in zip(self.layers, states, strict=True):
            x = layer(x, rope, layer_state)
        return self.norm(x)
