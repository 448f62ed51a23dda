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
from echo.modules.streaming import AttentionState, TransformerState

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

    def init_state(self, batch: int, like: Tensor, past: int) -> AttentionState:
        """Room for ``past`` keys; ``like`` gives device and dtype."""
        keys, values = (like.new_zeros(batch, past, self.heads, self.head_size) for _ in range(2))
        return AttentionState(keys, values)

    def forward(self, x: Tensor, rope: RopeTable, mask: Tensor, state: AttentionState) -> Tensor:
        """``x`` [B, n, D]; ``rope`` for its positions, ``mask`` [n, m] over past and new keys."""
        qkv = self.wqkv(x).unflatten(-1, (3, self.heads, self.head_size))
        q, k, v = qkv.unbind(dim=2)
        q, k = apply_rope(q, rope), apply_rope(k, rope)
        keys, values = torch.cat((state.keys, k), dim=1), torch.cat((state.values, v), dim=1)
        out = attend(q, keys, values, mask)
        state.keys, state.values = self._kept(keys), self._kept(values)
        return self.wo(out.flatten(-2))

    def _kept(self, joined: Tensor) -> Tensor:
        start = max(0, joined.shape[1] - (self.window - 1))
        return joined[:, start:].clone(memory_format=torch.contiguous_format)


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

    def forward(self, x: Tensor, rope: RopeTable, mask: Tensor, state: AttentionState) -> Tensor:
        attended = self.attention(self.attention_norm(x), rope, mask, state)
        x = x + self.attention_layer_scale(attended)
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

    def init_state(self, batch: int, like: Tensor) -> TransformerState:
        """Before the first position; ``like`` gives device and dtype."""
        return self._state(batch, like, self.window - 1)

    def forward(self, x: Tensor, state: TransformerState | None = None) -> Tensor:
        """Any length: queries go in pieces of a few windows, so memory stays linear in T."""
        # Without a state there is nothing yet to attend to: no room for it either.
        state = self._state(x.shape[0], x, 0) if state is None else state
        pieces = x.transpose(1, 2).split(max(4 * self.window, 256), dim=1)
        return torch.cat([self._piece(piece, state) for piece in pieces], dim=1).transpose(1, 2)

    def _state(self, batch: int, like: Tensor, past: int) -> TransformerState:
        position = torch.zeros(1, dtype=torch.int64, device=like.device)
        layers = [layer.attention.init_state(batch, like, past) for layer in self.layers]
        return TransformerState(position, layers)

    def _piece(self, x: Tensor, state: TransformerState) -> Tensor:
        new, past = x.shape[1], state.layers[0].keys.shape[1] if state.layers else 0
        keys = state.position + torch.arange(-past, new, device=x.device)  # their positions
        queries = keys[past:]
        rope = rope_table(queries, self.head_size, rounded_to=torch.bfloat16)
        first = (queries - (self.window - 1)).clamp_min(0)  # that is seen
        mask = (keys <= queries[:, None]) & (keys >= first[:, None])
        for layer, layer_state in zip(self.layers, state.layers, strict=True):
            x = layer(x, rope, mask, layer_state)
        state.position = state.position + new
        return self.norm(x)
