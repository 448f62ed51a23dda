"""LoRA files, merged into the weights at load (model.md §8, arXiv 2106.09685)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from echo.errors import CheckpointError
from echo.models.checkpoint import FLOAT_FORMATS, describe, open_safetensors, some

DOWN = ".lora_w1.weight"  # [r, in]
UP = ".lora_w2.weight"  # [out, r]


def merge_lora_(model: nn.Module, path: Path, *, alpha: float, scale: float) -> int:
    """Add (alpha / r) * scale * (w2 @ w1) to every weight named in ``path``, in place.

    ``<name>.lora_w1.weight`` [r, in] and ``<name>.lora_w2.weight`` [out, r] change
    ``<name>.weight`` [out, in]. Computed in float32 on the model's device, cast back to the
    model's dtype. The file is checked whole before anything changes.

    Returns:
        The number of weights changed.

    Raises:
        CheckpointError: not a complete safetensors file; empty; keys of another form or without
            their other half; names that the model does not have; shapes that do not fit.
    """
    weights = dict(model.named_parameters())
    with open_safetensors(path) as file:
        names = _check(path, describe(file), weights)
        pairs = {name: (file.get_tensor(name + DOWN), file.get_tensor(name + UP)) for name in names}
        for name, (down, up) in pairs.items():
            weight = weights[f"{name}.weight"]
            _add(weight, down.to(weight.device), up.to(weight.device), alpha * scale)
    return len(pairs)


@torch.no_grad()
def _add(weight: Tensor, down: Tensor, up: Tensor, factor: float) -> None:
    delta = up.float() @ down.float() * (factor / down.shape[0])
    weight.copy_(weight.float() + delta)


def _check(
    path: Path, found: dict[str, tuple[tuple[int, ...], str]], weights: dict[str, nn.Parameter]
) -> list[str]:
    """Names of the layers that ``path`` changes; raises unless all of it fits."""
    downs = [key.removesuffix(DOWN) for key in found if key.endswith(DOWN)]
    ups = [key.removesuffix(UP) for key in found if key.endswith(UP)]
    names = sorted({*downs, *ups})
    whole = [name for name in names if name in downs and name in ups]
    known = [name for name in whole if f"{name}.weight" in weights]
    typed = [key for key, (_, kind) in found.items() if kind not in FLOAT_FORMATS]
    problems = [
        some("keys of another form", [key for key in found if not key.endswith((DOWN, UP))]),
        some("without their other half", [name for name in names if name not in whole]),
        some("not layers of the model", [name for name in whole if name not in known]),
        some("of another shape", [t for name in known if (t := _misfit(name, found, weights))]),
        some("not floating point", typed),
    ]
    if any(problems):
        raise CheckpointError(
            f"{path} is not a LoRA of this model: {'; '.join(filter(None, problems))}. "
            f"Expected: pairs NAME{DOWN} [r, in] and NAME{UP} [out, r]",
            param="model.lora.repo",
        )
    if not names:
        raise CheckpointError(f"{path} holds no tensors", param="model.lora.repo")
    return names


def _misfit(
    name: str,
    found: dict[str, tuple[tuple[int, ...], str]],
    weights: dict[str, nn.Parameter],
) -> str | None:
    down, up = found[name + DOWN][0], found[name + UP][0]
    target = tuple(weights[f"{name}.weight"].shape)
    two_axes = len(down) == len(up) == 2
    if two_axes and down[0] == up[1] >= 1 and (up[0], down[1]) == target:
        return None
    return f"{name}: {list(up)} x {list(down)} onto {list(target)}"
