"""Weights from safetensors files: strict, and lean in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from echo.errors import CheckpointError

FLOAT_FORMATS = ("F64", "F32", "F16", "BF16")
Convert = Callable[[str, Tensor], Tensor]
_SIZES_HINT = ". Sizes come from a config.json beside the file; without one they are the real ones"
# The file is mapped into memory and what was read of it counts until it is closed.
_BYTES_PER_OPENING = 64 * 2**20


def load_checkpoint_(
    module: nn.Module,
    path: Path,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    ignored: Sequence[str] = (),
    convert: Convert | None = None,
) -> None:
    """Replace the parameters of ``module`` (built on the meta device) by those of ``path``.

    Tensor by tensor, cast to ``dtype`` on the way to ``device``: the peak is the finished module
    plus a few tensors. The module owns its memory; the file is not needed afterwards.

    Args:
        ignored: patterns (``*.causal_mask``) of tensors that may be in the file and are skipped.
        convert: what is made of each tensor, given its name, before the next one is read.

    Raises:
        CheckpointError: not a complete safetensors file; missing, extra or misshapen tensors,
            or tensors that are not floating point. The message names them.
    """
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    with open_safetensors(path) as file:
        check_tensors(path, describe(file), shapes, ignored=ignored, hint=_SIZES_HINT)
    for name, tensor in _read(path, list(shapes)):
        owner, _, leaf = name.rpartition(".")
        value = tensor.to(device=device, dtype=dtype, copy=True)
        if convert is not None:
            value = convert(name, value)
        setattr(module.get_submodule(owner), leaf, nn.Parameter(value, requires_grad=False))


@contextmanager
def open_safetensors(path: Path) -> Iterator[Any]:
    """``safe_open`` on the CPU; raises :class:`CheckpointError` for what is no such file."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a complete safetensors file ({error}); download or copy it again"
        ) from error


def describe(file: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and number format of every tensor of an open file."""
    slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    return {name: (tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}


def check_tensors(
    path: Path,
    found: Mapping[str, tuple[tuple[int, ...], str]],
    wanted: Mapping[str, tuple[int, ...]],
    *,
    ignored: Sequence[str] = (),
    hint: str = "",
) -> None:
    """Raise :class:`CheckpointError` unless ``found`` is exactly ``wanted``, in floating point.

    ``hint`` ends the message.
    """
    extra = [
        name
        for name in found
        if name not in wanted and not any(fnmatch(name, pattern) for pattern in ignored)
    ]
    both = [name for name in wanted if name in found]
    shaped = [
        f"{name} {list(found[name][0])} instead of {list(wanted[name])}"
        for name in both
        if found[name][0] != wanted[name]
    ]
    typed = [f"{name} {found[name][1]}" for name in both if found[name][1] not in FLOAT_FORMATS]
    problems = [
        some("missing", [name for name in wanted if name not in found]),
        some("not of this model", extra),
        some("of another shape", shaped),
        some("not floating point", typed),
    ]
    if any(problems):
        raise CheckpointError(
            f"{path} does not fit the model: {'; '.join(filter(None, problems))}{hint}"
        )


def some(what: str, names: Sequence[str], shown: int = 4) -> str:
    """``3 missing (a, b, c)``, the first few by name; empty if there are none."""
    if not names:
        return ""
    more = f", and {len(names) - shown} more" if len(names) > shown else ""
    return f"{len(names)} {what} ({', '.join(names[:shown])}{more})"


def _read(path: Path, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    pending = list(reversed(names))
    while pending:
        budget = _BYTES_PER_OPENING
        with open_safetensors(path) as file:
            while pending and budget > 0:
                tensor = file.get_tensor(pending[-1])
                budget -= tensor.nbytes
                yield pending.pop(), tensor
                del tensor  # a view of the mapping: it must go before the file is closed
