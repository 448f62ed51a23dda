"""What the shipped codec loses in smaller number formats, on speech."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from echo.audio.load import load_reference
from echo.config import shipped_path
from echo.models.codec import S1DAC
from echo.models.devices import allow_tf32
from echo.models.load import load_codec
from echo.spec import SAMPLE_RATE

PRODUCTS = (F.linear, F.conv1d, torch.conv1d, F.conv_transpose1d, torch.conv_transpose1d)


class EmulatedTF32(TorchFunctionMode):
    """Factors of products lose their last 13 bits, as on the tensor cores of a GPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in PRODUCTS:
            args = (_ten_bits(args[0]), _ten_bits(args[1]), *args[2:])
        return func(*args, **(kwargs or {}))


def _ten_bits(x: Tensor) -> Tensor:
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0xFFF + (bits >> 13 & 1)) & ~0x1FFF).view(torch.float32)


@cache
def codec(dtype: torch.dtype) -> S1DAC:
    return load_codec("shipped:tiny", device="cpu", dtype=dtype)


@cache
def vectors() -> Tensor:
    """z_q of two seconds of a shipped voice."""
    clip = next(path for path in sorted(Path(shipped_path("audio_prompts")).rglob("clara*.*")))
    samples = load_reference(clip.read_bytes(), max_bytes=2**24, name=clip.name)
    audio = torch.from_numpy(samples[: 2 * SAMPLE_RATE])[None, None]
    with torch.inference_mode():
        return codec(torch.float32).encode(audio)[0]


def decoded(dtype: torch.dtype, *, tf32: bool = False) -> Tensor:
    with torch.inference_mode():
        if not tf32:
            return codec(dtype).decode(vectors())[0, 0].float()
        with EmulatedTF32():
            return codec(dtype).decode(vectors())[0, 0]


def snr_db(found: Tensor, wanted: Tensor) -> float:
    return float(10 * torch.log10(wanted.pow(2).sum() / (wanted - found).pow(2).sum()))


def spectral_distance_db(found: Tensor, wanted: Tensor) -> float:
    """Mean difference of the magnitudes that lie within 60 dB of the loudest."""
    a, b = (_decibels(x) for x in (found, wanted))
    return float((a - b).abs()[b > b.max() - 60].mean())


def _decibels(x: Tensor) -> Tensor:
    spectrum = torch.stft(x, 1024, 256, window=torch.hann_window(1024), return_complex=True)
    return 20 * spectrum.abs().clamp_min(1e-5).log10()


@pytest.mark.parametrize(
    ("dtype", "tf32", "least_snr_db", "most_distance_db"),
    [
        (torch.float32, True, 55.0, 0.05),  # measured: 63 dB, 0.01 dB
        (torch.bfloat16, False, 32.0, 0.6),  # measured: 37 dB, 0.3 dB
        (torch.float16, False, 50.0, 0.1),  # measured: 56 dB, 0.04 dB
    ],
)
def test_speech_is_decoded_nearly_the_same(
    dtype: torch.dtype, tf32: bool, least_snr_db: float, most_distance_db: float
) -> None:
    wanted, found = decoded(torch.float32), decoded(dtype, tf32=tf32)
    assert least_snr_db < snr_db(found, wanted) < 90.0  # above: nothing was rounded
    assert spectral_distance_db(found, wanted) < most_distance_db


@pytest.fixture
def _restored() -> Iterator[None]:
    matmul, conv = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = conv


@pytest.mark.usefixtures("_restored")
@pytest.mark.parametrize(("allowed", "precision"), [(True, "high"), (False, "highest")])
def test_tf32_is_for_products_and_convolutions_alike(allowed: bool, precision: str) -> None:
    allow_tf32(allowed)
    assert torch.get_float32_matmul_precision() == precision
    assert torch.backends.cudnn.allow_tf32 is allowed
