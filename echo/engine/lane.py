"""A lane beside the sampling: on a GPU, a stream of its own for the codec."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Lane:
    """Work that goes on beside what the caller issues next; on a CPU simply done at once.

    What is made in a lane is used in it only, or by the host; what was made elsewhere is taken
    first.
    """

    def __init__(self, device: torch.device, stream: torch.cuda.Stream | None = None) -> None:
        self.device = device
        self.stream = stream

    @classmethod
    def beside(cls, device: torch.device) -> Lane:
        """A new lane on ``device``, ahead of the usual stream where both want the same kernels."""
        if device.type != "cuda":
            return cls(device)
        return cls(device, torch.cuda.Stream(device, priority=-1))

    def take(self, made: Tensor) -> Tensor:
        """``made`` for what is run in the lane from now on: there all that comes waits until it is
        made, but not for what is issued elsewhere later, such as the next steps of others."""
        made = made.to(self.device)
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
            made.record_stream(self.stream)
        return made

    def run(self, work: Callable[[], T]) -> T:
        """Issue ``work``, which uses what was taken or made in the lane."""
        with self.entered():
            return work()

    def entered(self) -> AbstractContextManager[object]:
        """As the current stream."""
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)
