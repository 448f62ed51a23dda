"""Speech as an HTTP response: it starts with the first audio and stops when the client leaves.

No thread waits for a stream and the event loop neither generates nor encodes. One encoded part is
held beyond the socket's buffer; what a slow reader leaves waits in the engine, which pauses.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from echo.api import events
from echo.api.audio import Output, open_reply_encoder
from echo.api.call import speech_ended
from echo.api.watch import outcome_of
from echo.audio.encode import encode_file
from echo.engine import Engine, SpeechRequest, SpeechStream
from echo.engine.stats import RequestStats, Span
from echo.engine.stream import Audio

log = logging.getLogger(__name__)

SAMPLE_RATE_HEADER = "X-Audio-Sample-Rate"
TIMING_HEADER = "Server-Timing"
DEBUG_FILE = Path("api_generation.wav")  # in the working directory, with engine.debug


class SpeechReply(StreamingResponse):
    """Speaks ``request`` to the client as ``output``; with ``as_events``, in server-sent events.

    Errors before the first audio are raised before the response has started, so that they become
    an error response; later ones break the connection.
    """

    def __init__(
        self,
        engine: Engine,
        request: SpeechRequest,
        output: Output,
        *,
        as_events: bool = False,
    ) -> None:
        headers = {SAMPLE_RATE_HEADER: str(output.rate), **(events.HEADERS if as_events else {})}
        parts = speech_parts(engine, request, output, opened=self._keep_stats)
        media_type = events.MEDIA_TYPE if as_events else output.media_type
        super().__init__(parts, media_type=media_type, headers=headers)
        self._parts = parts
        self._complete = output.complete
        self._as_events = as_events
        self._stats = RequestStats(engine.sample_rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await while_connected(receive, self.stream_response(send))

    async def stream_response(self, send: Send) -> None:
        """First part, then header: until then a failure can still be told properly."""
        async with aclosing(self._parts) as parts:
            first = await anext(parts)
            if self._complete and not self._as_events:
                self.headers["Content-Length"] = str(len(first))
            self.headers[TIMING_HEADER] = server_timing(self._stats)
            start = {"status": self.status_code, "headers": self.raw_headers}
            await send({"type": "http.response.start", **start})
            await self._send_part(first, send)
            async for part in parts:
                await self._send_part(part, send)
        last = events.done(self._stats) if self._as_events else b""
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _send_part(self, part: bytes, send: Send) -> None:
        for body in events.deltas(part) if self._as_events else (part,):
            await send({"type": "http.response.body", "body": body, "more_body": True})

    def _keep_stats(self, stream: SpeechStream) -> None:
        self._stats = stream.stats


def server_timing(stats: RequestStats) -> str:
    """What is known by now, in milliseconds: waiting, reading the voice, until the first audio."""
    voice = 'voice;desc="cached"' if stats.voice_cached else "voice"
    spans = {
        "queue": stats.queue_s,
        "load": stats.load_s or None,
        voice: stats.voice_s,
        "ttfb": stats.ttfb_s,
        "total": stats.total_s,
    }
    known = {name: span for name, span in spans.items() if span is not None}
    return ", ".join(f"{name};dur={1000 * span:.1f}" for name, span in known.items())


async def speech_parts(
    engine: Engine,
    request: SpeechRequest,
    output: Output,
    *,
    opened: Callable[[SpeechStream], None],
) -> AsyncGenerator[bytes, None]:
    """The encoded speech in parts; at least one part, which is empty if there is no audio.

    A complete file is one part. Leaving the iteration (cancelling the task) stops the generation.
    ``opened``: told of the stream before its first part.
    Raises what ``engine.stream`` and the stream raise.
    """
    encoder = open_reply_encoder(output, engine.sample_rate)
    kept: list[Audio] | None = [] if engine.config.engine.debug else None
    async with speaking(engine, request, live=not output.complete) as stream:
        opened(stream)
        sent = False
        async for chunk in arriving(stream):
            if kept is not None:
                kept.append(chunk)
            part = await encoded(stream.stats, encoder.push, chunk)
            if part:
                yield part
                sent = True
        rest = await encoded(stream.stats, encoder.finish)
        if kept is not None:
            await run_in_threadpool(save_debug_file, kept, engine.sample_rate)
        if rest or not sent:
            yield rest


async def encoded(stats: RequestStats | None, work: Callable[..., bytes], *samples: Audio) -> bytes:
    """What ``work`` makes of ``samples`` in a thread, noted in ``stats``."""
    begun = time.monotonic()
    part = await run_in_threadpool(work, *samples)
    if stats is not None:
        stats.spans.append(Span("encode", begun, time.monotonic()))
    return part


@asynccontextmanager
async def speaking(
    engine: Engine, request: SpeechRequest, *, live: bool
) -> AsyncGenerator[SpeechStream, None]:
    """A stream of ``request``, closed at the end; how it came out is logged and counted.

    ``live``: its audio is sent as it is made. Raises what ``engine.stream`` raises.
    """
    stream: SpeechStream | None = None
    outcome, begun = "ok", time.monotonic()
    try:
        with await _open_stream(engine, request) as stream:
            yield stream
    except BaseException as error:
        outcome = outcome_of(error)
        raise
    finally:
        stats = stream.stats if stream is not None else None
        speech_ended(outcome, stats, live=live, begun=begun)
        if stream is not None:
            _report(stream, outcome, request.text if engine.config.server.log_texts else None)


async def _open_stream(engine: Engine, request: SpeechRequest) -> SpeechStream:
    """``engine.stream`` in a thread; if the caller is cancelled, what comes of it is closed."""
    opening = asyncio.ensure_future(run_in_threadpool(engine.stream, request))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_result)
        raise


async def arriving(stream: SpeechStream) -> AsyncGenerator[Audio, None]:
    """The stream's chunks as they come, without a thread that waits for them."""
    loop = asyncio.get_running_loop()
    news = asyncio.Event()

    def tell() -> None:
        # A closed loop has nobody left to tell, and the engine's worker must not fail over it.
        if not loop.is_closed():
            loop.call_soon_threadsafe(news.set)

    stream.set_listener(tell)
    while True:
        news.clear()
        try:
            chunk = stream.poll()
        except EOFError:
            return
        if chunk is None:
            await news.wait()
        else:
            yield chunk


