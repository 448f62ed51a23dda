"""Matrix products with weights, the way round that suits the machine and the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

FEW_ROWS = 256  # below, a CPU spends its time on the weights
MIN_ROWS = 17  # of an int8 product: cuBLAS takes no fewer


def apply_weight(x: Tensor, weight: Tensor) -> Tensor:
    """``x`` [..., in] times the transpose of ``weight`` [out, in]: [..., out], as ``F.linear``.

    On a CPU in 16 bits each call packs one side of the product anew. For few rows that must be
    ``x``, not the weights: measured 1.6 times as fast at 32 rows, 1.3 times at 96.

    A quantised weight has a scale per row and ``x`` gets one per row, so no row of ``x`` depends
    on the others: what is said does not depend on the company.
    """
    rows = math.prod(x.shape[:-1])
    if is_quantized(weight):
        parts: Any = weight
        if x.device.type != "cpu" and parts.qdata.dtype == torch.int8:
            product = int8_product(x.reshape(rows, -1), parts.qdata, parts.scale)
            return product.unflatten(0, x.shape[:-1])
        if rows >= MIN_ROWS:
            return F.linear(x, weight)
        padded = F.pad(x.reshape(rows, -1), (0, 0, 0, MIN_ROWS - rows))
        return F.linear(padded, weight)[:rows].unflatten(0, x.shape[:-1])
    if x.device.type == "cpu" and x.dtype == torch.bfloat16 and rows < FEW_ROWS:
        return F.linear(weight, x.reshape(rows, -1)).t().unflatten(0, x.shape[:-1])
    return F.linear(x, weight)


def int8_product(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """``x`` [rows, in] times the transpose of ``weight`` [out, in] int8: [rows, out] like ``x``.

    ``scale`` [out, 1] float32. Each row of ``x`` is rounded to 8 bits of its own largest number.

    What torchao does, but issued without waiting for the GPU and without copying the weights: its
    product without a compiler prints its operands to see whether they are real, which a CUDA graph
    does not allow either, and turns the weights round. cuBLAS wants them as they lie here: their
    transpose is the column-major operand that its 8-bit kernels take.
    """
    rows = len(x)
    largest = x.abs().amax(dim=1, keepdim=True).float()
    row_scale = (largest / 127.5).clamp_(min=torch.finfo(torch.float32).eps)
    rounded = (x * (1.0 / row_scale)).round_().clamp_(-128, 127).to(torch.int8)
    if rows < MIN_ROWS:
        rounded = F.pad(rounded, (0, 0, 0, MIN_ROWS - rows))
    sums = torch._int_mm(rounded, weight.t())[:rows]
    # In float32: a sum times one scale can be more than float16 holds.
    return (sums * row_scale).mul_(scale.t()).to(x.dtype)


class QuantizedLinear(nn.Linear):
    """A layer without bias whose weight is quantised."""

    def forward(self, x: Tensor) -> Tensor:
        return apply_weight(x, self.weight)


def is_quantized(weight: Tensor) -> bool:
    """Whether ``weight`` is one of torchao's tensors: numbers in 8 bits and their scales.

    Asked of its type: the answer of PyTorch's own function is no while a compiler looks on.
    """
    return hasattr(type(weight), "__tensor_flatten__")


def join_rows(weights: Sequence[Tensor]) -> Tensor:
    """Weights [out, in] of one input below each other.

    Quantised ones have a scale for each row, so joining them is quantising what was joined.
    """
    first = weights[0]
    if not is_traceable_wrapper_subclass(first):
        return torch.cat(list(weights))
    names, context = first.__tensor_flatten__()
    parts = {name: torch.cat([getattr(weight, name) for weight in weights]) for name in names}
    shape = (sum(weight.shape[0] for weight in weights), first.shape[1])
    return type(first).__tensor_unflatten__(parts, context, shape, (shape[1], 1))


def same_memory(weights: Sequence[Tensor]) -> bool:
    """Whether all ``weights`` are views of one memory."""
    places = set()
    for weight in weights:
        if is_traceable_wrapper_subclass(weight):
            weight = getattr(weight, weight.__tensor_flatten__()[0][0])
        places.add(weight.untyped_storage()._cdata)
    return len(places) == 1
