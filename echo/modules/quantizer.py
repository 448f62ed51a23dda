"""Residual vector quantisation with factorised, cosine-nearest codebooks (model.md §6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm


class VectorQuantizer(nn.Module):
    """One codebook behind a projection to few dimensions."""

    def __init__(self, width: int, codebook_size: int, codebook_dim: int) -> None:
        super().__init__()
        self.in_proj = weight_norm(nn.Conv1d(width, codebook_dim, 1))
        self.out_proj = weight_norm(nn.Conv1d(codebook_dim, width, 1))
        self.codebook = nn.Embedding(codebook_size, codebook_dim)

    def nearest(self, z: Tensor) -> Tensor:
        """Codes [B, n] int64 of ``z`` [B, width, n]: the largest cosine."""
        projected = F.normalize(self.in_proj(z).transpose(1, 2), dim=-1)
        return (projected @ F.normalize(self.codebook.weight, dim=-1).T).argmax(dim=-1)

    def lookup(self, codes: Tensor) -> Tensor:
        """[B, n] codes to [B, width, n]; the raw code vector, not the normalised one."""
        return self.out_proj(self.codebook(codes).transpose(1, 2))


class ResidualQuantizer(nn.Module):
    """Codebooks that each quantise what the ones before left over."""

    def __init__(self, width: int, codebooks: int, codebook_size: int, codebook_dim: int) -> None:
        super().__init__()
        self.quantizers = cast(
            "Sequence[VectorQuantizer]",
            nn.ModuleList(
                VectorQuantizer(width, codebook_size, codebook_dim) for _ in range(codebooks)
            ),
        )

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``z`` [B, width, n] to (its quantised sum [B, width, n], codes [B, codebooks, n])."""
        total, rest, codes = torch.zeros_like(z), z, []
        for quantizer in self.quantizers:
            codes.append(quantizer.nearest(rest))
            found = quantizer.lookup(codes[-1])
            total, rest = total + found, rest - found
        return total, torch.stack(codes, dim=1)

    def lookup(self, codes: Tensor) -> Tensor:
        """[B, codebooks, n] codes to their sum [B, width, n]."""
        return torch.stack([q.lookup(codes[:, i]) for i, q in enumerate(self.quantizers)]).sum(
            dim=0
        )
