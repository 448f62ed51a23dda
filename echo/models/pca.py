"""The linear map between the codec's vectors and the DiT's latents (model.md §7)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PCAState:
    """components [80, 1024], mean [1024], scale: all float32."""

    components: Tensor
    mean: Tensor
    scale: float

    def to_latent(self, z_q: Tensor) -> Tensor:
        """z_q [B, n, 1024] to latents [B, n, 80] float32."""
        return (z_q.float() - self.mean) @ self.components.T * self.scale

    def from_latent(self, latent: Tensor) -> Tensor:
        """Latents [B, n, 80] to z_q [B, n, 1024] float32."""
        return (latent.float() / self.scale) @ self.components + self.mean

    def to(self, device: torch.device | str) -> PCAState:
        return PCAState(self.components.to(device), self.mean.to(device), self.scale)