async def while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do ``work``, or as much of it as the client waits for: it is cancelled when that leaves.

    The request's body must have been read.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_departure(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


def save_debug_file(chunks: list[Audio], sample_rate: int) -> None:
    """Write the last generation as WAV into the working directory; a warning if that fails."""
    samples = np.concatenate(chunks) if chunks else np.zeros(0, np.float32)
    try:
        DEBUG_FILE.write_bytes(encode_file(samples, sample_rate, "wav"))
    except OSError as error:
        log.warning("%s can't be written: %s", DEBUG_FILE, error.strerror)


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _close_result(opening: asyncio.Future[SpeechStream]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _report(stream: SpeechStream, outcome: str, text: str | None) -> None:
    """Log what was spoken. ``text``: to be logged, too, with what of it could not be spoken."""
    info, stats = stream.info, stream.stats
    fields: dict[str, Any] = {
        "event": "speech",
        "outcome": outcome,
        "voice": info.voice,
        "seed": info.seed,
        "audio_s": stats.audio_s,
        "queue_s": stats.queue_s,
        "ttfb_s": stats.ttfb_s,
        "total_s": stats.total_s,
        "rtf": stats.rtf,
        "starved_s": stats.starved_s,
        "rerolls": stats.rerolls,
    }
    fields = {key: round(v, 4) if isinstance(v, float) else v for key, v in fields.items()}
    said = ""
    if text is not None:
        fields |= {"text": text, "text_warnings": list(info.text.warnings)}
        said = f": {text!r}" + "".join(f" ({warning})" for warning in info.text.warnings)
    log.info(
        "speech %s: voice %s, seed %d, %.1f s of audio, first after %.2f s, RTF %.2f%s",
        outcome,
        info.voice,
        info.seed,
        stats.audio_s,
        stats.ttfb_s or 0.0,
        stats.rtf or 0.0,
        said,
        extra={"fields": fields},
    )
    log.debug("%s", stats.as_dict())
