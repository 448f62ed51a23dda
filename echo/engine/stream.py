"""A running request as its caller sees it: an iterator of audio that can be left at any point."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from echo.engine.request import GenerationSettings
from echo.engine.stats import RequestStats
from echo.errors import CancelledError
from echo.text import PreparedText

log = logging.getLogger(__name__)

Audio = NDArray[np.float32]


@dataclass(frozen=True)
class Progress:
    """Where a generation is: indices from 0, ``steps_done`` of ``steps_planned`` in all."""

    chunk: int
    chunks: int
    block: int
    blocks: int
    step: int
    steps: int
    steps_done: int
    steps_planned: int  # shrinks when a chunk ends early


@dataclass(frozen=True)
class StreamInfo:
    """What is known before the first sample."""

    seed: int
    voice: str | None  # name or content key of the reference voice
    text: PreparedText
    settings: GenerationSettings


class SpeechStream(Iterator[Audio]):
    """Audio of one request, float32 [T] at ``sample_rate``, -1 ... 1, in order.

    Iterate, or ``poll()`` after the listener was called. Leaving early (``close``, ``with``, or
    dropping the last reference) stops the generation at its next sampling step. An error of the
    generation is raised at the place where its audio would have come; what came before stands.
    """

    def __init__(self, info: StreamInfo, sample_rate: int) -> None:
        self.info = info
        self.sample_rate = sample_rate
        self.stats = RequestStats(sample_rate)
        self.progress: Progress | None = None
        self._condition = threading.Condition()
        self._ready: deque[Audio] = deque()
        self._buffered = 0  # samples
        self._ended = False
        self._error: BaseException | None = None
        self._closed = False
        self._listener: Callable[[], None] | None = None
        self._on_consumed: Callable[[], None] = _nothing

    def __iter__(self) -> SpeechStream:
        return self

    def __next__(self) -> Audio:
        with self._condition:
            self._condition.wait_for(lambda: self._ready or self._ended or self._closed)
            chunk = self._take()
        if chunk is None:
            raise StopIteration
        self._on_consumed()
        return chunk

    def attach(self, on_consumed: Callable[[], None]) -> None:
        """Whom to tell when audio was taken or the caller left."""
        self._on_consumed = on_consumed

    def poll(self) -> Audio | None:
        """The next chunk if it is there, None if not yet.

        Raises:
            EchoError: the generation failed, or the stream was closed.
            EOFError: all audio has been taken.
        """
        with self._condition:
            if not (self._ready or self._ended or self._closed):
                return None
            chunk = self._take()
        if chunk is None:
            raise EOFError
        self._on_consumed()
        return chunk

    def set_listener(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` (from the worker's thread: be quick) whenever ``poll`` has news."""
        with self._condition:
            self._listener = listener
        listener()

    def read(self) -> Audio:
        """All audio that is left, joined."""
        chunks = list(self)
        return np.concatenate(chunks) if chunks else np.zeros(0, np.float32)

    def close(self) -> None:
        """Stop the generation at its next step and drop what was not read; safe to repeat."""
        with self._condition:
            self._closed = True
            self._ready.clear()
            self._buffered = 0
        self._notify()
        self._on_consumed()

    def __enter__(self) -> SpeechStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _take(self) -> Audio | None:
        if self._closed and not self._ended:
            raise CancelledError("the stream was closed before its end")
        if self._ready:
            chunk = self._ready.popleft()
            self._buffered -= len(chunk)
            return chunk
        if self._error is not None:
            raise self._error
        return None

    def _notify(self) -> None:
        with self._condition:
            self._condition.notify_all()
            listener = self._listener
        if listener is not None:
            try:
                listener()
            except Exception:  # the caller's code, in the thread that serves all
                log.exception("the listener of a stream failed")


def _nothing() -> None:
    """Until the worker has taken the stream on."""


class Feed:
    """The worker's end of a stream. It holds no reference that keeps the caller's end alive."""

    def __init__(self, stream: SpeechStream) -> None:
        self._stream = weakref.ref(stream)
        self.stats = stream.stats

    @property
    def abandoned(self) -> bool:
        """Whether nobody is listening any more."""
        stream = self._stream()
        return stream is None or stream._closed

    @property
    def buffered_samples(self) -> int:
        """Audio made and not yet taken."""
        stream = self._stream()
        return 0 if stream is None else stream._buffered

    def put(self, chunk: Audio) -> None:
        """Hand over audio."""
        self._update(chunk=chunk)

    def end(self, error: BaseException | None = None) -> None:
        """No more audio; with ``error``, because of it."""
        self._update(error=error, ended=True)

    def show(self, progress: Progress) -> None:
        """Tell how far the generation is."""
        stream = self._stream()
        if stream is not None:
            stream.progress = progress

    def _update(
        self,
        chunk: Audio | None = None,
        error: BaseException | None = None,
        ended: bool = False,
    ) -> None:
        stream = self._stream()
        if stream is None:
            return
        with stream._condition:
            if chunk is not None and not stream._closed:
                stream._ready.append(chunk)
                stream._buffered += len(chunk)
            if ended:
                stream._error, stream._ended = error, True
        stream._notify()
