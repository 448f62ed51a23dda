"""Graphics cards by their data sheets, and what pieces of work should cost on them.

Nothing here is measured. Times are the larger of what the operations and what the bytes take
(``benchmarks.counts``) at the shares of the data sheet's rates that :class:`Shares` assumes.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import counts
from benchmarks.replica import Costs
from echo.models.codec import CodecConfig
from echo.models.dit import DiTConfig

TEXT_TOKENS = 150  # of a chunk of some 10 s
CONTEXT_LATENTS = 320  # before the block in work, on average: half of the longest generation
PIECE = 32  # latents that the codec decodes at once
MODEL_BYTES = 2  # a number: bfloat16
CODEC_BYTES = 4


@dataclass(frozen=True)
class Card:
    """Per second and in bytes, by the maker's data sheet; without sparsity."""

    bf16_flop: float
    fp32_flop: float
    bytes: float
    memory: float


CARDS = {
    "l4": Card(121e12, 30.3e12, 300e9, 24e9),
    "rtx4090": Card(165e12, 82.6e12, 1008e9, 24e9),
    "l40s": Card(362e12, 91.6e12, 864e9, 48e9),
    "h100": Card(989e12, 67e12, 3350e9, 80e9),
    "h200": Card(989e12, 67e12, 4800e9, 141e9),
}


@dataclass(frozen=True)
class Shares:
    """What is assumed to be reached. ``launch_s``: of every pass and call besides."""

    flop: float
    codec_flop: float
    byte: float
    launch_s: float


def costs_of(
    card: Card, shares: Shares, dit: DiTConfig, codec: CodecConfig, speaker_latents: int
) -> Costs:
    """What pieces of work should take."""
    flop, byte = card.bf16_flop * shares.flop, card.bytes * shares.byte
    codec_flop = card.fp32_flop * shares.codec_flop
    patches = (speaker_latents + CONTEXT_LATENTS) // dit.speaker_patch_size
    step = counts.dit_pass(dit, 1, [patches + TEXT_TOKENS], patches + TEXT_TOKENS)

    def seconds(work: counts.Work, flop_per_s: float, number_bytes: int) -> float:
        return max(work.flop / flop_per_s, work.bytes(number_bytes) / byte)

    text = counts.text_encoder(dit, TEXT_TOKENS)
    prefix = counts.latent_encoder(dit, CONTEXT_LATENTS)
    decode = counts.codec_decode(codec, PIECE)
    voice = counts.latent_encoder(dit, speaker_latents)
    encode = counts.codec_encode(codec, speaker_latents)
    return Costs(
        step_s=shares.launch_s,
        step_latent_s=step.flop / flop,
        step_floor_s=step.weights * MODEL_BYTES / byte,
        text_s=shares.launch_s + seconds(text, flop, MODEL_BYTES),
        prefix_s=shares.launch_s + seconds(prefix, flop, MODEL_BYTES),
        codec_s=shares.launch_s,
        codec_latent_s=seconds(decode, codec_flop, CODEC_BYTES) / PIECE,
        voice_s=2 * shares.launch_s
        + seconds(voice, flop, MODEL_BYTES)
        + seconds(encode, codec_flop, CODEC_BYTES),
        cached_voice_s=voice_bytes(dit, speaker_latents) / byte,
    )


def voice_bytes(dit: DiTConfig, latents: int) -> int:
    """Keys and values of a reference of ``latents``."""
    return _context_bytes(dit, latents // dit.speaker_patch_size)


def request_bytes(dit: DiTConfig) -> int:
    """Keys and values that a request holds besides its voice's: of its text and its prefix."""
    return _context_bytes(dit, TEXT_TOKENS + CONTEXT_LATENTS // dit.speaker_patch_size)


def _context_bytes(dit: DiTConfig, keys: int) -> int:
    return 2 * dit.num_layers * dit.model_size * keys * MODEL_BYTES


def weight_bytes(dit: DiTConfig, codec: CodecConfig) -> float:
    """Of all networks in their number formats."""
    model = (
        counts.dit_pass(dit, 1, [1], 1)
        + counts.text_encoder(dit, 1)
        + counts.latent_encoder(dit, dit.speaker_patch_size)
        + counts.latent_encoder(dit, dit.speaker_patch_size)
        + counts.modulations(dit, 1)
    )
    sound = counts.codec_decode(codec, 1) + counts.codec_encode(codec, 1)
    return model.weights * MODEL_BYTES + sound.weights * CODEC_BYTES
