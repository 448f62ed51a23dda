"""The opponent: Echo-TTS served the usual way, as plainly as that is done.

It says what ``echo.inference`` says, with all the work that a straightforward implementation
spends on it: the text padded to its limit, text, voice and prefix encoded for three copies of the
sample, the whole zero-padded prefix encoded for every block (even before the first one), attention
over keys that a mask then hides, a matrix product for each projection, the modulations of every
layer computed in every step, and each block decoded again together with what came before it.
Mathematics: model.md §5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from benchmarks.timing import Stopwatch
from echo import spec
from echo.inference import get_text_input_ids_and_mask
from echo.models.codec import S1DAC
from echo.models.dit import EchoDiT
from echo.models.layer_kv import LayerKV
from echo.models.pca import PCAState
from echo.modules.fusing import FusedProjections
from echo.sampling.schedule import is_guided, times

CONTEXT_LATENTS = 160  # decoded again before each block
COPIES = 3  # with everything, without text, without voice


@dataclass(frozen=True)
class UsualRequest:
    """One generation.

    ``speaker_latent`` [1, S, 80] is the encoded voice, ``speaker_mask`` [1, S] bool; both from
    ``echo.inference.get_speaker_latent_and_mask``.
    """

    text: str
    speaker_latent: Tensor
    speaker_mask: Tensor
    seed: int
    block_sizes: Sequence[int]  # latents
    num_steps: Sequence[int]  # of each block
    cfg_scale_text: float = 3.0
    cfg_scale_speaker: float = 8.0
    cfg_min_t: float = 0.5
    cfg_max_t: float = 1.0
    init_scale: float = spec.INIT_SCALE
    max_text_length: int = spec.MAX_TEXT_TOKENS


@contextmanager
def separate_projections(model: EchoDiT) -> Iterator[None]:
    """A matrix product for each projection, on the same weights; afterwards as it was."""
    modules = [each for each in model.modules() if isinstance(each, FusedProjections)]
    packed = [each.fused for each in modules]
    for each in modules:
        each.fused = None
    try:
        yield
    finally:
        for each, fused in zip(modules, packed, strict=True):
            each.fused = fused


@torch.inference_mode()
def sample_usual(model: EchoDiT, request: UsualRequest, watch: Stopwatch) -> Iterator[Tensor]:
    """Latents [1, planned, 80] float32 after every block, zeros where nothing is generated yet.

    ``watch`` counts the stages text, speaker, prefix and sampling.
    """
    r, device = request, model.device
    with watch.stage("text"):
        ids, mask = get_text_input_ids_and_mask(  # type: ignore[misc]
            [r.text], r.max_text_length, device=device
        )
        text = model.encode_text(_copies(ids), _copies(mask))
    with watch.stage("speaker"):
        speaker = model.encode_speaker(_copies(r.speaker_latent.to(device)))
    speaker_mask = r.speaker_mask.to(device)
    text_masks = torch.cat((mask, torch.zeros_like(mask), mask))
    speaker_masks = torch.cat((speaker_mask, speaker_mask, torch.zeros_like(speaker_mask)))
    planned = sum(r.block_sizes)
    whole = planned + -planned % model.patch
    latents = torch.zeros(1, whole, model.config.latent_size, device=device)
    generator = torch.Generator(device).manual_seed(r.seed)
    start = 0
    for size, steps in zip(r.block_sizes, r.num_steps, strict=True):
        with watch.stage("prefix"):
            prefix = model.encode_prefix(_copies(latents))
        with watch.stage("sampling"):
            x = torch.randn((1, size, latents.shape[2]), generator=generator, device=device)
            for t, t_next in pairwise(times(steps, r.init_scale)):
                guided = is_guided(t, r.cfg_min_t, r.cfg_max_t)
                rows = COPIES if guided else 1
                v = model(
                    x.expand(rows, -1, -1),
                    t.to(device).expand(rows),
                    text=_rows(text, rows),
                    text_mask=text_masks[:rows],
                    speaker=_rows(speaker, rows),
                    speaker_mask=speaker_masks[:rows],
                    prefix=_rows(prefix, rows),
                    start_pos=start,
                )
                if guided:
                    full, no_text, no_speaker = v.split(1)
                    v = (
                        full
                        + r.cfg_scale_text * (full - no_text)
                        + r.cfg_scale_speaker * (full - no_speaker)
                    )
                x = x + v * (t_next - t)
            latents[:, start : start + size] = x
        start += size
        yield latents[:, :planned]


@torch.inference_mode()
def speak_usual(
    model: EchoDiT, codec: S1DAC, pca: PCAState, request: UsualRequest, watch: Stopwatch
) -> Iterator[Tensor]:
    """Audio [T] float32 on the CPU of block after block; ``watch`` counts the codec, too.

    A block is decoded with up to ``CONTEXT_LATENTS`` before it, whose audio is thrown away.
    """
    start = 0
    blocks = sample_usual(model, request, watch)
    for size, latents in zip(request.block_sizes, blocks, strict=True):
        with watch.stage("codec"):
            window = latents[:, max(0, start - CONTEXT_LATENTS) : start + size]
            z_q = pca.from_latent(window.to(codec.device)).transpose(1, 2)
            audio = codec.decode(z_q)[0, 0, -size * codec.config.hop :].float().cpu()
        start += size
        yield audio


def _copies(x: Tensor) -> Tensor:
    return torch.cat((x,) * COPIES)


def _rows(layers: LayerKV, rows: int) -> LayerKV:
    return layers if rows == COPIES else LayerKV(layers.joined[:, :, :rows])
