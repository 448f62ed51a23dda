"""What one request cost and what happened on the way."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
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
class RequestStats:
    """Filled by the worker while it generates; complete when the stream has ended.

    Seconds are wall-clock. ``ttfb_s`` and ``total_s`` count from the request's arrival,
    ``compute_s`` only what this request kept the device busy.
    """

    sample_rate: int
    queue_s: float | None = None
    voice_s: float = 0.0
    voice_cached: bool = False
    ttfb_s: float | None = None
    total_s: float | None = None
    compute_s: float = 0.0
    samples: int = 0
    text_tokens: int = 0
    early_stops: int = 0
    blocks: list[BlockStats] = field(default_factory=list)

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

    def as_dict(self) -> dict[str, Any]:
        """Everything, derived figures included, as plain values."""
        derived = {"audio_s": self.audio_s, "rtf": self.rtf, "rerolls": self.rerolls}
        return {**asdict(self), **derived}
