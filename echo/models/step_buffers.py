"""The memory in which recorded passes find their step and leave their answer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from echo.models.dit import EchoDiT, PackedStep

MOST_TIMES = 32  # different times in a recorded pass, i.e. requests that share it


@dataclass(frozen=True)
class StepBuffers:
    """Shapes as in ``passes``; of more latents and times than most steps have."""

    x: Tensor
    modulation: Tensor
    which: Tensor
    cos: Tensor
    sin: Tensor
    velocity: Tensor

    @classmethod
    def of(cls, model: EchoDiT, latents: int) -> StepBuffers:
        c = model.config
        full = partial(torch.zeros, dtype=torch.float32, device=model.device)
        angles = latents, c.model_size // c.num_heads // 2
        times = MOST_TIMES, c.num_layers, 6, c.model_size
        return cls(
            x=full((latents, c.latent_size)),
            modulation=torch.zeros(times, dtype=model.dtype, device=model.device),
            which=torch.zeros(latents, dtype=torch.int64, device=model.device),
            cos=full(angles),
            sin=full(angles),
            velocity=full((latents, c.latent_size)),
        )

    def first(self, latents: int) -> StepBuffers:
        """Views of the first ``latents``."""
        return StepBuffers(
            self.x[:latents],
            self.modulation,
            self.which[:latents],
            self.cos[:latents],
            self.sin[:latents],
            self.velocity[:latents],
        )

    def fill(self, step: PackedStep) -> None:
        """What is new at each step."""
        self.x[: len(step.x)].copy_(step.x)
        self.modulation[: len(step.modulation)].copy_(step.modulation)

    def place(self, step: PackedStep) -> None:
        """What stays as long as the company does."""
        count = len(step.x)
        self.cos[:count].copy_(step.rope.cos)
        self.sin[:count].copy_(step.rope.sin)
        if step.which is None:
            self.which.zero_()
        else:
            self.which[:count].copy_(step.which)
