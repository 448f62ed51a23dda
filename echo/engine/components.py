"""The networks an engine works with, loaded as the configuration says."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from echo.config.schema import EchoConfig, ModelConfig
from echo.engine.lane import Lane
from echo.models.codec import S1DAC
from echo.models.devices import parse_dtype, pick_device
from echo.models.dit import EchoDiT
from echo.models.load import load_codec, load_dit, load_pca
from echo.models.pca import PCAState
from echo.modules.fusing import fuse_
from echo.sampling.schedule import StepTables


@dataclass(frozen=True)
class Components:
    """Weights on their devices.

    ``first_block``: another DiT for the first block of a stream. ``lane``: where the codec decodes.
    """

    model: EchoDiT
    first_block: EchoDiT | None
    codec: S1DAC
    pca: PCAState
    tables: dict[EchoDiT, StepTables]
    lane: Lane

    @property
    def models(self) -> tuple[EchoDiT, ...]:
        return tuple(self.tables)

    @classmethod
    def from_parts(
        cls,
        model: EchoDiT,
        codec: S1DAC,
        pca: PCAState,
        first_block: EchoDiT | None = None,
    ) -> Components:
        """Of networks that are already there; packs the projections of the DiTs, in place."""
        models = [model] if first_block is None else [model, first_block]
        for each in models:
            fuse_(each)
        tables = {m: StepTables(m) for m in models}
        return cls(model, first_block, codec, pca, tables, Lane.beside(codec.device))


def load_components(config: EchoConfig) -> Components:
    """Load what ``config.model`` names.

    Raises:
        CheckpointError: weights that are not there, not complete or of another model.
        ConfigError: a device or number format this machine does not have.
    """
    m = config.model
    lora_in_front = m.lora.repo is not None and m.lora.first_block
    model = _load_dit(m, with_lora=not lora_in_front)
    first_block = _load_dit(m, with_lora=True) if lora_in_front else None
    codec_device = pick_device(m.codec_device)
    codec = load_codec(
        m.codec_repo,
        device=codec_device,
        dtype=parse_dtype(m.codec_dtype),
        weights=m.weights,
        random_seed=m.random_seed,
        encoder_device=config.voices.encode_device,
    )
    pca = load_pca(
        m.pca_repo,
        device=codec_device,
        weights=m.weights,
        random_seed=m.random_seed,
        codec=codec.config,
        dit=model.config,
    )
    return Components.from_parts(model, codec, pca, first_block)


def _load_dit(m: ModelConfig, *, with_lora: bool) -> EchoDiT:
    return load_dit(
        m.repo,
        device=pick_device(m.device),
        dtype=parse_dtype(m.dtype),
        weights=m.weights,
        random_seed=m.random_seed,
        lora=m.lora if with_lora and m.lora.repo else None,
        quantize=m.quantize,
        fuse=True,
    )


def parameter_count(module: torch.nn.Module) -> int:
    """Weights in ``module``."""
    return sum(p.numel() for p in module.parameters())
