"""One block of latents, Euler step by Euler step: the engine's path.

The same mathematics as the plain path (``echo.inference``), with less work: each guidance pass
carries exactly the keys it sees, what depends on t alone comes from a table, and steps of several
generations may share a pass. The tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from echo.config.schema import SamplerConfig
from echo.models.dit import EchoDiT
from echo.models.layer_kv import LayerKV, RowContext, row_context
from echo.sampling.packing import StepRequest
from echo.sampling.schedule import StepTables, crosses, is_guided, rescale_score


@dataclass(frozen=True)
class BlockShape:
    """Length, steps and noise of one block."""

    size: int  # latents
    num_steps: int
    init_scale: float
    truncation_factor: float | None


@dataclass(frozen=True)
class Conditions:
    """What a block is conditioned on, each of a single sample.

    ``prefix``: of the ``start`` latents before the block, from ``EchoDiT.extend_prefix``.
    """

    text: LayerKV
    speaker: LayerKV | None  # None: no reference voice
    prefix: LayerKV | None = None
    start: int = 0


def draw_noise(
    generator: torch.Generator, size: int, latent_size: int, truncation: float | None
) -> Tensor:
    """[1, size, 80] float32 on the generator's device, times the truncation factor if given."""
    noise = torch.randn((1, size, latent_size), generator=generator, device=generator.device)
    return noise if truncation is None else noise * truncation


def sample_block(
    model: EchoDiT,
    tables: StepTables,
    conditions: Conditions,
    noise: Tensor,
    shape: BlockShape,
    settings: SamplerConfig,
) -> Generator[StepRequest, Tensor, Tensor]:
    """Denoise ``noise`` [1, size, 80]: yields each step, is sent its velocities, returns the block.

    Velocities are [passes, size, 80] float32, see :func:`echo.sampling.packing.velocities`.

    Returns:
        [1, size, 80] float32 latents, on the device of ``noise``.
    """
    table = tables.get(shape.num_steps, shape.init_scale)
    rope = tables.rope(conditions.start, shape.size)
    layers = len(model.blocks)
    forced = settings.speaker_kv_scale is not None and conditions.speaker is not None
    speaker = conditions.speaker
    if forced:
        speaker = scale_speaker(conditions.speaker, settings)
    passes = _guided_passes(layers, conditions, speaker)
    x = noise
    for i in range(shape.num_steps):
        t, t_next = table.times[i], table.times[i + 1]
        guided = is_guided(t, settings.cfg_min_t, settings.cfg_max_t)
        contexts = passes if guided else passes[:1]
        rows = yield StepRequest(model, x, table.modulations[i], rope, contexts)
        v = _guide(rows, settings)
        v = rescale_score(v, x, t, settings.rescale_k, settings.rescale_sigma)
        x = x + v * (t_next - t)
        if forced and crosses(t, t_next, settings.speaker_kv_min_t):
            passes = _guided_passes(layers, conditions, conditions.speaker)
    return x


def scale_speaker(speaker: LayerKV | None, settings: SamplerConfig) -> LayerKV | None:
    """Forced speaker: a scaled copy of the first layers' keys and values (model.md §5)."""
    if speaker is None or settings.speaker_kv_scale is None:
        return speaker
    return speaker.scaled(settings.speaker_kv_scale, settings.speaker_kv_max_layers)


def _guided_passes(layers: int, c: Conditions, speaker: LayerKV | None) -> tuple[RowContext, ...]:
    """Contexts of the guidance passes; a pass carries no keys of what it must not see."""
    passes = [
        row_context(layers, c.prefix, c.text, speaker),
        row_context(layers, c.prefix, speaker),
    ]
    if speaker is not None:  # without a voice the third pass would be the first again
        passes.append(row_context(layers, c.prefix, c.text))
    return tuple(passes)


def _guide(rows: Tensor, settings: SamplerConfig) -> Tensor:
    """Independent guidance of text and speaker from the rows of one pass, [1, N, 80]."""
    v = rows[:1]
    guided = v
    if rows.shape[0] > 1:
        guided = guided + settings.cfg_scale_text * (v - rows[1:2])
    if rows.shape[0] > 2:
        guided = guided + settings.cfg_scale_speaker * (v - rows[2:3])
    return guided
