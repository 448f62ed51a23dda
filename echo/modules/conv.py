"""Causal convolutions of the S1-DAC (model.md §6), with exact streaming state.

Tensors are [B, C, T]. On CUDA their memory is [B, T, C] (time-major, what PyTorch calls channels
last): tensor cores want the channels side by side, and cuDNN would turn every input and output
around. :func:`lay_out_` decides, for each convolution by itself; the results are the same.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from echo.modules.streaming import ConvState

TIME_MAJOR_ON = ("cuda",)  # types of devices


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
        self.time_major = False

    def init_state(self, batch: int, like: Tensor) -> ConvState:
        """Silence before the start; ``like`` gives device and dtype."""
        return _silence(batch, self.channels, self.left, like, self.time_major)

    def forward(self, x: Tensor, state: ConvState | None = None) -> Tensor:
        """[B, C, T] to [B, C', ceil(T / stride)]."""
        if self.time_major:
            return self._time_major(x, state)
        if state is not None:
            return self.conv(state.extend(x))
        return self.conv(F.pad(x, (self.left, -x.shape[-1] % self.stride)))

    def _time_major(self, x: Tensor, state: ConvState | None) -> Tensor:
        if state is not None:
            x = state.extend(x, time_major=True)
        else:
            x = _pad_rows(x, self.left, -x.shape[-1] % self.stride)
        weight, bias = self.conv.weight, self.conv.bias
        if self.conv.kernel_size == (1,) and self.stride == 1:
            return F.linear(x.transpose(1, 2), weight[..., 0], bias).transpose(1, 2)
        # Only as an image one pixel high: PyTorch turns a 3-D input back to [B, C, T].
        stride, dilation = (1, self.stride), (1, *self.conv.dilation)
        image, kernel = x.unsqueeze(2), weight.unsqueeze(2)
        return F.conv2d(image, kernel, bias, stride, 0, dilation).squeeze(2)

    def lay_out_(self, *, time_major: bool) -> None:
        """Depthwise ones stay as they are: nothing to multiply side by side."""
        self.time_major = time_major and self.conv.groups == 1
        _store_weight_(self.conv, (0, 2, 1) if self.time_major else (0, 1, 2))


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
        self.time_major = False

    def init_state(self, batch: int, like: Tensor) -> ConvState:
        """Silence before the start; ``like`` gives device and dtype."""
        return _silence(batch, self.channels, self.lookback, like, self.time_major)

    def forward(self, x: Tensor, state: ConvState | None = None) -> Tensor:
        """[B, C, T] to [B, C', T * stride]."""
        if self.time_major:
            return self._as_products(x, state)
        new = x.shape[-1] * self.stride
        y = self.conv(x if state is None else state.extend(x))
        end = y.shape[-1] - self.overlap
        return y[..., end - new : end]

    def _as_products(self, x: Tensor, state: ConvState | None) -> Tensor:
        """For a kernel of whole strides: each input frame makes ``stride`` output frames at a time.

        y[t s + r] = Σ_j W[j s + r] x[t - j]; all r at once are one matrix, and its product
        [B, T, s C'] is, read as [B, T s, C'], the output.
        """
        new, s = x.shape[-1], self.stride
        if state is not None:
            x = state.extend(x, time_major=True)
        else:
            x = _pad_rows(x, self.lookback, 0)
        rows, weight, bias = x.transpose(1, 2), self.conv.weight.permute(2, 1, 0), self.conv.bias
        assert bias is not None
        y = F.linear(rows[:, self.lookback :], weight[:s].flatten(0, 1), bias.repeat(s))
        for j in range(1, self.lookback + 1):
            first = self.lookback - j
            matrix = weight[j * s : (j + 1) * s].flatten(0, 1)
            y = y + F.linear(rows[:, first : first + new], matrix)
        return y.unflatten(-1, (s, -1)).flatten(1, 2).transpose(1, 2)

    def lay_out_(self, *, time_major: bool) -> None:
        """The weight [C, C', kernel] time-major: ``kernel`` matrices [C', C]."""
        self.time_major = time_major and self.overlap % self.stride == 0
        _store_weight_(self.conv, (2, 1, 0) if self.time_major else (0, 1, 2))


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


def lay_out_(module: nn.Module, time_major_on: Collection[str] = TIME_MAJOR_ON) -> None:
    """Have each convolution below ``module`` work time-major if its weight is on such a device.

    For folded weights, once they are where they stay; streams begin after it. A weight keeps its
    name, shape and values; only the order of its memory changes, which moving to another dtype
    or device keeps. To save one, make it contiguous first.
    """
    for child in module.modules():
        if isinstance(child, CausalConv1d | CausalConvTranspose1d):
            child.lay_out_(time_major=child.conv.weight.device.type in time_major_on)


def _store_weight_(conv: nn.Conv1d | nn.ConvTranspose1d, order: tuple[int, int, int]) -> None:
    """Put the weight's memory in the ``order`` of its axes, outermost first."""
    # All three orders are their own inverses.
    conv.weight.data = conv.weight.data.permute(order).contiguous().permute(order)


def _silence(batch: int, channels: int, frames: int, like: Tensor, time_major: bool) -> ConvState:
    if time_major:
        return ConvState(like.new_zeros(batch, frames, channels).transpose(1, 2))
    return ConvState(like.new_zeros(batch, channels, frames))


def _pad_rows(x: Tensor, left: int, right: int) -> Tensor:
    """``x`` [B, C, T] with silence around it, time-major."""
    if left or right:
        x = F.pad(x.transpose(1, 2), (0, 0, left, right)).transpose(1, 2)
    return x
