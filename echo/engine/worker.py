"""The thread that owns the device: it advances all running requests, one sampling step at a time.

A task is a generator that does one step of work per ``next``, yielding the audio that became
ready, or None. Next in turn is the task whose listener runs dry first: a newcomer is dry since
it came, a stream that has sound in hand can wait until that is played.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass

import torch

from echo.engine.stream import Audio, Feed
from echo.errors import BusyError, EchoError, GenerationError

log = logging.getLogger(__name__)

Steps = Generator["Audio | None", None, None]


@dataclass(eq=False)
class Task:
    """A request on the worker."""

    feed: Feed
    steps: Steps
    arrived: float
    first_audio: float | None = None

    def dry_at(self, sample_rate: int) -> float:
        """When its listener has played all there is (monotonic seconds)."""
        if self.first_audio is None:
            return self.arrived
        return self.first_audio + self.feed.stats.samples / sample_rate


class Worker:
    """Runs tasks until closed. ``submit`` and ``close`` may be called from any thread."""

    def __init__(
        self, *, sample_rate: int, max_active: int, max_queued: int, buffer_seconds: float
    ) -> None:
        self._sample_rate = sample_rate
        self._max_active = max_active
        self._max_queued = max_queued
        self._buffer_samples = buffer_seconds * sample_rate
        self._wake = threading.Condition()
        self._queued: deque[Task] = deque()
        self._active: list[Task] = []
        self._closing = False
        self._error: EchoError | None = None
        self._thread = threading.Thread(target=self._run, name="echo-worker", daemon=True)
        self._thread.start()

    @property
    def active(self) -> int:
        """Requests being generated."""
        return len(self._active)

    @property
    def queued(self) -> int:
        """Requests waiting to be taken on."""
        return len(self._queued)

    def submit(self, feed: Feed, steps: Steps) -> Callable[[], None]:
        """Queue a task; returns what to call when its listener took audio or left.

        Raises:
            BusyError: the queue is full.
        """
        with self._wake:
            if self._closing:
                raise GenerationError("the engine has been closed; make a new one")
            if len(self._queued) >= self._max_queued + max(0, self._max_active - len(self._active)):
                raise BusyError(
                    f"{len(self._active)} requests are running and {len(self._queued)} waiting; "
                    "try again shortly",
                    retry_after_s=2.0,
                )
            self._queued.append(Task(feed, steps, time.monotonic()))
            self._wake.notify()
        return self.wake

    def wake(self) -> None:
        """Look again at who can go on."""
        with self._wake:
            self._wake.notify()

    def close(self) -> None:
        """Stop at the next step; running requests fail with a clear error."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while (task := self._next_task()) is not None:
            self._advance(task)
        with self._wake:
            left = [*self._active, *self._queued]
            self._active, self._queued = [], deque()
        for task in left:
            task.steps.close()
            task.feed.end(GenerationError("the engine was closed while this request ran"))

    def _next_task(self) -> Task | None:
        with self._wake:
            while not self._closing:
                self._drop_abandoned()
                while self._queued and len(self._active) < self._max_active:
                    task = self._queued.popleft()
                    task.feed.stats.queue_s = time.monotonic() - task.arrived
                    self._active.append(task)
                ready = [
                    task
                    for task in self._active
                    if task.feed.buffered_samples < self._buffer_samples
                ]
                if ready:
                    return min(ready, key=lambda task: task.dry_at(self._sample_rate))
                # Dropped streams cannot always wake us (the collector takes no locks).
                self._wake.wait(timeout=1.0 if self._active or self._queued else None)
            return None

    def _drop_abandoned(self) -> None:
        gone = [task for task in (*self._active, *self._queued) if task.feed.abandoned]
        for task in gone:
            (self._active if task in self._active else self._queued).remove(task)
            task.steps.close()
            task.feed.end()
            log.debug("request left after %.2f s of audio", task.feed.stats.audio_s)

    def _advance(self, task: Task) -> None:
        stats, begun = task.feed.stats, time.monotonic()
        try:
            with torch.inference_mode():
                chunk = next(task.steps)
        except StopIteration:
            self._finish(task, None)
            return
        except EchoError as error:
            self._finish(task, error)
            return
        except Exception as error:  # the worker's edge: one request fails, the others go on
            log.exception("a generation failed")
            failure = GenerationError(f"generation failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            self._finish(task, failure)
            return
        now = time.monotonic()
        stats.compute_s += now - begun
        if chunk is not None:
            if task.first_audio is None:
                task.first_audio = now
                stats.ttfb_s = now - task.arrived
            stats.samples += len(chunk)
            task.feed.put(chunk)

    def _finish(self, task: Task, error: EchoError | None) -> None:
        with self._wake:
            self._active.remove(task)
        task.feed.stats.total_s = time.monotonic() - task.arrived
        task.feed.end(error)
