"""What the codec's vectors are to hold: a spectral envelope and a pitch, fixed before training.

A small encoder left to itself for an hour finds little but loudness. So z is given: log mel bands
of four short frames and the low harmonics of one long frame, part whitened, on the sphere that the
encoder's last norm makes. The encoder learns to compute it, the decoder to speak from it, the DiT
to write it, each apart from the others. It has no phase, and text and voice predict it well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from echo.spec import HOP
from echo.training.losses import mel_filters

_FRAMES = 4  # short frames per vector
_SHORT, _LONG = 1024, 4096  # samples of a short and a long frame; both end where the vector ends
_FLOOR, _PITCH_FLOOR = 3e-4, 1e-3  # of magnitudes, where a full-scale tone has 1
_WHITENING = 0.15  # 0: as they are, 0.5: fully
_CONSTANT = 0.6  # where the rest of a vector has a mean power of 1
_FIRST_BIN = 5  # of the long frame: 54 Hz


@dataclass(frozen=True)
class Features:
    """``mean`` [w], ``matrix`` [w, w] of the whitening, w = latent_dim - 1; float32."""

    mean: Tensor
    matrix: Tensor

    def __call__(self, audio: Tensor) -> Tensor:
        """``audio`` [B, T], T whole hops, to z [B, T / HOP, w + 1] with a power of 1 each."""
        raw = raw_features(audio, len(self.mean))
        white = (raw - self.mean) @ self.matrix.T
        # The constant keeps the length of what the norm would forget.
        return (
            F.normalize(F.pad(white, (0, 1), value=_CONSTANT), dim=-1) * (len(self.mean) + 1) ** 0.5
        )

    def save(self, path: Path) -> None:
        save_file({"mean": self.mean, "matrix": self.matrix}, path)

    @classmethod
    def load(cls, path: Path) -> Features:
        tensors = load_file(path)
        return cls(tensors["mean"], tensors["matrix"])

    def to(self, device: str) -> Features:
        return Features(self.mean.to(device), self.matrix.to(device))


def raw_features(audio: Tensor, width: int) -> Tensor:
    """``audio`` [B, T] to [B, T / HOP, width]: log10 magnitudes, mel bands then pitch bins."""
    bands = (width * 3 // 4) // _FRAMES
    bins = width - bands * _FRAMES
    short = _magnitude(audio, _SHORT, HOP // _FRAMES)
    mel = mel_filters(bands, _SHORT, 10_500.0).to(audio.device) @ short
    mel = (mel + _FLOOR).log10().transpose(1, 2).unflatten(1, (-1, _FRAMES)).flatten(2)
    long = _magnitude(audio, _LONG, HOP)[:, _FIRST_BIN : _FIRST_BIN + bins]
    return torch.cat((mel, (long + _PITCH_FLOOR).log10().transpose(1, 2)), dim=2)


def fit_features(pieces: Iterable[Tensor], width: int) -> Features:
    """Part-whitening from audio ``pieces`` [T]: directions scaled by variance^(-0.15).

    In between: what is loud must not drown what tells consonants apart, and what is hardly there
    must not become noise. Mean power after it: 1.
    """
    rows = []
    for piece in pieces:
        whole = piece[: len(piece) // HOP * HOP]
        if len(whole):
            rows.append(raw_features(whole[None], width)[0])
    x = torch.cat(rows).double()
    mean = x.mean(dim=0)
    values, vectors = torch.linalg.eigh(torch.cov(x.T))
    values = values.clamp(min=float(values.max()) * 1e-6)
    matrix = (vectors * values.pow(-_WHITENING)).T
    power = ((x - mean) @ matrix.T).square().sum(dim=1).mean()
    return Features(mean.float(), (matrix / power.sqrt()).float().contiguous())


def _magnitude(audio: Tensor, window: int, hop: int) -> Tensor:
    """[B, window / 2 + 1, T / hop] of frames that end at 1, 2, ... hops: no look ahead."""
    hann = torch.hann_window(window, device=audio.device)
    padded = F.pad(audio, (window - hop, 0))
    spectrum = torch.stft(padded, window, hop, window=hann, center=False, return_complex=True)
    return spectrum.abs() * (2.0 / window)
