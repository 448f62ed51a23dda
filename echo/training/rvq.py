"""Codebooks and PCA, fitted on the vectors of a codec that no longer changes.

Each quantiser sees what the ones before left over. Its ``in_proj`` is the PCA of that rest to as
many dimensions as the codebook has, its codes are found by k-means there, and its ``out_proj``
maps codes back by least squares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echo.models.codec import S1DAC
from echo.models.pca import PCAState
from echo.modules.quantizer import VectorQuantizer

_CHUNK = 8192  # vectors compared with a codebook at a time
_LIFT = 2.0  # of the constant dimension, in units of the others' length
_LAST_GAIN = 1e-3


@torch.no_grad()
def fit_quantizer_(
    codec: S1DAC, z: Tensor, *, iterations: int, seed: int, say: Callable[[str], None]
) -> float:
    """Fit all codebooks of ``codec`` on ``z`` [n, latent_dim]; returns the share of power lost."""
    generator = torch.Generator(z.device).manual_seed(seed)
    rest, power, left = z.clone(), z.var(dim=0).sum(), 1.0
    for number, quantizer in enumerate(_quantizers(codec)):
        fit_codebook_(quantizer, rest, iterations, generator)
        codes = quantizer.nearest(rest.T[None])
        rest = rest - quantizer.lookup(codes)[0].T
        left = float(rest.square().sum(dim=1).mean() / power)
        say(f"codebook {number}: {left:.4f} of the power left")
    return left


def _quantizers(codec: S1DAC) -> Iterator[VectorQuantizer]:
    yield from codec.quantizer.semantic_quantizer.quantizers
    yield from codec.quantizer.quantizer.quantizers


@torch.no_grad()
def fit_codebook_(
    quantizer: VectorQuantizer, rest: Tensor, iterations: int, generator: torch.Generator
) -> None:
    """Fit one codebook and its projections on ``rest`` [n, width].

    Codes are searched by angle, which is blind to length. So the last dimension of the projection
    is (all but) constant: seen from that far, angles are distances in the other dimensions.
    """
    size, dims = quantizer.codebook.weight.shape
    mean = rest.mean(dim=0)
    directions = _principal(rest - mean, dims)
    lift = _LIFT * float((rest - mean).matmul(directions[:-1].T).square().sum(1).mean().sqrt())
    directions[-1] *= _LAST_GAIN  # weight norm cannot express a row of zeros
    bias = -directions @ mean
    bias[-1] += lift
    projected = rest @ directions.T + bias
    codes, centres = _kmeans_by_angle(projected, size, iterations, generator)
    quantizer.codebook.weight.copy_(centres)
    _set_conv(quantizer.in_proj, directions, bias)
    weight, out_bias = _least_squares(centres[codes], rest)
    _set_conv(quantizer.out_proj, weight, out_bias)


def _principal(x: Tensor, dims: int) -> Tensor:
    """The ``dims`` directions [dims, width] in which centred ``x`` [n, width] varies most."""
    _, vectors = torch.linalg.eigh((x.T @ x / len(x)).double())
    return vectors.flip(1)[:, :dims].T.to(x.dtype).contiguous()


def _kmeans_by_angle(
    x: Tensor, size: int, iterations: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Codes [n] of ``x`` [n, d] by angle, and the mean vector [size, d] of each code."""
    chosen = torch.randint(len(x), (size,), generator=generator, device=x.device)
    centres = x[chosen].clone()
    codes = torch.zeros(len(x), dtype=torch.long, device=x.device)
    for i in range(iterations):
        codes = _nearest(x, centres)
        counts = torch.bincount(codes, minlength=size)
        sums = torch.zeros_like(centres).index_add_(0, codes, x)
        centres = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), centres)
        empty = torch.nonzero(counts == 0)[:, 0]
        if len(empty) and i < iterations - 1:
            fresh = torch.randint(len(x), (len(empty),), generator=generator, device=x.device)
            centres[empty] = x[fresh]
    return _nearest(x, centres), centres


def _nearest(x: Tensor, centres: Tensor) -> Tensor:
    unit = F.normalize(centres, dim=-1).T
    return torch.cat([(part @ unit).argmax(dim=-1) for part in x.split(_CHUNK)])


def _least_squares(codes: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Weight [width, d] and bias [width] that map ``codes`` [n, d] to ``wanted`` [n, width]."""
    # Centred, so that the constant dimension, which explains nothing, gets no weight.
    middle, goal = codes.mean(dim=0).double(), wanted.mean(dim=0).double()
    x, y = codes.double() - middle, wanted.double() - goal
    ridge = 1e-6 * len(x) * torch.eye(x.shape[1], device=codes.device, dtype=torch.float64)
    solution = torch.linalg.solve(x.T @ x + ridge, x.T @ y)
    bias = goal - middle @ solution
    return solution.T.to(codes.dtype).contiguous(), bias.to(codes.dtype)


def _set_conv(conv: nn.Conv1d, weight: Tensor, bias: Tensor) -> None:
    """Weight [out, in] and bias of a weight-normed convolution of kernel 1."""
    conv.weight = weight[..., None]  # the parametrisation splits it in g and v
    assert conv.bias is not None
    conv.bias.copy_(bias)


def fit_pca(z_q: Tensor, components: int) -> PCAState:
    """PCA of ``z_q`` [n, latent_dim] to latents of unit variance overall."""
    mean = z_q.mean(dim=0)
    directions = _principal(z_q - mean, components)
    variance = ((z_q - mean) @ directions.T).var(dim=0).mean()
    return PCAState(directions.float(), mean.float(), float(variance.rsqrt()))
