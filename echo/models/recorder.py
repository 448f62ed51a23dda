"""Work recorded as CUDA graphs, which a GPU repeats at one launch."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from echo.models.compiled_passes import first_line

log = logging.getLogger(__name__)

Work = Callable[[], None]
Replay = Callable[[], None]
Recorder = Callable[[Work], Replay]


class CudaRecorder:
    """Records on ``device``; all its graphs share their memory, so one runs at a time.

    And one stream: memory is kept by stream, and so are the workspaces of cuBLAS. PyTorch's own
    is of whichever device recorded first in this process. The stream has the priority of the one
    that is current now, as what is recorded keeps it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        priority = torch.cuda.current_stream(device).priority
        self._side = torch.cuda.Stream(device, priority=priority)
        _recorders.add(self)

    def __call__(self, work: Work) -> Replay:
        with torch.cuda.device(self._device):
            self._side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._side):
                for _ in range(2):  # what is set up at the first call must not be recorded
                    work()
            torch.cuda.current_stream().wait_stream(self._side)
            graph = torch.cuda.CUDAGraph()
            mode = "thread_local"  # other threads may go on with what they do
            recording = torch.cuda.graph(
                graph, pool=self._pool, stream=self._side, capture_error_mode=mode
            )
            with recording:
                work()
        return _Recorded(graph, work, self)


class _Recorded:
    """A graph, with all whose memory it reads and writes."""

    def __init__(self, graph: torch.cuda.CUDAGraph, work: Work, recorder: CudaRecorder) -> None:
        self._graph = graph
        self._kept = work, recorder

    def __call__(self) -> None:
        self._graph.replay()


@contextmanager
def told_if_it_fails(what: str) -> Iterator[None]:
    """Where recording fails, memory being short or else, says so; ``what`` then goes on without."""
    try:
        yield
    except RuntimeError as error:
        log.warning("%s without CUDA graphs, recording failed: %s", what, first_line(error))


_recorders: weakref.WeakSet[CudaRecorder] = weakref.WeakSet()


def anything_recorded() -> bool:
    """Whether there are graphs in this process that may still be replayed."""
    return len(_recorders) > 0
