"""Networks that take a set time and make nothing: the engine's queues and threads, alone.

On a machine that other programs use, too, a pass takes now this, now that; a pause does not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from echo.config import EchoConfig, PresetConfig
from echo.engine.components import Components
from echo.models.codec import DecoderState
from echo.models.dit import PackedStep


@dataclass(frozen=True)
class Pace:
    """Seconds of a pass and of a decoded piece, and for each latent in them."""

    step_s: float = 0.020
    step_latent_s: float = 50e-6
    codec_s: float = 0.010
    codec_latent_s: float = 0.5e-3


PRESET = PresetConfig("paced", (32, 64, 64), (8, 10, 15), {})  # 7.4 s, whatever the text


def paced(components: Components, pace: Pace) -> Components:
    """``components``, changed in place: velocities are zero and sound is silence, after a pause."""
    hop = components.codec.config.hop

    def velocity(step: PackedStep) -> Tensor:
        time.sleep(pace.step_s + len(step.x) * pace.step_latent_s)
        return torch.zeros_like(step.x, dtype=torch.float32)

    def decode(z_q: Tensor, state: DecoderState) -> Tensor:
        latents = z_q.shape[-1]
        time.sleep(pace.codec_s + latents * pace.codec_latent_s)
        return torch.zeros(1, 1, latents * hop)

    components.model.velocity_packed = velocity  # type: ignore[method-assign]
    components.codec.decode = decode  # type: ignore[method-assign, assignment]
    return components


def in_blocks(config: EchoConfig) -> EchoConfig:
    """``config`` with :data:`PRESET`, and texts that are one chunk."""
    whole = replace(config.chunking, enabled=False)
    return replace(config, preset=PRESET, chunking=whole)
