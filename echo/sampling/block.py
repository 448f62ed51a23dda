"""One block of latents, Euler step by Euler step: the engine's path.

The same mathematics as the plain path (``echo.inference``), with less work: each guidance pass
carries exactly the keys it sees, what depends on t alone comes from a table, and the prefix is
encoded only as far as it goes. The tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from echo.config.schema import SamplerConfig
from echo.models.dit import EchoDiT, LayerKV
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
    """What a generation is conditioned on: keys and values per layer; None: no reference voice."""

    text: LayerKV
    speaker: LayerKV | None


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
    prefix: Tensor | None,
    noise: Tensor,
    shape: BlockShape,
    settings: SamplerConfig,
) -> Generator[None, None, Tensor]:
    """Denoise ``noise`` [1, size, 80]; yields after every step, returns the block.

    Args:
        prefix: [1, n, 80] latents generated or given before this block, or None.

    Returns:
        [1, size, 80] float32 latents, on the device of ``noise``.
    """
    table = tables.get(shape.num_steps, shape.init_scale)
    start = 0 if prefix is None else prefix.shape[1]
    rope = model.rope(torch.arange(start, start + shape.size, device=noise.device))
    prefix_kv = _encode_prefix(model, prefix)
    forced = settings.speaker_kv_scale is not None and conditions.speaker is not None
    speaker = conditions.speaker
    if forced:
        speaker = scale_speaker(conditions.speaker, settings)
    branches = _Branches(prefix_kv, conditions.text, speaker)
    x = noise
    for i, condition in enumerate(table.conditions):
        t, t_next = table.times[i], table.times[i + 1]
        guided = is_guided(t, settings.cfg_min_t, settings.cfg_max_t)
        contexts = branches.guided if guided else branches.plain
        rows = model.velocity_rows(x.expand(len(contexts), -1, -1), condition, rope, contexts)
        v = _guide(rows, settings)
        v = rescale_score(v, x, t, settings.rescale_k, settings.rescale_sigma)
        x = x + v * (t_next - t)
        if forced and crosses(t, t_next, settings.speaker_kv_min_t):
            branches = _Branches(prefix_kv, conditions.text, conditions.speaker)
        yield
    return x


def scale_speaker(speaker: LayerKV | None, settings: SamplerConfig) -> LayerKV | None:
    """Forced speaker: a scaled copy of the first layers' keys and values (model.md §5)."""
    scale = settings.speaker_kv_scale
    if speaker is None or scale is None:
        return speaker
    layers = settings.speaker_kv_max_layers
    layers = len(speaker) if layers is None else layers
    return tuple((k * scale, v * scale) for k, v in speaker[:layers]) + speaker[layers:]


class _Branches:
    """Contexts of the guidance passes; a pass carries no keys of what it must not see."""

    def __init__(self, prefix: LayerKV | None, text: LayerKV, speaker: LayerKV | None) -> None:
        full = _join(prefix, text, speaker)
        self.plain = [full]
        self.guided = [full, _join(prefix, None, speaker, like=text)]
        if speaker is not None:  # without a voice the third pass would be the first again
            self.guided.append(_join(prefix, text, None))


def _join(*parts: LayerKV | None, like: LayerKV | None = None) -> LayerKV:
    present = [part for part in parts if part is not None]
    if not present:
        assert like is not None
        return tuple((k[:, :0], v[:, :0]) for k, v in like)
    if len(present) == 1:
        return present[0]
    return tuple(
        (torch.cat([k for k, _ in layer], dim=1), torch.cat([v for _, v in layer], dim=1))
        for layer in zip(*present, strict=True)
    )


def _encode_prefix(model: EchoDiT, prefix: Tensor | None) -> LayerKV | None:
    """Only the patches that begin before the block are seen, and the encoder is causal, so
    zeros that stand for what comes later need not be encoded."""
    if prefix is None or prefix.shape[1] == 0:
        return None
    return model.encode_prefix(F.pad(prefix, (0, 0, 0, -prefix.shape[1] % model.patch)))


def _guide(rows: Tensor, settings: SamplerConfig) -> Tensor:
    """Independent guidance of text and speaker from the rows of one pass, [1, N, 80]."""
    v = rows[:1]
    guided = v
    if rows.shape[0] > 1:
        guided = guided + settings.cfg_scale_text * (v - rows[1:2])
    if rows.shape[0] > 2:
        guided = guided + settings.cfg_scale_speaker * (v - rows[2:3])
    return guided
