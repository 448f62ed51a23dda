"""Rotary position embedding on adjacent pairs (x0, x1), (x2, x3), ... (arXiv 2104.09864)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ROPE_BASE = 10_000.0


@dataclass(frozen=True)
class RopeTable:
    """cos and sin of the angles, each [n, d/2] float32."""

    cos: Tensor
    sin: Tensor


def rope_table(
    positions: Tensor, head_size: int, *, rounded_to: torch.dtype | None = None
) -> RopeTable:
    """Angles of ``positions`` [n] for heads of ``head_size``; pair i turns by p * base^(-2i/d).

    ``rounded_to``: the S1-DAC rounds cos and sin to bfloat16 (model.md §6).
    """
    exponent = torch.arange(0, head_size, 2, device=positions.device).float() / head_size
    angles = positions.float()[:, None] * (1.0 / ROPE_BASE**exponent)
    cos, sin = angles.cos(), angles.sin()
    if rounded_to is not None:
        cos, sin = cos.to(rounded_to).float(), sin.to(rounded_to).float()
    return RopeTable(cos, sin)


def apply_rope(x: Tensor, table: RopeTable) -> Tensor:
    """Turn ``x`` [B, n, H, d] by ``table``; float32 inside, the dtype of ``x`` outside."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = table.cos[:, None, :], table.sin[:, None, :]
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).to(x.dtype)


def apply_rope_to_half_the_heads(x: Tensor, table: RopeTable) -> Tensor:
    """Turn the first half of the heads of ``x`` [B, n, H, d]; the second half has no positions."""
    first, second = x.chunk(2, dim=-2)
    return torch.cat((apply_rope(first, table), second), dim=-2)
