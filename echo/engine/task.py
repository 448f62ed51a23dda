"""A request on the worker, and the worker's limits."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from echo.engine.clock import HostCopy
from echo.engine.ops import Call, Op, Ops, Sound
from echo.engine.policy import Candidate, Outlook
from echo.engine.stream import Audio, Feed
from echo.sampling.packing import StepRequest


class Job(Protocol):
    """What a request brings to the worker."""

    def run(self) -> Ops: ...

    def outlook(self) -> Outlook: ...


@dataclass(frozen=True)
class Limits:
    """Of the worker; see conf/engine."""

    max_active: int
    max_queued: int
    max_batch_tokens: int
    max_load: float | None
    buffer_samples: float
    sample_rate: int


@dataclass(eq=False)
class Task:
    """A request on the worker. Times are monotonic seconds."""

    feed: Feed
    job: Job
    arrived: float
    ops: Ops
    op: Op | None = None  # what it needs next; None: not begun
    first_audio: float | None = None
    on_the_way: deque[tuple[HostCopy, Sound]] = field(default_factory=deque)

    def dry_at(self, sample_rate: int) -> float:
        """When its listener has played all there is."""
        if self.first_audio is None:
            return self.arrived
        return self.first_audio + self.feed.stats.samples / sample_rate

    def candidate(self, sample_rate: int) -> Candidate[Task]:
        """How it looks to the policy."""
        op, outlook = self.op, self.job.outlook()
        return Candidate(
            self,
            newcomer=self.first_audio is None,
            due=self.dry_at(sample_rate),
            tokens=op.tokens if isinstance(op, StepRequest) else outlook.next_tokens,
            steps_left=outlook.block_steps,
            is_step=isinstance(op, StepRequest),
            is_prelude=op is None or (isinstance(op, Call) and op.stage in ("text", "prefix")),
            group=outlook.group,
        )

    def hand_over(self, *, wait: bool) -> None:
        """Give the listener what has reached the host, in order; ``wait``: all there is."""
        while self.on_the_way and (wait or self.on_the_way[0][0].ready()):
            copy, sound = self.on_the_way.popleft()
            audio: Audio = copy.read()
            audio = audio if sound.finish is None else sound.finish(audio)
            stats, now = self.feed.stats, time.monotonic()
            if self.first_audio is None:
                self.first_audio = now
                stats.heard(now - self.arrived)
            else:
                stats.played(now - self.first_audio)
            stats.samples += len(audio)
            self.feed.put(audio)
