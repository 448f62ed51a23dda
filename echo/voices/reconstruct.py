"""What the codec and the PCA leave of a recording: the best a cloned voice can sound."""

from __future__ import annotations

import torch

from echo.audio.resample import Samples
from echo.models.codec import S1DAC
from echo.models.pca import PCAState
from echo.spec import SPEAKER_PIECE_LATENTS
from echo.voices.encode import encode_pieces

DECODE_PIECE_LATENTS = 32  # bounds the codec's memory
MAX_LATENTS = SPEAKER_PIECE_LATENTS  # 30 s


@torch.inference_mode()
def reconstruct(codec: S1DAC, pca: PCAState, samples: Samples) -> Samples:
    """The first 30 s of ``samples`` encoded and decoded again.

    ``samples``: [T] float32, -1 ... 1, 44.1 kHz; returns [T] float32 alike, as long or 30 s.
    """
    hop = codec.config.hop
    kept = samples[: MAX_LATENTS * hop]
    audio = torch.from_numpy(kept)[None]
    latents = -(-len(kept) // hop)
    pieces = encode_pieces(codec, pca, audio, max_latents=latents, piece_latents=latents)
    z_q = pca.from_latent(torch.cat(list(pieces), dim=1)).transpose(1, 2)
    decoded = codec.decode_in_pieces(z_q, DECODE_PIECE_LATENTS)
    return decoded[0, 0, : len(kept)].float().cpu().numpy()
