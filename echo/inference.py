"""The plain path: Echo-TTS as a textbook would write it, under the names of its first release.

Scripts written for the original run after ``from inference import`` becomes
``from echo.inference import``. Everything here is one request at a time, with masks where a
pass must not see something; the engine's faster path is tested against it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from echo import spec
from echo.audio.load import load_reference
from echo.errors import InvalidRequestError
from echo.models.codec import S1DAC
from echo.models.devices import pick_device
from echo.models.dit import EchoDiT
from echo.models.layer_kv import LayerKV
from echo.models.load import load_codec, load_dit, load_pca
from echo.models.pca import PCAState
from echo.sampling.end_of_speech import find_end_point
from echo.sampling.schedule import crosses, is_guided, rescale_score, times
from echo.text.tokens import normalize_prompt, tokenize
from echo.voices.encode import encode_pieces, real_latents

DECODE_PIECE = 160  # latents decoded at a time, to save memory; the result is the same
NO_LIMIT = 1 << 40  # bytes: a local file of the caller's own

SampleFn = Callable[[EchoDiT, Tensor, Tensor, Tensor, Tensor, int], Tensor]


def load_model_from_hf(
    repo_id: str = spec.MODEL_REPO,
    device: str = "auto",
    dtype: torch.dtype | None = torch.bfloat16,
    compile: bool = False,
    token: str | None = None,
    delete_blockwise_modules: bool = False,
) -> EchoDiT:
    """The DiT of a hub repository or local folder, on ``device`` (auto: CUDA where present).

    ``dtype`` None is float32.

    ``delete_blockwise_modules`` frees the prefix encoder: full-length sampling only.
    """
    model = load_dit(repo_id, device=pick_device(device), dtype=dtype or torch.float32, token=token)
    if delete_blockwise_modules:
        model.delete_prefix_modules()
    if compile:
        model.forward = torch.compile(model.forward)  # type: ignore[method-assign]
    return model


def load_fish_ae_from_hf(
    repo_id: str = spec.CODEC_REPO,
    device: str = "auto",
    dtype: torch.dtype | None = torch.float32,
    compile: bool = False,
    token: str | None = None,
) -> S1DAC:
    """The codec of a hub repository or local folder."""
    codec = load_codec(
        repo_id, device=pick_device(device), dtype=dtype or torch.float32, token=token
    )
    if compile:
        codec.encoder.forward = torch.compile(codec.encoder.forward)  # type: ignore[method-assign]
        codec.decoder.forward = torch.compile(codec.decoder.forward)  # type: ignore[method-assign]
    return codec


def load_pca_state_from_hf(
    repo_id: str = spec.MODEL_REPO, device: str = "auto", token: str | None = None
) -> PCAState:
    """The PCA between codec vectors and latents."""
    return load_pca(repo_id, device=pick_device(device), token=token)


def load_audio(path: str | Path, max_duration: int = 300) -> Tensor:
    """A reference recording as (1, samples) float32: mono, 44.1 kHz, over max(1, peak)."""
    samples = load_reference(Path(path), max_bytes=NO_LIMIT, max_seconds=max_duration)
    return torch.from_numpy(samples)[None]


@torch.inference_mode()
def ae_encode(fish_ae: S1DAC, pca_state: PCAState, audio: Tensor) -> Tensor:
    """Audio (B, 1, samples) to latents (B, n, 80) float32."""
    _check_shape(audio, "audio", "(batch, 1, samples)", audio.ndim == 3 and audio.shape[1] == 1)
    z_q, _ = fish_ae.encode(audio)
    return pca_state.to_latent(z_q.transpose(1, 2))


@torch.inference_mode()
def ae_decode(fish_ae: S1DAC, pca_state: PCAState, z_q: Tensor) -> Tensor:
    """Latents (B, n, 80) to audio (B, 1, samples) float32."""
    z_q = pca_state.from_latent(z_q).transpose(1, 2)
    return fish_ae.decode_in_pieces(z_q, DECODE_PIECE).float()


@torch.inference_mode()
def ae_reconstruct(fish_ae: S1DAC, pca_state: PCAState, audio: Tensor) -> Tensor:
    """Audio (B, 1, samples) through the codec and the PCA and back."""
    return ae_decode(fish_ae, pca_state, ae_encode(fish_ae, pca_state, audio))


@torch.inference_mode()
def get_speaker_latent_and_mask(
    fish_ae: S1DAC,
    pca_state: PCAState,
    audio: Tensor,
    max_speaker_latent_length: int = spec.MAX_SPEAKER_LATENTS,
    audio_chunk_size: int = spec.SPEAKER_PIECE_LATENTS * spec.HOP,
    pad_to_max: bool = False,
    divis_by_patch_size: int | None = 4,
) -> tuple[Tensor, Tensor]:
    """Latents (1, S, 80) and mask (1, S) of a reference (1, samples).

    ``pad_to_max``: S is ``max_speaker_latent_length`` and the mask tells what is real.
    """
    _check_shape(audio, "audio", "(1, samples)", audio.ndim == 2 and audio.shape[0] == 1)
    pieces = encode_pieces(
        fish_ae,
        pca_state,
        audio,
        max_latents=max_speaker_latent_length,
        piece_latents=audio_chunk_size // fish_ae.config.hop,
    )
    latent = torch.cat(list(pieces), dim=1)
    real = real_latents(fish_ae, audio.shape[1], max_speaker_latent_length)
    if pad_to_max:
        latent = F.pad(latent, (0, 0, 0, max_speaker_latent_length - latent.shape[1]))
        latent = latent[:, :max_speaker_latent_length]
    else:
        latent = latent[:, :real]
    mask = torch.arange(latent.shape[1], device=latent.device)[None] < real
    if divis_by_patch_size is not None:
        whole = latent.shape[1] // divis_by_patch_size * divis_by_patch_size
        latent, mask = latent[:, :whole], mask[:, :whole]
    return latent, mask


def get_text_input_ids_and_mask(
    text_arr: Sequence[str],
    max_length: int | None,
    device: str | torch.device | None = None,
    normalize: bool = True,
    return_normalized_text: bool = False,
    pad_to_max: bool = True,
) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, list[str]]:
    """Token ids (B, L) int32 and mask (B, L) bool; texts beyond ``max_length`` are cut."""
    texts = [normalize_prompt(text) if normalize else text for text in text_arr]
    limit = max_length if max_length is not None else spec.MAX_TEXT_TOKENS
    rows = [tokenize(text, limit, truncate=True) for text in texts]
    length = limit if pad_to_max and max_length is not None else max(map(len, rows))
    ids = torch.zeros(len(rows), length, dtype=torch.int32)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.int32)
        mask[i, : len(row)] = True
    ids, mask = ids.to(device), mask.to(device)
    return (ids, mask, texts) if return_normalized_text else (ids, mask)


def find_flattening_point(
    data: Tensor, target_value: float = 0.0, window_size: int = 20, std_threshold: float = 0.05
) -> int:
    """Where speech ends in latents (N, 80), in latents (model.md §7)."""
    return find_end_point(data, target=target_value, window=window_size, max_std=std_threshold)


def crop_audio_to_flattening_point(audio: Tensor, latent: Tensor) -> Tensor:
    """``audio`` (..., samples) up to the end point of its ``latent`` (N, 80)."""
    return audio[..., : find_flattening_point(latent) * spec.HOP]


@torch.inference_mode()
def sample_euler_cfg_independent_guidances(
    model: EchoDiT,
    speaker_latent: Tensor,
    speaker_mask: Tensor,
    text_input_ids: Tensor,
    text_mask: Tensor,
    rng_seed: int,
    num_steps: int = 40,
    cfg_scale_text: float = 3.0,
    cfg_scale_speaker: float = 8.0,
    cfg_min_t: float = 0.5,
    cfg_max_t: float = 1.0,
    truncation_factor: float | None = None,
    rescale_k: float | None = None,
    rescale_sigma: float | None = None,
    speaker_kv_scale: float | None = None,
    speaker_kv_max_layers: int | None = None,
    speaker_kv_min_t: float | None = None,
    sequence_length: int = spec.MAX_LATENTS,
) -> Tensor:
    """A whole generation in one block: latents (B, ``sequence_length``, 80) float32."""
    return sample_blockwise_euler_cfg_independent_guidances(
        model,
        speaker_latent,
        speaker_mask,
        text_input_ids,
        text_mask,
        rng_seed,
        block_sizes=[sequence_length],
        num_steps=num_steps,
        cfg_scale_text=cfg_scale_text,
        cfg_scale_speaker=cfg_scale_speaker,
        cfg_min_t=cfg_min_t,
        cfg_max_t=cfg_max_t,
        truncation_factor=truncation_factor,
        rescale_k=rescale_k,
        rescale_sigma=rescale_sigma,
        speaker_kv_scale=speaker_kv_scale,
        speaker_kv_max_layers=speaker_kv_max_layers,
        speaker_kv_min_t=speaker_kv_min_t,
    )


@torch.inference_mode()
def sample_blockwise_euler_cfg_independent_guidances(
    model: EchoDiT,
    speaker_latent: Tensor,
    speaker_mask: Tensor,
    text_input_ids: Tensor,
    text_mask: Tensor,
    rng_seed: int,
    block_sizes: Sequence[int],
    num_steps: int | Sequence[int] = 40,
    cfg_scale_text: float = 3.0,
    cfg_scale_speaker: float = 8.0,
    cfg_min_t: float = 0.5,
    cfg_max_t: float = 1.0,
    truncation_factor: float | None = None,
    rescale_k: float | None = None,
    rescale_sigma: float | None = None,
    speaker_kv_scale: float | None = None,
    speaker_kv_max_layers: int | None = None,
    speaker_kv_min_t: float | None = None,
    continuation_latent: Tensor | None = None,
    init_scale: float = spec.INIT_SCALE,
) -> Tensor:
    """Block after block (model.md §5): latents (B, prefix + sum of blocks, 80) float32.

    ``continuation_latent`` (B, n, 80) is a given prefix; the text must contain its words.
    ``num_steps`` is one number, or one for each block.
    """
    batch, device = text_input_ids.shape[0], model.device
    steps = [num_steps] * len(block_sizes) if isinstance(num_steps, int) else list(num_steps)
    start = 0 if continuation_latent is None else continuation_latent.shape[1]
    planned = start + sum(block_sizes)
    latents = torch.zeros(
        batch, planned + -planned % model.patch, model.config.latent_size, device=device
    )
    if continuation_latent is not None:
        latents[:, :start] = continuation_latent
    text = model.encode_text(text_input_ids.to(device), text_mask.to(device))
    speaker = model.encode_speaker(speaker_latent.to(device))
    forced = speaker
    if speaker_kv_scale is not None:
        forced = speaker.scaled(speaker_kv_scale, speaker_kv_max_layers)
    generator = torch.Generator(device).manual_seed(rng_seed)

    for size, block_steps in zip(block_sizes, steps, strict=True):
        x = torch.randn((batch, size, latents.shape[2]), generator=generator, device=device)
        if truncation_factor is not None:
            x = x * truncation_factor
        inputs = _Inputs(
            text=text,
            text_mask=text_mask.to(device),
            speaker=forced,
            speaker_mask=speaker_mask.to(device),
            prefix=model.encode_prefix(latents) if start > 0 else None,
            start_pos=start,
        )
        for t, t_next in pairwise(times(block_steps, init_scale)):
            v = _velocity(model, x, t, inputs)
            if is_guided(t, cfg_min_t, cfg_max_t):
                no_text = replace(inputs, text_mask=torch.zeros_like(inputs.text_mask))
                no_speaker = replace(inputs, speaker_mask=torch.zeros_like(inputs.speaker_mask))
                v = (
                    v
                    + cfg_scale_text * (v - _velocity(model, x, t, no_text))
                    + cfg_scale_speaker * (v - _velocity(model, x, t, no_speaker))
                )
            v = rescale_score(v, x, t, rescale_k, rescale_sigma)
            x = x + v * (t_next - t)
            if crosses(t, t_next, speaker_kv_min_t):
                inputs = replace(inputs, speaker=speaker)
        latents[:, start : start + size] = x
        start += size
    return latents[:, :planned]


@torch.inference_mode()
def sample_pipeline(
    model: EchoDiT,
    fish_ae: S1DAC,
    pca_state: PCAState,
    sample_fn: SampleFn,
    text_prompt: str,
    speaker_audio: Tensor | None,
    rng_seed: int,
    pad_to_max_speaker_latent_length: int | None = None,
    pad_to_max_text_length: int | None = None,
    normalize_text: bool = True,
) -> tuple[Tensor, str]:
    """Text and voice to speech.

    Args:
        sample_fn: one of the samplers above with its settings bound.
        speaker_audio: (1, samples) from :func:`load_audio`, or None for no reference voice.

    Returns:
        audio (1, 1, samples) float32, cut at the end of speech, and the text as it was read.
    """
    ids, mask, normalized = get_text_input_ids_and_mask(  # type: ignore[misc]
        [text_prompt],
        max_length=min(pad_to_max_text_length or spec.MAX_TEXT_TOKENS, spec.MAX_TEXT_TOKENS),
        device=model.device,
        normalize=normalize_text,
        return_normalized_text=True,
        pad_to_max=pad_to_max_text_length is not None,
    )
    if speaker_audio is None:
        patch = model.patch
        speaker_latent = torch.zeros(1, patch, model.config.latent_size, device=model.device)
        speaker_mask = torch.zeros(1, patch, dtype=torch.bool, device=model.device)
    else:
        speaker_latent, speaker_mask = get_speaker_latent_and_mask(
            fish_ae,
            pca_state,
            speaker_audio,
            max_speaker_latent_length=pad_to_max_speaker_latent_length or spec.MAX_SPEAKER_LATENTS,
            pad_to_max=pad_to_max_speaker_latent_length is not None,
            divis_by_patch_size=model.patch,
        )
    latent = sample_fn(model, speaker_latent, speaker_mask, ids, mask, rng_seed)
    audio = ae_decode(fish_ae, pca_state, latent)
    return crop_audio_to_flattening_point(audio, latent[0]), normalized[0]


@dataclass(frozen=True)
class _Inputs:
    """What one pass of the model is conditioned on."""

    text: LayerKV
    text_mask: Tensor
    speaker: LayerKV
    speaker_mask: Tensor
    prefix: LayerKV | None
    start_pos: int


def _velocity(model: EchoDiT, x: Tensor, t: Tensor, inputs: _Inputs) -> Tensor:
    return model(x, t.to(x.device).expand(x.shape[0]), **vars(inputs))


def _check_shape(tensor: Tensor, name: str, expected: str, ok: bool) -> None:
    if not ok:
        raise InvalidRequestError(
            f"{name} has shape {tuple(tensor.shape)}; expected {expected}", param=name
        )
