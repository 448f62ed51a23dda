"""What a generation asks of the worker, one thing at a time."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from echo.engine.lane import Lane
from echo.engine.stream import Audio
from echo.sampling.packing import StepRequest

Stage = Literal["voice", "text", "prefix", "sampling", "codec", "vad"]


@dataclass(frozen=True, eq=False)
class Call:
    """Work of its own on the device, short enough that others can wait for it.

    The worker runs it and sends back what it returned.
    """

    stage: Stage
    run: Callable[[], Any]
    latents: int = 0  # that the codec decodes


@dataclass(frozen=True, eq=False)
class Sound:
    """Audio for the listener, [T], made in ``lane``; ``finish`` is applied on the host.

    The worker sends back None, perhaps before the audio has reached the host.
    """

    audio: Tensor
    lane: Lane
    finish: Callable[[Audio], Audio] | None = None


Op = StepRequest | Call | Sound
Ops = Generator[Op, Any, None]
"""A generation: yields what it needs next, is sent the result."""
