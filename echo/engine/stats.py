"""What one request cost and what happened on the way; what the worker did in all."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class BlockStats:
    """One block that was sent: its place, work and fate."""

    chunk: int
    block: int
    latents: int
    steps: int
    sample_s: float  # all attempts; wall-clock, so with the turns of others in between
    decode_s: float
    samples: int  # sent
    ends: bool  # the last of its chunk
    attempts: int  # 1 + rerolls
    longest_silence_ms: float | None  # of the attempt that was kept; None: not looked at


@dataclass
class Span:
    """When a stage was at work on a request, with the turns of others in between; monotonic
    seconds."""

    stage: str
    begun: float
    ended: float


@dataclass
class RequestStats:
    """Filled by the worker while it generates; complete when the stream has ended.

    Seconds are wall-clock. ``ttfb_s`` and ``total_s`` count from the request's arrival,
    ``compute_s`` only what this request kept the device busy: of a step that others shared, its
    part by size. ``stages_s`` splits ``compute_s`` by stage (voice, text, prefix, sampling, codec,
    vad), but counts a shared step whole, for that is how long this request waited for it.
    ``ttfb_stages_s`` are the stages up to the first sound, with ``queue`` and ``waiting`` (for the
    turns of others); they add up to ``ttfb_s``. ``spans``: when each stage was at work.
    ``starved_s``: how long one who plays the audio as it comes had nothing left to play before the
    end.
    """

    sample_rate: int
    queue_s: float | None = None  # until work on it began
    load_s: float = 0.0  # of ``queue_s``: for weights that had left memory
    voice_s: float = 0.0
    voice_cached: bool = False
    ttfb_s: float | None = None
    total_s: float | None = None
    starved_s: float = 0.0
    compute_s: float = 0.0
    samples: int = 0
    text_tokens: int = 0
    early_stops: int = 0
    steps: int = 0
    steps_shared_by: int = 0  # summed over the steps: requests in each, itself included
    stages_s: dict[str, float] = field(default_factory=dict)
    ttfb_stages_s: dict[str, float] = field(default_factory=dict)
    blocks: list[BlockStats] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    _last: Span | None = field(default=None, repr=False)

    @property
    def audio_s(self) -> float:
        return self.samples / self.sample_rate

    @property
    def rtf(self) -> float | None:
        """Compute time over audio time; None while there is no audio."""
        return self.compute_s / self.audio_s if self.samples else None

    @property
    def rerolls(self) -> int:
        return sum(block.attempts - 1 for block in self.blocks)

    @property
    def batch_mean(self) -> float | None:
        """Requests that shared its steps, on average, itself included; None before a step."""
        return self.steps_shared_by / self.steps if self.steps else None

    def waited(self, arrived: float, now: float) -> None:
        """Work begins ``now``, in monotonic seconds."""
        self.queue_s = now - arrived
        self._mark("queue", self.queue_s, now)

    def spend(self, stage: str, seconds: float, share: float = 1.0) -> None:
        """Add ``seconds`` to a stage, and this request's ``share`` of them to its compute time."""
        self._mark(stage, seconds, time.monotonic())
        self.stages_s[stage] = self.stages_s.get(stage, 0.0) + seconds
        self.compute_s += seconds * share

    def heard(self, ttfb_s: float) -> None:
        """The first sound is out."""
        self.ttfb_s = ttfb_s
        known = {"queue": self.queue_s or 0.0, **self.stages_s}
        self.ttfb_stages_s = {**known, "waiting": max(0.0, ttfb_s - sum(known.values()))}

    def played(self, since_first_s: float) -> None:
        """More sound comes ``since_first_s`` after the first: time that was not played is a gap."""
        self.starved_s += max(0.0, since_first_s - self.audio_s - self.starved_s)

    def as_dict(self) -> dict[str, Any]:
        """Everything, derived figures included, as plain values."""
        derived = {
            "audio_s": self.audio_s,
            "rtf": self.rtf,
            "rerolls": self.rerolls,
            "batch_mean": self.batch_mean,
        }
        own = {
            name: value for name, value in asdict(self).items() if name not in ("spans", "_last")
        }
        return {**own, **derived}

    def _mark(self, stage: str, seconds: float, now: float) -> None:
        """The last span goes on, or a new one begins. Others may add to ``spans`` meanwhile."""
        if self._last is None or self._last.stage != stage:
            self._last = Span(stage, now - seconds, now)
            self.spans.append(self._last)
        self._last.ended = now


@dataclass
class WorkerStats:
    """Counts since the start. ``batches``: steps by the number of requests that shared them."""

    steps: int = 0
    rows: int = 0  # guidance passes
    tokens: int = 0  # latents of all rows
    calls: int = 0  # turns other than steps
    busy_s: float = 0.0
    retried_steps: int = 0  # that failed in company and were made again one by one
    batches: Counter[int] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, and ``batch_mean``: requests per step, on average; None before the first.

        May be called while the worker counts on: what is computed comes from one copy.
        """
        batches = dict(self.batches)  # in one go: new sizes come in meanwhile
        counts = {each.name: getattr(self, each.name) for each in fields(self)}
        steps = sum(batches.values())
        shared = sum(size * count for size, count in batches.items())
        mean = shared / steps if steps else None
        return {**counts, "batches": batches, "batch_mean": mean}
