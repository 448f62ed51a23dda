"""A pass of the DiT in pieces: what every latent does alone, between the attentions.

Attention sees rows in any company; all else depends on the number of latents T alone. So these
pieces can be compiled once for any T, and recorded as CUDA graphs for some. One piece is what lies
between two attentions: the end of one layer and the beginning of the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from echo.modules.rope import RopeTable

if TYPE_CHECKING:
    from echo.models.dit import DiTBlock, EchoDiT, PackedStep

Heads = tuple[Tensor, Tensor, Tensor]  # q, k, v of the T latents, each [T, H, d]
Flow = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # h [T, D], q, k, v, and the gate [T, D]


class OnePass(Protocol):
    """A pass under way. Between its calls the caller attends."""

    def enter(self) -> Heads:
        """Of the first layer."""
        ...

    def between(self, layer: int, attended: Tensor) -> Heads:
        """Of the layer after ``layer``, which has ``attended`` [T, H, d]."""
        ...

    def leave(self, attended: Tensor) -> Tensor:
        """Velocity [T, 80] float32, from what the last layer ``attended``."""
        ...


class Passes(Protocol):
    """A way to run them."""

    def begin(self, model: EchoDiT, step: PackedStep) -> OnePass: ...


class PlainPasses:
    """As it is written."""

    def begin(self, model: EchoDiT, step: PackedStep) -> OnePass:
        return _PlainPass(model, step)


class _PlainPass:
    def __init__(self, model: EchoDiT, step: PackedStep) -> None:
        self._model = model
        self._step = step

    def enter(self) -> Heads:
        step = self._step
        flow = enter(self._model, step.x, step.modulation[:, 0], step.which, *_angles(step.rope))
        return self._keep(flow)

    def between(self, layer: int, attended: Tensor) -> Heads:
        blocks, step = self._model.blocks, self._step
        flow = between(
            blocks[layer],
            blocks[layer + 1],
            self._h,
            self._gate,
            attended,
            step.modulation[:, layer],
            step.modulation[:, layer + 1],
            step.which,
            *_angles(step.rope),
        )
        return self._keep(flow)

    def leave(self, attended: Tensor) -> Tensor:
        step = self._step
        return leave(self._model, self._h, self._gate, attended, step.modulation[:, -1], step.which)

    def _keep(self, flow: Flow) -> Heads:
        self._h, *heads, self._gate = flow
        q, k, v = heads
        return q, k, v


def enter(
    model: EchoDiT, x: Tensor, modulation: Tensor, which: Tensor | None, cos: Tensor, sin: Tensor
) -> Flow:
    """Up to the first attention.

    Args:
        x: [T, 80] float32.
        modulation: [M, 6, D] of the first layer; ``which`` [T] of the M, or None: all the one.
        cos, sin: [T, d / 2] float32, of the positions.
    """
    h = model.in_proj(x.to(model.dtype))
    chosen = _chosen(modulation, which)
    return (h, *model.blocks[0].before_attention(h, chosen, RopeTable(cos, sin)))


def between(
    block: DiTBlock,
    following: DiTBlock,
    h: Tensor,
    gate: Tensor,
    attended: Tensor,
    modulation: Tensor,
    next_modulation: Tensor,
    which: Tensor | None,
    cos: Tensor,
    sin: Tensor,
) -> Flow:
    """From what ``block`` ``attended`` [T, H, d] to the next attention; otherwise as ``enter``."""
    h = block.after_attention(h, attended, gate, _chosen(modulation, which))
    chosen = _chosen(next_modulation, which)
    return (h, *following.before_attention(h, chosen, RopeTable(cos, sin)))


def leave(
    model: EchoDiT,
    h: Tensor,
    gate: Tensor,
    attended: Tensor,
    modulation: Tensor,
    which: Tensor | None,
) -> Tensor:
    """From the last attention to the velocity [T, 80] float32."""
    h = model.blocks[-1].after_attention(h, attended, gate, _chosen(modulation, which))
    return model.out_proj(model.out_norm(h)).float()


def _chosen(modulation: Tensor, which: Tensor | None) -> Tensor:
    """Of each latent, [T or 1, 6, D]."""
    return modulation if which is None else modulation.index_select(0, which)


def _angles(rope: RopeTable) -> tuple[Tensor, Tensor]:
    return rope.cos, rope.sin
