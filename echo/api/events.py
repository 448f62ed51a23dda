"""Speech as server-sent events, as OpenAI's ``stream_format: "sse"`` has them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

from echo.engine.stats import RequestStats
from echo.spec import HOP

MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # proxies shall not collect
MAX_DELTA_BYTES = 24_576  # of audio in an event: many clients read lines of at most 64 KiB


def deltas(part: bytes) -> Iterator[bytes]:
    """``part`` of the audio file as events, one after another."""
    for start in range(0, len(part), MAX_DELTA_BYTES):
        audio = base64.b64encode(part[start : start + MAX_DELTA_BYTES]).decode()
        yield _event({"type": "speech.audio.delta", "audio": audio})


def done(stats: RequestStats) -> bytes:
    """The last event. Input tokens are those of the model's text, in effect its bytes; output
    tokens are latents, one for 46.4 ms of audio at its own tempo.
    """
    spoken, made = stats.text_tokens, -(-stats.samples // HOP)
    usage = {"input_tokens": spoken, "output_tokens": made, "total_tokens": spoken + made}
    return _event({"type": "speech.audio.done", "usage": usage})


def _event(data: dict[str, object]) -> bytes:
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"
