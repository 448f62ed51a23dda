"""Pre-norm transformer encoders of text (bytes) and of latents (patches of a voice or prefix)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from echo.modules.attention import EncoderAttention, KeyValue
from echo.modules.mlp import SwiGLU
from echo.modules.norm import RMSNorm
from echo.modules.rope import RopeTable, rope_table

PATCH_SCALE = 6.0  # in_proj of latents is divided by this (model.md §3)


class EncoderBlock(nn.Module):
    """``x += attention(norm x); x += mlp(norm x)``."""

    def __init__(self, width: int, heads: int, hidden: int, eps: float, *, causal: bool) -> None:
        super().__init__()
        self.attention = EncoderAttention(width, heads, eps, causal=causal)
        self.mlp = SwiGLU(width, hidden)
        self.attention_norm = RMSNorm(width, eps)
        self.mlp_norm = RMSNorm(width, eps)

    def forward(self, x: Tensor, rope: RopeTable, mask: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rope, mask)
        return x + self.mlp(self.mlp_norm(x))

    def extend(self, x: Tensor, rope: RopeTable, past: KeyValue) -> tuple[Tensor, KeyValue]:
        """Causal: ``x`` continues what left ``past``; also what it leaves itself."""
        y, own = self.attention.extend(self.attention_norm(x), rope, past)
        x = x + y
        return x + self.mlp(self.mlp_norm(x)), own


class TextEncoder(nn.Module):
    """Bytes to [B, L, width]; bidirectional, padding masked."""

    def __init__(
        self, vocabulary: int, width: int, layers: int, heads: int, hidden: int, eps: float
    ) -> None:
        super().__init__()
        self.head_size = width // heads
        self.text_embedding = nn.Embedding(vocabulary, width)
        self.blocks = cast(
            "Sequence[EncoderBlock]",
            nn.ModuleList(
                EncoderBlock(width, heads, hidden, eps, causal=False) for _ in range(layers)
            ),
        )

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """``ids`` [B, L] int; ``mask`` [B, L] bool, True = a real token; None: all are."""
        x = self.text_embedding(ids)
        rope = rope_table(torch.arange(ids.shape[1], device=ids.device), self.head_size)
        for block in self.blocks:
            x = block(x, rope, mask)
        return x


class LatentEncoder(nn.Module):
    """Latents [B, n, 80], n a multiple of the patch, to [B, n / patch, width]; causal."""

    def __init__(
        self,
        latent_size: int,
        patch: int,
        width: int,
        layers: int,
        heads: int,
        hidden: int,
        eps: float,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.head_size = width // heads
        self.in_proj = nn.Linear(latent_size * patch, width)
        self.blocks = cast(
            "Sequence[EncoderBlock]",
            nn.ModuleList(
                EncoderBlock(width, heads, hidden, eps, causal=True) for _ in range(layers)
            ),
        )

    def forward(self, latent: Tensor) -> Tensor:
        x = self._patches(latent)
        rope = rope_table(torch.arange(x.shape[1], device=latent.device), self.head_size)
        for block in self.blocks:
            x = block(x, rope)
        return x

    def extend(
        self, latent: Tensor, past: Sequence[KeyValue] | None
    ) -> tuple[Tensor, tuple[KeyValue, ...]]:
        """What :meth:`forward` gives for ``latent`` [B, n, 80] after the latents of ``past``.

        Args:
            past: keys and values of every layer, of all calls before; None: the start.

        Returns:
            [B, n / patch, width], and keys and values of every layer to put after ``past``.
        """
        x = self._patches(latent)
        if past is None:
            heads = self.blocks[0].attention.heads if self.blocks else 0
            empty = x.new_zeros(x.shape[0], 0, heads, self.head_size)
            past = [(empty, empty)] * len(self.blocks)
        start = past[0][0].shape[1] if past else 0
        positions = torch.arange(start, start + x.shape[1], device=latent.device)
        rope = rope_table(positions, self.head_size)
        added = []
        for block, layer in zip(self.blocks, past, strict=True):
            x, own = block.extend(x, rope, layer)
            added.append(own)
        return x, tuple(added)

    def _patches(self, latent: Tensor) -> Tensor:
        batch, length, _ = latent.shape
        return self.in_proj(latent.reshape(batch, length // self.patch, -1)) / PATCH_SCALE
