"""The thread that owns the device: it advances all running requests, one turn at a time.

A turn is one Euler step, which several requests may share, or a piece of other work (a text, a
voice, some audio to decode). Who goes next is decided in ``policy``; what a request needs next
it yields as an ``ops.Op``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch

from echo.engine.clock import DeviceClock, HostCopy
from echo.engine.cost import Rate, StepCost
from echo.engine.lane import Lane
from echo.engine.ops import Call, Sound
from echo.engine.policy import Claim, admits, choose, claim_of
from echo.engine.stats import WorkerStats
from echo.engine.stream import Feed
from echo.engine.task import Job, Limits, Task
from echo.errors import BusyError, EchoError, GenerationError
from echo.sampling.packing import StepRequest, velocities

log = logging.getLogger(__name__)

STEPS_IN_FLIGHT = 2  # queued on a GPU: enough to keep it busy, few enough for a newcomer
MAX_FAILED_IN_A_ROW = 5  # then it is not the requests'
IDLE_LOOK_S = 1.0  # dropped streams cannot always wake us (the collector takes no locks)


class Worker:
    """Runs jobs until closed. ``submit`` and ``close`` may be called from any thread."""

    def __init__(self, limits: Limits, device: torch.device, lane: Lane) -> None:
        """``device``: where steps run; ``lane``: where the codec decodes."""
        self._limits = limits
        self._wake = threading.Condition()
        self._queued: deque[Task] = deque()
        self._active: list[Task] = []
        self._saturated = False  # the next in the queue was found to be too much
        self._closing = False
        self._broken: str | None = None  # why the thread ended without being asked to
        self._failed_in_a_row = 0
        self._clock = DeviceClock(device, in_flight=STEPS_IN_FLIGHT)
        self._decoding = DeviceClock(lane.device, stream=lane.stream)
        self._cost = StepCost()
        self._decode_s = Rate()  # of a latent
        self._company = 1.0  # requests per step, lately
        self._stats = WorkerStats()
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

    @property
    def busy(self) -> bool:
        """Whether any request is in work or waits."""
        with self._wake:
            return bool(self._active or self._queued)

    @property
    def fault(self) -> str | None:
        """Why no request can be expected to succeed, or None."""
        if self._broken is not None:
            return self._broken
        if not self._thread.is_alive():
            return "the engine's thread has ended"
        if self._failed_in_a_row >= MAX_FAILED_IN_A_ROW:  # such as a GPU lost to a driver's error
            return f"the last {self._failed_in_a_row} generations failed"
        return None

    def stats(self) -> dict[str, Any]:
        """Counts since the start, and what a step is expected to cost."""
        cost = {"step_overhead_s": self._cost.overhead, "step_token_s": self._cost.per_token}
        return {**self._stats.as_dict(), **cost, "decode_latent_s": self._decode_s.value}

    def submit(self, feed: Feed, job: Job, arrived: float) -> Callable[[], None]:
        """Queue a job; returns what to call when its listener took audio or left.

        ``arrived``: the moment from which its times count, in monotonic seconds.

        Raises:
            BusyError: the queue is full.
            GenerationError: the worker has ended.
        """
        limits = self._limits
        with self._wake:
            if self._broken is not None:
                raise GenerationError(f"{self._broken}; start the engine again")
            if self._closing:
                raise GenerationError("the engine has been closed; make a new one")
            free = 0 if self._saturated else max(0, limits.max_active - len(self._active))
            if len(self._queued) >= limits.max_queued + free:
                raise BusyError(
                    f"{len(self._active)} requests are running and {len(self._queued)} waiting; "
                    "try again shortly",
                    retry_after_s=2.0,
                )
            self._queued.append(Task(feed, job, arrived, job.run()))
            self._wake.notify()
        return self.wake

    def wake(self) -> None:
        """Look again at who can go on."""
        with self._wake:
            self._wake.notify()

    def close(self) -> None:
        """Stop at the next turn; running requests fail with a clear error."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        why = "the engine was closed while this request ran"
        try:
            while (tasks := self._next_turn()) is not None:
                self._take_turn(tasks)
                del tasks  # an idle worker holds no request, and so no networks
        except Exception as error:  # the worker's edge: no single request can be blamed
            log.error("the engine's thread ends: nothing can be generated any more", exc_info=error)
            why = f"the engine's thread has ended: {type(error).__name__}: {error}"
            self._broken = why
        finally:
            self._end_all(why)

    def _end_all(self, why: str) -> None:
        """Nobody may wait for a thread that ends; from now on nobody is taken in."""
        with self._wake:
            self._closing = True
            left = [*self._active, *self._queued]
            self._active, self._queued = [], deque()
        for task in left:
            try:
                task.ops.close()
            except Exception:  # whatever state it was left in
                log.exception("a generation could not be closed")
            task.feed.end(GenerationError(why))

    def _next_turn(self) -> list[Task] | None:
        with self._wake:
            while not self._closing:
                self._drop_abandoned()
                self._admit()
                self._hand_over_all(wait=False)
                ready = [t for t in self._active if self._may_go_on(t)]
                if ready:
                    return self._choose(ready)
                if any(task.on_the_way for task in self._active):
                    self._hand_over_all(wait=True)
                    continue
                self._wake.wait(timeout=IDLE_LOOK_S if self._active or self._queued else None)
            return None

    def _may_go_on(self, task: Task) -> bool:
        return task.feed.buffered_samples < self._limits.buffer_samples

    def _drop_abandoned(self) -> None:
        gone = [task for task in (*self._active, *self._queued) if task.feed.abandoned]
        for task in gone:
            (self._active if task in self._active else self._queued).remove(task)
            task.ops.close()
            task.on_the_way.clear()
            task.feed.end()
            log.debug("request left after %.2f s of audio", task.feed.stats.audio_s)

    def _admit(self) -> None:
        self._saturated = False
        while self._queued and len(self._active) < self._limits.max_active:
            now = time.monotonic()
            newcomer, most = self._queued[0], self._limits.max_load
            claims = [
                self._claim(task, now) if self._may_go_on(task) else Claim()
                for task in self._active
            ]
            if not admits(claims, self._claim(newcomer, now), most):
                self._saturated = True
                return
            task = self._queued.popleft()
            task.feed.stats.waited(task.arrived, now)
            self._active.append(task)

    def _claim(self, task: Task, now: float) -> Claim:
        heard = task.first_audio is not None
        return claim_of(
            task.job.outlook(),
            self._cost,
            decode_s=self._decode_s.value or 0.0,
            company=self._company,
            in_hand_s=task.dry_at(self._limits.sample_rate) - now if heard else None,
        )

    def _choose(self, ready: Sequence[Task]) -> list[Task]:
        now = time.monotonic()
        if len(ready) == 1:
            return [ready[0]]
        candidates = [task.candidate(self._limits.sample_rate) for task in ready]
        tokens = self._limits.max_batch_tokens
        return choose(candidates, self._cost, now=now, max_tokens=tokens)

    def _take_turn(self, tasks: Sequence[Task]) -> None:
        op = tasks[0].op
        with torch.inference_mode():
            if op is None:
                self._resume(tasks[0], None)
            elif isinstance(op, Call):
                self._call(tasks[0], op)
            else:
                self._step(tasks)

    def _call(self, task: Task, op: Call) -> None:
        """Run a piece of work, and what follows it up to the next op."""
        begun = time.perf_counter()
        if op.latents:
            self._decoding.begin()
        try:
            result = op.run()
        except Exception as error:
            self._finish(task, _as_echo_error(error))
            return
        seconds = time.perf_counter() - begun
        self._stats.calls += 1
        self._stats.busy_s += seconds
        task.feed.stats.spend(op.stage, seconds)
        if op.latents:
            self._decoding.end(op.latents)
        for latents, took in self._decoding.measured():
            self._decode_s.observe(took / latents)
        self._resume(task, result)

    def _step(self, tasks: Sequence[Task]) -> None:
        """One Euler step of each of ``tasks``, in one pass."""
        begun = time.perf_counter()
        requests = [task.op for task in tasks if isinstance(task.op, StepRequest)]
        tokens = sum(request.tokens for request in requests)
        self._clock.begin()
        try:
            answers = velocities(requests)
        except Exception as error:
            self._step_failed(tasks, error)
            return
        for task, answer in zip(tasks, answers, strict=True):
            self._resume(task, answer)
        self._clock.end(tokens)
        for measured in self._clock.measured():
            self._cost.observe(*measured)
        self._count_step(tasks, requests, time.perf_counter() - begun)

    def _step_failed(self, tasks: Sequence[Task], error: Exception) -> None:
        """Find out whose fault it was: each goes again, alone."""
        if len(tasks) == 1:
            self._finish(tasks[0], _as_echo_error(error))
            return
        log.warning("a step of %d requests failed (%s); trying each alone", len(tasks), error)
        self._stats.retried_steps += 1
        for task in tasks:
            self._step([task])

    def _count_step(
        self, tasks: Sequence[Task], requests: Sequence[StepRequest], seconds: float
    ) -> None:
        stats, tokens = self._stats, sum(request.tokens for request in requests)
        stats.steps += 1
        stats.rows += sum(len(request.contexts) for request in requests)
        stats.tokens += tokens
        stats.busy_s += seconds
        stats.batches[len(tasks)] += 1
        self._company += 0.05 * (len(tasks) - self._company)
        for task, request in zip(tasks, requests, strict=True):
            own = task.feed.stats
            own.steps += 1
            own.steps_shared_by += len(tasks)
            own.spend("sampling", seconds, request.tokens / tokens)

    def _resume(self, task: Task, result: Any) -> None:
        """Send ``task`` the result of its op; it stops at the next one that needs the device."""
        try:
            ended = self._drive(task, result)
        except Exception as error:  # the worker's edge: one request fails, the others go on
            self._finish(task, _as_echo_error(error))
            return
        if ended:
            self._finish(task, None)

    def _drive(self, task: Task, result: Any) -> bool:
        """Whether the generation came to its end."""
        try:
            task.op = task.ops.send(result)
            while isinstance(task.op, Sound):
                with task.op.lane.entered():
                    task.on_the_way.append((HostCopy(task.op.audio), task.op))
                # The first sound cannot wait; later ones travel while we go on.
                task.hand_over(wait=task.first_audio is None)
                task.op = task.ops.send(None)
        except StopIteration:
            task.hand_over(wait=True)
            return True
        except Exception:
            task.hand_over(wait=True)  # what came before the fault stands
            raise
        return False

    def _hand_over_all(self, *, wait: bool) -> None:
        for task in list(self._active):
            try:
                task.hand_over(wait=wait)
            except Exception as error:  # the worker's edge, as above
                self._finish(task, _as_echo_error(error))

    def _finish(self, task: Task, error: EchoError | None) -> None:
        failed = isinstance(error, GenerationError)
        self._failed_in_a_row = self._failed_in_a_row + 1 if failed else 0
        task.ops.close()
        with self._wake:
            self._active.remove(task)
        task.feed.stats.total_s = time.monotonic() - task.arrived
        task.feed.end(error)


def _as_echo_error(error: Exception) -> EchoError:
    if isinstance(error, EchoError):
        return error
    log.error("a generation failed", exc_info=error)
    failure = GenerationError(f"generation failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
