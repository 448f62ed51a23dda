"""Spectral losses: what a small codec is judged by while it learns.

No loss on the waveform: the decoder is free to choose the phase, which an encoder would otherwise
have to carry in its few numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from echo.spec import SAMPLE_RATE

_FLOOR = 1e-5  # magnitudes below are silence
_RESOLVES_PITCH = 2048  # samples: from here on harmonics are apart, and count on their own
_HARMONICS_HZ, _HARMONICS_WEIGHT, _PITCH_FLOOR = 800.0, 5.0, 1e-3


class SpectralLoss(nn.Module):
    """L1 of log mel and log STFT magnitudes, and of the magnitudes themselves, over windows.

    Long windows count the low harmonics once more: without, a decoder that is free in its phase
    buzzes at its own frame rate instead of the speaker's pitch.

    Args:
        windows: samples per window, each with a quarter of it as hop.
        mels: mel bands of each window.
        highest: Hz; upper edge of the mel bands.
    """

    def __init__(
        self, windows: tuple[int, ...], mels: tuple[int, ...], *, highest: float = 11_025.0
    ) -> None:
        super().__init__()
        self.windows = windows
        for i, (window, bands) in enumerate(zip(windows, mels, strict=True)):
            self.register_buffer(f"hann_{i}", torch.hann_window(window))
            self.register_buffer(f"mel_{i}", mel_filters(bands, window, highest))

    def forward(self, made: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """``made`` and ``real`` [B, T] float32 to (the loss, the log10 mel L1), scalars."""
        total = made.new_zeros(())
        log_mel = made.new_zeros(())
        for i, window in enumerate(self.windows):
            a, b = (self._magnitude(x, i, window) for x in (made, real))
            mel = self.get_buffer(f"mel_{i}")
            mel_l1 = (_log10(mel @ a) - _log10(mel @ b)).abs().mean()
            stft_l1 = (_log10(a) - _log10(b)).abs().mean()
            linear = (a - b).abs().mean() / (b.abs().mean() + 1e-3)
            total = total + 2.0 * mel_l1 + 0.25 * stft_l1 + 0.5 * linear
            if window >= _RESOLVES_PITCH:
                top = int(_HARMONICS_HZ * window / SAMPLE_RATE)
                harmonics = _log10(a[:, :top], _PITCH_FLOOR) - _log10(b[:, :top], _PITCH_FLOOR)
                total = total + _HARMONICS_WEIGHT * harmonics.abs().mean()
            log_mel = log_mel + mel_l1.detach()
        return total / len(self.windows), log_mel / len(self.windows)

    def _magnitude(self, x: Tensor, i: int, window: int) -> Tensor:
        """[B, window / 2 + 1, frames], scaled so that a full-scale tone is about 1."""
        hann = self.get_buffer(f"hann_{i}")
        spectrum = torch.stft(x, window, window // 4, window=hann, center=True, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        return (power + 1e-9).sqrt() * (2.0 / window)


def mel_filters(bands: int, window: int, highest: float) -> Tensor:
    """Triangles [bands, window / 2 + 1] on the mel scale (HTK), each of sum 1."""
    top = 2595.0 * math.log10(1.0 + highest / 700.0)
    edges = 700.0 * (10.0 ** (torch.linspace(0.0, top, bands + 2) / 2595.0) - 1.0)
    bins = torch.linspace(0.0, SAMPLE_RATE / 2, window // 2 + 1)[None]
    # A triangle is at least one bin wide, or the lowest bands would see nothing.
    step = SAMPLE_RATE / window
    low, peak, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    low, high = torch.minimum(low, peak - step), torch.maximum(high, peak + step)
    shape = torch.minimum((bins - low) / (peak - low), (high - bins) / (high - peak)).clamp(min=0)
    return shape / shape.sum(dim=1, keepdim=True).clamp(min=1e-6)


def _log10(x: Tensor, floor: float = _FLOOR) -> Tensor:
    return (x + floor).log10()
