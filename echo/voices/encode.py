"""A reference voice as latents (model.md §7)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor
from torch.nn import functional as F

from echo.models.codec import S1DAC
from echo.models.pca import PCAState


def encode_pieces(
    codec: S1DAC,
    pca: PCAState,
    audio: Tensor,
    *,
    max_latents: int,
    piece_latents: int,
    padded: bool = True,
) -> Iterator[Tensor]:
    """Latents [1, piece_latents, 80] float32 of each piece of ``audio`` [1, T] (44.1 kHz, -1..1).

    Pieces are encoded apart, the last one zero-padded, as in the model's training. What exceeds
    ``max_latents`` is not read.

    ``padded=False``: the last piece has the latents of its audio alone, the same but for
    rounding: the codec is causal, so zeros after them change nothing and only cost time.
    """
    hop = codec.config.hop
    length = piece_latents * hop
    for piece in audio[:, : max_latents * hop].split(length, dim=1):
        missing = length - piece.shape[1] if padded else -piece.shape[1] % hop
        row = F.pad(piece, (0, missing))
        z_q, _ = codec.encode(row[:, None])
        yield pca.to_latent(z_q.transpose(1, 2).to(pca.mean.device))


def real_latents(codec: S1DAC, samples: int, max_latents: int) -> int:
    """How many latents of a reference of ``samples`` are of real audio, not of padding."""
    return min(samples // codec.config.hop, max_latents)
