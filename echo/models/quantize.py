"""Weights in 8 bits through torchao (``model.quantize``): half the bytes, on the card and per pass.

Both kinds quantise the weights once, at load, with a scale per output, and the activations on the
way in, with a scale per row. Keeping the activations in 16 bits would be a little more exact, but
without a compiler it writes out the weights in 16 bits for every product: 5 bytes moved for each
weight instead of 2 in bfloat16, and no operation saved. So quantised, a product reads 1 byte and
runs on the 8-bit units, which suits the first block (bound by the bytes of weights) and long ones
(bound by operations) alike. In int8 that takes a product of our own on a GPU: see
:func:`echo.modules.linear.int8_product`.

Only the products inside the blocks are quantised: they are 94 % of the weights. What goes in and
out (``in_proj``, ``out_proj``) and what depends on t alone (``cond_module``, AdaLN) stays as it is:
it is small and would cost half as much error again.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from echo.errors import ConfigError
from echo.modules.linear import QuantizedLinear

PARAM = "model.quantize"
MULTIPLE = 16  # of both sizes of a weight: what the 8-bit units of GPUs take
SHARE = 0.94  # of the weights of echo-tts-base that are quantised
BLOCK_PARTS = ("attention", "mlp")
# Compute capability of the first GPUs with such units, and their family.
_NEEDS = {"int8": ((7, 5), "Turing"), "fp8": ((8, 9), "Ada")}

Capability = Callable[[torch.device], tuple[int, int]]
Quantize = Callable[[Tensor], Tensor]


def quantizer(
    kind: str,
    device: torch.device,
    dtype: torch.dtype,
    *,
    capability: Capability = torch.cuda.get_device_capability,
    load: Callable[[str], Any] = importlib.import_module,
) -> Quantize:
    """What makes a quantised weight of a weight [out, in]; ``kind``: int8 or fp8.

    Raises:
        ConfigError: torchao is not installed, or the device or number format does not suit.
    """
    if kind not in _NEEDS:
        raise ConfigError(f"{PARAM} is {kind!r}; choose one of {', '.join(_NEEDS)}", param=PARAM)
    _check_device(kind, device, dtype, capability)
    ao = _torchao(load)
    if kind == "int8":
        config = ao.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
    else:
        config = ao.Float8DynamicActivationFloat8WeightConfig(
            granularity=ao.PerRow(), set_inductor_config=False
        )
    return lambda weight: quantize_weight(weight, config, ao)


def quantize_weight(weight: Tensor, config: Any, ao: Any) -> Tensor:
    """``weight`` [out, in] by a ``config`` of torchao, the module ``ao``."""
    out, wide = weight.shape
    layer = nn.Linear(wide, out, bias=False, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    ao.quantize_(layer, config)
    quantized = layer.weight.detach()
    del layer.weight  # torchao makes cycles of the layer: it would stay until it is collected
    return quantized


def is_chosen(name: str, shape: tuple[int, ...]) -> bool:
    """Whether the DiT's parameter ``name`` of this shape is quantised."""
    part, _, leaf = name.rpartition(".")[0].rpartition(".")
    inside = part.rpartition(".")[2] in BLOCK_PARTS and not leaf.endswith("_norm")
    return inside and len(shape) == 2 and all(size % MULTIPLE == 0 for size in shape)


def adopt_quantized_(model: nn.Module) -> None:
    """Make the layers below ``model`` that :func:`is_chosen` names ready for quantised weights."""
    for name, parameter in list(model.named_parameters()):
        if is_chosen(name, tuple(parameter.shape)):
            owner = name.rpartition(".")[0]
            old = model.get_submodule(owner)
            assert isinstance(old, nn.Linear)
            new = QuantizedLinear(old.in_features, old.out_features, bias=False, device="meta")
            new.weight = old.weight
            parent, _, leaf = owner.rpartition(".")
            setattr(model.get_submodule(parent), leaf, new)


def bytes_per_weight(dtype: torch.dtype, quantize: str | None) -> float:
    """What a weight of the real model takes, on average; scales are left out."""
    size = dtype.itemsize
    return size if quantize is None else SHARE + (1 - SHARE) * size


def stored_bytes(module: nn.Module) -> int:
    """Bytes of the weights of ``module`` as they are held, quantised or not, each once."""
    held = {}
    for weight in (*module.parameters(), *module.buffers()):
        for part in _parts(weight):
            storage = part.untyped_storage()
            held[storage._cdata] = storage.nbytes()
    return sum(held.values())


def _parts(weight: Tensor) -> list[Tensor]:
    if not is_traceable_wrapper_subclass(weight):
        return [weight]
    names, _ = weight.__tensor_flatten__()
    return [part for name in names for part in _parts(getattr(weight, name))]


def _check_device(
    kind: str, device: torch.device, dtype: torch.dtype, capability: Capability
) -> None:
    needed, family = _NEEDS[kind]
    other = " or model.quantize=int8" if kind == "fp8" else ""
    if device.type == "cuda":
        found = capability(device)
        if found < needed:
            raise ConfigError(
                f"{PARAM}={kind} needs a GPU of compute capability {needed[0]}.{needed[1]} "
                f"({family}) or newer, but {device} has {found[0]}.{found[1]}; "
                f"set model.quantize=null{other}",
                param=PARAM,
            )
    elif kind == "fp8":
        raise ConfigError(
            f"{PARAM}=fp8 needs a GPU, but model.device is {device}; set model.quantize=null"
            f"{other}",
            param=PARAM,
        )
    if kind == "fp8" and dtype != torch.bfloat16:
        raise ConfigError(f"{PARAM}=fp8 needs model.dtype=bfloat16", param=PARAM)


def _torchao(load: Callable[[str], Any]) -> Any:
    log = logging.getLogger("torchao")
    level = log.level
    # It warns of each kernel that is not for this machine; those we use come with PyTorch.
    log.setLevel(logging.ERROR)
    try:
        return load("torchao.quantization")
    except ImportError as error:
        raise ConfigError(
            f'{PARAM} needs torchao ({error}): pip install "echo-tts[quantize]"', param=PARAM
        ) from error
    finally:
        log.setLevel(level)
