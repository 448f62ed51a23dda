"""Low-rank adaptive layer norm and the timestep embedding it is driven by."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echo.modules.norm import rms_normalize


class Modulation(NamedTuple):
    """Shift, scale and (already tanh-ed) gate of one branch, each [B, 1, D].

    They depend on t alone, so one set serves every sample of a step.
    """

    shift: Tensor
    scale: Tensor
    gate: Tensor


class LowRankAdaLN(nn.Module):
    """Shift, scale and gate as low-rank corrections of the shared condition (model.md §4)."""

    def __init__(self, width: int, rank: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.shift_down = nn.Linear(width, rank, bias=False)
        self.scale_down = nn.Linear(width, rank, bias=False)
        self.gate_down = nn.Linear(width, rank, bias=False)
        self.shift_up = nn.Linear(rank, width)
        self.scale_up = nn.Linear(rank, width)
        self.gate_up = nn.Linear(rank, width)

    def modulation(self, condition: Tensor) -> Modulation:
        """``condition`` [B, 1, 3 D] to shift, scale, gate."""
        shift, scale, gate = condition.chunk(3, dim=-1)
        shift = self.shift_up(self.shift_down(F.silu(shift))) + shift
        scale = self.scale_up(self.scale_down(F.silu(scale))) + scale
        gate = self.gate_up(self.gate_down(F.silu(gate))) + gate
        return Modulation(shift, scale, torch.tanh(gate))

    def forward(self, x: Tensor, modulation: Modulation) -> Tensor:
        """Normalised, scaled and shifted ``x`` [B, N, D], in its dtype."""
        y = rms_normalize(x, self.eps)
        return (y * (1 + modulation.scale) + modulation.shift).to(x.dtype)


def timestep_embedding(t: Tensor, size: int) -> Tensor:
    """cos and sin features [B, size] of ``t`` [B], in its dtype; computed in float32."""
    half = size // 2
    frequencies = 1000 * 10_000 ** (-torch.arange(half, device=t.device).float() / half)
    angles = t.float()[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1).to(t.dtype)
