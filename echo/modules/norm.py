"""RMS normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def rms_normalize(x: Tensor, eps: float) -> Tensor:
    """``x`` over the root of its mean square along the last axis; float32 whatever came in."""
    x = x.float()
    return x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + eps)


class RMSNorm(nn.Module):
    """RMS norm over the last axis, computed in float32 with the weight, then cast back.

    ``shape`` is (D,) for a token norm or (H, d) for a norm per attention head.
    """

    def __init__(self, shape: int | tuple[int, ...], eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return (rms_normalize(x, self.eps) * self.weight).to(x.dtype)


class CastFirstRMSNorm(RMSNorm):
    """The codec's variant: normalised in float32, cast back, then times the weight."""

    def forward(self, x: Tensor) -> Tensor:
        return rms_normalize(x, self.eps).to(x.dtype) * self.weight
