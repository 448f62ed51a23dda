"""Causal convolutions of the S1-DAC (model.md §6), with exact streaming state."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from echo.modules.streaming import ConvState


class CausalConv1d(nn.Module):
    """Convolution padded on the left; a strided one also on the right to whole strides.

    Streams with stride 1 only: strided ones belong to the encoder, which works in pieces.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        normed: bool = True,
    ) -> None:
        super().__init__()
        conv = nn.Conv1d(in_channels, out_channels, kernel, stride, 0, dilation, groups)
        self.conv = weight_norm(conv) if normed else conv
        self.channels = in_channels
        self.stride = stride
        self.left = (kernel - 1) * dilation + 1 - stride

    def init_state(self, batch: int, like: Tensor) -> ConvState:
        """Silence before the start; ``like`` gives device and dtype."""
        return ConvState(like.new_zeros(batch, self.channels, self.left))

    def forward(self, x: Tensor, state: ConvState | None = None) -> Tensor:
        """[B, C, T] to [B, C', ceil(T / stride)]."""
        if state is not None:
            return self.conv(state.extend(x))
        return self.conv(F.pad(x, (self.left, -x.shape[-1] % self.stride)))


class CausalConvTranspose1d(nn.Module):
    """Transposed convolution whose last (kernel - stride) samples are dropped.

    In a stream the inputs that still reach into the new samples are kept (one, for
    kernel = 2 * stride) and what they had already given is cut off again.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, *, normed: bool = True
    ) -> None:
        super().__init__()
        conv = nn.ConvTranspose1d(in_channels, out_channels, kernel, stride)
        self.conv = weight_norm(conv) if normed else conv
        self.channels = in_channels
        self.stride = stride
        self.overlap = kernel - stride
        self.lookback = -(-kernel // stride) - 1  # input frames

    def init_state(self, batch: int, like: Tensor) -> ConvState:
        """Silence before the start; ``like`` gives device and dtype."""
        return ConvState(like.new_zeros(batch, self.channels, self.lookback))

    def forward(self, x: Tensor, state: ConvState | None = None) -> Tensor:
        """[B, C, T] to [B, C', T * stride]."""
        new = x.shape[-1] * self.stride
        y = self.conv(x if state is None else state.extend(x))
        end = y.shape[-1] - self.overlap
        return y[..., end - new : end]


class Snake(nn.Module):
    """x + sin²(αx) / (α + 1e-9), α per channel (arXiv 2006.08195); [B, C, T]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(self.alpha * x).pow(2) / (self.alpha + 1e-9)


class ConvNeXtBlock(nn.Module):
    """Depthwise causal conv, LayerNorm, MLP ×4 with GELU, layer scale, residual; [B, C, T]."""

    def __init__(self, channels: int, *, kernel: int = 7) -> None:
        super().__init__()
        self.dwconv = CausalConv1d(channels, channels, kernel, groups=channels, normed=False)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.ones(channels))

    def init_state(self, batch: int, like: Tensor) -> ConvState:
        return self.dwconv.init_state(batch, like)

    def forward(self, x: Tensor, state: ConvState | None = None) -> Tensor:
        y = self.norm(self.dwconv(x, state).transpose(1, 2))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.transpose(1, 2)


def fold_weight_norm(module: nn.Module) -> None:
    """Replace every g, v pair below ``module`` by w = g v / ‖v‖, once, in place."""
    for child in module.modules():
        if is_parametrized(child, "weight"):
            remove_parametrizations(child, "weight")
