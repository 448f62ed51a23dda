"""Weights from a seed: any size without a download, for speed work and tests.

They make noise, but finite and audible noise: scales are chosen so that a signal keeps its size
on the way through.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from echo.errors import CheckpointError
from echo.models.checkpoint import Convert
from echo.models.codec import Decoder, ResidualUnit
from echo.models.pca import PCAState
from echo.modules.conv import ConvNeXtBlock, Snake
from echo.modules.norm import RMSNorm
from echo.modules.window_transformer import LayerScale

RESIDUAL_GAIN = 0.3  # of the codec's convolutional branches: 24 of them add up
OUTPUT_GAIN = 0.1  # before the decoder's tanh: an RMS around -16 dBFS
LAYER_SCALE = 0.3
PCA_SCALE = 0.3  # z_q sums ten codes of unit variance; latents come out near 1
MOST_THREADS = 8  # a generator uses one, and each holds a parameter


def randomize_(
    module: nn.Module,
    seed: int,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    convert: Convert | None = None,
) -> None:
    """Replace every parameter of ``module`` (on any device, meta too) by one drawn from ``seed``.

    Each is drawn on the CPU in float32 from the seed and its own name, then cast to ``dtype`` on
    the way to ``device``: the same everywhere, and no second copy of the model. ``convert``: what
    is then made of it, given its name.
    """
    for name, value in _drawn(module, _plan(module), seed):
        owner, _, leaf = name.rpartition(".")
        value = value.to(device=device, dtype=dtype)
        if convert is not None:
            value = convert(name, value)
        setattr(module.get_submodule(owner), leaf, nn.Parameter(value, requires_grad=False))


def random_pca(
    latent_size: int, latent_dim: int, seed: int, *, device: torch.device | str
) -> PCAState:
    """Orthonormal components [latent_size, latent_dim], a small mean, float32.

    Raises :class:`CheckpointError` if there are more components than dimensions.
    """
    if latent_size > latent_dim:
        raise CheckpointError(
            f"a PCA cannot have {latent_size} components (latent_size) of {latent_dim} dimensions "
            "(latent_dim)"
        )
    directions = _uniform(seed, "pca_components", (latent_dim, latent_size), 1.0)
    components = torch.linalg.qr(directions.double()).Q.T.float().contiguous()
    mean = _uniform(seed, "pca_mean", (latent_dim,), 0.1)
    return PCAState(components, mean, PCA_SCALE).to(device)


class _Init(NamedTuple):
    """A constant, or (std > 0) values drawn around zero."""

    constant: float
    std: float


def _drawn(module: nn.Module, plan: Mapping[str, _Init], seed: int) -> Iterator[tuple[str, Tensor]]:
    """Values in the order of ``plan``, a few of them drawn at a time."""
    threads = min(MOST_THREADS, os.cpu_count() or 1)
    waiting: deque[tuple[str, Future[Tensor]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for name, init in plan.items():
            if len(waiting) == threads:
                first, value = waiting.popleft()
                yield first, value.result()
            shape = tuple(module.get_parameter(name).shape)
            waiting.append((name, pool.submit(_draw, seed, name, shape, init)))
        for last, value in waiting:
            yield last, value.result()


def _draw(seed: int, name: str, shape: tuple[int, ...], init: _Init) -> Tensor:
    if init.std > 0:
        return _uniform(seed, name, shape, init.std)
    return torch.full(shape, init.constant)


def _gains(module: nn.Module) -> dict[str, float]:
    """Convolutions whose output is not to have the size of their input."""
    gains = {}
    for prefix, part in module.named_modules():
        dot = f"{prefix}." if prefix else ""
        if isinstance(part, ResidualUnit):
            gains[f"{dot}block.{len(part.block) - 1}.conv"] = RESIDUAL_GAIN
        elif isinstance(part, Decoder):
            gains[f"{dot}model.{len(part.model) - 2}.conv"] = OUTPUT_GAIN
    return gains


def _plan(module: nn.Module) -> dict[str, _Init]:
    """How each parameter begins, by name."""
    gains = _gains(module)
    plan = {}
    for prefix, owner in module.named_modules():
        if isinstance(owner, ParametrizationList):
            continue
        for leaf, _ in owner.named_parameters(recurse=False):
            name = f"{prefix}.{leaf}" if prefix else leaf
            plan[name] = _init(owner, leaf, gains.get(prefix, 1.0))
        if is_parametrized(owner, "weight"):  # weight norm: w = g v / ‖v‖
            g, v = (f"{prefix}.parametrizations.weight.original{i}" for i in (0, 1))
            row = math.prod(module.get_parameter(v).shape[1:])
            plan[g] = _Init(gains.get(prefix, 1.0) * math.sqrt(row / _fan_in(owner)), 0.0)
            plan[v] = _Init(0.0, 1.0)
    return plan


def _init(owner: nn.Module, leaf: str, gain: float) -> _Init:
    if leaf == "bias":
        return _Init(0.0, 0.0)
    if isinstance(owner, RMSNorm | nn.LayerNorm | Snake):
        return _Init(1.0, 0.0)
    if isinstance(owner, LayerScale | ConvNeXtBlock):
        return _Init(LAYER_SCALE, 0.0)
    if isinstance(owner, nn.Embedding):
        return _Init(0.0, 1.0)
    return _Init(0.0, gain / math.sqrt(_fan_in(owner)))


def _uniform(seed: int, name: str, shape: tuple[int, ...], std: float) -> Tensor:
    """Uniform, not normal: the same bits whatever the CPU's vector instructions."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.rand(shape, generator=generator).sub_(0.5).mul_(std * math.sqrt(12.0))


def _fan_in(layer: nn.Module) -> float:
    """Inputs that add up in one output."""
    if isinstance(layer, nn.Linear):
        return layer.in_features
    if isinstance(layer, nn.Conv1d):
        return layer.in_channels // layer.groups * layer.kernel_size[0]
    if isinstance(layer, nn.ConvTranspose1d):
        return layer.in_channels * layer.kernel_size[0] / layer.stride[0]
    raise TypeError(f"no rule for the random weights of a {type(layer).__name__}")
