"""Pre-norm transformer encoders of text (bytes) and of latents (patches of a voice or prefix)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from echo.modules.attention import EncoderAttention
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
        batch, length, _ = latent.shape
        patches = latent.reshape(batch, length // self.patch, -1)
        x = self.in_proj(patches) / PATCH_SCALE
        rope = rope_table(torch.arange(patches.shape[1], device=latent.device), self.head_size)
        for block in self.blocks:
            x = block(x, rope)
        return x
