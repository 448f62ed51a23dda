"""LoRA files, merged into the weights at load (model.md §8, arXiv 2106.09685)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from echo.errors import CheckpointError
from echo.models.checkpoint import FLOAT_FORMATS, describe, open_safetensors, some

DOWN = ".lora_w1.weight"  # [r, in]
UP = ".lora_w2.weight"  # [out, r]


@dataclass(frozen=True)
class Lora:
    """The update of a file: per layer ``w1`` [r, in] and ``w2`` [out, r], and their factor."""

    pairs: dict[str, tuple[Tensor, Tensor]]
    factor: float  # alpha * scale

    @torch.no_grad()
    def update(self, name: str, weight: Tensor) -> None:
        """Add to ``weight`` (a parameter called ``name``) what the file says, if anything.

        In place, computed in float32 on its device, rounded to its dtype.
        """
        pair = self.pairs.get(name.removesuffix(".weight"))
        if pair is not None:
            down, up = (half.to(weight.device).float() for half in pair)
            weight.copy_(weight.float() + up @ down * (self.factor / down.shape[0]))


def read_lora(model: nn.Module, path: Path, *, alpha: float, scale: float) -> Lora:
    """(alpha / r) * scale * (w2 @ w1) for every weight of ``model`` that ``path`` names.

    ``<name>.lora_w1.weight`` [r, in] and ``<name>.lora_w2.weight`` [out, r] change
    ``<name>.weight`` [out, in]. The file is checked whole; of ``model`` (on any device, meta too)
    only shapes are looked at.

    Raises:
        CheckpointError: not a complete safetensors file; empty; keys of another form or without
            their other half; names that the model does not have; shapes that do not fit.
    """
    with open_safetensors(path) as file:
        names = _check(path, describe(file), dict(model.named_parameters()))
        # Copies: the tensors of an open file are views of it.
        halves = {key: file.get_tensor(key).clone() for n in names for key in (n + DOWN, n + UP)}
    return Lora({n: (halves[n + DOWN], halves[n + UP]) for n in names}, alpha * scale)


def merge_lora_(model: nn.Module, path: Path, *, alpha: float, scale: float) -> int:
    """Add what :func:`read_lora` reads to the weights of ``model``; returns how many changed."""
    lora = read_lora(model, path, alpha=alpha, scale=scale)
    for name, weight in model.named_parameters():
        lora.update(name, weight)
    return len(lora.pairs)


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
