"""Golden toy networks for tests that need them outside a fixture."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

import parity
from echo.models.codec import S1DAC
from echo.models.dit import EchoDiT

PARITY = Path(__file__).parent / "data" / "parity"


@cache
def golden_codec() -> S1DAC:
    """The toy codec of the golden values; shared, so nobody may change it."""
    return parity.load_toy_codec(PARITY)


@cache
def golden_dit() -> EchoDiT:
    """The toy DiT of the golden values; shared, so nobody may change it."""
    return parity.load_toy_dit(PARITY)


def random_z(codec: S1DAC, length: int, seed: int = 0) -> torch.Tensor:
    """[1, latent_dim, length] float32."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((1, codec.config.latent_dim, length), generator=generator)
