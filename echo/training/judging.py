"""What each stage has learnt, as speakers for the judges."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from echo.audio.resample import Samples
from echo.inference import (
    ae_decode,
    crop_audio_to_flattening_point,
    get_speaker_latent_and_mask,
    get_text_input_ids_and_mask,
    sample_blockwise_euler_cfg_independent_guidances,
)
from echo.models.codec import S1DAC
from echo.models.dit import EchoDiT
from echo.models.pca import PCAState
from echo.spec import HOP
from echo.training.features import Features
from echo.training.judge import Speak, teach
from echo.training.voices import CLIPS

_REFERENCE_SECONDS = 6.0


@dataclass(frozen=True)
class Guidance:
    """How the DiT is sampled."""

    blocks: tuple[int, ...]
    steps: tuple[int, ...]
    text: float
    speaker: float
    min_t: float = 0.5


def through_decoder(features: Features, codec: S1DAC, pca: PCAState) -> Speak:
    """The teacher's speech from its features alone: what the decoder loses."""

    @torch.inference_mode()
    def speak(text: str, voice: str) -> Samples:
        z = features(_whole(teach(text, voice)))
        return _samples(ae_decode(codec, pca, pca.to_latent(z)))

    return speak


def through_codec(codec: S1DAC, pca: PCAState) -> Speak:
    """The teacher's speech through encoder, codebooks, PCA and decoder."""

    @torch.inference_mode()
    def speak(text: str, voice: str) -> Samples:
        z_q, _ = codec.encode(_whole(teach(text, voice))[:, None])
        return _samples(ae_decode(codec, pca, pca.to_latent(z_q.transpose(1, 2))))

    return speak


def by_dit(
    dit: EchoDiT,
    codec: S1DAC,
    pca: PCAState,
    guidance: Guidance,
    reference: Callable[[Tensor], Tensor] | None = None,
) -> Speak:
    """Text and a reference voice to speech.

    ``reference``: audio [1, T] to latents [1, n, size]; None: by the codec, as in service.
    """

    @functools.lru_cache(maxsize=16)
    def voice_latents(voice: str) -> tuple[Tensor, Tensor]:
        audio = _whole(reference_audio(voice))
        if reference is None:
            return get_speaker_latent_and_mask(codec, pca, audio)
        latent = reference(audio)
        latent = latent[:, : latent.shape[1] // dit.patch * dit.patch]
        return latent, torch.ones(latent.shape[:2], dtype=torch.bool)

    @torch.inference_mode()
    def speak(text: str, voice: str) -> Samples:
        speaker, mask = voice_latents(voice)
        ids, text_mask = get_text_input_ids_and_mask([text], None)  # type: ignore[misc]
        latent = sample_blockwise_euler_cfg_independent_guidances(
            dit,
            speaker,
            mask,
            ids,
            text_mask,
            rng_seed=0,
            block_sizes=guidance.blocks,
            num_steps=guidance.steps,
            cfg_scale_text=guidance.text,
            cfg_scale_speaker=guidance.speaker,
            cfg_min_t=guidance.min_t,
        )
        audio = ae_decode(codec, pca, latent)
        return _samples(crop_audio_to_flattening_point(audio, latent[0]))

    return speak


def reference_audio(voice: str) -> Samples:
    """Some seconds of the voice's own clip."""
    audio = np.concatenate([teach(f"[S1] {text}", voice) for text in CLIPS[voice]])
    return audio[: round(_REFERENCE_SECONDS * 44_100)]


def _whole(samples: Samples) -> Tensor:
    """[1, T] in whole hops."""
    return F.pad(torch.from_numpy(samples), (0, -len(samples) % HOP))[None]


def _samples(audio: Tensor) -> Samples:
    return audio[0, 0].numpy()
