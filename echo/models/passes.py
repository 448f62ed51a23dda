"""A pass of the DiT in pieces: what every latent does alone, between the attentions.

Attention sees rows in any company; all else depends on the number of latents T alone. So these
pieces can be compiled once for any T, and recorded as CUDA graphs for some. One piece is what lies
between two attentions: the end of one layer and the beginning of the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from echo.modules.attention import attend_with_contexts
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

    @property
    def pieces(self) -> Pieces:
        """What its passes are made of."""
        ...

    def velocity(self, model: EchoDiT, step: PackedStep) -> Tensor:
        """[T, 80] float32."""
        ...

    def warm_up(self, model: EchoDiT) -> None:
        """Whatever takes its time, before anybody waits for a pass."""
        ...


def attend_along(running: OnePass, step: PackedStep, layers: int) -> Tensor:
    """A pass from its beginning to its velocity."""
    q, k, v = running.enter()
    for layer in range(layers):
        context = step.contexts(layer)
        attended = attend_with_contexts(q, k, v, context, step.packing, step.offsets)
        if layer < layers - 1:
            q, k, v = running.between(layer, attended)
    return running.leave(attended)


class PlainPasses:
    """As it is written, or with other ``pieces`` that do the same."""

    def __init__(self, pieces: Pieces | None = None) -> None:
        self.pieces = pieces or Pieces(enter, between, leave)

    def velocity(self, model: EchoDiT, step: PackedStep) -> Tensor:
        return attend_along(self.begin(model, step), step, len(model.blocks))

    def begin(self, model: EchoDiT, step: PackedStep) -> OnePass:
        """One under way, for who attends himself."""
        return PlainPass(self.pieces, model, step.x, step.modulation, step.which, step.rope)

    def warm_up(self, model: EchoDiT) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Pieces:
    """:func:`enter`, :func:`between` and :func:`leave`, or what stands for them."""

    enter: Callable[..., Flow]
    between: Callable[..., Flow]
    leave: Callable[..., Tensor]


class PlainPass:
    """``pieces`` one after the other. Shapes as in :class:`~echo.models.dit.PackedStep`."""

    def __init__(
        self,
        pieces: Pieces,
        model: EchoDiT,
        x: Tensor,
        modulation: Tensor,
        which: Tensor | None,
        rope: RopeTable,
    ) -> None:
        self._pieces = pieces
        self._model = model
        self._x, self._modulation, self._which = x, modulation, which
        self._angles = rope.cos, rope.sin

    def enter(self) -> Heads:
        first = self._modulation[:, 0]
        flow = self._pieces.enter(self._model, self._x, first, self._which, *self._angles)
        return self._keep(flow)

    def between(self, layer: int, attended: Tensor) -> Heads:
        blocks = self._model.blocks
        modulations = self._modulation[:, layer], self._modulation[:, layer + 1]
        flow = self._pieces.between(
            *(blocks[layer], blocks[layer + 1], self._h, self._gate, attended),
            *(*modulations, self._which, *self._angles),
        )
        return self._keep(flow)

    def leave(self, attended: Tensor) -> Tensor:
        last, which = self._modulation[:, -1], self._which
        return self._pieces.leave(self._model, self._h, self._gate, attended, last, which)

    def _keep(self, flow: Flow) -> Heads:
        self._h, q, k, v, self._gate = flow
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
