"""Convolutions that keep [B, C, T] in memory as [B, T, C]: what they say, and where it lies."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode

from echo.models.codec import S1DAC, CodecConfig, Decoder
from echo.models.compile import CompiledInPieces
from echo.models.random_weights import randomize_
from echo.modules.conv import (
    CausalConv1d,
    CausalConvTranspose1d,
    ConvNeXtBlock,
    fold_weight_norm,
    lay_out_,
)
from golden import golden_codec, random_z

CPU = ("cpu",)
CONVOLUTIONS: dict[str, Callable[[], nn.Module]] = {
    "first": lambda: CausalConv1d(6, 8, 7),
    "dilated by 1": lambda: CausalConv1d(8, 8, 7),
    "dilated by 3": lambda: CausalConv1d(8, 8, 7, dilation=3),
    "dilated by 9": lambda: CausalConv1d(8, 8, 7, dilation=9),
    "of kernel 1": lambda: CausalConv1d(8, 8, 1),
    "of kernel 3": lambda: CausalConv1d(8, 4, 3),
    "last": lambda: CausalConv1d(8, 1, 7),
    "transposed by 8": lambda: CausalConvTranspose1d(8, 4, 16, 8),
    "transposed by 4": lambda: CausalConvTranspose1d(8, 4, 8, 4),
    "transposed by 2": lambda: CausalConvTranspose1d(8, 4, 4, 2),
    "transposed without overlap": lambda: CausalConvTranspose1d(8, 8, 2, 2, normed=False),
    "transposed with two overlaps": lambda: CausalConvTranspose1d(8, 4, 6, 2),
}
STRIDED: dict[str, Callable[[], nn.Module]] = {
    "by 2": lambda: CausalConv1d(8, 16, 4, stride=2),
    "by 4": lambda: CausalConv1d(8, 16, 8, stride=4),
    "by 8": lambda: CausalConv1d(8, 16, 16, stride=8),
    "without overlap": lambda: CausalConv1d(8, 8, 2, stride=2, normed=False),
    "of audio": lambda: CausalConv1d(1, 8, 7),
}
LEFT_AS_THEY_ARE: dict[str, Callable[[], nn.Module]] = {
    "transposed by a part of its kernel": lambda: CausalConvTranspose1d(8, 4, 7, 3),
    "depthwise": lambda: CausalConv1d(8, 8, 7, groups=8, normed=False),
    "block around a depthwise one": lambda: ConvNeXtBlock(8),
}


class Watched(TorchDispatchMode):
    """Notes what is copied, and what convolutions get."""

    def __init__(self) -> None:
        super().__init__()
        self.copied: list[str] = []
        self.images: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        if name.split(".")[0] in ("aten::clone", "aten::copy_"):
            self.copied.append(f"{name} {tuple(args[0].shape)}")
        if name.startswith("aten::convolution"):
            self.images.append((args[0], args[1]))
        return func(*args, **(kwargs or {}))


def pair(kind) -> tuple[nn.Module, nn.Module]:  # type: ignore[no-untyped-def]
    """The same module as it is, and time-major."""
    torch.manual_seed(0)
    plain = (CONVOLUTIONS | STRIDED | LEFT_AS_THEY_ARE)[kind]()
    fold_weight_norm(plain)
    plain.requires_grad_(False).eval()
    ours = deepcopy(plain)
    lay_out_(ours, CPU)
    return plain, ours


def streamed(module: Any, x: Tensor, sizes: Sequence[int]) -> Tensor:
    state = module.init_state(x.shape[0], x)
    return torch.cat([module(part, state) for part in x.split(list(sizes), -1)], -1)


def is_time_major(x: Tensor) -> bool:
    return x.transpose(1, 2).is_contiguous()


def noise(module: nn.Module, frames: int, batch: int = 2) -> Tensor:
    first = next(m for m in module.modules() if isinstance(m, CausalConv1d | CausalConvTranspose1d))
    return torch.randn(batch, first.channels, frames, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("sizes", [[37], [1] * 37, [5, 1, 31], [20, 3, 14]])
@pytest.mark.parametrize("kind", [*CONVOLUTIONS, *LEFT_AS_THEY_ARE])
def test_a_stream_is_the_same(kind: str, sizes: list[int]) -> None:
    plain, ours = pair(kind)
    x = noise(plain, 37)
    torch.testing.assert_close(streamed(ours, x, sizes), plain(x))


@pytest.mark.parametrize("frames", [1, 2, 37, 64])
@pytest.mark.parametrize("kind", [*CONVOLUTIONS, *STRIDED, *LEFT_AS_THEY_ARE])
def test_so_is_one_call_from_either_order_of_memory(kind: str, frames: int) -> None:
    plain, ours = pair(kind)
    x = noise(plain, frames)
    for each in (x, x.transpose(1, 2).contiguous().transpose(1, 2)):
        torch.testing.assert_close(ours(each), plain(x))


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_nothing_is_turned_around(kind: str) -> None:
    """Time-major in and out, and what the library gets counts as channels last."""
    _, ours = pair(kind)
    x = noise(ours, 37, batch=1).transpose(1, 2).contiguous().transpose(1, 2)
    state = ours.init_state(1, x)
    with Watched() as watched:
        y = ours(x, state)
    assert is_time_major(y)
    kept = tuple(state.tail.transpose(1, 2).shape)
    assert watched.copied == ([f"aten::clone {kept}"] if kept[1] else [])
    assert is_time_major(state.tail)
    ordinary = isinstance(ours, CausalConv1d) and ours.left > 0
    assert len(watched.images) == ordinary  # the others are matrix products
    for image, kernel in watched.images:
        assert image.is_contiguous(memory_format=torch.channels_last)
        assert kernel.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_weights_moved_afterwards_stay_in_order_and_right(kind: str, dtype: torch.dtype) -> None:
    plain, ours = pair(kind)
    strides = ours.conv.weight.stride()
    plain, ours, x = plain.to(dtype), ours.to(dtype), noise(plain, 37).to(dtype)
    assert ours.conv.weight.stride() == strides
    loose = {"rtol": 2e-2, "atol": 2e-2} if dtype != torch.float64 else {}
    torch.testing.assert_close(streamed(ours, x, [5, 1, 31]), plain(x), **loose)
    weight = torch.randn(ours.conv.weight.shape, dtype=dtype)
    for module in (plain, ours):
        module.load_state_dict({"conv.weight": weight, "conv.bias": module.conv.bias})
    loose = {"rtol": 5e-2, "atol": 2e-1} if dtype != torch.float64 else {}
    torch.testing.assert_close(streamed(ours, x, [5, 1, 31]), plain(x), **loose)


@pytest.fixture
def codec() -> S1DAC:
    codec = deepcopy(golden_codec())
    lay_out_(codec, CPU)
    return codec


def convolutions(codec: S1DAC) -> list[CausalConv1d | CausalConvTranspose1d]:
    return [m for m in codec.modules() if isinstance(m, CausalConv1d | CausalConvTranspose1d)]


def test_the_codec_keeps_names_shapes_values_and_memory(codec: S1DAC) -> None:
    assert sum(each.time_major for each in convolutions(codec)) > 40
    plain, ours = golden_codec().state_dict(), codec.state_dict()
    assert list(ours) == list(plain)
    for name, value in ours.items():
        torch.testing.assert_close(value, plain[name], rtol=0, atol=0)
        assert value.untyped_storage().nbytes() == value.numel() * value.element_size(), name


@pytest.mark.parametrize("sizes", [[40], [1] * 40, [7, 1, 32]])
@torch.inference_mode()
def test_the_codec_says_the_same(codec: S1DAC, sizes: list[int]) -> None:
    z, state = random_z(codec, 40), codec.init_state()
    joined = torch.cat([codec.decode(part, state) for part in z.split(sizes, -1)], -1)
    torch.testing.assert_close(joined, golden_codec().decode(z), rtol=1e-4, atol=2e-5)


@torch.inference_mode()
def test_between_its_layers_nothing_is_turned_around(codec: S1DAC) -> None:
    seen: list[bool] = []
    for layer in (*codec.decoder.model, *codec.quantizer.upsample):
        layer.register_forward_hook(lambda _module, _inputs, y: seen.append(is_time_major(y)))
    codec.decode(random_z(codec, 8))
    assert len(seen) == len(codec.decoder.model) + len(codec.quantizer.upsample)
    assert all(seen)


@torch.inference_mode()
def test_the_encoder_finds_the_same_codes(codec: S1DAC) -> None:
    audio = 0.1 * torch.randn(1, 1, 9 * codec.config.hop + 5)
    z, codes = codec.encode(audio)
    z_plain, codes_plain = golden_codec().encode(audio)
    torch.testing.assert_close(z, z_plain, rtol=1e-4, atol=1e-4)
    assert torch.equal(codes, codes_plain)


def test_it_can_be_undone(codec: S1DAC) -> None:
    lay_out_(codec, ())
    assert not any(each.time_major for each in convolutions(codec))
    z = random_z(codec, 8)
    assert all(each.conv.weight.is_contiguous() for each in convolutions(codec))
    assert torch.equal(codec.decode(z), golden_codec().decode(z))


def test_by_default_a_cpu_keeps_its_order() -> None:
    codec = deepcopy(golden_codec())
    lay_out_(codec)
    assert not any(each.time_major for each in convolutions(codec))


@torch.inference_mode()
def test_compiled_once_it_says_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """A stream's first piece and its later ones look the same to the compiler."""
    torch._dynamo.reset()
    with torch.device("meta"):
        decoder = Decoder(CodecConfig(latent_dim=8, decoder_dim=16, decoder_rates=(2,)))
    randomize_(decoder, 1, device="cpu", dtype=torch.float32)
    fold_weight_norm(decoder)
    x = torch.randn(1, 8, 24, generator=torch.Generator().manual_seed(0))
    expected = decoder(x)
    lay_out_(decoder, CPU)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = CompiledInPieces(decoder.forward, [8], backend=counter)
    state = decoder.init_state(1, x)
    with caplog.at_level(logging.WARNING, logger="echo"):
        ours = torch.cat([compiled(part, state) for part in x.split(8, dim=-1)], dim=-1)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    assert counter.frame_count == 1
    assert not caplog.records  # it did compile
