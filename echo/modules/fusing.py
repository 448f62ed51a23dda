"""Linear layers of one input as one matmul, without a second copy of their weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from echo.modules.linear import apply_weight, join_rows, same_memory


class FusedProjections(nn.Module):
    """A module with linear layers (no bias) that all read the same input.

    After :meth:`fuse_` their weights are views of one tensor, ``fused`` [sum of outputs, in]:
    names, shapes and values of the state dict stay, nothing is held twice, and what changes a
    weight in place changes ``fused``. Replacing a weight needs another ``fuse_``. Training does
    not fuse: parameters that share storage do not suit optimisers.
    """

    fused: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("fused", None, persistent=False)

    def linears(self) -> tuple[nn.Linear, ...]:
        """The layers, in the order of :meth:`project`'s results."""
        raise NotImplementedError

    def fuse_(self) -> None:
        """Pack the weights, unless they are; the last thing before inference."""
        layers = self.linears()
        if self.fused is not None and same_memory([self.fused, *(x.weight for x in layers)]):
            return
        self.fused = join_rows([layer.weight.detach() for layer in layers])
        first = 0
        for layer in layers:
            view = self.fused[first : first + layer.out_features]
            layer.weight = nn.Parameter(view, requires_grad=False)
            first += layer.out_features

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        """Each layer's result on ``x`` [..., in], [..., out]."""
        layers = self.linears()
        if self.fused is None:
            return tuple(layer(x) for layer in layers)
        sizes = [layer.out_features for layer in layers]
        return apply_weight(x, self.fused).split(sizes, dim=-1)

    def project_joined(self, x: Tensor) -> Tensor:
        """The results of :meth:`project` side by side, [..., sum of outputs]."""
        if self.fused is None:
            return torch.cat(self.project(x), dim=-1)
        return apply_weight(x, self.fused)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:
        """``to``, ``half`` and the like: they part the views, so pack again."""
        was_fused, self.fused = self.fused is not None, None
        super()._apply(fn, recurse)
        if was_fused:
            self.fuse_()
        return self


def fuse_(model: nn.Module) -> None:
    """Pack all projections below ``model``, one module at a time."""
    for module in model.modules():
        if isinstance(module, FusedProjections):
            module.fuse_()
