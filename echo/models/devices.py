"""Devices and number formats by name."""

from __future__ import annotations

import re

import torch

from echo.errors import ConfigError

_DTYPES = {
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
    "float32": torch.float32,
    "fp32": torch.float32,
}


def parse_dtype(name: str, *, param: str = "model.dtype") -> torch.dtype:
    """``bfloat16``, ``float16``, ``float32`` or their short forms; else :class:`ConfigError`."""
    try:
        return _DTYPES[name.strip().lower()]
    except KeyError:
        raise ConfigError(
            f"{param} is {name!r}; choose one of {', '.join(_DTYPES)}", param=param
        ) from None


def pick_device(name: str, *, param: str = "model.device") -> torch.device:
    """``auto`` (cuda if present, else cpu), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises :class:`ConfigError` for other names and for a GPU that is not there.
    """
    wanted = name.strip().lower()
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cpu":
        return torch.device("cpu")
    match = re.fullmatch(r"cuda(?::(\d+))?", wanted)
    if match is None:
        raise ConfigError(f"{param} is {name!r}; choose auto, cpu, cuda or cuda:N", param=param)
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = int(match[1] or 0)
    if index >= present:
        raise ConfigError(
            f"{param} is {name!r}, but PyTorch sees {present} CUDA devices; choose auto or cpu, "
            "or install a PyTorch built for your GPU",
            param=param,
        )
    return torch.device("cuda", index)


def allow_tf32(allowed: bool) -> None:
    """Whether GPUs may multiply float32 numbers rounded to 10 bits, for the whole process.

    For PyTorch's convolutions that is so by default, for its matrix products it is not.
    """
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def memory_of(device: torch.device) -> dict[str, int]:
    """Bytes on a GPU: allocated to tensors, reserved by PyTorch, and the peak of the former.

    Empty for the CPU, where PyTorch does not count.
    """
    if device.type != "cuda":
        return {}
    return {
        "allocated": torch.cuda.memory_allocated(device),
        "reserved": torch.cuda.memory_reserved(device),
        "peak": torch.cuda.max_memory_allocated(device),
    }
