"""One request to an engine, timed from outside, with the engine's own account of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from echo.engine import Engine, SpeechRequest

IDLE_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Spoken:
    """What one request took. Seconds are wall-clock from before ``engine.stream`` was called.

    ``stages``: where the time to the first audio went, by the engine's account, with ``prepare``
    (in the caller's thread, before the request is queued) and ``handover`` (the rest: threads
    that wake each other). They add up to ``ttfb_s``. ``all_stages`` go on to the last audio.
    ``blocks``: of every block its index, latents, steps, sample_s and decode_s.
    """

    ttfb_s: float
    total_s: float
    audio_s: float
    compute_s: float
    voice_cached: bool
    stages: Mapping[str, float]
    all_stages: Mapping[str, float]
    blocks: tuple[Mapping[str, Any], ...]

    @property
    def rtf(self) -> float:
        """Compute time over audio time."""
        return self.compute_s / self.audio_s if self.audio_s else float("nan")


def speak(engine: Engine, request: SpeechRequest) -> Spoken:
    """Have ``request`` spoken to its end."""
    return _speak(engine, request, to_the_end=True)


def first_sound(engine: Engine, request: SpeechRequest) -> Spoken:
    """Listen to the first audio only; returns when the engine has nothing to do any more."""
    return _speak(engine, request, to_the_end=False)


def wait_idle(engine: Engine) -> None:
    """Until no request is in work; a request that was left ends at its next step."""
    end = time.monotonic() + IDLE_TIMEOUT_S
    while engine.stats()["active"] or engine.stats()["queued"]:
        if time.monotonic() > end:
            raise TimeoutError(f"the engine is still busy after {IDLE_TIMEOUT_S:.0f} s")
        time.sleep(0.002)


def _speak(engine: Engine, request: SpeechRequest, *, to_the_end: bool) -> Spoken:
    begun = time.perf_counter()
    with engine.stream(request) as stream:
        prepared = time.perf_counter()
        samples = len(next(stream))
        first = time.perf_counter()
        if to_the_end:
            samples += sum(len(chunk) for chunk in stream)
        ended = time.perf_counter()
        blocks = [block for block in stream.stats.blocks if block.chunk == 0]
    stats = stream.stats
    if not to_the_end:
        wait_idle(engine)
    ttfb = first - begun
    left = ttfb - sum(stats.ttfb_stages_s.values())  # work may begin before the call returns
    before = {"prepare": max(0.0, min(prepared - begun, left))}
    stages = {**before, **stats.ttfb_stages_s}
    return Spoken(
        ttfb_s=ttfb,
        total_s=ended - begun,
        audio_s=samples / engine.sample_rate,
        compute_s=stats.compute_s,
        voice_cached=stats.voice_cached,
        stages={**stages, "handover": max(0.0, ttfb - sum(stages.values()))},
        all_stages={**before, "queue": stats.queue_s or 0.0, **stats.stages_s},
        blocks=tuple(
            {
                "block": block.block,
                "latents": block.latents,
                "steps": block.steps,
                "sample_s": block.sample_s,
                "decode_s": block.decode_s,
            }
            for block in blocks
        ),
    )
