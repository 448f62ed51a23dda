"""The pieces of a pass through torch.compile: once for all layers and any number of latents."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from echo.models.dit import EchoDiT, PackedRow, PackedStep
from echo.models.layer_kv import row_context
from echo.models.passes import (
    OnePass,
    Pieces,
    PlainPass,
    PlainPasses,
    attend_along,
    between,
    enter,
    leave,
)
from echo.modules.linear import FEW_ROWS, MIN_ROWS

log = logging.getLogger(__name__)

# Of latents: first as many as kernels are worth tuning for, which happens at the first call; then
# on each side of where products change.
LENGTHS = (1024, MIN_ROWS - 1, FEW_ROWS)
FEWEST = 2  # of latents and of times: the compiler makes the number 1 a case of its own


class CompiledPasses:
    """Passes of compiled pieces, which go on uncompiled, and say so once, if compiling fails."""

    def __init__(self, backend: str | Callable[..., Any] = "inductor") -> None:
        self._plain = PlainPasses()
        self._failed = False
        self.pieces = Pieces(*(self._compiled(piece, backend) for piece in (enter, between, leave)))

    @property
    def compiled(self) -> bool:
        """Whether no compiling has failed so far."""
        return not self._failed

    def velocity(self, model: EchoDiT, step: PackedStep) -> Tensor:
        return attend_along(self.begin(model, step), step, len(model.blocks))

    def begin(self, model: EchoDiT, step: PackedStep) -> OnePass:
        """As of :class:`PlainPasses`."""
        if self._failed or len(step.x) < FEWEST:
            return self._plain.begin(model, step)
        # A time for each latent and never a single time: one case for the compiler.
        which, modulation = step.which, step.modulation
        if which is None:
            which = torch.zeros(len(step.x), dtype=torch.int64, device=step.x.device)
        if len(modulation) < FEWEST:
            modulation = torch.cat((modulation, modulation))
        return PlainPass(self.pieces, model, step.x, modulation, which, step.rope)

    def warm_up(self, model: EchoDiT) -> None:
        """Compile, before anybody waits for it."""
        for latents in LENGTHS:
            running = self.begin(model, blank_step(model, latents=latents, times=3))
            heads = running.enter()
            for layer in range(len(model.blocks) - 1):
                heads = running.between(layer, torch.zeros_like(heads[0]))
            running.leave(torch.zeros_like(heads[0]))

    def _compiled(
        self, piece: Callable[..., Any], backend: str | Callable[..., Any]
    ) -> Callable[..., Any]:
        compiled = torch.compile(piece, backend=backend)
        proven = False

        def run(*args: Any) -> Any:
            nonlocal proven
            if self._failed:
                return piece(*args)
            for each in args:
                if isinstance(each, Tensor):
                    torch._dynamo.maybe_mark_dynamic(each, 0)
            try:
                result = compiled(*args)
                proven = True
                return result
            except Exception as error:
                if not failed_to_compile(error, proven):
                    raise
                log.warning("the model runs uncompiled, compiling failed: %s", first_line(error))
                self._failed = True
            return piece(*args)

        return run


def failed_to_compile(error: Exception, proven: bool) -> bool:
    """Whether ``error`` is the compiler's: by its kind or, of what has not run before, any. Triton
    finds at a kernel's first launch that it lacks a compiler or room, and says so as it likes."""
    return not proven or isinstance(error, torch._dynamo.exc.TorchDynamoException)


def first_line(error: Exception) -> str:
    """Its kind and what it says, for a log."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def blank_step(model: EchoDiT, *, latents: int, times: int) -> PackedStep:
    """A step of one row of ``latents`` zeros, of ``times`` different times, without a context."""
    c, device = model.config, model.device
    rope = model.rope(torch.arange(latents, device=device))
    return PackedStep(
        x=torch.zeros(latents, c.latent_size, device=device),
        modulation=torch.zeros(
            (times, c.num_layers, 6, c.model_size), dtype=model.dtype, device=device
        ),
        rows=(PackedRow(row_context(c.num_layers), rope, 0),),
    )
